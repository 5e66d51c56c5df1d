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
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .catalog import describe_networks
from .config import INITS, Option, Settings, check_not_empty, flag_name, option, options_of, validate_fields
from .errors import (
    CheckpointError,
    DeviceError,
    DistributedError,
    ImageError,
    MemoryLimitError,
    NumericError,
    OutputError,
    SettingsError,
    StyleTransferError,
    WeightsError,
    near_miss,
)
from .presets import describe_presets

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .checkpoint import Found, Keeper, State
    from .engine import Iterate
    from .images import Picture
    from .masks import Region
    from .networks import Weights
    from .networks.graph import Network
    from .observers.console import Observer
    from .observers.web import WebObserver
    from .schedule import Size, Stage

EXIT_CODES: dict[type[BaseException], int] = {
    SettingsError: 2,
    CheckpointError: 2,
    ImageError: 3,
    WeightsError: 4,
    MemoryLimitError: 5,
    OutputError: 6,
    NumericError: 7,
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
    checkpoint: str | None = option(None, "file that a run which was cut short can go on from, or off; removed when the run is "
        "complete (OUTPUT.checkpoint if left out)", metavar="FILE", check=check_not_empty)  # fmt: skip
    checkpoint_every: float = option(60.0, "seconds between checkpoints, more where that would cost over 2 % of the time (0: "
        "only at the end of each scale)", kind=float, minimum=0.0, maximum=1e9, metavar="SECONDS")  # fmt: skip
    resume: bool = option(False, "go on from the checkpoint; pictures and options must be those it was made with", flag=True)
    keep_checkpoint: bool = option(False, "keep the checkpoint when the run is complete", flag=True)
    proof: str | None = option(None, "CMYK ICC profile to soft-proof the input pictures with", metavar="PROFILE")
    content_mask: tuple[str, ...] | None = option(None, "masks of the content: where each style goes, or each part of it, "
        "white for all and gray for some; or a single one in flat colours", many=True, metavar="FILE",
        check=check_not_empty)  # fmt: skip
    style_mask: tuple[str, ...] | None = option(None, "masks of the styles, one for each content mask, or in the same colours: "
        "which part of a style goes there (all of it if left out)", many=True, metavar="FILE", check=check_not_empty)  # fmt: skip
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


class Doctor(argparse.Action):
    """Prints what `doctor.examine` finds and exits with the code of the first thing that is wrong."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Do it at once: no other argument is needed."""
        from . import doctor

        code = 0
        for found in doctor.examine():
            mark = "wrong" if found.error else "note " if found.advice else "ok   "
            print(
                one_line(f"{mark}  {found.topic}: {found.text}") + one_line(f"; {found.advice}" if found.advice else ""),
                flush=True,
            )
            code = code or (0 if found.error is None else EXIT_CODES.get(found.error, 1))
        parser.exit(code)


class Tell(argparse.Action):
    """Prints a text and exits, as `--help` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, text: Callable[[], str], help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.text = text

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        """Print the text and exit."""
        print(self.text())
        parser.exit()


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
    parser.add_argument(
        "--doctor", action=Doctor, help="look at libraries, devices, weights and codecs, say what is wrong, and exit"
    )
    parser.add_argument("--version", action="version", version=f"style_transfer {__version__}")
    parser.add_argument("--help-networks", action=Tell, text=describe_networks, help="tell of the networks and their weights")
    parser.add_argument("--help-presets", action=Tell, text=describe_presets, help="tell of the presets and their settings")
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

    def kind(word: str) -> Any:
        return word if word == about.or_word else about.kind(word)

    kind.__name__ = about.kind.__name__  # argparse names it in its message
    group.add_argument(*flags, flag_name(name), type=kind, **extra)


def options_table() -> str:
    """Return all options as a Markdown table; the README holds it."""
    rows = ["| option | default | what it does |", "|---|---|---|"]
    for cls in (Options, Settings):
        for name, (default, about) in options_of(cls).items():
            flags = " ".join(f"`{f}`" for f in (about.short, flag_name(name)) if f)
            words = f": {', '.join(about.words)}" if about.words and not all(w in about.help for w in about.words) else ""
            rows.append(f"| {flags} | {describe_default(default)} | {about.help.replace('|', '&#124;')}{words} |")
    return "\n".join(rows)


def parse(argv: Sequence[str]) -> tuple[str, list[str], Settings, Options]:
    """Return the content's path, the styles' paths, the settings and the options. Raises `SettingsError`."""
    given = vars(make_parser().parse_args(argv))
    content, styles = given.pop("content"), given.pop("styles")
    own = {name: given.pop(name) for name in options_of(Options) if name in given}
    settings = Settings.from_dict({k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    settings.blend(len(settings.expanded(len(styles))))
    return content, styles, settings, Options(**own)


def one_line(text: str) -> str:
    """Return a message without control characters, so that a file's name cannot write to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Interrupt:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a wish to stop after the iteration; a second one stops at once.

    Terminals, shells and launchers may send one signal several times: what follows within `echo` seconds is the same one, and
    SIGHUP never is a second. Signals that were ignored from the start, as by nohup, stay so.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
    PATIENCE = 1.0

    def __init__(self, echo: float = 0.15) -> None:
        self.echo = echo
        self.first: int | None = None
        self._when = 0.0
        self._left = threading.Event()

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self.first is not None

    @property
    def exit_code(self) -> int:
        """The exit code of a run that a signal ended: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.first or signal.SIGINT)

    def _again(self, number: int) -> bool:
        """Take note of a signal; say whether it is a second one."""
        now = time.monotonic()
        if self.first is None:
            self.first, self._when = number, now
        return now - self._when > self.echo and number != getattr(signal, "SIGHUP", None)

    def _handle(self, number: int, frame: object) -> None:
        if self._again(number):
            raise KeyboardInterrupt

    def _backstop(self, signals: socket.socket) -> None:
        """End the process if the main thread, deep in some computation, does not take notice of a second signal."""
        while data := signals.recv(16):
            for number in data:
                if self._again(number) and not self._left.wait(self.PATIENCE):
                    with contextlib.suppress(OSError):
                        os.write(2, b"\nstyle_transfer: stopped at once\n")
                    os._exit(self.exit_code)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals within the block, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._backstop, args=(reader,), name="signals", daemon=True)
        watcher.start()
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            self._left.set()
            writer.close()
            watcher.join()
            reader.close()


@dataclasses.dataclass(frozen=True)
class Job:
    """What was read and checked, and is worked on: pictures (1, 3, H, W), the network's weights, the scales."""

    content: torch.Tensor
    styles: list[torch.Tensor]
    init: torch.Tensor | None
    weights: Weights
    stages: Sequence[Stage]
    regions: Sequence[Region] = ()


class Run:
    """One command: everything that can be wrong is looked at first, then the picture is painted and written."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.content_path, self.style_paths, self.settings, self.options = parse(argv)
        self.output = Path(self.options.output)
        self.saved: Size | None = None
        self.found: Found | None = None
        self.interrupt = Interrupt(1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.15)
        self.latest: np.ndarray[Any, np.dtype[np.float32]] | None = None

    def __call__(self) -> int:
        """Do the work and return the exit code. Under torchrun, rank 0 reads and writes, and all paint."""
        from . import distributed

        joined = distributed.joined(self.settings.devices, EXIT_CODES[DistributedError])
        with contextlib.ExitStack() as self.held, joined as self.group:
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
        from .api import to_tensor

        self._check_output()
        if not self.options.dry_run:
            self._hold_output()
        content, styles, init = self._load_pictures()
        regions = self._load_regions(content, styles)
        stages = self._check_sizes(content, styles)
        weights = networks.fetch(self.settings, progress=not self.options.quiet, say=self._note)
        return Job(
            to_tensor(content),
            [to_tensor(style) for style in styles],
            None if init is None else to_tensor(init),
            weights,
            stages,
            regions,
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
        state = None if self.found is None else self.found.state
        keeper = self._keeper()
        try:
            iterates = stylize(
                job.content, job.styles, settings, networks=loaded, init=job.init, group=self.group,
                regions=job.regions, resume=state, fallback=None if keeper is None else keeper.last,
            )  # fmt: skip
        except CheckpointError as error:
            way_out = "take the pictures and options it was made with, or leave out --resume"
            raise CheckpointError(f"--resume {self._checkpoint}: {error}; {way_out}") from error
        if not self.group.rank:
            self._take_over(chosen)
        last = job.stages[-1].steps
        complete = state is not None and (state.index, state.step) == (len(job.stages) - 1, last)
        if self.group.broadcast(None if self.group.rank else complete):
            return 0 if state is None else self._write_kept(state, job, keeper)
        began = 0.0 if state is None else state.seconds
        self.found = state = None  # its tensors would stay in memory
        return self._paint(iterates, job, keeper, began)

    def _keeper(self) -> Keeper | None:
        """Return who keeps the checkpoints."""
        from .checkpoint import Keeper

        number = 0 if self.found is None else self.found.number
        return None if self._checkpoint is None else Keeper(self._checkpoint, self.options.checkpoint_every, number=number)

    def _take_over(self, devices: Sequence[torch.device]) -> None:
        """Make the place of the checkpoints this run's: what was found is the newest, what is of another run is set aside."""
        from . import checkpoint

        if self._checkpoint is None:
            return
        if self.found is None:
            kept = checkpoint.set_aside(self._checkpoint)
            if kept is not None and not self.options.quiet:
                self._note(f"an unfinished run was there; its checkpoint is now {kept}, and --checkpoint {kept} --resume goes on")
            return
        checkpoint.settle(self.found, self._checkpoint)
        state = self.found.state
        height, width = state.size
        if self.options.quiet:
            return
        self._note(f"going on from {self._checkpoint}: {width}x{height}, iteration {state.step}")
        made = state.made | {"device": devices[0].type, "torch": metadata.version("torch"), "processes": self.group.size}
        changed = [f"{name} {state.made[name]}" for name in made if str(made[name]) not in str(state.made[name])]
        if changed:
            self._note(f"the checkpoint was made with {', '.join(changed)}; the result can differ in the last digits")

    def _write_kept(self, state: State, job: Job, keeper: Keeper | None) -> int:
        """Write the picture of a run whose last iteration is done already."""
        self._save_state(state, job, finished=True)
        if keeper is not None and not self.options.keep_checkpoint:
            keeper.remove()
        print_path(self.output)
        return 0

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
        disk = memory.show_bytes(width * height * 3 * 2)
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
        from . import files, images

        images.check_output(self.output)
        files.check_target(self._sidecar)
        inputs = [self.content_path, *self.style_paths]
        inputs += [path for path in (self.settings.weights, self.options.proof) if path]
        inputs += [*(self.options.content_mask or ()), *(self.options.style_mask or ())]
        inputs += [self.settings.init] if self.settings.init not in INITS else []
        for target in (self.output, self._sidecar):
            for path in inputs:
                if same_file(target, Path(path)):
                    raise SettingsError(f"--output {target} is also an input; choose another name")
        if self._checkpoint is not None:
            files.check_target(self._checkpoint)
            for other in (self.output, self._sidecar, *map(Path, inputs)):
                if same_file(self._checkpoint, other):
                    raise SettingsError(f"--checkpoint {self._checkpoint} is also an input or the output; choose another name")
        elif self.options.resume:
            raise SettingsError("--resume needs a checkpoint, and --checkpoint is off")

    def _hold_output(self) -> None:
        """Keep other runs away from the output, remove what runs that died left there, and find what to go on from."""
        from . import checkpoint, files

        self.held.enter_context(files.locked(self.output))
        files.clean(self.output.resolve().parent)
        path = self._checkpoint
        if path is None:
            return
        if self.options.checkpoint is not None:
            self.held.enter_context(files.locked(path))
            files.clean(path.resolve().parent)
        if self.options.resume:
            self.found = checkpoint.newest(path)
            if self.found is None:
                raise CheckpointError(f"--resume: there is no checkpoint {path}; leave out --resume to begin from the start")
            for remark in self.found.remarks:
                self._note(remark)

    @property
    def _checkpoint(self) -> Path | None:
        """Where checkpoints go, or None."""
        given = self.options.checkpoint
        if given == "off":
            return None
        return self.output.with_name(self.output.name + ".checkpoint") if given is None else Path(given)

    @property
    def _sidecar(self) -> Path:
        return self.output.with_name(self.output.name + ".json")

    def _load_pictures(self) -> tuple[Picture, list[Picture], Picture | None]:
        from . import images

        def load(path: str) -> Picture:
            picture = images.load(path, proof=self.options.proof, max_pixels=self.options.max_pixels)
            if not self.options.quiet:
                for note in picture.notes:
                    self._note(f"{path}: {note}")
            return picture

        init = self.settings.init
        if init not in INITS and not Path(init).exists():
            raise SettingsError(
                f"--init {init!r} is neither one of {', '.join(INITS)} nor a picture file{near_miss(init, INITS)}"
            )
        content = load(self.content_path)
        styles = [load(path) for path in self.style_paths]
        return content, styles, None if init in INITS else load(init)

    def _load_regions(self, content: Picture, styles: Sequence[Picture]) -> tuple[Region, ...]:
        """Return the regions that the masks describe."""
        from . import images
        from .masks import check_settings, regions_of

        given = self.options.content_mask or (), self.options.style_mask or ()
        if not any(given):
            return ()
        check_settings(self.settings)
        content_masks, style_masks = (
            [images.load(path, max_pixels=self.options.max_pixels).pixels for path in paths] for paths in given
        )
        sizes = [(p.pixels.shape[0], p.pixels.shape[1]) for p in (content, *styles)]
        return regions_of(content_masks, style_masks, len(styles), sizes)

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
        images.check_output(self.output, stages[-1].size)
        if not self.options.dry_run:
            self._check_disk(stages[-1].size)
        return stages

    def _check_disk(self, size: Size) -> None:
        """Raise `OutputError` unless the disk has room for the result beside the old one, and for the checkpoints."""
        from . import files
        from .memory import kept_bytes

        height, width = size
        needs = {self.output: round(1.2 * height * width * 3 * 2) + 2**20}
        if self._checkpoint is not None:
            needs[self._checkpoint] = round(3.1 * kept_bytes(size, self.settings.optimizer, self.settings.lbfgs_history))
        files.check_space(needs)

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
        for name, masks in (("content_masks", self.options.content_mask), ("style_masks", self.options.style_mask)):
            if masks:
                recipe[name] = [described(path) for path in masks]
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
            host=self.options.host, port=self.options.port, browser=self.options.browser, encode=images.encode_jpeg
        )
        observer.say(f"watch it at {page.start()}")
        return page

    def _paint(self, iterates: Iterator[Iterate], job: Job, keeper: Keeper | None, began: float) -> int:
        from .observers.console import JSONLines, TimeLeft

        interrupt = self.interrupt
        observer = self._observer(sum(stage.work for stage in job.stages))
        page = None
        iterate: Iterate | None = None
        halvings = 0
        try:
            page = self._live_page(observer)
            with interrupt.watching():
                clock: TimeLeft | None = None
                for iterate in iterates:
                    clock = clock or TimeLeft(iterate.stages, began)
                    left = clock.update(iterate.index, iterate.step, iterate.seconds)
                    if iterate.step == 1 and sum(iterate.tiles) > 1 and not self.options.quiet and not self.group.rank:
                        height, width = iterate.size
                        share = f" by each of {self.group.size} processes" if self.group.size > 1 else ""
                        tiles = " + ".join(map(str, iterate.tiles))
                        observer.say(f"{width}x{height} is worked on in {tiles} tiles{share}")
                    observer.update(iterate, left)
                    if page is not None:
                        page.update(page_state(iterate, left), functools.partial(self._page_pixels, iterate))
                    if iterate.halvings > halvings:
                        halvings = iterate.halvings
                        observer.say(
                            "style_transfer: note: loss or picture were not finite; going on from "
                            f"{iterate.w}x{iterate.h}, iteration {iterate.step}, with 1/{2**halvings} of the step size"
                        )
                    due = keeper is not None and not self.group.rank and keeper.due()
                    saving = self.group.saving and self.group.size > 1
                    self.group.wish(stop=interrupt.asked, save=due)
                    if self.group.stopped or iterate.ends_run:
                        break
                    every = self.options.save_every
                    if iterate.ends_scale or (every and iterate.step % every == 0):
                        self._write_if_possible(iterate, observer)
                    if keeper is not None and (iterate.ends_scale or saving or (due and self.group.size == 1)):
                        self._keep(iterate, keeper, observer)
                if iterate is not None:
                    stopped = not iterate.ends_run
                    if stopped and keeper is not None:
                        self._keep(iterate, keeper, observer)
                    self._write_last(iterate, keeper, observer)
                    if page is not None:
                        last = page_state(iterate, 0) | {"done": True, "stopped": stopped}
                        page.update(last, functools.partial(self._page_pixels, iterate))
                if keeper is not None:
                    keeper.close()
                    self._tell(keeper, observer)
        except NumericError:
            if keeper is not None and not self.group.rank:
                state = keeper.last()
                if state is not None:
                    self._save_state(state, job, finished=False)
            raise
        except StyleTransferError:
            if keeper is not None:
                keeper.close()
            raise
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
                + ("; --resume goes on" if keeper is not None and keeper.number else "")
            )
            return interrupt.exit_code
        return 0

    def _page_pixels(self, iterate: Iterate) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return what the live page shows: the picture so far, or, in a group, whose parts lie apart, the one saved last."""
        if self.group.size == 1:
            return pixels_of(iterate)
        if self.latest is None:
            import numpy as np

            return np.zeros((*iterate.size, 3), np.float32)
        return self.latest

    def _keep(self, iterate: Iterate, keeper: Keeper, observer: Observer) -> None:
        """Keep the state if it is good. A failure is told and does not end the run."""
        if iterate.finite():
            keeper.keep(iterate.state(), self.group, self._room(iterate))
        self._tell(keeper, observer)

    def _tell(self, keeper: Keeper, observer: Observer) -> None:
        problem = keeper.told()
        if problem is not None:
            observer.say(one_line(f"style_transfer: note: {problem}; the run goes on without this checkpoint"))

    def _room(self, iterate: Iterate) -> int:
        """Return how many bytes a copy of the state may take beside what the next step takes again."""
        import torch

        from . import memory

        if self.settings.memory is not None:
            return 0
        cpu = torch.device("cpu")
        again = max(0, iterate.memory - memory.used_bytes(cpu)) if iterate.average.value().device == cpu else 0
        return int(0.5 * (memory.free_bytes(cpu) - again))

    def _write_if_possible(self, iterate: Iterate, observer: Observer) -> None:
        """Write the picture so far if it is good; a failure, such as a full disk, is told and does not end the run."""
        if not iterate.finite():
            return
        try:
            self._write(iterate, finished=False)
        except OutputError as error:
            observer.say(one_line(f"style_transfer: note: {error}; the run goes on without saving this iteration"))

    def _write_last(self, iterate: Iterate, keeper: Keeper | None, observer: Observer) -> None:
        """Write the picture at the end, and remove the checkpoints of a run that is complete."""
        if not iterate.finite():
            return
        try:
            self._write(iterate, finished=iterate.ends_run)
        except OutputError as error:
            if keeper is None:
                raise
            if iterate.ends_run and self.group.size == 1:  # the others have not failed, and would not take part
                self._keep(iterate, keeper, observer)
            keeper.close()
            raise OutputError(f"{error}; mend that and go on from {self._checkpoint} with --resume") from error
        if keeper is None or not iterate.ends_run:
            return
        if self.options.keep_checkpoint:
            self._keep(iterate, keeper, observer)
        elif not self.group.rank:
            keeper.remove()

    def _save_state(self, state: State, job: Job, *, finished: bool) -> None:
        """Write the picture of a state that was kept."""
        from .api import to_pixels
        from .engine import picture_of

        picture = picture_of(state, job.content, job.regions)
        steps = job.stages[state.index].steps
        self._save(to_pixels(picture), self._progress(state.size, state.step, steps), {"finished": finished})

    def _write(self, iterate: Iterate, *, finished: bool) -> None:
        """Write the picture and OUTPUT.json beside it. In a group all call it, and rank 0 writes."""
        pixels = pixels_of(iterate)
        if self.group.rank:
            return
        self.latest = pixels if self.group.size > 1 and self.options.web else None
        report = {
            "finished": finished,
            "loss": float(iterate.loss),
            "parts": {name: float(part) for name, part in iterate.parts.items()},
            "seconds": round(iterate.seconds, 2),
            "memory_bytes": iterate.memory,
        }
        self._save(pixels, self._progress(iterate.size, iterate.step, iterate.steps), report)

    def _progress(self, size: Size, step: int, steps: int) -> dict[str, Any]:
        return {"width": size[1], "height": size[0], "step": step, "steps": steps}

    def _save(self, pixels: np.ndarray[Any, np.dtype[np.float32]], progress: dict[str, Any], report: dict[str, Any]) -> None:
        """Write pixels with the recipe in them, and the recipe with a report beside them."""
        from . import files, images

        recipe = self.recipe | progress
        inside = {name: value for name, value in recipe.items() if name != "command"}
        names = {name: Path(path).name for name in ("weights", "init") if (path := recipe["settings"][name])}
        inside["settings"] = recipe["settings"] | names  # file names, not where they lie on this machine
        images.save(
            self.output, pixels, dpi=self.options.dpi,
            metadata={"Software": self.recipe["program"], "Recipe": json.dumps(inside)},
        )  # fmt: skip
        files.write_text(self._sidecar, json.dumps(recipe | report, indent=2) + "\n")
        self.saved = progress["height"], progress["width"]


def same_file(a: Path, b: Path) -> bool:
    """Say whether two paths lead to one file, by name or by a link."""
    try:
        return a.resolve() == b.resolve() or a.samefile(b)
    except (OSError, ValueError):
        return False


def pixels_of(iterate: Iterate) -> np.ndarray[Any, np.dtype[np.float32]]:
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
        if isinstance(error, KeyboardInterrupt) and run is not None:
            return run.interrupt.exit_code
        return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
