"""The observer behind `--report`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ...errors import OutputError, SettingsError, StyleTransferError
from ...files import shown, write_text
from ...registry import OBSERVERS
from ...settings import check_not_empty, option, validate_fields
from ..observer import Observer
from .page import RunRecord

if TYPE_CHECKING:
    from ...files.naming import Task
    from ...pictures import Pixels
    from ..observer import Command, Progress, Result, RunInfo

SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The command-line options of the report."""

    report: str | None = option(None, "write a report of the run to one .html file: pictures, loss curves, times, settings, "
        "hashes; several results need a pattern such as {output}.html", metavar="FILE", check=check_not_empty)  # fmt: skip

    def __post_init__(self) -> None:
        validate_fields(self)


@OBSERVERS.register("report")
class Report(Observer):
    """Writes a report of each run, on rank 0."""

    Options = ReportOptions
    _record: RunRecord

    def __init__(self, options: ReportOptions) -> None:
        self.options = options

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer if `--report` is given, on rank 0."""
        options: ReportOptions = command.options(ReportOptions)
        return None if options.report is None or command.rank else cls(options)

    def files(self, task: Task) -> Sequence[tuple[str, Path]]:
        """Return the file of the report. Raises `SettingsError` for a suffix other than .html and for unknown fields."""
        pattern = self.options.report or ""
        if Path(pattern).suffix.lower() not in SUFFIXES:
            raise SettingsError(f"--report {shown(pattern)} must end in .html")
        return [("--report", task.beside("--report", pattern))]

    def begin(self, run: RunInfo) -> None:
        """Begin the report of a run, and read its input files."""
        self._record = RunRecord(run)

    def step(self, progress: Progress) -> None:
        """Record the losses, time and memory of a step, without waiting for the device."""
        self._record.step(progress)

    def saved(self, progress: Progress, pixels: Pixels) -> None:
        """Record the picture of a scale."""
        self._record.saved(progress, pixels)

    def end(self, result: Result) -> Mapping[str, Path]:
        """Write the report."""
        status = result.status
        if result.progress is not None and not result.complete:
            iterate = result.progress.iterate
            status += f" at {iterate.w}x{iterate.h}, iteration {iterate.step} of {iterate.steps}"
        return {"report": self._write(result.path, status)}

    def fail(self, error: StyleTransferError, picture: Path | None) -> None:
        """Write the report of a run that failed, if a picture of it was saved."""
        if picture is not None or self._record.resumed:
            with contextlib.suppress(OutputError, MemoryError):
                self._write(self._record.run.task.output, f"failed: {error}")

    def _write(self, result: Path, status: str) -> Path:
        ((_, path),) = self.files(self._record.run.task)
        write_text(path, self._record.render(result, status))
        return path
