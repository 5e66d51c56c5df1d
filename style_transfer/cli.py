"""The command line: a parser made from the settings, wiring, messages and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .config import INITS, Option, Settings, check_not_empty, flag_name, option, options_of, validate_fields
from .errors import (
    DeviceError,
    DistributedError,
    ImageError,
    MemoryLimitError,
    OutputError,
    SettingsError,
    StyleTransferError,
    WeightsError,
    near_miss,
)

if TYPE_CHECKING:
    import torch

    from .color import Pixels
    from .engine import Iterate
    from .images import Picture
    from .networks import Weights
    from .networks.graph import Network
    from .observers.console import Observer
    from .observers.web import WebObserver
    from .schedule import Size, Stage

EXIT_CODES: dict[type[BaseException], int] = {
    SettingsError: 2,
    ImageError: 3,
    WeightsError: 4,
    MemoryLimitError: 5,
    OutputError: 6,
    DeviceError: 8,
    DistributedError: 9,
    KeyboardInterrupt: 130,
}
"""The exit code of each class of error. 0 is success, 1 a bug."""

LIBRARIES = ("torch", "numpy", "pillow", "tifffile", "imagecodecs")
"""The libraries whose versions can change a picture; they go into its metadata."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line decides beside `Settings`: files, the terminal, the live page."""

    output: str = option("out.png", "the result; .tif .tiff .png have 16 bits per channel, .jpg .jpeg .webp 8", short="-o",
        metavar="FILE")  # fmt: skip
    dpi: float = option(72.0, "resolution written into the result, in dots per inch", kind=float, minimum=0.1, maximum=65535.0)
    save_every: int = option(50, "write the picture every so many iterations (0: only at the end of each scale)", kind=int,
        minimum=0)  # fmt: skip
    proof: str | None = option(None, "CMYK ICC profile to soft-proof the input pictures with", metavar="PROFILE")
    max_pixels: int = option(500_000_000, "largest input picture that is read, in pixels", kind=int, minimum=1)
    dry_run: bool = option(False, "print scales, sizes, tiles, memory, disk and estimated time, and do nothing", flag=True)
    web: bool = option(False, "show the picture on a live page while it is painted", flag=True)
    host: str = option("127.0.0.1", "address of the live page; only this machine can see it unless this is changed",
        metavar="ADDRESS", check=check_not_empty)  # fmt: skip
    port: int = option(8080, "port of the live page", kind=int, minimum=0, maximum=65535)
    browser: str | None = option(None, "open the live page in a browser, the usual one or the one named", optional_word=True,
        metavar="NAME")  # fmt: skip
    quiet: bool = option(False, "print nothing but errors and the result's path", flag=True)
    json: bool = option(False, "print one JSON line per iteration with each loss term", flag=True)

    def __post_init__(self) -> None:
        validate_fields(self)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise `SettingsError` with the parser's message and, for an unknown flag, the nearest known one."""
        if message.startswith("unrecognized arguments: "):
            message += near_miss(message.split()[2], self._option_string_actions)
        raise SettingsError(f"{message}; see style_transfer --help")


def describe_default(default: Any) -> str:
    """Return a default value as it stands in the help."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def make_parser() -> Parser:
    """Return the parser, made from `Settings` and `Options`."""
    parser = Parser(
        prog="style_transfer",
        description="Paint a photograph in the manner of one or more pictures, coarse to fine.",
    )
    parser.add_argument("content", help="the content picture")
    parser.add_argument("styles", nargs="+", metavar="style", help="the style pictures")
    parser.add_argument("--version", action="version", version=f"style_transfer {__version__}")
    for title, cls in (("files, terminal, live page", Options), ("the picture", Settings)):
        group = parser.add_argument_group(title)
        for name, (default, about) in options_of(cls).items():
            _add(group, name, default, about)
    return parser


def _add(group: argparse._ArgumentGroup, name: str, default: Any, about: Option) -> None:
    flags = [about.short] if about.short else []
    text = about.help if about.flag else f"{about.help} (default: {describe_default(default)})"
    extra: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if about.flag:
        group.add_argument(*flags, flag_name(name), action="store_true", **extra)
        return
    if about.many:
        extra["nargs"] = "+"
    elif about.optional_word:
        extra |= {"nargs": "?", "const": ""}
    if about.words:
        extra["choices"] = about.words
    else:
        extra["metavar"] = about.metavar or {int: "N", float: "X"}.get(about.kind, name.upper())  # type: ignore[call-overload]
    group.add_argument(*flags, flag_name(name), type=about.kind, **extra)


def options_table() -> str:
    """Return all options as a Markdown table; the README holds it."""
    rows = ["| option | default | what it does |", "|---|---|---|"]
    for cls in (Options, Settings):
        for name, (default, about) in options_of(cls).items():
            flags = " ".join(f"`{f}`" for f in (about.short, flag_name(name)) if f)
            words = f": {', '.join(about.words)}" if about.words and not all(w in about.help for w in about.words) else ""
            rows.append(f"| {flags} | {describe_default(default)} | {about.help}{words} |")
    return "\n".join(rows)


def parse(argv: Sequence[str]) -> tuple[str, list[str], Settings, Options]:
    """Return the content's path, the styles' paths, the settings and the options. Raises `SettingsError`."""
    given = vars(make_parser().parse_args(argv))
    content, styles = given.pop("content"), given.pop("styles")
    own = {name: given.pop(name) for name in options_of(Options) if name in given}
    settings = Settings.from_dict({k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    settings.blend(len(styles))
    return content, styles, settings, Options(**own)


def one_line(text: str) -> str:
    """Return a message without control characters, so that a file's name cannot write to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the iteration; the same signal again stops at once."""

    def __init__(self) -> None:
        self.signals: set[int] = set()

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return bool(self.signals)

    @property
    def exit_code(self) -> int:
        """The exit code of a run that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + min(self.signals, default=signal.SIGINT)

    def _handle(self, number: int, frame: object) -> None:
        if number in self.signals:
            raise KeyboardInterrupt
        self.signals.add(number)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals within the block, if this is the main thread."""
        before = {}
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclasses.dataclass(frozen=True)
class Job:
    """What was read and checked, and is worked on: pictures (1, 3, H, W), the network's weights, the scales."""

    content: torch.Tensor
    styles: list[torch.Tensor]
    init: torch.Tensor | None
    weights: Weights
    stages: Sequence[Stage]


class Run:
    """One command: everything that can be wrong is looked at first, then the picture is painted and written."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.content_path, self.style_paths, self.settings, self.options = parse(argv)
        self.output = Path(self.options.output)
        self.saved: Size | None = None
        self.latest: Pixels | None = None
        self.finish: Callable[[Pixels], Pixels]

    def __call__(self) -> int:
        """Do the work and return the exit code. Under torchrun, rank 0 reads and writes, and all paint."""
        from . import distributed

        with distributed.joined(self.settings.devices, EXIT_CODES[DistributedError]) as self.group:
            job: Job | StyleTransferError
            if self.group.rank:
                job = self.group.broadcast(None)
            else:
                try:
                    job = self._prepare()
                except StyleTransferError as error:
                    job = error
                self.group.broadcast(job)
            if isinstance(job, StyleTransferError):
                raise job
            return self._work(job)

    def _prepare(self) -> Job:
        """Check and read everything that the work needs."""
        from . import networks
        from .api import from_pixels, to_tensor
        from .color import Coloring

        self._check_output()
        content, styles, init = self._load_pictures()
        stages = self._check_sizes(content, styles)
        weights = networks.fetch(self.settings, progress=not self.options.quiet, say=self._note)
        coloring = Coloring(self.settings, content.pixels, [style.pixels for style in styles], content.alpha)
        self.finish = coloring.finish
        return Job(
            from_pixels(coloring.content),
            [from_pixels(style) for style in coloring.styles],
            None if init is None else to_tensor(init),
            weights,
            stages,
        )

    def _note(self, remark: str) -> None:
        from .observers.console import Quiet

        Quiet().say(one_line(f"style_transfer: note: {remark}"))

    def _work(self, job: Job) -> int:
        from . import devices, networks
        from .engine import stylize

        if self.group.size > 1:
            chosen: Sequence[torch.device] = [self.group.device]
        else:
            chosen, remarks = devices.resolve(self.settings.devices)
            for remark in remarks:
                self._note(remark)
        loaded = networks.place(job.weights, self.settings, chosen)
        if self.settings.precision == "auto" and loaded[0].precision != "fp32" and not self.group.rank:
            self._note(f"the network works in {loaded[0].precision} on {chosen[0]}; --precision chooses")
        if self.options.dry_run:
            return 0 if self.group.rank else self._dry_run(loaded, job.stages)
        self.recipe = self._recipe(loaded, job.stages)
        settings = self.settings if job.init is None else dataclasses.replace(self.settings, init="content")
        iterates = stylize(job.content, job.styles, settings, networks=loaded, init=job.init, group=self.group)
        return self._paint(iterates, sum(stage.work for stage in job.stages))

    def _dry_run(self, loaded: Sequence[Network], stages: Sequence[Stage]) -> int:
        """Print what each scale is expected to take."""
        from . import memory
        from .engine import plan_for
        from .observers.console import clock

        rows, total = [], 0.0
        for stage in stages:
            plan = plan_for(loaded, stage.size, self.settings, self.group.size)
            found = memory.estimate(loaded, stage.size, self.settings, plan.limits, host=plan.host)
            total += found.seconds * stage.steps
            (height, width), tiles = stage.size, " + ".join(map(str, found.tiles))
            time = f"{clock(found.seconds * stage.steps)} ({found.seconds:.3g} s each)"
            used = memory.show_bytes(found.bytes) + (" and the picture on the host" if plan.host else "")
            rows.append((f"{width}x{height}", str(stage.steps), tiles, used, time))
        height, width = stages[-1].size
        disk = memory.show_bytes(width * height * 2 * (4 if self.settings.alpha == "keep" else 3))
        heads = ("size", "steps", "tiles", "memory", "time")
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        network = loaded[0]
        places = ", ".join(self._devices(loaded))
        print(f"{network.spec.name} on {places}; about {clock(total)} in all; {self.output} takes at most {disk} of disk")
        return 0

    def _devices(self, loaded: Sequence[Network]) -> list[str]:
        """Return the names of the devices that work, this process's first, each as often as there are processes."""
        return [str(device) for each in loaded for device in each.devices] * self.group.size

    def _check_output(self) -> None:
        from . import images

        images.check_output(self.output)
        images.check_text_output(self._sidecar)
        inputs = [self.content_path, *self.style_paths]
        inputs += [path for path in (self.settings.weights, self.options.proof) if path]
        inputs += [self.settings.init] if self.settings.init not in INITS else []
        for target in (self.output, self._sidecar):
            for path in inputs:
                if same_file(target, Path(path)):
                    raise SettingsError(f"--output {target} is also an input; choose another name")

    @property
    def _sidecar(self) -> Path:
        return self.output.with_name(self.output.name + ".json")

    def _load_pictures(self) -> tuple[Picture, list[Picture], Picture | None]:
        from . import images

        def load(path: str, *, alpha: bool = False) -> Picture:
            picture = images.load(path, proof=self.options.proof, max_pixels=self.options.max_pixels, alpha=alpha)
            if not self.options.quiet:
                for note in picture.notes:
                    self._note(f"{path}: {note}")
            return picture

        init = self.settings.init
        if init not in INITS and not Path(init).exists():
            raise SettingsError(
                f"--init {init!r} is neither one of {', '.join(INITS)} nor a picture file{near_miss(init, INITS)}"
            )
        content = load(self.content_path, alpha=self.settings.alpha == "keep")
        styles = [load(path) for path in self.style_paths]
        return content, styles, None if init in INITS else load(init)

    def _check_sizes(self, content: Picture, styles: Sequence[Picture]) -> Sequence[Stage]:
        from . import images
        from .networks import layout
        from .schedule import plan

        spec = layout(self.settings)
        spec.check_layers(self.settings)
        spec.check_split(self.settings)
        (height, width), *style_sizes = ((p.pixels.shape[0], p.pixels.shape[1]) for p in (content, *styles))
        stages = plan((height, width), style_sizes, self.settings)
        spec.check_stages(stages, self.settings)
        images.check_output(self.output, stages[-1].size, alpha=content.alpha is not None)
        return stages

    def _recipe(self, loaded: Sequence[Network], stages: Sequence[Stage]) -> dict[str, Any]:
        """Return what is needed to make the picture again."""
        import torch

        from .networks.weights import digest

        def described(path: str) -> dict[str, str]:
            return {"name": Path(path).name, "sha256": digest(Path(path))}

        network = loaded[0]
        recipe: dict[str, Any] = {
            "program": f"style_transfer {__version__}",
            "command": shlex.join(["style_transfer", *self.argv]),
            "settings": self.settings.as_dict(),
            "dpi": self.options.dpi,
            "content": described(self.content_path),
            "styles": [described(path) for path in self.style_paths],
            "network": {"name": network.spec.name, "weights": network.source, "note": network.note},
            "precision": network.precision,
            "devices": self._devices(loaded),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
            "scales": [{"width": s.size[1], "height": s.size[0], "steps": s.steps} for s in stages],
        }
        for name, path in (("init", self.settings.init), ("proof", self.options.proof)):
            if path and path not in INITS:
                recipe[name] = described(path)
        return recipe

    def _observer(self, total: int) -> Observer:
        from .observers.console import Bar, JSONLines, Quiet

        if self.group.rank:
            return Quiet()
        if self.options.json:
            return JSONLines()
        return Quiet() if self.options.quiet else Bar(total)

    def _live_page(self, observer: Observer) -> WebObserver | None:
        if not self.options.web or self.group.rank:
            return None
        from . import images
        from .observers.web import WebObserver

        page = WebObserver(
            host=self.options.host, port=self.options.port, browser=self.options.browser,
            encode=lambda pixels: images.encode_jpeg(self.finish(pixels)),
        )  # fmt: skip
        observer.say(f"watch it at {page.start()}")
        return page

    def _paint(self, iterates: Iterator[Iterate], total: int) -> int:
        from .observers.console import JSONLines, TimeLeft

        interrupt = Interrupt()
        observer = self._observer(total)
        page = None
        iterate: Iterate | None = None
        try:
            page = self._live_page(observer)
            with interrupt.watching():
                clock: TimeLeft | None = None
                for iterate in iterates:
                    clock = clock or TimeLeft(iterate.stages)
                    left = clock.update(iterate.index, iterate.step, iterate.seconds)
                    if iterate.step == 1 and sum(iterate.tiles) > 1 and not self.options.quiet and not self.group.rank:
                        height, width = iterate.size
                        share = f" by each of {self.group.size} processes" if self.group.size > 1 else ""
                        tiles = " + ".join(map(str, iterate.tiles))
                        observer.say(f"{width}x{height} is worked on in {tiles} tiles{share}")
                    observer.update(iterate, left)
                    if page is not None:
                        page.update(page_state(iterate, left), functools.partial(self._page_pixels, iterate))
                    self.group.stop = interrupt.asked
                    if self.group.stopped or (interrupt.asked and self.group.size == 1):
                        break
                    every = self.options.save_every
                    if not iterate.ends_run and (iterate.ends_scale or (every and iterate.step % every == 0)):
                        self._write_if_possible(iterate, observer)
                if iterate is not None:
                    stopped = not iterate.ends_run
                    self._write(iterate, finished=not stopped)
                    if page is not None:
                        last = page_state(iterate, 0) | {"done": True, "stopped": stopped}
                        page.update(last, functools.partial(self._page_pixels, iterate))
        finally:
            observer.close()
            if page is not None:
                page.close()
        if iterate is None:
            raise KeyboardInterrupt
        if self.group.rank:
            return 0 if iterate.ends_run else interrupt.exit_code
        if isinstance(observer, JSONLines):
            height, width = iterate.size
            observer.emit({"event": "done", "output": str(self.output), "width": width, "height": height,
                           "interrupted": not iterate.ends_run})  # fmt: skip
        else:
            print_path(self.output)
        if not iterate.ends_run:
            height, width = iterate.size
            observer.say(
                f"style_transfer: stopped at {width}x{height}, iteration {iterate.step} of {iterate.steps}; "
                f"the picture so far is in {one_line(str(self.output))}"
            )
            return interrupt.exit_code
        return 0

    def _page_pixels(self, iterate: Iterate) -> Pixels:
        """Return what the live page shows: the picture so far, or, in a group, whose parts lie apart, the one saved last.

        Its colours are finished where it is encoded, on the page's side, so that the run does not wait.
        """
        if self.group.size == 1:
            return pixels_of(iterate)
        if self.latest is None:
            import numpy as np

            return np.zeros((*iterate.size, 3), np.float32)
        return self.latest

    def _write_if_possible(self, iterate: Iterate, observer: Observer) -> None:
        """Write the picture so far; a failure, such as a full disk, is told and does not end the run."""
        try:
            self._write(iterate, finished=False)
        except OutputError as error:
            observer.say(one_line(f"style_transfer: note: {error}; the run goes on without saving this iteration"))

    def _write(self, iterate: Iterate, *, finished: bool) -> None:
        """Write the picture and OUTPUT.json beside it. In a group all call it, and rank 0 writes."""
        from . import images

        pixels = pixels_of(iterate)
        if self.group.rank:
            return
        self.latest = pixels if self.group.size > 1 and self.options.web else None
        pixels = self.finish(pixels)
        height, width = iterate.size
        recipe = self.recipe | {"width": width, "height": height, "step": iterate.step, "steps": iterate.steps}
        inside = {name: value for name, value in recipe.items() if name != "command"}
        names = {name: Path(path).name for name in ("weights", "init") if (path := recipe["settings"][name])}
        inside["settings"] = recipe["settings"] | names  # file names, not where they lie on this machine
        images.save(
            self.output, pixels, dpi=self.options.dpi,
            metadata={"Software": self.recipe["program"], "Recipe": json.dumps(inside)},
        )  # fmt: skip
        report = recipe | {
            "finished": finished,
            "loss": float(iterate.loss),
            "parts": {name: float(part) for name, part in iterate.parts.items()},
            "seconds": round(iterate.seconds, 2),
            "memory_bytes": iterate.memory,
        }
        images.write_text(self._sidecar, json.dumps(report, indent=2) + "\n")
        self.saved = iterate.size


def same_file(a: Path, b: Path) -> bool:
    """Say whether two paths lead to one file, by name or by a link."""
    try:
        return a.resolve() == b.resolve() or a.samefile(b)
    except (OSError, ValueError):
        return False


def pixels_of(iterate: Iterate) -> Pixels:
    """Return the averaged picture as float32 pixels (H, W, 3)."""
    from .api import to_pixels

    return to_pixels(iterate.image())


def page_state(iterate: Iterate, left: float) -> dict[str, object]:
    """Return what the live page shows of an iteration, without waiting for the device."""
    height, width = iterate.size
    return {
        "scale": iterate.scale,
        "width": width,
        "height": height,
        "step": iterate.step,
        "steps": iterate.steps,
        "done": False,
        "fraction": iterate.done / sum(stage.work for stage in iterate.stages),
        "seconds": iterate.seconds,
        "seconds_left": left,
    }


def print_path(path: Path) -> None:
    """Print the output's path on standard output; a reader that has gone is no error."""
    try:
        print(path, flush=True)
    except UnicodeEncodeError:
        print(str(path).encode("ascii", "backslashreplace").decode(), flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    run: Run | None = None
    try:
        run = Run(sys.argv[1:] if argv is None else argv)
        return run()
    except (StyleTransferError, KeyboardInterrupt) as error:
        text = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
        if run is not None and run.saved is not None:
            height, width = run.saved
            text += f"; {run.output} has the picture at {width}x{height}"
        elif isinstance(error, KeyboardInterrupt):
            text += "; nothing was written"
        if os.environ.get("RANK", "0") == "0" or isinstance(error, DistributedError):
            with contextlib.suppress(OSError, ValueError):
                print(f"style_transfer: {one_line(text)}", file=sys.stderr, flush=True)
        return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
