"""A small reader of Caffe's weight files: the few fields of its protobuf messages that hold weights, and nothing else.

The wire format is described at https://protobuf.dev/programming-guides/encoding, the fields in caffe.proto: a NetParameter has
layers, in field 100, or 2 in files of Caffe's first version; a layer has a name and blobs; a blob has float numbers and
their shape. Everything is bounded by the file: no length is believed that goes past the message it stands in.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LAYER_FIELDS = {100: (1, 7), 2: (4, 6)}
"""Where a net's layers stand, in the new and in the old form, and there their name and their blobs."""
MAX_LAYERS = 10_000
MAX_DIMENSIONS = 32


class FormatError(Exception):
    """The file is no caffemodel, or damaged; says what was found."""


def read(path: Path, leave_out: tuple[str, ...] = ()) -> dict[str, Floats]:
    """Return the weights of every layer that has any: `name.weight`, `name.bias`, in the order of the file.

    Layers whose names begin with one of `leave_out` are passed over: classifiers are most of a file. Raises `FormatError` for
    what is not a caffemodel.
    """
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    found: dict[str, Floats] = {}
    layers = [(field, value) for field, wire, value in _fields(data) if field in LAYER_FIELDS and wire == BYTES]
    if len(layers) > MAX_LAYERS:
        raise FormatError(f"it has more than {MAX_LAYERS} layers")
    for form, layer in layers:
        name, blobs = _layer(layer, *LAYER_FIELDS[form])
        if name.startswith(leave_out):
            continue
        for part, blob in zip(("weight", "bias"), blobs, strict=False):
            key = f"{name}.{part}"
            if key in found:
                raise FormatError(f"it has {key!r} twice")
            found[key] = _blob(blob)
    if not found:
        raise FormatError("it has no layers with weights")
    return found


def _layer(data: memoryview, name_field: int, blob_field: int) -> tuple[str, list[memoryview]]:
    """Return a layer's name and its blobs."""
    name, blobs = "", []
    for field, wire, value in _fields(data):
        if wire == BYTES and field == name_field:
            try:
                name = bytes(value[:200]).decode()
            except UnicodeDecodeError as error:
                raise FormatError("a layer's name is not text") from error
        elif wire == BYTES and field == blob_field:
            blobs.append(value)
    return name, blobs


def _blob(data: memoryview) -> Floats:
    """Return a blob's numbers in their shape.

    Field 5 holds floats, 8 doubles, packed or one by one; 7 is the shape, in old files 1 to 4.
    """
    pieces: list[np.ndarray[Any, Any]] = []
    shape: list[int] | None = None
    old: dict[int, int] = {}
    for field, wire, value in _fields(data):
        if field in (5, 8) and wire in (BYTES, FIXED32, FIXED64):
            kind = np.dtype("<f4" if field == 5 else "<f8")
            if len(value) % kind.itemsize:
                raise FormatError("a list of numbers ends in the middle of one")
            pieces.append(np.frombuffer(value, kind).astype(np.float32))
        elif field == 7 and wire == BYTES:
            shape = _shape(value)
        elif field in (1, 2, 3, 4) and wire == VARINT:
            old[field] = int.from_bytes(value, "little")
    numbers: Floats = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if shape is None:
        shape = [old.get(field, 1) for field in (1, 2, 3, 4)]
    product = 1
    for length in shape:
        product *= length
    if product != numbers.size:
        raise FormatError(f"a blob has {numbers.size} numbers, but its shape is {tuple(shape)}")
    if any(length > max(1, numbers.size) for length in shape):  # beside a zero
        raise FormatError(f"a blob has no numbers, but its shape is {tuple(shape)}")
    return numbers.reshape(shape)


def _shape(data: memoryview) -> list[int]:
    """Return the lengths in a BlobShape: field 1, packed or one by one."""
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
    """Yield each field of a message: its number, its wire type, its bytes; a varint as eight bytes."""
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
            raise FormatError(f"byte {at} begins no field")
        if not field or length > len(data) - at:
            raise FormatError("a field goes past the end of its message")
        yield field, wire, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a byte, of 64 bits at most, and where the next field begins."""
    number = 0
    for index in range(10):
        if at + index >= len(data):
            raise FormatError("it ends in the middle of a number")
        byte = data[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, at + index + 1
    raise FormatError("it has a number of more than 64 bits")
