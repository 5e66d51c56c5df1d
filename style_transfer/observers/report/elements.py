"""Elements of the report's page as HTML: escaped text, figures, tables and curves."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from ... import pictures as images
from ...files import shown
from ...pictures.tensors import to_pixels
from ..animation.frames import as_tensor, fitted, reduced

if TYPE_CHECKING:
    from ...pictures import Pixels
    from ..animation.frames import Bytes
    from ..history import Row

TRANSPARENT_SIDE: Final = 800
"""The largest long side of pictures with transparency, which are PNGs, in pixels."""
QUALITY: Final = 88
MAX_POINTS: Final = 600
"""The most points of a curve."""
DASHES: Final = ("", "", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3")
"""Dash patterns of the curves of terms, which also have the colours of the live page."""
RANGE: Final = 1e-9
"""The smallest value on the logarithmic axis, relative to the largest."""

Axis = Callable[[float], float]
"""Maps a value to its place on an axis, in [0, 1]."""


def make_figure(pixels: Pixels, side: int, alt: str, caption: str) -> str:
    """Return a figure of float pixels (H, W, 3 or 4) in [0, 1], reduced to a long side of at most `side`."""
    if pixels.shape[2] == 4:
        side = min(side, TRANSPARENT_SIDE)
    return encode_figure(thumbnail(pixels, side), alt, caption)


def thumbnail(pixels: Pixels, side: int) -> Bytes:
    """Return float pixels (H, W, 3 or 4) in [0, 1] as uint8, reduced to a long side of at most `side`."""
    small = reduced(as_tensor(pixels), fitted((pixels.shape[0], pixels.shape[1]), side))
    return images.quantize(np.nan_to_num(to_pixels(small)), np.uint8)


def encode_figure(pixels: Bytes, alt: str, caption: str) -> str:
    """Return a figure of uint8 pixels (H, W, 3 or 4): a JPEG, or a PNG if there is transparency."""
    image = Image.fromarray(pixels)
    kind, options = ("jpeg", {"quality": QUALITY}) if image.mode == "RGB" else ("png", {})
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **options)
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    picture = f'<img src="{uri}" width="{image.width}" height="{image.height}" alt="{text(alt)}">'
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>"


def figures(items: Sequence[str]) -> str:
    """Return figures side by side, or nothing if there are none."""
    return f'<div class="figures">{"".join(items)}</div>' if items else ""


def size_text(width: int, height: int) -> str:
    """Return a size as text."""
    return f"{width} \u00d7 {height}"


def text(value: str) -> str:
    """Return a text as HTML, with unprintable characters made visible."""
    return escape(shown(value), quote=True)


def number_text(value: float | None) -> str:
    """Return a loss as text, a dash for None."""
    if value is None:
        return "\u2013"
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, numbers: bool = False) -> str:
    """Return a table. Cells are HTML, the first one of each row a heading. Lines in cells with `numbers` are not broken."""
    top = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    kind = ' class="numbers"' if numbers else ""
    content = f"<table{kind}><caption>{text(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" aria-label="{text(caption)}" tabindex="0">{content}</div>'


def chart(rows: Sequence[Row], terms: Sequence[str], ends: Sequence[tuple[int, str]], start: int) -> str:
    """Return the curves of each term over the iterations after `start`, on a logarithmic axis.

    `rows` contain an iteration and a value for each term; `ends` are the last iterations of the scales, with labels. The browser
    stretches the curves to the available width, but not the texts.
    """
    values = [value for row in rows for value in row[1:] if value is not None and value > 0]
    if not values:
        return "<p>No loss was positive.</p>"
    first, last = start + 1, max(start + 2, int(rows[-1][0] or 0))
    high = max(values)
    low = max(min(values), high * RANGE)
    bottom, top = math.log10(low), math.log10(high)
    if top - bottom < 0.1:
        bottom, top = bottom - 0.05, top + 0.05

    def x(step: float) -> float:
        return (step - first) / (last - first)

    def y(value: float) -> float:
        return (top - math.log10(max(value, low))) / (top - bottom)

    lines, texts = [], []
    for value in _ticks(low, high):
        lines.append(f'<line x1="0" x2="100%" y1="{_percent(y(value))}" y2="{_percent(y(value))}"/>')
        shift = 12 if y(value) < 0.06 else -4
        texts.append(f'<text x="3" y="{_percent(y(value))}" dy="{shift}">{text(f"{value:.2g}")}</text>')
    for line, label in _scale_marks(ends, first, last, x):
        lines.append(line)
        texts.append(label)
    for step in _steps(first, last):
        anchor = "start" if x(step) < 0.04 else "end" if x(step) > 0.96 else "middle"
        texts.append(f'<text x="{_percent(x(step))}" y="100%" dy="16" text-anchor="{anchor}">{step:,}</text>')
    curves = _curves(rows, len(terms), x, y)
    title = f"Curves of {len(terms)} loss terms over iterations {first:,} to {last:,}; the table below lists values"
    return (
        f'<div class="chart"><svg role="img" aria-label="{text(title)}" width="100%" height="300">'
        f"<title>{text(title)}</title>{''.join(lines)}"
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">{curves}</svg>'
        f"{''.join(texts)}</svg></div>"
        '<p class="axis">Iterations. Dashed lines separate the scales, labelled with their long side in pixels.</p>'
    )


def _curves(rows: Sequence[Row], terms: int, x: Axis, y: Axis) -> str:
    """Return a path for each term, with gaps where it is not positive or not finite. The first one, the sum, is drawn last."""
    every = max(1, math.ceil(len(rows) / MAX_POINTS))
    chosen = [*rows[::every], *([rows[-1]] if (len(rows) - 1) % every else [])]
    paths = []
    for number in range(terms, 0, -1):
        path, pen = [], "M"
        for row in chosen:
            value = row[number]
            if value is None or value <= 0:
                pen = "M"
                continue
            path.append(f"{pen}{1000 * x(row[0] or 0):.1f} {1000 * y(value):.1f}")
            pen = "L"
        dash = DASHES[(number - 1) % 8]
        style = f' stroke-dasharray="{dash}"' if dash else ""
        paths.append(f'<path d="{"".join(path)}" class="c{(number - 1) % 8}"{style}/>')
    return "".join(paths)


def _scale_marks(ends: Sequence[tuple[int, str]], first: int, last: int, x: Axis) -> list[tuple[str, str]]:
    """Return the line at the end of each scale and the label of the scale, which is empty if there is no room for it."""
    marks = []
    before = 0.0
    for end, name in ends:
        if end <= first:
            continue
        place = min(1.0, x(end))
        line = label = ""
        if place - before >= 0.08:
            middle = _percent((before + place) / 2)
            label = f'<text class="name" x="{middle}" y="-6" text-anchor="middle">{text(name)}</text>'
        if end < last:
            line = f'<line class="scale" x1="{_percent(place)}" x2="{_percent(place)}" y1="0" y2="100%"/>'
        marks.append((line, label))
        before = place
        if end >= last:
            break
    return marks


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _ticks(low: float, high: float) -> list[float]:
    """Return values to label on a logarithmic axis: powers of ten, or both ends and the middle if there are fewer than two."""
    bottom, top = math.log10(low), math.log10(high)
    every = max(1, math.ceil((top - bottom) / 6))
    powers = [10.0**power for power in range(math.ceil(bottom), math.floor(top) + 1, every)]
    return powers if len(powers) > 1 else [low, math.sqrt(low * high), high] if high > low else [low]


def _steps(first: int, last: int) -> list[int]:
    """Return about four round numbers of iterations from `first` to `last`."""
    apart = next(n * 10**p for p in range(12) for n in (1, 2, 5) if n * 10**p * 5 > last - first)
    return [step for step in range(0, last + 1, apart) if step >= first] or [last]
