"""Colour signals: what files say of their colours in a few numbers, instead of by an ICC profile.

Names and codes of primaries and transfer functions are those of ITU-T H.273, which PNG's cICP and AVIF's nclx refer to. A
signal of standard dynamic range becomes an ICC profile of version 2, made here from the numbers of its standard, so that there
is one conversion of colours. PQ and HLG (ITU-R BT.2100) are mapped to standard dynamic range: the reference white of ITU-R
BT.2408, 203 cd/m2, becomes white, and what is brighter is clipped.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .picture import Array, Pixels, Samples

Point = tuple[float, float]
"""CIE 1931 chromaticity x, y."""
D65: Final[Point] = (0.3127, 0.3290)
D50: Final = (0.9642, 1.0, 0.8249)
"""XYZ of the white of ICC profiles, as ICC.1 writes it."""
BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""XYZ to cone responses, by which profiles adapt colours to D50 (ICC.1:2022, annex E)."""
WHITE_LEVEL: Final = 203.0
"""cd/m2 of the white of graphics in PQ and HLG (ITU-R BT.2408)."""
HLG_PEAK: Final = 1000.0
"""cd/m2 of the display for which HLG's system gamma is 1.2."""
SRGB_NAME: Final = "sRGB IEC61966-2.1"
"""The name of sRGB's profile by which programs know it."""
CURVE_POINTS: Final = 1024
TABLE_SIZE: Final = 65536
PQ, HLG, SRGB_CURVE, LINEAR = "PQ", "HLG", "sRGB", 1.0


@dataclass(frozen=True)
class Primaries:
    """The chromaticities of red, green, blue and white, with a name."""

    name: str
    red: Point
    green: Point
    blue: Point
    white: Point = D65


SRGB: Final = Primaries("sRGB", (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE: Final = Primaries("Adobe RGB (1998)", (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
BT2020: Final = Primaries("BT.2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
PRIMARIES: Final = {
    1: SRGB,
    4: Primaries("BT.470 M", (0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: Primaries("BT.601 625", (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries("BT.601 525", (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries("SMPTE 240M", (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: Primaries("film", (0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),
    9: BT2020,
    10: Primaries("CIE XYZ", (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: Primaries("DCI-P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: Primaries("Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Primaries("EBU 3213", (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""Primaries by their code in H.273."""
TRANSFERS: Final[dict[int, float | str]] = {
    4: 2.2, 5: 2.8, 8: LINEAR, 16: PQ, 18: HLG, **dict.fromkeys((1, 6, 7, 11, 12, 13, 14, 15), SRGB_CURVE)
}  # fmt: skip
"""Transfer functions by their code in H.273: an exponent, or a name. The curves of television cameras (all but 13 of the last
ones) count as sRGB's, as in browsers: pictures with these codes were made to be looked at on a computer's screen."""
MAX_EXPONENT: Final = 10
SAME_CHROMATICITY: Final = 0.0006
"""The difference up to which chromaticities in files, which are rounded in several ways, are those of a standard."""
SAME_EXPONENT: Final = 0.005


@dataclass(frozen=True)
class Signal:
    """Primaries and a transfer function: the exponent of a power function, `SRGB_CURVE`, `PQ` or `HLG`."""

    primaries: Primaries
    transfer: float | str = SRGB_CURVE

    @property
    def name(self) -> str:
        """The name for messages, such as "Display P3", "BT.2020 PQ" or "BT.2020 with gamma 2.2"."""
        if self.transfer == SRGB_CURVE or self == ADOBE_RGB:
            return self.primaries.name
        return f"{self.primaries.name} {self.transfer if isinstance(self.transfer, str) else f'with gamma {self.transfer:.4g}'}"

    @property
    def high_range(self) -> bool:
        """Whether it is of high dynamic range."""
        return self.transfer in (PQ, HLG)


ADOBE_RGB: Final = Signal(ADOBE, 563 / 256)
"""Adobe RGB (1998), whose exponent is 2 + 51/256."""
DISPLAY_P3: Final = Signal(PRIMARIES[12])
PROPHOTO: Final = Signal(
    Primaries("ProPhoto RGB", (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585)), 461 / 256
)
"""ProPhoto RGB (ROMM RGB, ISO 22028-2) with an exponent of 1.8 for all light, as in the profiles of image programs."""


def from_codes(primaries: int, transfer: int) -> Signal | None:
    """Return the signal of two codes of H.273, None if one of them is unspecified or not known here."""
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        return None
    return Signal(PRIMARIES[primaries], TRANSFERS[transfer])


def from_numbers(points: Sequence[Point] | None, exponent: float | None) -> Signal:
    """Return the signal of the chromaticities of red, green, blue and white and the exponent of a file; None for what is absent.

    What is absent counts as sRGB's, and so does the exponent 2.2 with the primaries of sRGB: programs write both for sRGB where
    a format has no better way. Raises ValueError for numbers that cannot be right.
    """
    primaries = SRGB if points is None else _named(points)
    if not _valid(primaries) or not (exponent is None or 1 / MAX_EXPONENT <= exponent <= MAX_EXPONENT):
        raise ValueError("primaries or exponent out of range")
    if exponent is None or (primaries == SRGB and abs(exponent - 2.2) <= SAME_EXPONENT):
        return Signal(primaries)
    return Signal(primaries, exponent)


def _named(points: Sequence[Point]) -> Primaries:
    """Return primaries from chromaticities: those of a standard if they are the same."""
    for known in (*PRIMARIES.values(), ADOBE):
        others = known.red, known.green, known.blue, known.white
        if np.abs(np.subtract(points, others)).max() <= SAME_CHROMATICITY:
            return known
    return Primaries("stated primaries", *points)


def _valid(primaries: Primaries) -> bool:
    """Return whether primaries are three colours that mix to white with positive amounts of each."""
    columns = np.stack([_xyz(point) for point in (primaries.red, primaries.green, primaries.blue)], 1)
    if primaries.white[1] <= 0 or abs(np.linalg.det(columns)) < 1e-6:
        return False
    return bool((np.linalg.solve(columns, _xyz(primaries.white)) > 0).all())


def apply(raw: Samples, signal: Signal) -> None:
    """Let samples have the colours of a signal, in place of their profile and of what EXIF says."""
    raw.icc, raw.exif_icc, raw.signal = None, None, signal.name
    if signal.high_range:
        level = f"{WHITE_LEVEL:.0f} cd/m2 as white"
        raw.signal += f", {level}"
        raw.notes.append(f"{signal.name} is of high dynamic range: mapped to {level}, brighter light is clipped")
        raw.convert = functools.partial(to_standard_range, signal=signal)
    elif signal != Signal(SRGB):
        raw.icc = profile(signal)


# ICC profiles


def _xyz(point: Point) -> Array:
    """Return x, y and z of a chromaticity."""
    return np.array([point[0], point[1], 1 - point[0] - point[1]])


def to_xyz(primaries: Primaries) -> Array:
    """Return the matrix (3, 3) from linear RGB to XYZ of the primaries' own white (Lindbloom, "RGB/XYZ matrices")."""
    columns = np.stack([_xyz(point) for point in (primaries.red, primaries.green, primaries.blue)], 1)
    matrix: Array = columns * np.linalg.solve(columns, _xyz(primaries.white) / primaries.white[1])
    return matrix


def to_d50(primaries: Primaries) -> Array:
    """Return the matrix (3, 3) from linear RGB to XYZ with white D50, adapted by the Bradford transform."""
    cones = BRADFORD @ np.array(D50) / (BRADFORD @ to_xyz(primaries).sum(axis=1))
    matrix: Array = np.linalg.solve(BRADFORD, cones[:, None] * BRADFORD) @ to_xyz(primaries)
    return matrix


def _linear_srgb(values: Array) -> Array:
    """Return linear light of sRGB-coded values (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def coded_srgb(light: Array) -> Array:
    """Return sRGB-coded values of linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _fixed(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _curve(transfer: float | str, *, formula: bool = False) -> bytes:
    """Return the curve tag of a transfer function: an exponent in 256ths, a table of 16 bits, or with `formula` sRGB's own."""
    if formula and transfer == SRGB_CURVE:
        return struct.pack(">4sIHH", b"para", 0, 3, 0) + _fixed([2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
    if transfer == LINEAR:
        return struct.pack(">4sII", b"curv", 0, 0)
    if not isinstance(transfer, str):
        return struct.pack(">4sIIH", b"curv", 0, 1, round(transfer * 256)) + bytes(2)
    table: bytes = np.rint(65535 * _linear_srgb(np.linspace(0, 1, CURVE_POINTS))).astype(">u2").tobytes()
    return struct.pack(">4sII", b"curv", 0, CURVE_POINTS) + table


def _columns(primaries: Primaries, *, neutral: bool) -> list[bytes]:
    """Return the XYZ tags of red, green and blue; if `neutral`, they sum to D50 exactly in spite of rounding."""
    columns = np.rint(65536 * to_d50(primaries))
    if neutral:
        columns[np.arange(3), columns.argmax(axis=1)] += np.rint(65536 * np.array(D50)) - columns.sum(axis=1)
    return [b"XYZ " + bytes(4) + column.astype(">i4").tobytes() for column in columns.T]


@functools.cache
def profile(signal: Signal, *, formula: bool = False) -> bytes:
    """Return an ICC profile of version 2 (ICC.1:2001-04) with the primaries and the curve of a signal, which is not PQ or HLG.

    With `formula` sRGB's curve is exact, by a tag of version 4, and grays stay gray: for conversions, and not for files that old
    programs read.
    """
    text = (SRGB_NAME if signal == Signal(SRGB) else signal.name).encode("ascii") + b"\0"
    described = struct.pack(">4sII", b"desc", 0, len(text)) + text + bytes(78)
    tags = {b"desc": described, b"cprt": b"text" + bytes(4) + b"CC0\0", b"wtpt": b"XYZ " + bytes(4) + _fixed(D50)}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), _columns(signal.primaries, neutral=formula), strict=True))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(signal.transfer, formula=formula))
    start = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        if data not in places:  # the three curves share one place
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, places[data], len(data))
    head = struct.pack(">I4xI4s4s4s6H4s", start + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", 2026, 1, 1, 0, 0, 0, b"acsp")
    return head.ljust(68, b"\0") + _fixed(D50).ljust(60, b"\0") + table + body


# high dynamic range


def pq_light(values: Array) -> Array:
    """Return the luminance of PQ values in [0, 1] in cd/m2 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = values ** (1 / m2)
    light: Array = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return light


def hlg_scene(values: Array) -> Array:
    """Return the light of the scene in [0, 1] of HLG values in [0, 1] (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)


@functools.cache
def _table(transfer: str) -> Pixels:
    """Return the light of all values of 16 bits, PQ's in units of WHITE_LEVEL."""
    values = np.arange(TABLE_SIZE) / (TABLE_SIZE - 1)
    return (pq_light(values) / WHITE_LEVEL if transfer == PQ else hlg_scene(values)).astype(np.float32)


def to_standard_range(block: Pixels, signal: Signal) -> Pixels:
    """Return values (rows, width, 1 or 3) of PQ or HLG as sRGB (rows, width, 3) in [0, 1], with WHITE_LEVEL as white.

    HLG is first shown on a display of HLG_PEAK, with the system gamma 1.2 (ITU-R BT.2100, table 5).
    """
    places = np.rint(np.clip(block, 0, 1) * np.float32(TABLE_SIZE - 1)).astype(np.intp)
    light = np.broadcast_to(_table(str(signal.transfer))[places], (*block.shape[:2], 3))
    matrix = to_xyz(signal.primaries)
    if signal.transfer == HLG:
        luminance = light @ matrix[1].astype(np.float32)
        light = light * (np.float32(HLG_PEAK / WHITE_LEVEL) * luminance ** np.float32(0.2))[..., None]
    linear = light @ np.linalg.solve(to_xyz(SRGB), matrix).T.astype(np.float32)
    coded: Pixels = coded_srgb(np.clip(linear, 0, 1))
    return coded
