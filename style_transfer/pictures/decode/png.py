"""PNG, decoded by libpng, since Pillow reduces 16-bit RGB to 8 bits silently."""

from __future__ import annotations

import functools
import io
import re
import struct
from collections.abc import Mapping
from typing import BinaryIO, Final

import imagecodecs
import numpy as np

from ...registry import INPUT_FORMATS
from .. import signals
from ..credits import XMP_KEY
from ..picture import CHANNELS, Array, Mapped, Samples
from ..pil import exif_orientation, exif_profile, parse_exif, xmp_orientation
from .loading import InputFormat, Scope, check_size
from .png_chunks import SIGNATURE, chunks, hide_others, icc_of, raw_profile, text_of

COLOUR_CHUNKS: Final = frozenset([b"cICP", b"sRGB", b"gAMA", b"cHRM"])
UNIT: Final = 100_000
"""gAMA and cHRM have integers for this part of one."""
PALETTE: Final = 3
"""The colour type of palettes, whose entries have 8 bits."""
TEXTS: Final = frozenset([b"tEXt", b"zTXt", b"iTXt"])
EXIF_TEXTS: Final = frozenset(["Raw profile type exif", "Raw profile type APP1"])
ICC_TEXTS: Final = frozenset(["Raw profile type icc", "Raw profile type icm"])
XMP_TEXTS: Final = frozenset([XMP_KEY, "Raw profile type xmp"])


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a PNG of 1 to 16 bits."""
    head = stream.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height = struct.unpack(">II", head[16:24])
    check_size(width, height, name, max_pixels)
    data = bytearray(stream.seek(0, io.SEEK_END))
    stream.seek(0)
    del data[stream.readinto(data) :]  # type: ignore[attr-defined]  # files have it
    raw = Samples.empty()
    described = _read_metadata(data, raw)
    hide_others(data)
    values = np.asarray(imagecodecs.png_decode(data))
    raw.values = values.reshape(height, width, -1)
    raw.white = 65535.0 if values.dtype == np.uint16 else 255.0
    raw.bits = "" if head[25] == PALETTE else f"{head[24]} bit{'s' * (head[24] != 1)}"
    raw.space = "gray" if raw.values.shape[2] <= 2 else "rgb"
    apply_colours(raw, described)
    return raw


def _read_metadata(data: bytearray, raw: Samples) -> dict[bytes, bytes]:
    """Set the profile, the orientation and the colour space of EXIF; return the first chunks of each of `COLOUR_CHUNKS`.

    An EXIF chunk counts before an EXIF text, and that before XMP.
    """
    described: dict[bytes, bytes] = {}
    exifs: dict[str, bytes] = {}
    xmp = None
    for kind, body in chunks(data):
        if kind in COLOUR_CHUNKS:
            described.setdefault(kind, bytes(body))
        elif kind == b"iCCP":
            raw.icc = icc_of(body) if raw.icc is None else raw.icc
        elif kind == b"eXIf":
            exifs["chunk"] = bytes(body)
        elif kind == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raw.notes.append("animated PNG: only the first frame is used")
        elif kind in TEXTS:
            key, text = text_of(kind, body)
            profile = raw_profile(text) if key in EXIF_TEXTS | ICC_TEXTS | XMP_TEXTS else None
            if key in EXIF_TEXTS and profile:
                exifs["text"] = profile
            elif key in ICC_TEXTS and profile:
                raw.icc = raw.icc or profile
            elif key in XMP_TEXTS:
                xmp = xmp_orientation(profile or text)
    loads = [functools.partial(parse_exif, exifs[source]) for source in ("chunk", "text") if source in exifs]
    found = (*map(exif_orientation, loads), xmp)
    raw.orientation = next((value for value in found if value is not None), None)
    raw.exif_icc = exif_profile(loads[0]) if loads and not described else None
    return described


def apply_colours(raw: Samples, described: Mapping[bytes, bytes]) -> None:
    """Let samples have the colours that chunks of the types `COLOUR_CHUNKS` describe, where their profile does not count.

    The precedence is that of the PNG specification (third edition, section 13.12): cICP, iCCP, sRGB, gAMA and cHRM. Codes and
    numbers that are unknown or cannot be right add a note and are ignored.
    """
    codes = described.get(b"cICP")
    if codes is not None and _apply_codes(raw, codes):
        return
    if raw.icc is not None:
        return
    if b"sRGB" in described:
        signals.apply(raw, signals.Signal(signals.SRGB))
        return
    numbers, gamma = described.get(b"cHRM"), described.get(b"gAMA")
    if numbers is None and gamma is None:
        return
    try:
        x = [] if numbers is None else [value / UNIT for value in struct.unpack(">8I", numbers)]
        white, *others = zip(x[::2], x[1::2], strict=True) if x else (None,)
        exponent = None if gamma is None else UNIT / struct.unpack(">I", gamma)[0]
        signal = signals.from_numbers((*others, white) if white else None, exponent)
    except (ValueError, ZeroDivisionError, struct.error):
        raw.notes.append("its primaries (cHRM) or its gamma (gAMA) cannot be right: ignored, sRGB assumed")
    else:
        signals.apply(raw, signal)


def _apply_codes(raw: Samples, codes: bytes) -> bool:
    """Let samples have the colours of a cICP chunk; return whether it could be used."""
    signal = signals.from_codes(codes[0], codes[1]) if len(codes) == 4 else None
    if signal is None or codes[2] != 0 or codes[3] > 1:
        raw.notes.append(f"its colour signal (cICP {'-'.join(map(str, codes[:4]))}) is not supported: ignored")
        return False
    if codes[3] == 0:
        _expand(raw)
    signals.apply(raw, signal)
    return True


def _expand(raw: Samples) -> None:
    """Replace colours of narrow range, with black at 16 and white at 235 of 255 (ITU-T H.273, 8.3), by floats; alpha stays."""
    colours = CHANNELS[raw.space]
    unit, bits = (raw.white + 1) / 256, raw.stored_bits()
    white = raw.white

    def expand(block: Array) -> Array:
        values = block.astype(np.float32)
        values[..., :colours] = (values[..., :colours] - 16 * unit) / (219 * unit)
        values[..., colours:] /= white
        return values

    raw.values, raw.white, raw.bits = Mapped(raw.values, expand), 1.0, f"{bits} of narrow range"


def metadata(stream: BinaryIO, name: str) -> dict[str, str]:
    """Return the uncompressed international texts (iTXt) in a PNG."""
    texts = {}
    for kind, body in chunks(bytearray(stream.read())):
        if kind == b"iTXt":
            key, text = text_of(kind, body)
            if key != XMP_KEY:  # that is for other programs
                texts[key] = text.decode("utf-8", "replace")
    return texts


SCOPE: Final = Scope(
    samples="gray, RGB or palette of 1 to 16 bits",
    colour="codes (`cICP`), else ICC profile (`iCCP`, or a text `Raw profile type icc` of ImageMagick), else `sRGB`, else `gAMA` "
    "and `cHRM`, else Adobe RGB if EXIF says so; PQ and HLG with 203 cd/m2 as white",
    orientation="EXIF (`eXIf`, or a text `Raw profile type exif`), else XMP",
    alpha="straight; a transparent colour becomes alpha with `--alpha keep`",
    more=("Of an animated PNG the first frame is read, with a note, also if its animation chunks are damaged.",),
)

INPUT_FORMATS.register("PNG")(InputFormat(re.escape(SIGNATURE), decode, metadata, scope=SCOPE))
