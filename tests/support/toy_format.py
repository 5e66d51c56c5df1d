"""A toy output format, registered from outside the package: 8-bit gray samples behind a header, at most 99 pixels a side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from style_transfer.pictures import Array, Encoding, OutputFormat, quantize
from style_transfer.registry import OUTPUT_FORMATS


def encode(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    gray = quantize(pixels[..., :3].mean(axis=2), np.uint8)
    stream.write(b"TOY" + bytes(gray.shape) + gray.tobytes())


def check(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    if stream.read(3) != b"TOY":
        raise ValueError("the header read back differs from the one written")


@contextlib.contextmanager
def toy_format() -> Iterator[None]:
    """Register the format under ".toy" within the block."""
    OUTPUT_FORMATS.register(".toy")(OutputFormat("Toy", bits=8, alpha=False, encode=encode, check=check, max_side=99))
    try:
        yield
    finally:
        OUTPUT_FORMATS.unregister(".toy")
