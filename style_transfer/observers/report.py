"""One page about a run that can be kept, sent and printed: pictures, curves, times, settings, hashes, all in one HTML file.

It loads nothing: pictures are data URIs, the style sheet is named by its hash in the page's own policy, there is no script. Every
text is escaped, and of files only their names are told, not where they lie.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import io
import math
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from ..errors import ImageError
from ..evaluation.memory import show_bytes
from ..files import atomic as files
from ..files.atomic import shown
from ..pictures import images
from ..settings.catalog import NETWORKS
from ..settings.settings import Settings, flag_name, options_of
from .console import clock
from .frames import fitted
from .history import History, Row
from .late import Late

if TYPE_CHECKING:
    from torch import Tensor

    from ..engine.iterate import Iterate
    from ..pictures.color import Pixels

RESULT_SIDE = 1600
INPUT_SIDE = 480
GROWTH_SIDE = 320
"""The long sides of pictures in a report, at most, in pixels."""
CLEAR_SIDE = 800
"""That of pictures with transparency, which are PNGs."""
MOST_INPUTS = 24
"""How many input pictures are shown; all are named."""
QUALITY = 88
POINTS = 600
"""How many points a curve has, at most."""
DASHES: Final = ("", "", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3")
"""How the lines of terms differ beside their colours, as on the live page."""
TIMES = "\u00d7"
REACH = 1e-9
"""How far below the largest value the curves go."""


@dataclass(frozen=True)
class Figure:
    """A picture in the report: its data URI, its size there, what it is and what stands under it."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str

    def html(self) -> str:
        """Return the figure's element."""
        size = f'width="{self.width}" height="{self.height}"'
        caption = f"<figcaption>{_text(self.caption)}</figcaption>"
        return f'<figure><img src="{self.uri}" {size} alt="{_text(self.alt)}">{caption}</figure>'


@dataclass
class Scale:
    """What is known of a scale: steps planned and done, seconds, peak memory in bytes so far, tiles of each segment."""

    width: int
    height: int
    steps: int
    done: int = 0
    seconds: float = 0.0
    memory: int = 0
    tiles: tuple[int, ...] = ()
    losses: Mapping[str, float] | None = None
    picture: Figure | None = None


def figure(pixels: Pixels, side: int, alt: str, caption: str) -> Figure:
    """Return a figure of float pixels (H, W, 3 or 4) in [0, 1], reduced to a long side of at most `side`.

    It is a JPEG, or a PNG where it is transparent.
    """
    image = images.to_pil(np.nan_to_num(pixels))
    clear = image.mode == "RGBA"
    side = min(side, CLEAR_SIDE) if clear else side
    height, width = fitted((image.height, image.width), side)
    image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    if clear:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    kind = "png" if clear else "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Figure(uri, *image.size, alt, caption)


class Report:
    """Watches a run and writes its report.

    `inputs` are what the picture is made from, (role, path); they are read at once. `recipe` is what is written beside the
    result. `history` are the loss terms, which others may look at too. `resumed` is the number of iterations that were done
    before, in another process, and `began` the seconds that they took. `max_pixels` bounds the inputs.
    """

    def __init__(
        self, path: str | Path, recipe: Mapping[str, Any], inputs: Iterable[tuple[str, str]], history: History, *,
        resumed: int = 0, began: float = 0.0, max_pixels: int = 500_000_000,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self._recipe, self._history, self._resumed = recipe, history, resumed
        self._inputs: list[Figure] = []
        self._files: list[tuple[str, str, str]] = []
        for role, name in inputs:
            self._read(role, Path(name), max_pixels)
        self._scales = [Scale(each["width"], each["height"], each["steps"]) for each in recipe["scales"]]
        self._ends: Late[int] = Late()
        self._index, self._seconds = -1, began
        self._latest: dict[str, Tensor] = {}

    def _read(self, role: str, path: Path, max_pixels: int) -> None:
        """Take note of an input file, and its picture if it is one."""
        self._files.append((role, path.name, _digest(path)))
        if len(self._inputs) >= MOST_INPUTS or role in ("weights", "profile"):
            return
        with contextlib.suppress(ImageError):  # what is wrong with it is told where it is used
            picture = images.load(path, max_pixels=max_pixels, alpha=True)
            pixels = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
            height, width = picture.size
            caption = f"{role}: {path.name}, {_size(width, height)}"
            self._inputs.append(figure(pixels, INPUT_SIDE, f"The {role}, {path.name}", caption))

    def update(self, iterate: Iterate) -> None:
        """Take note of an iteration. Nothing is waited for."""
        self._history.add(iterate)
        if iterate.index != self._index:
            self._end_scale()
            self._index = iterate.index
        scale = self._scales[iterate.index]
        scale.seconds += max(0.0, iterate.seconds - self._seconds)
        self._seconds = iterate.seconds
        scale.done, scale.memory, scale.tiles = iterate.step, iterate.memory, iterate.tiles
        self._latest = {"loss": iterate.loss, **iterate.parts}

    def _end_scale(self) -> None:
        if self._latest:
            self._ends.put(self._index, self._latest)
        for index, losses in self._ends.arrived():
            self._scales[index].losses = losses

    def picture(self, iterate: Iterate, pixels: Pixels) -> None:
        """Take the finished pixels of an iterate that ends its scale."""
        scale = self._scales[iterate.index]
        words = _size(scale.width, scale.height)
        scale.picture = figure(pixels, GROWTH_SIDE, f"The painting at {words} pixels", f"{words}, iteration {iterate.step}")

    def write(self, result: Path, status: str) -> None:
        """Write the report of a run whose picture is in `result`; `status` says how it ended. Raises `OutputError`."""
        self._end_scale()
        for index, losses in self._ends.arrived(wait=True):
            self._scales[index].losses = losses
        self._history.read(wait=True)
        files.write_text(self.path, self._page(result, status))

    # the page

    def _page(self, result: Path, status: str) -> str:
        style = importlib.resources.files(__package__).joinpath("page", "report.css").read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        recipe = self._recipe
        names = " and ".join(each["name"] for each in recipe["styles"][:3])
        more = len(recipe["styles"]) - 3
        title = f"{recipe['content']['name']} in the manner of {names}" + (f" and {more} more" if more > 0 else "")
        sections = [
            ("The picture", self._result(result)),
            ("Made from", _figures(self._inputs)),
            ("How it grew", _figures([scale.picture for scale in self._scales if scale.picture is not None])),
            ("Losses", self._losses()),
            ("Time and memory", self._times()),
            ("Settings", self._settings()),
            ("Made with", self._made_with(result)),
        ]
        body = "".join(f"<section><h2>{_text(head)}</h2>{inside}</section>" for head, inside in sections if inside)
        when = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
            '<meta name="referrer" content="no-referrer">'
            f"<title>{_text(title)}</title><style>{style}</style></head>\n"
            f"<body><header><h1>{_text(title)}</h1><p>{_text(status)} · {_text(when)}</p></header>\n"
            f"<main>{body}</main></body></html>\n"
        )

    def _result(self, result: Path) -> str:
        try:
            picture = images.load(result, max_pixels=1 << 40, alpha=True)
        except ImageError as error:
            return f"<p>{_text(f'The picture cannot be shown: {error}')}</p>"
        pixels = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
        height, width = picture.size
        caption = f"{result.name}, {_size(width, height)} pixels"
        return f'<div class="result">{figure(pixels, RESULT_SIDE, f"The result, {result.name}", caption).html()}</div>'

    def _losses(self) -> str:
        history = self._history
        terms = ("loss", *history.names)
        if not history.rows:
            why = "All iterations were done before the checkpoint" if self._resumed else "No iteration was done"
            return f"<p>{why}; there are no curves.</p>"
        note = ""
        if self._resumed:
            note = f"<p>The run went on from a checkpoint after iteration {self._resumed:,}; the curves begin there.</p>"
        ends, done = [], 0
        for scale in self._scales:
            done += scale.done or (scale.steps if done + scale.steps <= self._resumed else 0)
            ends.append((done, str(max(scale.width, scale.height))))
        chart = _chart(history.rows, terms, ends, self._resumed)
        scales = [scale for scale in self._scales if scale.losses is not None]
        heads = ["Term", *(_size(scale.width, scale.height) for scale in scales)]
        rows = []
        for number, term in enumerate(terms):
            mark = (
                f'<svg class="mark" viewBox="0 0 26 10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5" '
                f'class="c{number % 8}" stroke-dasharray="{DASHES[number % 8]}"/></svg>'
            )
            values = [_number((scale.losses or {}).get(term)) for scale in scales]
            rows.append([mark + _text("sum" if term == "loss" else term), *map(_text, values)])
        table = _table(heads, rows, "Each term, weighted, in the last iteration of each scale", numbers=True)
        return note + chart + table

    def _times(self) -> str:
        rows = []
        for scale in self._scales:
            if not scale.done:
                continue
            pace = scale.seconds / scale.done
            rows.append([
                _text(_size(scale.width, scale.height)),
                _text(f"{scale.done:,}" if scale.done == scale.steps else f"{scale.done:,} of {scale.steps:,}"),
                _text(clock(scale.seconds)),
                _text(f"{pace:.3g} s"),
                _text(" + ".join(map(str, scale.tiles))),
                _text(show_bytes(scale.memory)),
            ])  # fmt: skip
        if not rows:
            return ""
        total = f"{clock(self._seconds)} in all" + (", with what was done before the checkpoint" if self._resumed else "")
        heads = ["Scale", "Iterations", "Time", "Each", "Tiles", "Peak memory so far"]
        return f"<p>{_text(total)}</p>" + _table(heads, rows, "Scales", numbers=True)

    def _settings(self) -> str:
        given, base = self._recipe["settings"], _base(self._recipe["settings"])
        changed = [[flag_name(name), _value(name, value), _value(name, base[name])] for name, value in given.items()
                   if value != base[name]]  # fmt: skip
        everything = [[flag_name(name), _value(name, value)] for name, value in given.items()]
        found = f"<pre>{_text(self._command())}</pre>"
        if changed:
            rows = [list(map(_text, row)) for row in changed]
            found += _table(["Option", "Here", "Default"], rows, "What differs from the defaults")
        else:
            found += "<p>All settings are the defaults.</p>"
        table = _table(["Option", "Value"], [list(map(_text, row)) for row in everything], "All settings")
        return f"{found}<details><summary>All settings</summary>{table}</details>"

    def _command(self) -> str:
        """Return a command that paints the picture again, with names of files and not where they lie."""
        recipe = self._recipe
        given, base = recipe["settings"], _base(recipe["settings"])
        words = ["style_transfer", recipe["content"]["name"], *(each["name"] for each in recipe["styles"])]
        for name, about in options_of(Settings).items():
            value = given[name]
            if value == base[name] or value is None:
                continue
            if about[1].flag:
                words.append(flag_name(name) if value else flag_name(name).replace("--", "--no-", 1))
            else:
                several = value if isinstance(value, list) else [value]
                words += [flag_name(name), *(repr(x) if isinstance(x, float) else _value(name, x) for x in several)]
        for name in ("content_masks", "style_masks"):
            if name in recipe:
                words += [f"--{name[:-1].replace('_', '-')}", *(each["name"] for each in recipe[name])]
        if "proof" in recipe:
            words += ["--proof", recipe["proof"]["name"]]
        return shlex.join(words)

    def _made_with(self, result: Path) -> str:
        recipe = self._recipe
        network = recipe["network"]
        facts = [
            ("program", recipe["program"]),
            ("network", network["name"]),
            ("weights", network["weights"]),
            ("devices", ", ".join(recipe["devices"])),
            ("precision", recipe["precision"]),
            ("threads", str(recipe["threads"])),
            *((name, version) for name, version in recipe["versions"].items()),
        ]
        found = _table(["What", "Which"], [[_text(name), _text(str(value))] for name, value in facts], "Program and machine")
        hashes = [*self._files, ("result", result.name, _digest(result))]
        rows = [[_text(role), _text(name), f"<code>{_text(digest)}</code>"] for role, name, digest in hashes]
        return found + _table(["Role", "File", "SHA-256"], rows, "Files")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return "cannot be read"


def _base(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that count as default beside those given: of what follows from another setting, what follows."""
    plain = Settings().as_dict()
    network = given["network"] if given["network"] in NETWORKS else plain["network"]
    following = Settings(network=network, style_loss=given["style_loss"]).as_dict()
    return following | {name: plain[name] for name in ("network", "style_loss")}


def _value(name: str, value: Any) -> str:
    """Return a setting's value for a reader; of paths only the name."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(_value(name, each) for each in value)
    if isinstance(value, float):
        return f"{value:g}"
    return Path(value).name if name in ("weights", "init") else str(value)


def _size(width: int, height: int) -> str:
    return f"{width} {TIMES} {height}"


def _text(text: str) -> str:
    """Return a text for the page: markup is escaped, and what is not printable made visible."""
    return escape(shown(text), quote=True)


def _number(value: float | None) -> str:
    """Return a loss for a reader."""
    if value is None:
        return "\u2013"
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.4g}"


def _figures(found: Sequence[Figure]) -> str:
    return f'<div class="figures">{"".join(each.html() for each in found)}</div>' if found else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, numbers: bool = False) -> str:
    """Return a table whose cells are HTML; the first of each row is its head. `numbers` are not broken into lines."""
    top = "".join(f'<th scope="col">{_text(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    kind = ' class="numbers"' if numbers else ""
    table = f"<table{kind}><caption>{_text(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" aria-label="{_text(caption)}" tabindex="0">{table}</div>'


# the curves


def _chart(rows: Sequence[Row], terms: Sequence[str], ends: Sequence[tuple[int, str]], start: int) -> str:
    """Return the curves of each term over the iterations, on a logarithmic axis, as SVG without a size of its own.

    `rows` have the iteration and a value for each term; `ends` are the iterations at which scales end, with their names.
    The curves are stretched to the place there is, and the texts are not.
    """
    values = [value for row in rows for value in row[1:] if value is not None and value > 0]
    first, last = start + 1, max(start + 2, int(rows[-1][0] or 0))
    what = f"Curves of {len(terms)} loss terms over iterations {first:,} to {last:,}; the table below has the numbers"
    if not values:
        return "<p>No loss was above zero.</p>"
    high = max(values)
    low = max(min(values), high * REACH)
    bottom, top = math.log10(low), math.log10(high)
    if top - bottom < 0.1:
        bottom, top = bottom - 0.05, top + 0.05

    def x(step: float) -> float:
        return (step - first) / (last - first)

    def y(value: float) -> float:
        return (top - math.log10(max(value, low))) / (top - bottom)

    every = max(1, math.ceil(len(rows) / POINTS))
    chosen = [*rows[::every], *([rows[-1]] if (len(rows) - 1) % every else [])]
    paths = []
    for number in range(len(terms), 0, -1):  # the sum lies on top
        path, pen = [], "M"
        for row in chosen:
            value = row[number]
            if value is None or value <= 0:
                pen = "M"
                continue
            path.append(f"{pen}{1000 * x(row[0] or 0):.1f} {1000 * y(value):.1f}")
            pen = "L"
        dash = DASHES[(number - 1) % 8]
        paths.append(
            f'<path d="{"".join(path)}" class="c{(number - 1) % 8}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>"
        )
    lines, texts = [], []
    for value in _marks(low, high):
        lines.append(f'<line x1="0" x2="100%" y1="{_percent(y(value))}" y2="{_percent(y(value))}"/>')
        shift = 12 if y(value) < 0.06 else -4
        texts.append(f'<text x="3" y="{_percent(y(value))}" dy="{shift}">{_text(f"{value:.2g}")}</text>')
    before = 0.0
    for end, name in ends:
        if not first < end:
            continue
        place = min(1.0, x(end))
        if place - before >= 0.08:
            middle = _percent((before + place) / 2)
            texts.append(f'<text class="name" x="{middle}" y="-6" text-anchor="middle">{_text(name)}</text>')
        if end < last:
            lines.append(f'<line class="scale" x1="{_percent(place)}" x2="{_percent(place)}" y1="0" y2="100%"/>')
        before = place
        if end >= last:
            break
    for step in _steps(first, last):
        anchor = "start" if x(step) < 0.04 else "end" if x(step) > 0.96 else "middle"
        texts.append(f'<text x="{_percent(x(step))}" y="100%" dy="16" text-anchor="{anchor}">{step:,}</text>')
    curves = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">{"".join(paths)}</svg>'
    return (
        f'<div class="chart"><svg role="img" aria-label="{_text(what)}" width="100%" height="300">'
        f"<title>{_text(what)}</title>{''.join(lines)}{curves}{''.join(texts)}</svg></div>"
        '<p class="axis">Iterations; dashed lines and the numbers above them mark the scales, by the long side in pixels</p>'
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _marks(low: float, high: float) -> list[float]:
    """Return values to mark on a logarithmic axis: powers of ten, or the ends and the middle where there is none."""
    bottom, top = math.log10(low), math.log10(high)
    every = max(1, math.ceil((top - bottom) / 6))
    found = [10.0**power for power in range(math.ceil(bottom), math.floor(top) + 1, every)]
    return found if len(found) > 1 else [low, math.sqrt(low * high), high] if high > low else [low]


def _steps(first: int, last: int) -> list[int]:
    """Return about four round numbers of iterations from `first` to `last`."""
    apart = next(n * 10**p for p in range(12) for n in (1, 2, 5) if n * 10**p * 5 > last - first)
    return [step for step in range(0, last + 1, apart) if step >= first] or [last]
