"""A command: one picture or several, read, painted and written, in one process or under torchrun."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import __version__, observers
from ..compute import devices, distributed, modes
from ..errors import (
    CheckpointError,
    DeviceError,
    DistributedError,
    ImageError,
    OutputError,
    SettingsError,
    StyleTransferError,
    WeightsError,
    exit_code,
)
from ..files import LockedError, Task, is_folder, same_file, shown
from ..networks import network_spec
from ..observers.console import Console
from ..observers.stdout import print_out
from ..pictures import check_output, save
from ..registry import OBSERVERS
from .contact_sheet import contact_sheet
from .interrupt import Interrupt
from .job import Job
from .outputs import OutputFiles
from .painter import Painter
from .parser import Command
from .printing import check_print
from .tasks import pictures, plan_tasks, shard_of


class CommandRun:
    """Carries out a command: checks everything that can be wrong first, then paints and writes the pictures.

    Of several pictures each is checked at its turn, and one that fails does not end the run. In a group of processes rank 0 reads
    and writes, and all ranks paint.
    """

    def __init__(self, command: Command) -> None:
        self.command, self.options = command, command.options
        check_print(command.settings, command.options)
        self.settings = command.settings.resolve()
        self.several = self.options.each is not None or self.options.grid or is_folder(command.content)
        """Whether the command asks for several pictures, even if only one is found."""
        self.interrupt = Interrupt(1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.15)
        self.painter: Painter | None = None

    def __call__(self) -> int:
        """Carry out the command and return its exit code. Raises `StyleTransferError`."""
        if self.settings.deterministic:
            os.environ.setdefault(*modes.CUBLAS)
        with distributed.joined(functools.partial(devices.of_local_rank, self.settings.devices)) as group:
            asked = observers.Command(self.options.quiet, self.options.json, group.rank, self.command.options_of)
            created = [observer for kind in OBSERVERS.values() if (observer := kind.create(asked)) is not None]
            console = next((observer for observer in created if isinstance(observer, Console)), None)
            created.sort(key=lambda observer: observer is console)  # messages of the others come before its end
            painter = self.painter = Painter(self.command, self.settings, group, created, console, self.interrupt)
            try:
                tasks = painter.shared(lambda: self._tasks(painter))
                return self._paint_all(painter, tasks) if self.several else self._paint_one(painter, tasks[0])
            finally:
                for observer in created:
                    observer.close()

    # the pictures of the command

    def _tasks(self, painter: Painter) -> list[Task]:
        """Return the pictures to paint. Raises `SettingsError` for what is wrong with any pictures."""
        options, settings = self.options, self.settings
        styles = pictures(self.command.styles)
        if options.grid and settings.style_weights is not None:
            raise SettingsError("--grid uses each style alone; leave out --style-weights")
        if not options.grid:
            settings.blend(len(settings.expanded(len(styles))))
        if self.several:
            if options.checkpoint not in (None, "off"):
                raise SettingsError(
                    f"--checkpoint {options.checkpoint} is one file for several pictures; leave it out, and each has its own"
                )
            spec = network_spec(settings)
            spec.check_layers(settings)
            spec.check_split(settings)
        report = painter.message if not options.quiet else lambda text: None
        contents = pictures(options.each or [self.command.content], report) if self.several else [self.command.content]
        tasks = shard_of(plan_tasks(contents, styles, options, several=self.several), options.shard)
        self._check_beside(painter, tasks)
        sheet = options.contact_sheet
        if sheet is not None:
            check_output(sheet)
            used = [path for task in tasks for path in (*self._files(painter, task).inputs, str(task.output))]
            if any(same_file(Path(sheet), Path(path)) for path in dict.fromkeys(used)):
                raise SettingsError(f"--contact-sheet {sheet} is also an input or a result; choose another name")
        return tasks

    def _check_beside(self, painter: Painter, tasks: Sequence[Task]) -> None:
        """Raise `SettingsError` if observers would write the same file for two pictures."""
        names: dict[Path, Task] = {}
        for task in tasks:
            for flag, path in painter.files_beside(task):
                if names.setdefault(path, task) is not task:
                    raise SettingsError(
                        f"{flag} {shown(path)} is the same for several pictures; put {{content}} or {{output}} into it"
                    )

    def _files(self, painter: Painter, task: Task) -> OutputFiles:
        beside = painter.files_beside(task)
        return OutputFiles(task, self.settings, self.options, several=self.several, beside=beside)

    def _paint_one(self, painter: Painter, task: Task) -> int:
        with contextlib.ExitStack() as held:
            files = self._files(painter, task)
            code = painter.paint(files, painter.shared(lambda: painter.read(files, held), Job.for_other_ranks), last=True)
        self._write_sheet(painter, [task], {task: task.output})
        return code

    def _paint_all(self, painter: Painter, tasks: Sequence[Task]) -> int:
        """Paint several pictures; return the exit code of the first that failed, or of the signal that ended the run."""
        made: dict[Task, Path | None] = {}
        failures: list[tuple[Task, StyleTransferError]] = []
        skipped = others = code = 0
        for number, task in enumerate(tasks, 1):
            painter.saved = None
            last = number == len(tasks)
            try:
                with contextlib.ExitStack() as held:
                    files = self._files(painter, task)
                    if painter.shared(lambda files=files: files.is_done(painter.warn)):  # type: ignore[misc]
                        skipped += 1
                        made[task] = task.output
                        continue
                    job = painter.shared(lambda files=files, held=held: painter.read(files, held), Job.for_other_ranks)  # type: ignore[misc]
                    if not self.options.quiet:
                        painter.message(shown(f"{number} of {len(tasks)}: {task.output}"))
                    code = painter.paint(files, job, last=last)
            except KeyboardInterrupt:
                if painter.group.size > 1 or self.interrupt.second:
                    raise
                code = self.interrupt.exit_code
                break
            except (WeightsError, DeviceError, DistributedError):
                raise
            except LockedError:
                others += 1
                made[task] = None
                painter.warn(f"{shown(task.output)} is being painted by another run")
                continue
            except StyleTransferError as error:
                if painter.group.size > 1 and not isinstance(error, OutputError | ImageError | SettingsError | CheckpointError):
                    raise  # the other ranks wait in the middle of a step
                failures.append((task, error))
                made[task] = None
                if not last:
                    painter.warn(f"{error}; the run continues with the next picture")
                continue
            made[task] = task.output
            if painter.group.broadcast(self.interrupt.asked):  # perhaps after this picture was complete
                code = code or self.interrupt.exit_code
            if code:
                break
        painted = len(made) - skipped - others - len(failures)
        counts = {
            "planned" if self.options.dry_run else "painted": painted,
            "existed already": skipped,
            "left to another run": others,
            "failed": len(failures),
            "not started": len(tasks) - len(made),
        }
        self._summarize(painter, counts, failures)
        self._write_sheet(painter, tasks, made)
        if painter.group.rank:
            return code  # torchrun ends the other ranks when one fails, and rank 0 may still write the contact sheet
        return code or next((exit_code(error) for _, error in failures), 0)

    def _summarize(
        self, painter: Painter, counts: Mapping[str, int], failures: Sequence[tuple[Task, StyleTransferError]]
    ) -> None:
        """Print what became of several pictures; with --quiet only what failed."""
        total = sum(counts.values())
        if not self.options.quiet or failures:
            words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
            painter.message(f"style_transfer: {total} picture{'s' * (total != 1)}: {words}")
        for task, error in failures:
            painter.message(shown(f"style_transfer: failed: {task.output}: {error}"))

    def _write_sheet(self, painter: Painter, tasks: Sequence[Task], made: Mapping[Task, Path | None]) -> None:
        path = self.options.contact_sheet
        if path is None or self.options.dry_run or painter.group.rank:
            return
        grid = self.options.grid or not self.several
        sheet = contact_sheet([task for task in tasks if task in made], made, grid=grid)
        save(path, sheet, metadata={"Software": f"style_transfer {__version__}"})
        if not self.options.json:
            print_out(Path(path))
