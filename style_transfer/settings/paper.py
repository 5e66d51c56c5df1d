"""Sizes on paper: lengths such as 3mm, and sizes of prints such as 60x40cm, A3 or A2-landscape, in millimetres."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..errors import SettingsError, near_miss

UNITS: Final = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
"""Millimetres of each unit."""
MAX_LENGTH: Final = 100_000.0
"""The longest side of a print, in millimetres."""
PAPERS: Final[dict[str, tuple[float, float]]] = {
    "A0": (841, 1189), "A1": (594, 841), "A2": (420, 594), "A3": (297, 420), "A4": (210, 297), "A5": (148, 210),
    "A6": (105, 148), "A3+": (329, 483),
    "B0": (1000, 1414), "B1": (707, 1000), "B2": (500, 707), "B3": (353, 500), "B4": (250, 353), "B5": (176, 250),
    "letter": (215.9, 279.4), "legal": (215.9, 355.6), "tabloid": (279.4, 431.8),
}  # fmt: skip
"""Width and height of paper formats in millimetres, upright: ISO 216, Super A3, and those of North America."""
TURNED: Final = ("portrait", "landscape")
PRINT_FITS: Final = {
    "crop": "fill the print; what is beyond its shape is cut off evenly",
    "pad": "keep all of the photograph; what is missing is its mirror image",
    "exact": "refuse a photograph of another shape",
}
"""How a photograph of another shape than the print's is fitted, each with a phrase that explains it."""
BLEEDS: Final = {
    "mirror": "the photograph around the trimmed print, and its mirror image where it ends",
    "crop": "the photograph, which then fills print and bleed",
}
"""What is painted in the bleed, each with a phrase that explains it."""

_NUMBER = r"([0-9]{1,6}(?:\.[0-9]{1,6})?)"
_UNIT = f"({'|'.join(UNITS)})"
_LENGTH: Final = re.compile(rf"{_NUMBER}\s*{_UNIT}")
_SIDES: Final = re.compile(rf"{_NUMBER}\s*{_UNIT}?\s*[x\u00d7]\s*{_NUMBER}\s*{_UNIT}")


@dataclass(frozen=True)
class PrintSize:
    """Width and height of a print in millimetres; `turns` if it is turned as the photograph is."""

    width: float
    height: float
    turns: bool = False

    def beside(self, height: int, width: int) -> PrintSize:
        """Return the size as it is used for a photograph of `height` and `width`."""
        if self.turns and (width > height) != (self.width > self.height):
            return PrintSize(self.height, self.width)
        return PrintSize(self.width, self.height)


def parse_length(name: str, text: str) -> float:
    """Return the millimetres of a text such as 3mm, 0.5cm or 0.125in. Raises `SettingsError`."""
    match = _LENGTH.fullmatch(text.strip().lower())
    length = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < length <= MAX_LENGTH:
        raise SettingsError(f"{name} must be a length such as 3mm, 40cm or 0.125in, not {text!r}")
    return length


def parse_print_size(name: str, text: str) -> PrintSize:
    """Return the size of a text such as 60x40cm (width x height), A3 or A2-landscape. Raises `SettingsError`."""
    match = _SIDES.fullmatch(text.strip().lower())
    if match is not None:
        width, height = float(match[1]) * UNITS[match[2] or match[4]], float(match[3]) * UNITS[match[4]]
        if not (0 < width <= MAX_LENGTH and 0 < height <= MAX_LENGTH):
            raise SettingsError(f"{name} {text}: sides must be above 0 and at most {MAX_LENGTH / 1000:g} m")
        return PrintSize(width, height)
    names = {paper.lower(): paper for paper in PAPERS}
    word, _, turn = text.strip().lower().partition("-")
    if word in names and turn in ("", *TURNED):
        short, long = PAPERS[names[word]]
        return PrintSize(long, short) if turn == "landscape" else PrintSize(short, long, turns=not turn)
    known = [*names.values(), *(f"{paper}-{turn}" for paper in names.values() for turn in TURNED)]
    raise SettingsError(
        f"{name} must be width x height such as 60x40cm or 24x16in, or one of {', '.join(PAPERS)}, with -portrait or -landscape "
        f"if need be, not {text!r}{near_miss(text, known)}"
    )


def show_length(millimetres: float) -> str:
    """Return a length in centimetres, for messages."""
    return f"{millimetres / 10:.4g}"
