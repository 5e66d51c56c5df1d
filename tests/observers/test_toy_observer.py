"""An observer registered from outside of the package follows a run of the command line and brings an option of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import pytest
from support.command_line import command
from support.disturbances import at_each_iteration

from style_transfer import cli
from style_transfer.cli.picture_run import PictureRun
from style_transfer.compute.distributed import Request
from style_transfer.engine import Iterate
from style_transfer.files import Task
from style_transfer.observers import Command, Observer, Progress, Result
from style_transfer.registry import OBSERVERS
from style_transfer.settings import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogOptions:
    """The option of the toy."""

    step_log: str | None = option(None, "write one line per step to a file", metavar="FILE", topic="watching")


class StepLog(Observer):
    """Writes a line per step."""

    Options = LogOptions

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, list[str]()

    @classmethod
    def create(cls, command: Command) -> Self | None:
        path = command.options(LogOptions).step_log
        return None if path is None else cls(Path(path))

    def files(self, task: Task) -> Sequence[tuple[str, Path]]:
        return [("--step-log", self.path)]

    def step(self, progress: Progress) -> None:
        self.lines.append(f"{progress.iterate.w} {progress.iterate.step} {progress.picture().shape}")

    def end(self, result: Result) -> Mapping[str, Path]:
        self.path.write_text("\n".join(self.lines))
        return {"step log": self.path}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    OBSERVERS.register("step-log")(StepLog)
    yield
    OBSERVERS.unregister("step-log")


@pytest.mark.parametrize("tile", ["auto", "32"])
def test_a_toy_observer_sees_every_step(place: Path, tile: str) -> None:
    assert cli.main(command("--step-log", "steps.txt", "--tile", tile, "-o", "o.png")) == 0
    lines = Path("steps.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["33", str(n)] for n in (1, 2, 3, 4)] + [["46", str(n)] for n in (1, 2, 3)]


def test_without_its_option_it_does_not_follow(place: Path) -> None:
    assert cli.main(command("-o", "o.png")) == 0
    assert not Path("steps.txt").exists()


def test_its_file_must_not_be_another_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--step-log", "c.png", "-o", "o.png")) == 2
    assert "--step-log c.png is also an input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("request_", "step", "skipped"),
    [(Request.FINISH, (46, 2), None), (Request.FINISH_SCALE, (46, 3), [{"scale": 1, "after": 2}])],
    ids=["finish", "finish the scale"],
)
def test_a_request_after_the_program_has_looked_waits_for_the_next_step(
    request_: Request, step: tuple[int, int], skipped: object, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = PictureRun._requests

    def look_and_request(run: PictureRun) -> Request:
        agreed = looked(run)
        scale, step = (1, 1) if request_ == Request.FINISH else (0, 1)
        if (run.job.run.stages[scale].size, step) == (last[-1].size, last[-1].step):
            run.control.request(request_)
        return agreed

    last: list[Iterate] = []
    at_each_iteration(monkeypatch, last.append)
    monkeypatch.setattr(PictureRun, "_requests", look_and_request)
    assert cli.main(command("-o", "o.png")) == 0
    recipe = json.loads(Path("o.png.json").read_text())
    assert (recipe["width"], recipe["step"], recipe.get("skipped")) == (*step, skipped)
