"""Slow float64 oracles of colour, one pixel at a time, from the standards' and papers' formulas. Never imports style_transfer."""

from __future__ import annotations

Colour = tuple[float, float, float]


def linear(v: float) -> float:
    """Return the light intensity of an sRGB value (IEC 61966-2-1)."""
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


def xyz(rgb: Colour) -> Colour:
    """Return CIE XYZ (D65) of sRGB."""
    r, g, b = map(linear, rgb)
    return (
        0.4124 * r + 0.3576 * g + 0.1805 * b,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        0.0193 * r + 0.1192 * g + 0.9505 * b,
    )


WHITE = xyz((1, 1, 1))


def cube_root(t: float) -> float:
    """Return CIE's f: the cube root, a line near 0."""
    return t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116


def lab(rgb: Colour) -> Colour:
    """Return CIE L*a*b* of sRGB, divided by 100."""
    x, y, z = (cube_root(value / white) for value, white in zip(xyz(rgb), WHITE, strict=True))
    return (116 * y - 16) / 100, 5 * (x - y), 2 * (y - z)


def luv(rgb: Colour) -> Colour:
    """Return CIE L*u*v* of sRGB, divided by 100."""

    def chromaticity(x: float, y: float, z: float) -> tuple[float, float]:
        below = x + 15 * y + 3 * z
        return 4 * x / below, 9 * y / below

    lightness = (116 * cube_root(xyz(rgb)[1]) - 16) / 100
    if lightness == 0:
        return 0.0, 0.0, 0.0
    (u, v), (white_u, white_v) = chromaticity(*xyz(rgb)), chromaticity(*WHITE)
    return lightness, 13 * lightness * (u - white_u), 13 * lightness * (v - white_v)


def oklab(rgb: Colour) -> Colour:
    """Return Oklab of sRGB, through the cone responses (Ottosson 2020)."""
    r, g, b = map(linear, rgb)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def yuv(rgb: Colour) -> Colour:
    """Return Y'UV of sRGB as neural-style's image library has it."""
    r, g, b = rgb
    return (
        0.299 * r + 0.587 * g + 0.114 * b,
        -0.14713 * r - 0.28886 * g + 0.436 * b,
        0.615 * r - 0.51499 * g - 0.10001 * b,
    )


SPACES = {"oklab": oklab, "lab": lab, "luv": luv, "yuv": yuv}
