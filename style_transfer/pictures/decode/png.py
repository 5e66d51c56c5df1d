"""PNG, decoded by libpng, since Pillow reduces 16-bit RGB to 8 bits silently."""

from __future__ import annotations

import functools
import io
import re
import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final

import imagecodecs
import numpy as np

from ...registry import INPUT_FORMATS
from .. import signals
from ..picture import Samples
from ..pil import exif_orientation, parse_exif, xmp_orientation
from .loading import InputFormat, Scope, check_size
from .png_chunks import SIGNATURE, chunks, hide_others, icc_of, raw_profile, text_of

COLOUR_CHUNKS: Final = frozenset([b"cICP", b"sRGB", b"gAMA", b"cHRM"])
PALETTE: Final = 3
"""The colour type of palettes, whose entries have 8 bits."""
TEXTS: Final = frozenset([b"tEXt", b"zTXt", b"iTXt"])
EXIF_TEXTS: Final = frozenset(["Raw profile type exif", "Raw profile type APP1"])
ICC_TEXTS: Final = frozenset(["Raw profile type icc", "Raw profile type icm"])
XMP_TEXTS: Final = frozenset(["XML:com.adobe.xmp", "Raw profile type xmp"])


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
    raw = Samples(np.empty((0, 0, 0)), 0.0, "rgb")
    _read_metadata(data, raw)
    signal = signal_of(dict(_first_chunks(data)), raw)
    hide_others(data)
    values = np.asarray(imagecodecs.png_decode(data))
    raw.values = values.reshape(height, width, -1)
    raw.white = 65535.0 if values.dtype == np.uint16 else 255.0
    raw.bits = "" if head[25] == PALETTE else f"{head[24]} bit{'s' * (head[24] != 1)}"
    raw.space = "gray" if raw.values.shape[2] <= 2 else "rgb"
    if signal is not None:
        signals.apply(raw, signal)
    return raw


def _first_chunks(data: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the body of the first chunk of each type that describes colours."""
    seen: set[bytes] = set()
    for kind, body in chunks(data):
        if kind in COLOUR_CHUNKS and kind not in seen:
            seen.add(kind)
            yield kind, bytes(body)


def signal_of(found: Mapping[bytes, bytes], raw: Samples) -> signals.Signal | None:
    """Return the signal that the chunks `COLOUR_CHUNKS` describe, None for sRGB and where the profile counts.

    The precedence is that of the PNG specification (third edition, 4.3): cICP, iCCP, sRGB, gAMA and cHRM. A cICP that is unknown,
    or whose samples are not full-range RGB, adds a note and is ignored. The exponent 1/2.2 with the primaries of sRGB counts as
    sRGB: that is what programs write that do not know the sRGB chunk.
    """
    code = found.get(b"cICP", b"")
    if len(code) >= 4:
        signal = signals.from_codes(code[0], code[1])
        if signal is not None and (code[2], code[3]) == (0, 1):
            return signal
        raw.notes.append(f"its colour signal (cICP {'-'.join(map(str, code[:4]))}) is not supported: ignored")
    if raw.icc is not None or b"sRGB" in found:
        return None
    primaries, transfer = signals.SRGB, signals.SRGB_CURVE  # type: tuple[signals.Primaries, float | str]
    if len(found.get(b"cHRM", b"")) == 32:
        x = [value / 100000 for value in struct.unpack(">8I", found[b"cHRM"])]
        primaries = signals.chromaticities((x[2], x[3]), (x[4], x[5]), (x[6], x[7]), (x[0], x[1]))
    gamma = int.from_bytes(found.get(b"gAMA", b"")[:4], "big")
    if gamma and not (abs(gamma - 45455) <= 100 and primaries == signals.SRGB):
        transfer = 100000 / gamma
    if not signals.valid(primaries) or (not isinstance(transfer, str) and not 0.1 <= transfer <= 10):
        raw.notes.append("its primaries or its gamma are absurd: ignored, sRGB assumed")
        return None
    signal = signals.Signal(primaries, transfer)
    return None if signal == signals.Signal(signals.SRGB) else signal


def _read_metadata(data: bytearray, raw: Samples) -> None:
    """Set the profile and the orientation of samples: an EXIF chunk counts before an EXIF text, and that before XMP."""
    orientations: dict[str, object] = {}
    for kind, body in chunks(data):
        if kind == b"iCCP":
            raw.icc = icc_of(body) if raw.icc is None else raw.icc
        elif kind == b"eXIf":
            orientations["chunk"] = exif_orientation(functools.partial(parse_exif, bytes(body)))
        elif kind == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raw.notes.append("animated PNG: only the first frame is used")
        elif kind in TEXTS:
            key, text = text_of(kind, body)
            profile = raw_profile(text) if key in EXIF_TEXTS | ICC_TEXTS | XMP_TEXTS else None
            if key in EXIF_TEXTS and profile:
                orientations["text"] = exif_orientation(functools.partial(parse_exif, profile))
            elif key in ICC_TEXTS and profile:
                raw.icc = raw.icc or profile
            elif key in XMP_TEXTS:
                orientations["xmp"] = xmp_orientation(profile or text)
    found = (orientations.get(source) for source in ("chunk", "text", "xmp"))
    raw.orientation = next((value for value in found if value is not None), None)


def metadata(stream: BinaryIO, name: str) -> dict[str, str]:
    """Return the uncompressed international texts (iTXt) in a PNG."""
    texts = {}
    for kind, body in chunks(bytearray(stream.read())):
        if kind == b"iTXt":
            key, text = text_of(kind, body)
            texts[key] = text.decode("utf-8", "replace")
    return texts


SCOPE: Final = Scope(
    samples="gray, RGB or palette of 1 to 16 bits",
    colour="codes (`cICP`), else ICC profile (`iCCP`, or a text `Raw profile type icc` of ImageMagick), else `sRGB`, else `gAMA` "
    "and `cHRM`; PQ and HLG with 203 cd/m2 as white",
    orientation="EXIF (`eXIf`, or a text `Raw profile type exif`), else XMP",
    alpha="straight; a transparent colour becomes alpha with `--alpha keep`",
    more=("Of an animated PNG the first frame is read, with a note, also if its animation chunks are damaged.",),
)

INPUT_FORMATS.register("PNG")(InputFormat(re.escape(SIGNATURE), decode, metadata, scope=SCOPE))
