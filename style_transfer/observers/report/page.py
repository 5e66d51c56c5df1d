"""The report's page: collects what it contains of a run, and renders one HTML file that can be kept, sent and printed.

The page loads nothing: pictures are data URIs, its content security policy allows one style sheet by its hash, and there is no
script. All text is escaped. Files appear with their names, without their folders.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import json
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...compute.memory import show_bytes
from ...errors import ImageError
from ...files import file_digest
from ...pictures import format_of
from ...settings import Settings, flag_name, option_words, options_of
from ..animation.frames import load_fitted, load_pixels
from ..console import clock
from ..history import Late
from .elements import DASHES, chart, encode_figure, figures, make_figure, number_text, size_text, table, text, thumbnail

if TYPE_CHECKING:
    from torch import Tensor

    from ...pictures import Pixels
    from ..animation.frames import Bytes
    from ..observer import Progress, RunInfo

RESULT_SIDE: Final = 1600
INPUT_SIDE: Final = 480
PROGRESS_SIDE: Final = 320
"""The largest long sides of the result, of input pictures and of the pictures of each scale, in pixels."""
MAX_INPUTS: Final = 24
"""The most input pictures that are shown. All are listed."""
NO_PICTURES: Final = ("weights", "profile")
"""The roles of input files that are no pictures."""


@dataclass
class ScaleRecord:
    """What the report contains of a scale.

    `steps` are planned and `done` completed, `seconds` is the time that they took without pauses, `memory` the peak of the run up
    to this scale in bytes, and `tiles` the numbers of tiles by network segment. `losses` are those of the last step, and
    `picture` is the one saved last, after step `picture_step`.
    """

    width: int
    height: int
    steps: int
    done: int = 0
    seconds: float = 0.0
    memory: int = 0
    tiles: tuple[int, ...] = ()
    losses: Mapping[str, float] | None = None
    picture: Bytes | None = None
    picture_step: int = 0


class RunRecord:
    """Collects what the report of a run contains. The input files are read at once.

    `files` lists (role, name, SHA-256) of the input files, and `inputs` has figures of the pictures among them. `resumed` is the
    number of iterations before the checkpoint from which the run was resumed, and `seconds` the time so far, including that
    before the checkpoint and without pauses.
    """

    def __init__(self, run: RunInfo) -> None:
        self.run = run
        self.resumed = run.history.steps
        self.seconds = run.seconds
        self.files: list[tuple[str, str, str]] = []
        self.inputs: list[str] = []
        for role, name in run.inputs:
            self._read(role, Path(name))
        self.scales = [ScaleRecord(each["width"], each["height"], each["steps"]) for each in run.recipe["scales"]]
        self._late: Late[int] = Late()
        self._index = -1
        self._latest: dict[str, Tensor] = {}

    def _read(self, role: str, path: Path) -> None:
        self.files.append(_described(role, path))
        if len(self.inputs) >= MAX_INPUTS or role in NO_PICTURES:
            return
        with contextlib.suppress(ImageError):  # the module that uses the file reports the error
            pixels, (height, width) = load_fitted(path, INPUT_SIDE, self.run.max_pixels)
            caption = f"{role}: {path.name}, {size_text(width, height)}"
            self.inputs.append(make_figure(pixels, INPUT_SIDE, f"The {role}, {path.name}", caption))

    def step(self, progress: Progress) -> None:
        """Note a step, without waiting for the device."""
        iterate = progress.iterate
        self.run.history.add(iterate)
        if iterate.index != self._index:
            self._end_scale()
            self._index = iterate.index
        scale = self.scales[iterate.index]
        seconds = iterate.seconds - progress.paused
        scale.seconds += max(0.0, seconds - self.seconds)
        self.seconds = seconds
        scale.done, scale.memory, scale.tiles = iterate.step, iterate.memory, iterate.tiles
        self._latest = {"loss": iterate.loss, **iterate.parts}

    def _end_scale(self, *, wait: bool = False) -> None:
        if self._latest:
            self._late.put(self._index, self._latest)
        for index, losses in self._late.arrived(wait=wait):
            self.scales[index].losses = losses

    def saved(self, progress: Progress, pixels: Pixels) -> None:
        """Note the picture that was saved, the last one of each scale."""
        scale = self.scales[progress.iterate.index]
        scale.picture, scale.picture_step = thumbnail(pixels, PROGRESS_SIDE), progress.iterate.step

    def render(self, result: Path, status: str) -> str:
        """Return the page. The picture is in the file `result`, and `status` tells how the run ended. Waits for the device."""
        self._end_scale(wait=True)
        self.run.history.read(wait=True)
        style = importlib.resources.files(__package__).joinpath("report.css").read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        recipe = self.run.recipe
        title = _title(recipe)
        sections = [
            ("Result", _result(result, [scale.picture for scale in self.scales if scale.picture is not None])),
            ("Soft proof", _proof(result) if "proof_output" in recipe else ""),
            ("Inputs", figures(self.inputs)),
            ("Progress", figures([_figure(scale, scale.picture) for scale in self.scales if scale.picture is not None])),
            ("Losses", _losses(self)),
            ("Time and memory", _times(self)),
            ("Settings", _settings(recipe)),
            ("Software and files", _software(recipe) + _files([*self.files, _described("result", result)])),
        ]
        body = "".join(f"<section><h2>{text(head)}</h2>{inside}</section>" for head, inside in sections if inside)
        when = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
            f"<title>{text(title)}</title><style>{style}</style></head>\n"
            f"<body><header><h1>{text(title)}</h1><p>{text(status)} · {text(when)}</p></header>\n"
            f"<main>{body}</main></body></html>\n"
        )


def _described(role: str, path: Path) -> tuple[str, str, str]:
    """Return the role, the name and the SHA-256 of a file."""
    try:
        return role, path.name, file_digest(path)
    except OSError:
        return role, path.name, "cannot be read"


def _title(recipe: Mapping[str, Any]) -> str:
    names = " and ".join(each["name"] for each in recipe["styles"][:3])
    more = len(recipe["styles"]) - 3
    return f"{recipe['content']['name']} in the style of {names}" + (f" and {more} more" if more > 0 else "")


def _result(result: Path, saved: Sequence[Bytes]) -> str:
    """Return the result; `saved` are small pictures, of which the last one is shown if the format of the result is not read."""
    if saved and not format_of(result).readable:
        return encode_figure(saved[-1], f"The result, {result.name}", f"{result.name}, at a small size")
    try:
        pixels = load_pixels(result)
    except ImageError as error:
        return f"<p>{text(f'The picture cannot be shown: {error}')}</p>"
    caption = f"{result.name}, {size_text(pixels.shape[1], pixels.shape[0])} pixels"
    return f'<div class="result">{make_figure(pixels, RESULT_SIDE, f"The result, {result.name}", caption)}</div>'


def _proof(result: Path) -> str:
    """Return the soft proof and the gamut map beside the result, with the numbers of OUTPUT.json; empty if they do not exist."""
    try:
        gamut = json.loads(result.with_name(result.name + ".json").read_text("utf-8"))["gamut"]
        pictures = [load_pixels(result.with_name(f"{result.name}.{kind}.png")) for kind in ("proof", "gamut")]
    except (OSError, ValueError, KeyError, ImageError):
        return ""
    captions = "As the print will look", f"Yellow to red: colours that {gamut['profile']} does not have"
    items = [make_figure(each, INPUT_SIDE, caption, caption) for each, caption in zip(pictures, captions, strict=True)]
    numbers = {
        f"Pixels out of gamut (CIEDE2000 above {gamut['threshold']:g})": f"{gamut['out_of_gamut']:.1%}",
        "Largest difference (CIEDE2000)": f"{gamut['largest_difference']:.1f}",
        "Mean difference": f"{gamut['mean_difference']:.1f}",
    } | ({} if gamut["largest_ink"] is None else {"Most ink": f"{gamut['largest_ink']:.0f}%"})
    return figures(items) + table(["Item", "Value"], [[text(name), text(value)] for name, value in numbers.items()], "Soft proof")


def _figure(scale: ScaleRecord, picture: Bytes) -> str:
    size = size_text(scale.width, scale.height)
    return encode_figure(picture, f"The picture at {size} pixels", f"{size}, iteration {scale.picture_step}")


def _losses(record: RunRecord) -> str:
    history = record.run.history
    terms = ("loss", *history.names)
    if not history.rows:
        reason = "All iterations were done before the checkpoint" if record.resumed else "No iteration was completed"
        return f"<p>{reason}; there are no curves.</p>"
    note = ""
    if record.resumed:
        note = f"<p>The run was resumed from a checkpoint after iteration {record.resumed:,}; the curves start there.</p>"
    ends, done = [], 0
    for scale in record.scales:
        done += scale.done or (scale.steps if done + scale.steps <= record.resumed else 0)
        ends.append((done, str(max(scale.width, scale.height))))
    scales = [scale for scale in record.scales if scale.losses is not None]
    heads = ["Term", *(size_text(scale.width, scale.height) for scale in scales)]
    rows = []
    for number, term in enumerate(terms):
        mark = (
            f'<svg class="mark" viewBox="0 0 26 10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5" '
            f'class="c{number % 8}" stroke-dasharray="{DASHES[number % 8]}"/></svg>'
        )
        values = [number_text((scale.losses or {}).get(term)) for scale in scales]
        rows.append([mark + text("sum" if term == "loss" else term), *map(text, values)])
    values_table = table(heads, rows, "Weighted loss terms in the last iteration of each scale", numbers=True)
    return note + chart(history.rows, terms, ends, record.resumed) + values_table


def _times(record: RunRecord) -> str:
    rows = []
    for scale in record.scales:
        if not scale.done:
            continue
        rows.append([
            text(size_text(scale.width, scale.height)),
            text(f"{scale.done:,}" if scale.done == scale.steps else f"{scale.done:,} of {scale.steps:,}"),
            text(clock(scale.seconds)),
            text(f"{scale.seconds / scale.done:.3g} s"),
            text(" + ".join(map(str, scale.tiles))),
            text(show_bytes(scale.memory)),
        ])  # fmt: skip
    if not rows:
        return ""
    total = f"Total: {clock(record.seconds)}" + (", including the time before the checkpoint" if record.resumed else "")
    heads = ["Scale", "Iterations", "Time", "Per iteration", "Tiles", "Peak memory so far"]
    return f"<p>{text(total)}</p>" + table(heads, rows, "Scales", numbers=True)


LEADING = ("network", "style_loss", "optimizer")
"""The settings from which defaults of others follow."""


def _defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default of each setting, which may depend on the network and the style loss."""
    plain = Settings().resolve()
    following = Settings(**{name: settings[name] for name in LEADING}).resolve()
    return following.as_dict() | {name: getattr(plain, name) for name in LEADING}


def _value(name: str, value: Any) -> str:
    """Return the value of a setting as text, of a path only the name."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(_value(name, each) for each in value)
    if isinstance(value, float):
        return f"{value:g}"
    return Path(value).name if name in ("weights", "init") else str(value)


def _settings(recipe: Mapping[str, Any]) -> str:
    settings = recipe["settings"]
    defaults = _defaults(settings)
    everything = {name: [text(flag_name(name)), text(_value(name, value))] for name, value in settings.items()}
    changed = [[*row, text(_value(name, defaults[name]))] for name, row in everything.items() if settings[name] != defaults[name]]
    html = "<p>All settings have their default values.</p>"
    if changed:
        html = table(["Option", "Value", "Default"], changed, "Settings that differ from the defaults")
    full = table(["Option", "Value"], everything.values(), "All settings")
    return f"<pre>{text(command(recipe))}</pre>{html}<details><summary>All settings</summary>{full}</details>"


def command(recipe: Mapping[str, Any]) -> str:
    """Return a command that makes the picture again; files have their names, without their folders."""
    settings = recipe["settings"]
    defaults = _defaults(settings)
    words = ["style_transfer", recipe["content"]["name"], *(each["name"] for each in recipe["styles"])]
    for name in options_of(Settings):
        value = settings[name]
        if value == defaults[name] or value is None:
            continue
        words += option_words(name, _value(name, value) if isinstance(value, str) else value)
    for name in ("content_masks", "style_masks"):
        if name in recipe:
            words += [flag_name(name[:-1]), *(each["name"] for each in recipe[name])]
    for name, value in recipe.get("print", {}).items():
        words += option_words(name, value)
    for name in ("proof", "output_space", "output_profile", "proof_output"):
        if name in recipe:
            words += [flag_name(name), recipe[name] if isinstance(recipe[name], str) else recipe[name]["name"]]
    return shlex.join(words)


def _software(recipe: Mapping[str, Any]) -> str:
    facts = {
        "program": recipe["program"],
        "network": recipe["network"]["name"],
        "weights": recipe["network"]["weights"],
        "devices": ", ".join(recipe["devices"]),
        "precision": recipe["precision"],
        "threads": recipe["threads"],
        **recipe["versions"],
    }
    return table(["Item", "Value"], [[text(name), text(str(value))] for name, value in facts.items()], "Software and hardware")


def _files(files: Iterable[tuple[str, str, str]]) -> str:
    rows = [[text(role), text(name), f"<code>{text(digest)}</code>"] for role, name, digest in files]
    return table(["Role", "File", "SHA-256"], rows, "Files")
