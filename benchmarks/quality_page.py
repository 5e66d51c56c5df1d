"""The page of the quality benchmark: all pictures of a pair side by side, in random order, their names hidden until clicked."""

from __future__ import annotations

import html
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

Entry = tuple[str, str, str, Mapping[str, float]]
"""Pair, variant, file name and measures of a picture."""

STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 1.5em; color-scheme: light dark }
section { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 2em }
figure { margin: 0 } img { display: block; max-width: 46vw; min-width: 256px }
summary { cursor: pointer } svg { max-width: 100% } text { fill: currentColor; font-size: 12px }
"""
COLOURS = "#3b76c4", "#d1602b", "#3f9b50", "#8a56b8", "#b8912c", "#2aa0a8", "#c0466f", "#6d6d6d"
WIDTH, HEIGHT, MARGIN = 640, 420, 48


def figure(file: str, caption: str, hidden: bool = True) -> str:
    """Return the HTML of a picture; a hidden caption opens with a click."""
    text = f"<details><summary>which?</summary>{caption}</details>" if hidden else caption
    return f'<figure><img src="{html.escape(file)}" alt=""><figcaption>{text}</figcaption></figure>'


def pareto(entries: Sequence[Entry]) -> str:
    """Return an SVG of all pictures: style distance to the right, gradients kept upwards; a larger dot is a variant's median."""
    variants = list(dict.fromkeys(variant for _, variant, _, _ in entries))
    most = max(measures["gram"] for *_, measures in entries) * 1.05
    least = min(0.0, *(measures["gradients"] for *_, measures in entries))

    def place(style: float, gradients: float) -> tuple[float, float]:
        across, up = style / most, (gradients - least) / (1 - least)
        return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

    parts = []
    for index, variant in enumerate(variants):
        colour = COLOURS[index % len(COLOURS)]
        points = sorted((m["gram"], m["gradients"]) for _, name, _, m in entries if name == variant)
        for point in points:
            x, y = place(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" opacity="0.5"/>')
        middle = [sorted(values)[len(values) // 2] for values in zip(*points, strict=True)]
        x, y = place(middle[0], middle[1])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">{html.escape(variant)}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}">style distance, 0 to {most:.2f}</text>')
    parts.append(f'<text x="8" y="16">gradients kept, {least:.2f} to 1</text>')
    frame = f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" stroke="currentColor"/>'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">{frame}{"".join(parts)}</svg>'


def write_page(path: Path, entries: Sequence[Entry]) -> None:
    """Write the page. Photograph and painting of a pair are the files PAIR.content.png and PAIR.style.png beside it."""
    sections = []
    for pair in dict.fromkeys(entry[0] for entry in entries):
        painted = [entry for entry in entries if entry[0] == pair]
        random.Random(pair).shuffle(painted)
        given = [figure(f"{pair}.{role}.png", role, hidden=False) for role in ("content", "style")]
        shown = []
        for _, variant, file, measures in painted:
            numbers = ", ".join(f"{name} {value:.3g}" for name, value in measures.items())
            shown.append(figure(file, f"<b>{html.escape(variant)}</b><br><small>{numbers}</small>"))
        sections.append(f"<h2>{html.escape(pair)}</h2><section>{''.join(given + shown)}</section>")
    chart = f"<details><summary>style and structure of all variants</summary>{pareto(entries)}</details>"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Quality</title><style>{STYLE}</style>'
    path.write_text(f"{head}<h1>Which would you hang?</h1>{''.join(sections)}{chart}</html>\n")
