"""The command line: a parser made from the settings, wiring, messages and exit codes."""

from __future__ import annotations

import _thread
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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from . import __version__, sources
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
    import torch

    from .batch import Task
    from .checkpoint import Found, Keeper, State
    from .color import Pixels
    from .engine import Iterate
    from .images import Picture
    from .masks import Region
    from .networks import Weights
    from .networks.graph import Network
    from .observers.console import Observer
    from .observers.web import WebObserver
    from .schedule import Size, Stage

T = TypeVar("T")

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

    output: str = option("out.png", "the result; .tif .tiff .png have 16 bits per channel, .jpg .jpeg .webp 8; for several "
        "pictures a folder (out if left out) or a pattern such as {content}_{style}.tif", short="-o", metavar="FILE")  # fmt: skip
    each: tuple[str, ...] | None = option(None, "content pictures or folders, each painted by itself; all others named are "
        "styles then", many=True, metavar="CONTENT")  # fmt: skip
    grid: bool = option(False, "paint every content with every style alone, not with all of them together", flag=True)
    overwrite: bool = option(False, "of several pictures paint those again that are there already", flag=True)
    contact_sheet: str | None = option(None, "put all results on one labelled picture, a table if it is a grid", metavar="FILE",
        check=check_not_empty)  # fmt: skip
    dpi: float = option(72.0, "resolution written into the result, in dots per inch", kind=float, minimum=0.1, maximum=65535.0)
    save_every: int = option(50, "write the picture every so many iterations (0: only at the end of each scale)", kind=int,
        minimum=0)  # fmt: skip
    checkpoint: str | None = option(None, "file that a run which was cut short can go on from, or off; removed when the run is "
        "complete (OUTPUT.checkpoint if left out)", metavar="FILE", check=check_not_empty)  # fmt: skip
    checkpoint_every: float = option(60.0, "seconds between checkpoints, more where that would cost over 2 % of the time (0: "
        "only at the end of each scale)", kind=float, minimum=0.0, maximum=1e9, metavar="SECONDS")  # fmt: skip
    resume: bool = option(False, "go on from the checkpoint; pictures and options must be those it was made with", flag=True)
    keep_checkpoint: bool = option(False, "keep the checkpoint when the run is complete", flag=True)
    save_iterates: str | None = option(None, "keep each picture that is written on the way, numbered, such as "
        "frames/{number}.png; also {iteration} {scale} {step} {content} {style}", metavar="PATTERN",
        check=check_not_empty)  # fmt: skip
    proof: str | None = option(None, "CMYK ICC profile to soft-proof the input pictures with", metavar="PROFILE")
    content_mask: tuple[str, ...] | None = option(None, "masks of the content: where each style goes, or each part of it, "
        "white for all and gray for some; or a single one in flat colours", many=True, metavar="FILE",
        check=check_not_empty)  # fmt: skip
    style_mask: tuple[str, ...] | None = option(None, "masks of the styles, one for each content mask, or in the same colours: "
        "which part of a style goes there (all of it if left out)", many=True, metavar="FILE", check=check_not_empty)  # fmt: skip
    max_pixels: int = option(500_000_000, "largest input picture that is read, in pixels", kind=int, minimum=1)
    dry_run: bool = option(False, "print scales, sizes, tiles, memory, disk and estimated time, and do nothing", flag=True)
    config: str | None = option(None, "TOML file with options, named as their flags without the first --; flags win over "
        "variables STYLE_TRANSFER_..., and these over the file", metavar="FILE", check=check_not_empty)  # fmt: skip
    dump_config: bool = option(False, "print all options as such a file and do nothing", flag=True)
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
            print_out(one_line(f"{mark}  {found.topic}: {found.text}") + one_line(f"; {found.advice}" if found.advice else ""))
            code = code or (0 if found.error is None else EXIT_CODES.get(found.error, 1))
        parser.exit(code)


class Tell(argparse.Action):
    """Prints a text and exits, as `--help` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, text: Callable[[], str], help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.text = text

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        """Print the text and exit."""
        print_out(self.text())
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
    parser.add_argument("content", nargs="?", help="the content picture, or a folder of them")
    parser.add_argument("styles", nargs="*", metavar="style", help="the style pictures, or folders of them")
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
        group.add_argument(*flags, flag_name(name), action=argparse.BooleanOptionalAction, **extra)
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
        return about.from_word(word)

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
    """Return the content's path, the styles' paths, the settings and the options. Raises `SettingsError`.

    With --each the content is the first of its values.
    """
    flags = vars(make_parser().parse_args(argv))
    content, styles = flags.pop("content"), flags.pop("styles")
    given = sources.gather((Options, Settings), flags, os.environ)
    if "each" in given:
        styles = [content, *styles] if content is not None else []
        content = given["each"][0]
    if (content is None or not styles) and not given.get("dump_config"):
        missing = "content, style" if content is None else "style"
        raise SettingsError(f"the following arguments are required: {missing}; see style_transfer --help")
    own = {name: given.pop(name) for name in options_of(Options) if name in given}
    settings = Settings.from_dict({k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    options = Options(**own)
    if styles and not options.grid and not any(os.path.isdir(style) for style in styles):  # noqa: PTH112
        settings.blend(len(settings.expanded(len(styles))))
    return content or "", styles, settings, options


def one_line(text: str) -> str:
    """Return a message without control characters, so that a file's name cannot write to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error of ours."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))


class Interrupt:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a wish to stop after the iteration; a second one stops at once.

    Terminals, shells and launchers may send one signal several times: what follows within `echo` seconds is the same one, and
    SIGHUP never is a second. Signals that were ignored from the start, as by nohup, stay so.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
    PATIENCE = 1.5

    def __init__(self, echo: float = 0.15) -> None:
        self.echo = echo
        self.first: int | None = None
        self.second = False
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
        """Runs when the main thread comes to it, which may be long after the signal: it does not count, the other thread does."""
        if self.second:
            raise KeyboardInterrupt
        if self.first is None:
            self.first, self._when = number, time.monotonic()

    def _backstop(self, signals: socket.socket) -> None:
        """Count signals as they come; end the process if the main thread, deep in some computation, does not heed a second."""
        while data := signals.recv(16):
            for number in data:
                if self._again(number) and not self._left.is_set():
                    self.second = True
                    _thread.interrupt_main()
                    if not self._left.wait(self.PATIENCE):
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
        self._left.clear()
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
    """What was read and checked, and is worked on: pictures (1, 3, H, W), the network's weights, the scales.

    The weights come with the first picture of a run.
    """

    content: torch.Tensor
    styles: list[torch.Tensor]
    init: torch.Tensor | None
    weights: Weights | None
    stages: Sequence[Stage]
    regions: Sequence[Region] = ()


class Run:
    """One command: everything that can be wrong is looked at first, then the picture is painted and written.

    With several pictures, each is looked at when its turn comes, and one that fails does not end the run.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.content_path, self.style_paths, self.settings, self.options = parse(argv)
        self.output = Path(self.options.output)
        self.several = self.options.each is not None or self.options.grid or Path(self.content_path).is_dir()
        """Whether the command asks for several pictures, even if only one is found."""
        self.names: dict[str, Any] = {}
        self.pattern: str | None = None
        self.loaded: Sequence[Network] | None = None
        self.weights: Weights | None = None
        self.keeper: Keeper | None = None
        self.page: WebObserver | None = None
        self.last = True
        self.interrupt = Interrupt(1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.15)
        self._forget()

    def _forget(self) -> None:
        """Forget what was painted: the next picture comes."""
        self.saved: Size | None = None
        self.skip = False
        self.latest: Pixels | None = None
        self.frames = 0
        self.finish: Callable[[Pixels], Pixels] = lambda pixels: pixels
        self.found: Found | None = None

    def __call__(self) -> int:
        """Do the work and return the exit code. Under torchrun, rank 0 reads and writes, and all paint."""
        from . import distributed

        if self.options.dump_config:
            print(sources.dump((self.options, self.settings)), end="")
            return 0
        with distributed.joined(self.settings.devices, EXIT_CODES[DistributedError]) as self.group:
            try:
                tasks = self._shared(self._tasks)
                if self.several:
                    return self._work_on_all(tasks)
                self._begin(tasks[0])
                with contextlib.ExitStack() as self.held:
                    code = self._work(self._shared(self._prepare))
                self._write_sheet(tasks, {tasks[0]: self.output})
                return code
            finally:
                if self.page is not None:
                    self.page.close()

    def _shared(self, make: Callable[[], T]) -> T:
        """Return what `make` returns on rank 0, or raise its error, on all ranks."""
        found: T | StyleTransferError
        if self.group.rank:
            found = self.group.broadcast(None)
        else:
            try:
                found = make()
            except StyleTransferError as error:
                found = error
            self.group.broadcast(found)
        if isinstance(found, StyleTransferError):
            raise found
        return found

    def _tasks(self) -> list[Task]:
        """Return the pictures to paint. Raises `SettingsError` for what is wrong whatever the pictures are."""
        from . import batch, images
        from .networks import layout

        styles = batch.pictures(self.style_paths)
        if self.options.grid and self.settings.style_weights is not None:
            raise SettingsError("--grid takes each style alone; leave --style-weights out")
        if not self.options.grid:
            self.settings.blend(len(self.settings.expanded(len(styles))))
        if self.several:
            if self.options.checkpoint not in (None, "off"):
                raise SettingsError(
                    f"--checkpoint {self.options.checkpoint} is one file for several pictures; leave it out, and each has its own"
                )
            spec = layout(self.settings)
            spec.check_layers(self.settings)
            spec.check_split(self.settings)
            contents = batch.pictures(self.options.each or [self.content_path])
            default = options_of(Options)["output"][0]
            tasks = batch.plan(contents, styles, self.options.output, default=default, grid=self.options.grid)
        else:
            tasks = [batch.Task(self.content_path, tuple(styles), self.output)]
        if self.options.save_iterates is not None:
            pattern = batch.iterate_pattern(self.options.save_iterates)
            batch.check_iterates(pattern, tasks)
        sheet = self.options.contact_sheet
        if sheet is not None:
            images.check_output(sheet)
            for path in (*self._inputs(), *(str(task.output) for task in tasks), *(task.content for task in tasks), *styles):
                if same_file(Path(sheet), Path(path)):
                    raise SettingsError(f"--contact-sheet {sheet} is also an input or a result; choose another name")
        return tasks

    def _begin(self, task: Task) -> None:
        """Make a task the one that is worked on."""
        from . import batch

        self.content_path, self.style_paths, self.output = task.content, list(task.styles), task.output
        self.names = task.names
        self.pattern = None if self.options.save_iterates is None else batch.iterate_pattern(self.options.save_iterates)
        self._forget()

    def _work_on_all(self, tasks: Sequence[Task]) -> int:
        """Paint several pictures and return the exit code: that of the first that failed, or of the signal that ended the run."""
        made: dict[Task, Path | None] = {}
        failures: list[tuple[Task, StyleTransferError]] = []
        skipped = code = 0
        for number, task in enumerate(tasks, 1):
            self._begin(task)
            self.last = number == len(tasks)
            try:
                with contextlib.ExitStack() as self.held:
                    job = self._shared(self._prepare_or_skip)
                    if job is None:
                        skipped += 1
                        made[task] = task.output
                        continue
                    if not self.options.quiet and not self.group.rank:
                        self._say(f"{number} of {len(tasks)}: {task.output}")
                    code = self._work(job)
            except (WeightsError, DeviceError, DistributedError):
                raise
            except StyleTransferError as error:
                if self.group.size > 1 and not isinstance(error, OutputError | ImageError | SettingsError | CheckpointError):
                    raise  # the others wait in the middle of a step
                failures.append((task, error))
                made[task] = None
                if not self.last:
                    self._note(f"{error}; the run goes on with the next picture")
                continue
            made[task] = task.output
            if code:
                break
        if not self.group.rank:
            self._report(tasks, made, failures, skipped)
        self._write_sheet(tasks, made)
        if self.group.rank:
            return code  # torchrun ends the others when one fails, and rank 0 may still be at the contact sheet
        return code or next((exit_code(error) for _, error in failures), 0)

    def _prepare_or_skip(self) -> Job | None:
        """Return the next picture's work, or None if its result is there: finished, or not made by this program."""
        if self.output.exists() and not self.options.overwrite:
            settings: object = None
            finished: object = None
            with contextlib.suppress(OSError, ValueError, AttributeError):
                recipe = json.loads(self._sidecar.read_text("utf-8"))
                finished, settings = recipe.get("finished"), recipe.get("settings")
            if finished is not False:
                other = settings is not None and settings != self.settings.as_dict()
                if not self.options.quiet:
                    how = "is there already, painted with other settings" if other else "is there already"
                    self._note(f"{self.output} {how}; --overwrite paints it again")
                return None
        return self._prepare()

    def _report(
        self, tasks: Sequence[Task], made: Mapping[Task, Path | None], failures: Sequence[tuple[Task, StyleTransferError]],
        skipped: int,
    ) -> None:  # fmt: skip
        """Say what became of several pictures; with --quiet only what failed."""
        painted = len(made) - skipped - len(failures)
        counts = [
            (painted, "painted"),
            (skipped, "there already"),
            (len(failures), "failed"),
            (len(tasks) - len(made), "not begun"),
        ]
        if not self.options.quiet or failures:
            words = ", ".join(f"{count} {word}" for count, word in counts if count)
            self._say(f"style_transfer: {len(tasks)} picture{'s' * (len(tasks) != 1)}: {words}")
        for task, error in failures:
            self._say(f"style_transfer: failed: {task.output}: {error}")

    def _write_sheet(self, tasks: Sequence[Task], made: Mapping[Task, Path | None]) -> None:
        if self.options.contact_sheet is None or self.options.dry_run or self.group.rank:
            return
        from . import batch, images

        table = self.options.grid or not self.several
        sheet = batch.contact_sheet([task for task in tasks if task in made], made, grid=table)
        images.save(self.options.contact_sheet, sheet, metadata={"Software": f"style_transfer {__version__}"})
        if not self.options.json:
            print_out(Path(self.options.contact_sheet))

    def _say(self, text: str) -> None:
        from .observers.console import Quiet

        Quiet().say(one_line(text))

    def _prepare(self) -> Job:
        """Check and read everything that the work needs."""
        from . import networks
        from .api import from_pixels, to_tensor
        from .color import Coloring

        self._check_output()
        if not self.options.dry_run:
            self._hold_output()
        content, styles, init = self._load_pictures()
        regions = self._load_regions(content, styles)
        stages = self._check_sizes(content, styles)
        if self.loaded is None and self.weights is None:
            self.weights = networks.fetch(self.settings, progress=not self.options.quiet, say=self._note)
        coloring = Coloring(self.settings, content.pixels, [style.pixels for style in styles], content.alpha)
        self.finish = coloring.finish
        return Job(
            from_pixels(coloring.content),
            [from_pixels(style) for style in coloring.styles],
            None if init is None else to_tensor(init),
            None if self.loaded is not None else self.weights,
            stages,
            regions,
        )

    def _note(self, remark: str) -> None:
        if not self.group.rank:
            self._say(f"style_transfer: note: {remark}")

    def _work(self, job: Job) -> int:
        from .engine import stylize

        loaded = self._networks(job.weights)
        if self.options.dry_run:
            return 0 if self.group.rank else self._dry_run(loaded, job.stages)
        self.recipe = self._recipe(loaded, job.stages)
        settings = self.settings if job.init is None else dataclasses.replace(self.settings, init="content")
        state = None if self.found is None else self.found.state
        keeper = self.keeper = self._keeper()
        try:
            iterates = stylize(
                job.content, job.styles, settings, networks=loaded, init=job.init, group=self.group,
                regions=job.regions, resume=state, fallback=None if keeper is None else keeper.last,
            )  # fmt: skip
        except CheckpointError as error:
            way_out = "take the pictures and options it was made with, or leave out --resume"
            raise CheckpointError(f"--resume {self._checkpoint}: {error}; {way_out}") from error
        if not self.group.rank:
            self._take_over(loaded[0].devices[0])
        last = job.stages[-1].steps
        complete = state is not None and (state.index, state.step) == (len(job.stages) - 1, last)
        if self.group.broadcast(None if self.group.rank else complete):
            return 0 if state is None else self._write_kept(state, job, keeper)
        began = 0.0
        if state is not None:
            began, self.frames = state.seconds, self._frames_before(state, job.stages)
        self.found = state = None  # its tensors would stay in memory
        return self._paint(iterates, job, keeper, began)

    def _keeper(self) -> Keeper | None:
        """Return who keeps the checkpoints."""
        from .checkpoint import Keeper

        number = 0 if self.found is None else self.found.number
        return None if self._checkpoint is None else Keeper(self._checkpoint, self.options.checkpoint_every, number=number)

    def _take_over(self, device: torch.device) -> None:
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
        made = state.made | {"device": device.type, "torch": metadata.version("torch"), "processes": self.group.size}
        changed = [f"{name} {state.made[name]}" for name in made if str(made[name]) not in str(state.made[name])]
        if changed:
            self._note(f"the checkpoint was made with {', '.join(changed)}; the result can differ in the last digits")

    def _write_kept(self, state: State, job: Job, keeper: Keeper | None) -> int:
        """Write the picture of a run whose last iteration is done already."""
        self._save_state(state, job, finished=True)
        if keeper is not None and not self.options.keep_checkpoint:
            keeper.remove()
        print_out(self.output)
        return 0

    def _frames_before(self, state: State, stages: Sequence[Stage]) -> int:
        """Return how many numbered pictures a run has written when it comes to a state."""
        every, count = self.options.save_every, 0
        for index, stage in enumerate(stages[: state.index + 1]):
            done = stage.steps if index < state.index else state.step
            count += done // every if every else 0
            count += done == stage.steps and not (every and done % every == 0)
        return count

    def _networks(self, weights: Weights | None) -> Sequence[Network]:
        """Return the network on the devices that work; it is put there once."""
        from . import devices, networks

        if self.loaded is not None:
            return self.loaded
        assert weights is not None
        if self.group.size > 1:
            chosen: Sequence[torch.device] = [self.group.device]
        else:
            chosen, remarks = devices.resolve(self.settings.devices)
            for remark in remarks:
                self._note(remark)
        loaded = networks.place(weights, self.settings, chosen)
        if self.settings.precision == "auto" and loaded[0].precision != "fp32":
            self._note(f"the network works in {loaded[0].precision} on {chosen[0]}; --precision chooses")
        self.loaded, self.weights = loaded, None
        return loaded

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
        from . import batch, files, images

        images.suffix_of(self.output)
        if self.several and not self.options.dry_run:
            batch.make_folder(self.output)
        there = self.output.parent.is_dir() or not self.several
        if there:
            images.check_output(self.output)
            files.check_target(self._sidecar)
        for target in (self.output, self._sidecar):
            for path in self._inputs():
                if same_file(target, Path(path)):
                    raise SettingsError(f"--output {target} is also an input; choose another name")
        if self._checkpoint is not None:
            if there:
                files.check_target(self._checkpoint)
            for other in (self.output, self._sidecar, *map(Path, self._inputs())):
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
                if self.several:
                    return
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

    def _inputs(self) -> list[str]:
        """Return the files that this picture is made from."""
        inputs = [self.content_path, *self.style_paths]
        inputs += [path for path in (self.settings.weights, self.options.proof) if path]
        inputs += [*(self.options.content_mask or ()), *(self.options.style_mask or ())]
        return inputs + ([self.settings.init] if self.settings.init not in INITS else [])

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
        from . import batch, images
        from .networks import layout
        from .schedule import plan

        spec = layout(self.settings)
        spec.check_layers(self.settings)
        spec.check_split(self.settings)
        (height, width), *style_sizes = ((p.pixels.shape[0], p.pixels.shape[1]) for p in (content, *styles))
        stages = plan((height, width), style_sizes, self.settings)
        spec.check_stages(stages, self.settings)
        if self.output.parent.is_dir() or not self.several:
            images.check_output(self.output, stages[-1].size, alpha=content.alpha is not None)
        if self.options.dry_run:
            return stages
        if self.pattern is not None:
            frame = self._frame_path(self.pattern, 1, 1, stages[0].scale, 1)
            batch.make_folder(frame)
            images.check_output(frame, stages[-1].size, alpha=content.alpha is not None)
        self._check_disk(stages[-1].size, 3 if content.alpha is None else 4)
        return stages

    def _check_disk(self, size: Size, channels: int) -> None:
        """Raise `OutputError` unless the disk has room for the result beside the old one, and for the checkpoints."""
        from . import files
        from .memory import kept_bytes

        height, width = size
        needs = {self.output: round(1.2 * height * width * channels * 2) + 2**20}
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

    def _live_page(self, observer: Observer, job: Job) -> WebObserver | None:
        if not self.options.web or self.group.rank:
            return None
        from .api import to_pixels
        from .observers.web import WebObserver

        about = {
            "program": self.recipe["program"],
            "content": Path(self.content_path).name,
            "styles": [Path(path).name for path in self.style_paths],
            "output": self.output.name,
            "network": self.recipe["network"]["name"],
            "devices": self.recipe["devices"],
            "precision": self.recipe["precision"],
            "settings": {flag_name(name): value for name, value in self.recipe["settings"].items()},
        }
        if self.page is not None:
            self.page.begin(about, to_pixels(job.content), self.finish)
            return self.page
        page = WebObserver(
            host=self.options.host, port=self.options.port, browser=self.options.browser,
            about=about, content=to_pixels(job.content), finish=self.finish,
        )  # fmt: skip
        observer.say(f"watch it at {page.start()}")
        if page.exposed:
            self._note("the live page can be reached from other machines; whoever has its address can watch and steer the run")
        return page

    def _paint(self, iterates: Generator[Iterate, bool | None, None], job: Job, keeper: Keeper | None, began: float) -> int:
        from .observers.console import TimeLeft

        interrupt = self.interrupt
        observer = self._observer(sum(stage.work for stage in job.stages))
        page: WebObserver | None = None
        iterate: Iterate | None = None
        finished = False
        halvings = 0
        self.group.wish()
        try:
            page = self.page = self._live_page(observer, job)
            with interrupt.watching():
                clock, held = TimeLeft(job.stages, began), 0.0
                for iterate in self._driven(iterates):
                    left = clock.update(iterate.index, iterate.step, iterate.seconds - held)
                    if iterate.step == 1 and sum(iterate.tiles) > 1 and not self.options.quiet and not self.group.rank:
                        height, width = iterate.size
                        share = f" by each of {self.group.size} processes" if self.group.size > 1 else ""
                        tiles = " + ".join(map(str, iterate.tiles))
                        observer.say(f"{width}x{height} is worked on in {tiles} tiles{share}")
                    observer.update(iterate, left)
                    if page is not None:
                        page.update(iterate, clock, left, functools.partial(self._page_pixels, iterate), held)
                        held += page.hold(lambda: interrupt.asked)
                    if iterate.halvings > halvings and not self.group.rank:
                        halvings = iterate.halvings
                        observer.say(
                            "style_transfer: note: loss or picture were not finite; going on from "
                            f"{iterate.w}x{iterate.h}, iteration {iterate.step}, with 1/{2**halvings} of the step size"
                        )
                    due = keeper is not None and not self.group.rank and keeper.due()
                    saving = self.group.saving and self.group.size > 1
                    finish, skip = (False, False) if page is None else (page.finishing, page.skipping)
                    self.group.wish(stop=interrupt.asked, save=due, skip=skip, finish=finish)
                    if self.group.stopped or self.group.finished or iterate.ends_run:
                        finished = self.group.finished and not self.group.stopped
                        break
                    self._skip(iterate, page)
                    if self.skip and iterate.index == len(iterate.stages) - 1:
                        finished = True
                        break
                    ends_scale, every = iterate.ends_scale or self.skip, self.options.save_every
                    if ends_scale or (every and iterate.step % every == 0):
                        self._write_if_possible(iterate, observer)
                    if keeper is not None and (ends_scale or saving or (due and self.group.size == 1)):
                        self._keep(iterate, keeper, observer)
                if iterate is not None:
                    if not iterate.ends_run and keeper is not None:
                        self._keep(iterate, keeper, observer)
                    self._write_last(iterate, keeper, observer)
                    if page is not None:
                        picture = functools.partial(self._page_pixels, iterate)
                        page.end(iterate, picture, self.output, finished=iterate.ends_run or finished)
                if keeper is not None:
                    keeper.close()
                    self._tell(keeper, observer)
                if iterate is None:
                    raise KeyboardInterrupt
                code = 0 if iterate.ends_run or finished else interrupt.exit_code
                self._report_end(iterate, keeper, observer, code)
                if page is not None and self.last and not interrupt.asked and page.watched:
                    observer.say("the live page stays until it is closed; Ctrl-C ends it now")
                    page.stay(lambda: interrupt.asked)
        except StyleTransferError as error:
            if keeper is not None:
                if isinstance(error, NumericError) and not self.group.rank and (state := keeper.last()) is not None:
                    with contextlib.suppress(OutputError):
                        self._save_state(state, job, finished=False)
                keeper.close()
            if page is not None:
                page.fail(str(error))
            raise
        finally:
            observer.close()
        return code

    def _report_end(self, iterate: Iterate, keeper: Keeper | None, observer: Observer, code: int) -> None:
        """Say how a picture ended and where it is."""
        from .observers.console import JSONLines

        observer.close()
        if self.group.rank:
            return
        height, width = iterate.size
        if isinstance(observer, JSONLines):
            observer.emit({"event": "done", "output": str(self.output), "width": width, "height": height,
                           "interrupted": not iterate.ends_run})  # fmt: skip
        else:
            print_out(self.output)
        if not iterate.ends_run:
            observer.say(
                f"style_transfer: {'stopped' if code else 'finished'} at {width}x{height}, iteration {iterate.step} of "
                f"{iterate.steps}; the picture so far is in {one_line(str(self.output))}"
                + ("; --resume goes on" if keeper is not None and keeper.number else "")
            )

    def _driven(self, iterates: Generator[Iterate, bool | None, None]) -> Iterator[Iterate]:
        """Yield the engine's iterates; whenever `skip` is set it is told to go on with the next scale."""
        with contextlib.suppress(StopIteration):
            yield next(iterates)
            while True:
                yield iterates.send(self.skip)

    def _skip(self, iterate: Iterate, page: WebObserver | None) -> None:
        """Set `skip` if a viewer wants the scale to end here; the same on all ranks."""
        self.skip = self.group.skipped and not iterate.ends_scale
        if self.skip:
            self.group.skip = self.group.skipped = False
            self.recipe.setdefault("skipped", []).append({"scale": iterate.index + 1, "after": iterate.step})
        if page is not None and self.skip:
            page.skipped(last=iterate.index == len(iterate.stages) - 1)
        elif page is not None and iterate.ends_scale:
            page.missed()

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
        home = iterate.average.sum
        again = max(0, iterate.memory - memory.used_bytes(cpu)) if home is None or home.device == cpu else 0
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
        self._save(self.finish(to_pixels(picture)), self._progress(state.size, state.step, steps), {"finished": finished})

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
            "checkpoint_seconds": round(self.keeper.cost, 3) if self.keeper is not None else 0,
        }
        pixels = self.finish(pixels)
        about = self._save(pixels, self._progress(iterate.size, iterate.step, iterate.steps), report)
        if self.pattern is not None:
            self._write_frame(iterate, self.pattern, pixels, about)

    def _progress(self, size: Size, step: int, steps: int) -> dict[str, Any]:
        return {"width": size[1], "height": size[0], "step": step, "steps": steps}

    def _save(self, pixels: Pixels, progress: dict[str, Any], report: dict[str, Any]) -> dict[str, str]:
        """Write finished pixels with the recipe in them, and the recipe with a report beside them; return what is written in."""
        from . import files, images

        recipe = self.recipe | progress
        inside = {name: value for name, value in recipe.items() if name != "command"}
        names = {name: Path(path).name for name in ("weights", "init") if (path := recipe["settings"][name])}
        inside["settings"] = recipe["settings"] | names  # file names, not where they lie on this machine
        about = {"Software": self.recipe["program"], "Recipe": json.dumps(inside)}
        images.save(self.output, pixels, dpi=self.options.dpi, metadata=about)
        files.write_text(self._sidecar, json.dumps(recipe | report, indent=2) + "\n")
        self.saved = progress["height"], progress["width"]
        return about

    def _write_frame(self, iterate: Iterate, pattern: str, pixels: Pixels, about: dict[str, str]) -> None:
        """Write a numbered picture beside the result; a failure is told and does not end the run."""
        from . import images

        self.frames += 1
        before = sum(stage.steps for stage in iterate.stages[: iterate.index])
        path = self._frame_path(pattern, self.frames, before + iterate.step, iterate.scale, iterate.step)
        try:
            kept = [self.output, self._sidecar, *map(Path, self._inputs())]
            if any(same_file(path, other) for other in kept):
                raise OutputError(f"--save-iterates {path} is also an input or the result")
            images.save(path, pixels, dpi=self.options.dpi, metadata=about)
        except OutputError as error:
            self._note(f"{error}; the run goes on without saving this iteration")

    def _frame_path(self, pattern: str, number: int, iteration: int, scale: int, step: int) -> Path:
        from . import batch

        values = self.names | {"number": number, "iteration": iteration, "scale": scale, "step": step}
        return batch.fill("--save-iterates", pattern, values)


def same_file(a: Path, b: Path) -> bool:
    """Say whether two paths lead to one file, by name or by a link."""
    try:
        return a.resolve() == b.resolve() or a.samefile(b)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a loop of links
        return False


def pixels_of(iterate: Iterate) -> Pixels:
    """Return the averaged picture as float32 pixels (H, W, 3)."""
    from .api import to_pixels

    return to_pixels(iterate.image())


def print_out(text: object) -> None:
    """Print a text, such as the output's path, on standard output; a reader that has gone is no error."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(str(text).encode("ascii", "backslashreplace").decode(), flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def ran_out(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    from . import memory

    return memory.ran_out(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    run: Run | None = None
    try:
        run = Run(sys.argv[1:] if argv is None else argv)
        return run()
    except (StyleTransferError, KeyboardInterrupt, MemoryError, RuntimeError) as error:
        problem: BaseException = error
        if not isinstance(error, StyleTransferError | KeyboardInterrupt):
            if not ran_out(error):
                raise
            problem = MemoryLimitError("memory ran out; take smaller pictures or a smaller --end-scale, or free some memory")
        interrupted = isinstance(problem, KeyboardInterrupt)
        text = "stopped" if interrupted else str(problem)
        if run is not None and run.saved is not None:
            height, width = run.saved
            text += f"; {run.output} has the picture at {width}x{height}"
        elif interrupted:
            text += "; nothing was written"
        if os.environ.get("RANK", "0") == "0" or isinstance(problem, DistributedError):
            with contextlib.suppress(OSError, ValueError):
                print(f"style_transfer: {one_line(text)}", file=sys.stderr, flush=True)
        if interrupted and run is not None:
            return run.interrupt.exit_code
        return exit_code(problem)
