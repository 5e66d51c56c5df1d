"""TIFF with 16 bits per channel, deflate and horizontal differences, written in strips."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np
import tifffile

from ...registry import OUTPUT_FORMATS
from ..credits import xmp_packet
from ..picture import Array, in_order, quantize
from ..pil import ascii_only
from .saving import Encoding, OutputFormat

STRIP_ROWS: Final = 64
XMP_TAG: Final = 700
CLASSIC_BYTES: Final = (1 << 32) - (1 << 25)
"""The most raw bytes of a classic TIFF, whose offsets have 32 bits; the margin is for deflate's overhead, profile and tags."""


def encode(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Write a TIFF, or a BigTIFF above 4 GB."""
    height, width, channels = _shape(pixels, encoding)
    dpi, metadata = encoding.dpi, encoding.metadata
    with tifffile.TiffWriter(stream, bigtiff=height * width * 2 * channels > CLASSIC_BYTES, byteorder="<") as file:
        file.write(
            _strips(pixels, encoding),
            shape=(height, width, channels),
            dtype=np.uint16,
            photometric="separated" if encoding.cmyk else "rgb",
            extrasamples=["UNASSALPHA"] if channels == 4 and not encoding.cmyk else None,
            planarconfig="contig",
            rowsperstrip=STRIP_ROWS,
            compression="zlib",
            predictor=True,
            resolution=(dpi, dpi),
            resolutionunit="INCH",
            iccprofile=encoding.profile,
            description=json.dumps(metadata) if metadata else None,
            software=ascii_only(metadata["Software"]) if "Software" in metadata else False,
            metadata=None,
            extratags=_extra_tags(encoding),
        )


def _extra_tags(encoding: Encoding) -> list[tuple[int, int, int, bytes | str, bool]]:
    """Return the tags of the photograph's credits: author, copyright, and an XMP packet."""
    if encoding.credits is None:
        return []
    packet = xmp_packet(encoding.dpi, encoding.credits)
    tags: list[tuple[int, int, int, bytes | str, bool]] = [(XMP_TAG, 1, len(packet), packet, True)]
    tags += [(tag, 2, 0, text, True) for tag, text in encoding.credits.exif_texts.items()]
    return tags


def check(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Compare the shape, the type and the last strip of a written file."""
    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        if page.shape != _shape(pixels, encoding) or page.dtype != np.uint16:
            raise ValueError(f"read back as {page.dtype} of shape {page.shape}")
        stream.seek(page.dataoffsets[-1])
        packed = stream.read(page.databytecounts[-1])
    *_, last = _strips(pixels[(pixels.shape[0] - 1) // STRIP_ROWS * STRIP_ROWS :], encoding)
    if packed != last:
        raise ValueError("the last strip read back differs from the one written")


def _shape(pixels: Array, encoding: Encoding) -> tuple[int, ...]:
    """Return the height, the width and the number of channels in the file."""
    return (*pixels.shape[:2], 4 if encoding.cmyk else pixels.shape[2])


def _strips(pixels: Array, encoding: Encoding) -> Iterator[bytes]:
    """Return the strips of a 16-bit RGB, RGBA or CMYK picture: horizontal differences (predictor 2), then deflate."""

    def packed(top: int) -> bytes:
        strip = quantize(encoding.samples(pixels[top : top + STRIP_ROWS]), np.uint16)
        strip[:, 1:] -= strip[:, :-1].copy()  # modulo 65536, as the predictor requires
        return zlib.compress(strip.astype("<u2", copy=False).tobytes(), 6)

    return in_order(packed, range(0, pixels.shape[0], STRIP_ROWS))


OUTPUT_FORMATS.register(".tif", ".tiff")(OutputFormat("TIFF", bits=16, alpha=True, encode=encode, check=check, cmyk=True))
