"""The command line: one picture or several, checked, painted and written; messages and exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    CheckpointError,
    DeviceError,
    DistributedError,
    ImageError,
    MemoryLimitError,
    OutputError,
    SettingsError,
    StyleTransferError,
    WeightsError,
    exit_code,
    near_miss,
)
from ..files.atomic import is_folder, is_there, same_file, shown
from ..observers.console import Bar, JSONLines, Quiet, clock, print_out
from ..observers.history import History
from ..settings import sources
from ..settings.settings import INITS, flag_name, options_of
from .interrupt import Interrupt
from .options import Options, parse

if TYPE_CHECKING:
    import torch

    from ..engine.checkpoint import Found, Keeper, State
    from ..geometry.scales import Stage
    from ..losses.guidance import Region
    from ..networks import Weights
    from ..networks.graph import Network
    from ..observers.console import Observer
    from ..observers.web import WebObserver
    from ..pictures.images import Picture
    from .batch import Task
    from .output import Output
    from .painting import Painting

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture that was read and checked: pictures (1, 3, H, W), the scales; for the first, the network's weights."""

    content: torch.Tensor
    styles: list[torch.Tensor]
    init: torch.Tensor | None
    regions: Sequence[Region]
    stages: Sequence[Stage]
    weights: Weights | None


class Run:
    """One command: everything that can be wrong is looked at first, then the picture is painted and written.

    With several pictures, each is looked at when its turn comes, and one that fails does not end the run.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.content_path, self.style_paths, self.settings, self.options = parse(argv)
        self.several = self.options.each is not None or self.options.grid or is_folder(self.content_path)
        """Whether the command asks for several pictures, even if only one is found."""
        self.interrupt = Interrupt(1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.15)
        self.output: Output | None = None
        """Where the picture goes that is worked on."""
        self.networks: Sequence[Network] = ()
        """The network on each device, once the first picture has brought it there."""
        self.page: WebObserver | None = None

    def __call__(self) -> int:
        """Do the work and return the exit code. Under torchrun, rank 0 reads and writes, and all paint."""
        if self.options.dump_config:
            print_out(sources.dump((self.options, self.settings)).rstrip("\n"))
            return 0
        from ..compute import devices, distributed

        if self.settings.deterministic:
            os.environ.setdefault(*devices.CUBLAS)
        with distributed.joined(functools.partial(devices.of_local_rank, self.settings.devices)) as self.group:
            try:
                tasks = self._shared(self._tasks)
                if self.several:
                    return self._work_on_all(tasks)
                output = self.output = self._output(tasks[0])
                with contextlib.ExitStack() as held:
                    code = self._work(self._shared(lambda: self._prepare(output, held)), output, last=True)
                self._write_sheet(tasks, {tasks[0]: tasks[0].output})
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

    def _note(self, remark: str) -> None:
        """Tell what went wrong without ending the run, on rank 0."""
        if not self.group.rank:
            Quiet().say(shown(f"style_transfer: note: {remark}"))

    def _remark(self, remark: str) -> None:
        """Tell what is worth knowing, unless the user wants quiet."""
        if not self.options.quiet:
            self._note(remark)

    # several pictures

    def _tasks(self) -> list[Task]:
        """Return the pictures to paint. Raises `SettingsError` for what is wrong whatever the pictures are."""
        from ..cli import batch
        from ..networks import layout
        from ..pictures import images

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
            tasks = [batch.Task(self.content_path, tuple(styles), Path(self.options.output))]
        if self.options.save_iterates is not None:
            batch.check_iterates(self.options.save_iterates, tasks)
        self._check_beside(tasks)
        sheet = self.options.contact_sheet
        if sheet is not None:
            images.check_output(sheet)
            inputs = [path for task in tasks for path in (*self._output(task).inputs, str(task.output))]
            if any(same_file(Path(sheet), Path(path)) for path in dict.fromkeys(inputs)):
                raise SettingsError(f"--contact-sheet {sheet} is also an input or a result; choose another name")
        return tasks

    def _check_beside(self, tasks: Sequence[Task]) -> None:
        """Raise `SettingsError` if there cannot be the animations and reports that are asked for, whatever the pictures are."""
        from ..cli import batch

        if self.options.animation is not None:
            from ..observers import movie

            movie.check("--animation", self.options.animation, self.options.animation_rate)
            batch.check_beside("--animation", self.options.animation, tasks)
        if self.options.report is not None:
            if Path(self.options.report).suffix.lower() not in (".html", ".htm"):
                raise SettingsError(f"--report {self.options.report} must end in .html")
            batch.check_beside("--report", self.options.report, tasks)

    def _output(self, task: Task) -> Output:
        from .output import Output

        return Output(task, self.settings, self.options, several=self.several, note=self._note)

    def _work_on_all(self, tasks: Sequence[Task]) -> int:
        """Paint several pictures and return the exit code: that of the first that failed, or of the signal that ended the run."""
        made: dict[Task, Path | None] = {}
        failures: list[tuple[Task, StyleTransferError]] = []
        skipped = code = 0
        for number, task in enumerate(tasks, 1):
            output = self.output = self._output(task)
            last = number == len(tasks)
            try:
                with contextlib.ExitStack() as held:
                    job = self._shared(functools.partial(self._prepare_or_skip, output, held))
                    if job is None:
                        skipped += 1
                        made[task] = task.output
                        continue
                    if not self.options.quiet and not self.group.rank:
                        Quiet().say(shown(f"{number} of {len(tasks)}: {task.output}"))
                    code = self._work(job, output, last=last)
            except KeyboardInterrupt:
                if self.group.size > 1 or self.interrupt.second:
                    raise
                code = self.interrupt.exit_code
                break
            except (WeightsError, DeviceError, DistributedError):
                raise
            except StyleTransferError as error:
                if self.group.size > 1 and not isinstance(error, OutputError | ImageError | SettingsError | CheckpointError):
                    raise  # the others wait in the middle of a step
                failures.append((task, error))
                made[task] = None
                if not last:
                    self._note(f"{error}; the run goes on with the next picture")
                continue
            made[task] = task.output
            if self.group.broadcast(self.interrupt.asked):  # perhaps when this picture was painted already
                code = code or self.interrupt.exit_code
            if code:
                break
        if not self.group.rank:
            self._report(tasks, made, failures, skipped)
        self._write_sheet(tasks, made)
        if self.group.rank:
            return code  # torchrun ends the others when one fails, and rank 0 may still be at the contact sheet
        return code or next((exit_code(error) for _, error in failures), 0)

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
            Quiet().say(f"style_transfer: {len(tasks)} picture{'s' * (len(tasks) != 1)}: {words}")
        for task, error in failures:
            Quiet().say(shown(f"style_transfer: failed: {task.output}: {error}"))

    def _write_sheet(self, tasks: Sequence[Task], made: Mapping[Task, Path | None]) -> None:
        if self.options.contact_sheet is None or self.options.dry_run or self.group.rank:
            return
        from .. import __version__
        from ..cli import batch
        from ..pictures import images

        table = self.options.grid or not self.several
        sheet = batch.contact_sheet([task for task in tasks if task in made], made, grid=table)
        images.save(self.options.contact_sheet, sheet, metadata={"Software": f"style_transfer {__version__}"})
        if not self.options.json:
            print_out(Path(self.options.contact_sheet))

    # one picture: what it needs

    def _prepare_or_skip(self, output: Output, held: contextlib.ExitStack) -> Job | None:
        """Return the next picture's work, or None if its result is there."""
        return None if output.there else self._prepare(output, held)

    def _prepare(self, output: Output, held: contextlib.ExitStack) -> Job:
        """Check and read everything that a picture needs. Its files are kept from other runs while `held` lasts."""
        from .. import networks
        from ..api import from_pixels, to_tensor
        from ..pictures.color import Coloring

        output.check()
        if not self.options.dry_run:
            output.hold(held)
        content, styles, init = self._load_pictures(output.task)
        regions = self._load_regions(content, styles)
        stages = self._check_sizes(content, styles)
        output.check_room(stages, alpha=content.alpha is not None)
        weights = None if self.networks else networks.fetch(self.settings, progress=not self.options.quiet, say=self._remark)
        coloring = Coloring(self.settings, content.pixels, [style.pixels for style in styles], content.alpha)
        output.finish = coloring.finish
        return Job(
            from_pixels(coloring.content),
            [from_pixels(style) for style in coloring.styles],
            None if init is None else to_tensor(init),
            regions,
            stages,
            weights,
        )

    def _load_pictures(self, task: Task) -> tuple[Picture, list[Picture], Picture | None]:
        load = functools.partial(self._load, proof=self.options.proof)
        init = self.settings.init
        if init not in INITS and not is_there(init):
            raise SettingsError(
                f"--init {init!r} is neither one of {', '.join(INITS)} nor a picture file{near_miss(init, INITS)}"
            )
        content = load(task.content, alpha=self.settings.alpha == "keep")
        styles = [load(path) for path in task.styles]
        return content, styles, None if init in INITS else load(init)

    def _load(self, path: str, **about: Any) -> Picture:
        """Load a picture, and say what its reader has to say of it."""
        from ..pictures import images

        picture = images.load(path, max_pixels=self.options.max_pixels, **about)
        for note in picture.notes:
            self._remark(f"{path}: {note}")
        return picture

    def _load_regions(self, content: Picture, styles: Sequence[Picture]) -> tuple[Region, ...]:
        """Return the regions that the masks describe."""
        from ..losses.guidance import regions_of

        given = self.options.content_mask or (), self.options.style_mask or ()
        if not any(given):
            return ()
        content_masks, style_masks = ([self._load(path).pixels for path in paths] for paths in given)
        return regions_of(content_masks, style_masks, len(styles), [picture.size for picture in (content, *styles)])

    def _check_sizes(self, content: Picture, styles: Sequence[Picture]) -> Sequence[Stage]:
        from ..geometry.scales import plan
        from ..networks import layout

        spec = layout(self.settings)
        spec.check_layers(self.settings)
        spec.check_split(self.settings)
        stages = plan(content.size, [style.size for style in styles], self.settings)
        spec.check_stages(stages, self.settings)
        return stages

    # one picture: the work

    def _work(self, job: Job, output: Output, *, last: bool) -> int:
        """Paint a picture, or say what that would take, and return the exit code."""
        from ..engine.iterate import picture_of
        from ..engine.loop import stylize
        from .painting import Painting

        networks = self.networks = self.networks or self._place(job.weights)
        devices = [str(device) for network in networks for device in network.devices] * self.group.size
        if self.options.dry_run:
            return 0 if self.group.rank else self._dry_run(job, output, devices)
        output.describe(self.argv, networks[0], devices, job.stages)
        settings = self.settings if job.init is None else dataclasses.replace(self.settings, init="content")
        found, output.found = output.found, None  # its tensors would stay in memory
        state = None if found is None else found.state
        keeper = self._keeper(output, found)
        try:
            iterates = stylize(
                job.content, job.styles, settings, networks=networks, init=job.init, group=self.group,
                regions=job.regions, resume=state, fallback=None if keeper is None else keeper.last,
            )  # fmt: skip
        except CheckpointError as error:
            way_out = "take the pictures and options it was made with, or leave out --resume"
            raise CheckpointError(f"--resume {output.checkpoint}: {error}; {way_out}") from error
        if not self.group.rank:
            self._take_over(output, found, networks[0].devices[0])
        observer = self._observer(sum(stage.work for stage in job.stages))
        painting = Painting(output, self.settings, self.options, self.group, self.interrupt, observer, keeper)
        began, done = 0.0, 0
        if state is not None:
            began, done = state.seconds, sum(stage.steps for stage in job.stages[: state.index]) + state.step
        history = History(steps=done)
        self._equip(painting, job, output, history, state)
        complete = state is not None and (state.index, state.step) == (len(job.stages) - 1, job.stages[-1].steps)
        if state is not None:
            output.resume(state, job.stages)
        try:
            if self.group.broadcast(None if self.group.rank else complete):
                if state is not None:
                    painting.save_kept(state, picture_of(state, job.content, job.regions))
                return 0
            found = state = None
            return painting(
                iterates, lambda state: picture_of(state, job.content, job.regions),
                lambda: self._watch(job, output, observer, history), began, last=last,
            )  # fmt: skip
        finally:
            observer.close()

    def _place(self, weights: Weights | None) -> Sequence[Network]:
        """Return the network on the devices that work."""
        from .. import networks
        from ..compute import devices

        assert weights is not None
        if self.group.size > 1:
            chosen: Sequence[torch.device] = [self.group.device]
        else:
            chosen, remarks = devices.resolve(self.settings.devices)
            for remark in remarks:
                self._remark(remark)
        loaded = networks.place(weights, self.settings, chosen)
        if self.settings.precision == "auto" and loaded[0].precision != "fp32":
            self._remark(f"the network works in {loaded[0].precision} on {chosen[0]}; --precision chooses")
        return loaded

    def _dry_run(self, job: Job, output: Output, devices: Sequence[str]) -> int:
        """Print what each scale is expected to take."""
        from ..evaluation import memory
        from ..evaluation.planning import plan_for

        rows, total = [], 0.0
        for stage in job.stages:
            regions = len(job.regions)
            plan = plan_for(self.networks, stage.size, self.settings, self.group.size, regions)
            found = memory.estimate(self.networks, stage.size, self.settings, plan.limits, host=plan.host, regions=regions)
            total += found.seconds * stage.steps
            (height, width), tiles = stage.size, " + ".join(map(str, found.tiles))
            time = f"{clock(found.seconds * stage.steps)} ({found.seconds:.3g} s each)"
            used = memory.show_bytes(found.bytes) + (" and the picture on the host" if plan.host else "")
            rows.append((f"{width}x{height}", str(stage.steps), tiles, used, time))
        height, width = job.stages[-1].size
        disk = memory.show_bytes(width * height * 2 * (4 if self.settings.alpha == "keep" else 3))
        heads = ("size", "steps", "tiles", "memory", "time")
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            print_out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        name = self.networks[0].spec.name
        print_out(f"{name} on {', '.join(devices)}; about {clock(total)} in all; {output.path} takes at most {disk} of disk")
        return 0

    def _keeper(self, output: Output, found: Found | None) -> Keeper | None:
        """Return who keeps the checkpoints."""
        from ..engine.checkpoint import Keeper

        if output.checkpoint is None:
            return None
        return Keeper(output.checkpoint, self.options.checkpoint_every, number=0 if found is None else found.number)

    def _take_over(self, output: Output, found: Found | None, device: torch.device) -> None:
        """Make the place of the checkpoints this run's: what was found is the newest, what is of another run is set aside."""
        from ..engine import checkpoint

        if output.checkpoint is None:
            return
        if found is None:
            kept = checkpoint.set_aside(output.checkpoint)
            if kept is not None:
                self._remark(
                    f"an unfinished run was there; its checkpoint is now {kept}, and --checkpoint {kept} --resume goes on"
                )
            return
        checkpoint.settle(found, output.checkpoint)
        state = found.state
        height, width = state.size
        from importlib import metadata

        self._remark(f"going on from {output.checkpoint}: {width}x{height}, iteration {state.step}")
        made = state.made | {"device": device.type, "torch": metadata.version("torch"), "processes": self.group.size}
        changed = [f"{name} {state.made[name]}" for name in made if str(made[name]) not in str(state.made[name])]
        if changed:
            self._remark(f"the checkpoint was made with {', '.join(changed)}; the result can differ in the last digits")

    def _observer(self, total: int) -> Observer:
        if self.group.rank:
            return Quiet()
        if self.options.json:
            return JSONLines()
        return Quiet() if self.options.quiet else Bar(total)

    def _equip(self, painting: Painting, job: Job, output: Output, history: History, state: State | None) -> None:
        """Give a painting the preview, the animation and the report that are asked for; `state` is what it goes on from."""
        from .. import __version__

        options, bar = self.options, painting.observer
        if options.preview and isinstance(bar, Bar) and bar.bar is not None:
            from ..observers import preview

            protocol = preview.protocol(os.environ) if options.preview_protocol == "auto" else options.preview_protocol
            if protocol is not None:
                latest = (lambda: painting.gathered) if self.group.size > 1 else None
                painting.preview = preview.Preview(bar, protocol, output.finish, latest)
        if output.animation is not None:
            from ..observers.animation import Animation

            start = job.init if job.init is not None else job.content if self.settings.init == "content" else None
            store = None if output.checkpoint is None else output.animation.with_name(output.animation.name + ".frames")
            painting.animation = Animation(
                output.animation, job.stages[-1].size, seconds=options.animation_seconds, rate=options.animation_rate,
                side=options.animation_size, start=start, finish=output.finish, about=f"style_transfer {__version__}",
                group=self.group, store=store, run=output.identity,
            )  # fmt: skip
            if state is not None and not self.group.rank and not painting.animation.resume((state.index, state.step)):
                about = f"there are no pictures from before for {output.animation}; it shows the start and what comes now"
                painting.observer.say(shown(f"style_transfer: note: {about}"))
        if output.report is not None and not self.group.rank:
            from ..observers.report import Report

            painting.report = Report(
                output.report, output.recipe, output.roles, history, resumed=history.steps,
                began=0.0 if state is None else state.seconds, max_pixels=options.max_pixels,
            )  # fmt: skip

    def _watch(self, job: Job, output: Output, observer: Observer, history: History) -> WebObserver | None:
        """Return the live page, if there is to be one, showing this picture; it is served once for all."""
        if not self.options.web or self.group.rank:
            return None
        from ..api import to_pixels
        from ..compute.resampling import resize
        from ..observers.web import WebObserver

        content, size = job.content, job.stages[-1].size
        if size[0] < content.shape[2]:  # more would show nothing more beside the result
            content = resize(content, size, antialias=True).clamp(0, 1)
        about = {
            "program": output.recipe["program"],
            "content": Path(output.task.content).name,
            "styles": [Path(path).name for path in output.task.styles],
            "output": output.path.name,
            "network": output.recipe["network"]["name"],
            "devices": output.recipe["devices"],
            "precision": output.recipe["precision"],
            "settings": {flag_name(name): value for name, value in output.recipe["settings"].items()},
        }
        if self.page is not None:
            self.page.begin(about, to_pixels(content), output.finish, history)
            return self.page
        self.page = WebObserver(
            host=self.options.host, port=self.options.port, browser=self.options.browser,
            about=about, content=to_pixels(content), finish=output.finish, history=history,
        )  # fmt: skip
        observer.say(f"watch it at {self.page.start()}")
        if self.page.exposed:
            self._remark("the live page can be reached from other machines; whoever has its address can watch and steer the run")
        return self.page


def ran_out(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    from ..evaluation import memory

    return memory.ran_out(error)


SPIN = "GOMP_SPINCOUNT", "10000"
"""How long OpenMP's threads look for more work before they sleep: half a millisecond or so. It is read when torch is loaded.

By themselves they do so for ten milliseconds, and hold the cores that `workers` and other programs want."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SPIN)
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
        if run is not None and run.output is not None and run.output.saved is not None:
            height, width = run.output.saved
            text += f"; {run.output.path} has the picture at {width}x{height}"
        elif interrupted and not (run is not None and run.several):
            text += "; nothing was written"
        if os.environ.get("RANK", "0") == "0" or isinstance(problem, DeviceError | DistributedError):
            with contextlib.suppress(OSError, ValueError):
                print(f"style_transfer: {shown(text)}", file=sys.stderr, flush=True)
        if interrupted and run is not None:
            return run.interrupt.exit_code
        return exit_code(problem)
