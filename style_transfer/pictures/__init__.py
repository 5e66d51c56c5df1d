"""Picture files to and from float32 sRGB arrays, without torch; `pictures.color` and `pictures.tensors` need it."""

from __future__ import annotations

from .decode.loading import load, open_picture, read_metadata
from .develop import DecodedPicture
from .encode.jpeg import encode_jpeg
from .encode.png import encode_png
from .encode.saving import Encoding, OutputFormat, check_output, format_of, save
from .picture import Array, Picture, Pixels, Reading, quantize
from .pil import from_pil, to_pil

__all__ = [
    "Array",
    "DecodedPicture",
    "Encoding",
    "OutputFormat",
    "Picture",
    "Pixels",
    "Reading",
    "check_output",
    "encode_jpeg",
    "encode_png",
    "format_of",
    "from_pil",
    "load",
    "open_picture",
    "quantize",
    "read_metadata",
    "save",
    "to_pil",
]
