"""WebP with 8 bits per channel: quality 95, with colour at half the resolution, as lossy WebP always has it, or lossless."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any, BinaryIO, Final

from ...registry import OUTPUT_FORMATS
from ..picture import Array
from ..pil import exif_block, to_pil
from .jpeg import check_with_pillow, encode_with_pillow
from .saving import Encoding, OutputFormat

XMP: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:XResolution="{0}/{1}" tiff:YResolution="{0}/{1}" tiff:ResolutionUnit="2"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
"""An XMP packet with the resolution in pixels per inch as a fraction (XMP specification, part 2, 3.6)."""


def encode(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Write a WebP, its metadata in EXIF, and its resolution in EXIF and in XMP, since some programs read only the latter."""
    options: dict[str, Any] = {"lossless": encoding.lossless, "exact": encoding.lossless or pixels.shape[2] == 4}
    options |= {"quality": 75 if encoding.lossless else 95, "method": 4}  # without loss the quality is the effort
    options |= {"exif": exif_block(encoding.dpi, encoding.metadata), "xmp": xmp_packet(encoding.dpi)}
    stream.write(encode_with_pillow(to_pil(pixels, encoding.samples), "WEBP", icc_profile=encoding.profile, **options))


def xmp_packet(dpi: float) -> bytes:
    """Return an XMP packet with a resolution."""
    fraction = Fraction(dpi).limit_denominator(10_000)
    return XMP.format(fraction.numerator, fraction.denominator).encode("utf-8")


OUTPUT_FORMATS.register(".webp")(
    OutputFormat(
        "WebP",
        bits=8,
        alpha=True,
        encode=encode,
        check=functools.partial(check_with_pillow, "WEBP"),
        max_side=16383,
        halves_colour=True,
    )
)
