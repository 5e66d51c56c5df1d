"""Reader of Caffe's weight files (.caffemodel), limited to the fields of its protobuf messages that hold weights.

The wire format is described at https://protobuf.dev/programming-guides/encoding, the fields are defined in caffe.proto: a
NetParameter has layers, in field 100 or, in files of Caffe's first version, in field 2; a layer has a name and blobs; a blob has
floating-point values and a shape. A length that exceeds the message that contains it is refused, so that memory use is bounded by
the file's size.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LAYER_FIELDS = {100: (1, 7), 2: (4, 6)}
"""The field numbers of a net's layers in new and in old files, and in each case those of a layer's name and blobs."""
MAX_LAYERS = 10_000
MAX_DIMENSIONS = 32


class FormatError(Exception):
    """The file is not a caffemodel, or is damaged."""


def read(path: Path, skip: tuple[str, ...] = ()) -> dict[str, Floats]:
    """Return the weights of all layers that have any as `name.weight` and `name.bias`, in the order of the file.

    Layers whose names begin with one of `skip` are not read: most of a file may be the classifier. Raises `FormatError`.
    """
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    weights: dict[str, Floats] = {}
    layers = [(LAYER_FIELDS[field], value) for field, wire, value in _fields(data) if field in LAYER_FIELDS and wire == BYTES]
    if len(layers) > MAX_LAYERS:
        raise FormatError(f"it has more than {MAX_LAYERS} layers")
    for (name_field, blob_field), layer in layers:
        parts = [(field, value) for field, wire, value in _fields(layer) if wire == BYTES]
        try:
            name = next((bytes(value[:200]).decode() for field, value in parts if field == name_field), "")
        except UnicodeDecodeError as error:
            raise FormatError("a layer's name is not text") from error
        if name.startswith(skip):
            continue
        blobs = [value for field, value in parts if field == blob_field]
        for part, blob in zip(("weight", "bias"), blobs, strict=False):
            key = f"{name}.{part}"
            if key in weights:
                raise FormatError(f"it has {key!r} twice")
            weights[key] = _blob(blob)
    if not weights:
        raise FormatError("it has no layers with weights")
    return weights


def _blob(data: memoryview) -> Floats:
    """Return a blob's values in its shape.

    Field 5 holds floats, field 8 doubles, packed or one by one; field 7 is the shape, in old files fields 1 to 4 are.
    """
    parts: list[np.ndarray[Any, Any]] = []
    shape: list[int] | None = None
    old: dict[int, int] = {}
    for field, wire, value in _fields(data):
        if field in (5, 8) and wire in (BYTES, FIXED32, FIXED64):
            kind = np.dtype("<f4" if field == 5 else "<f8")
            if len(value) % kind.itemsize:
                raise FormatError("a list of values ends in the middle of a value")
            parts.append(np.frombuffer(value, kind).astype(np.float32))
        elif field == 7 and wire == BYTES:
            shape = _shape(value)
        elif field in (1, 2, 3, 4) and wire == VARINT:
            old[field] = int.from_bytes(value, "little")
    values: Floats = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if shape is None:
        shape = [old.get(field, 1) for field in (1, 2, 3, 4)]
    if math.prod(shape) != values.size:
        raise FormatError(f"a blob has {values.size} values, but its shape is {tuple(shape)}")
    if any(length > max(1, values.size) for length in shape):  # possible if another length is zero
        raise FormatError(f"a blob has no values, but its shape is {tuple(shape)}")
    return values.reshape(shape)


def _shape(data: memoryview) -> list[int]:
    """Return the dimensions in a BlobShape: field 1, packed or one by one."""
    shape: list[int] = []
    for field, wire, value in _fields(data):
        if field == 1 and wire == VARINT:
            shape.append(int.from_bytes(value, "little"))
        elif field == 1 and wire == BYTES:
            at = 0
            while at < len(value) and len(shape) <= MAX_DIMENSIONS:
                length, at = _varint(value, at)
                shape.append(length)
        if len(shape) > MAX_DIMENSIONS:
            raise FormatError(f"a blob has more than {MAX_DIMENSIONS} dimensions")
    return shape


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the number, the wire type and the bytes of each field of a message; a varint is converted to eight bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == VARINT:
            number, at = _varint(data, at)
            yield field, wire, memoryview(number.to_bytes(8, "little"))
            continue
        if wire == BYTES:
            length, at = _varint(data, at)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise FormatError(f"no field begins at byte {at}")
        if not field or length > len(data) - at:
            raise FormatError("a field exceeds its message")
        yield field, wire, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the varint of at most 64 bits that begins at byte `at`, and the index of the byte after it."""
    number = 0
    for index in range(10):
        if at + index >= len(data):
            raise FormatError("it ends in the middle of a varint")
        byte = data[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, at + index + 1
    raise FormatError("it has a varint of more than 64 bits")
