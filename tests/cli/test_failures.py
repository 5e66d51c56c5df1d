"""Runs that fail on the way: numbers that are not finite, too little memory, a device that breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.command_line import PROGRAM, command, pixels, run_program
from support.disturbances import make_not_finite
from support.report_page import Page
from torch import Tensor

from style_transfer import cli
from style_transfer.cli import outputs
from style_transfer.compute.capture import Transfer
from style_transfer.engine.optimizers import Average
from style_transfer.errors import OutputError
from style_transfer.evaluation import planner
from style_transfer.evaluation.objective import Evaluation, Objective
from style_transfer.networks import forward


def test_numbers_that_are_not_finite_once_take_the_run_back_a_few_steps(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_not_finite(monkeypatch, lambda call: call == 7)
    assert cli.main(command("--save-every", "1")) == 0
    err = capsys.readouterr().err
    assert "resuming from 46x37, iteration 1, with 1/2 of the step size" in err and "NaN" not in err
    assert pixels().shape == (37, 46, 3)


def test_numbers_that_are_never_finite_exit_with_7_and_leave_the_last_good_picture(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_not_finite(monkeypatch, lambda call: call >= 7)
    assert cli.main(command()) == 7
    err = capsys.readouterr().err.splitlines()[-1]
    assert "not finite at 46x37" in err and "halved 3 times" in err and err.endswith("out.png has the picture at 33x26")
    assert pixels().shape == (26, 33, 3)
    recipe = json.loads(Path("out.png.json").read_text())
    assert (recipe["step"], recipe["steps"], recipe["finished"]) == (4, 4, False)


def test_numbers_that_are_not_finite_at_the_first_scale_leave_the_checkpoints_picture_and_a_report(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_not_finite(monkeypatch, lambda call: call >= 3)
    assert cli.main(command("--report", "r.html")) == 7
    assert capsys.readouterr().err.splitlines()[-1].endswith("out.png has the picture at 33x26")
    recipe = json.loads(Path("out.png.json").read_text())
    assert (recipe["step"], recipe["steps"], recipe["finished"]) == (1, 4, False)
    page = Page(Path("r.html").read_text("utf-8"))
    assert any(text.startswith("failed: the loss or the picture was not finite") for text in page.texts)
    assert page.all("img")[0]["alt"] == "The result, out.png"


def test_numbers_that_are_not_finite_are_the_error_also_if_the_picture_cannot_be_saved(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first picture is that of the last checkpoint, and its file cannot be written."""

    def full(*_: object, **__: object) -> None:
        raise OutputError("out.png: cannot be written: No space left on device; free some space")

    Path("out.png").write_bytes(b"old")
    make_not_finite(monkeypatch, lambda call: call >= 3)
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "save", full)
        assert cli.main(command("--report", "r.html")) == 7
    *_, note, error = capsys.readouterr().err.splitlines()
    assert note == "style_transfer: note: out.png: cannot be written: No space left on device; free some space"
    assert "not finite at 33x26" in error and "has the picture" not in error
    assert Path("out.png").read_bytes() == b"old" and not Path("out.png.json").exists() and not Path("r.html").exists()
    assert Path("out.png.checkpoint").exists()


@pytest.mark.parametrize("level", [0, 255, 128])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein"])
def test_flat_picture_files_stay_finite(level: int, style_loss: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (60, 48), (level,) * 3).save("c.png")
    Image.new("L", (40, 40), 255 - level).save("s.png")
    assert cli.main(command("--style-loss", style_loss)) == 0
    assert "not finite" not in capsys.readouterr().err


def test_memory_that_does_not_suffice_exits_with_5_and_leaves_the_last_good_scale(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = planner.state_bytes

    def huge_at_the_end(network: object, size: tuple[int, int], *more: object, **about: object) -> int:
        return 10**15 if size[1] == 46 else state(network, size, *more, **about)  # type: ignore[arg-type]

    monkeypatch.setattr(planner, "state_bytes", huge_at_the_end)
    assert cli.main(command("-o", "o.png")) == 5
    err = capsys.readouterr().err
    assert "46x37 needs" in err and "o.png has the picture at 33x26" in err
    assert pixels("o.png").shape == (26, 33, 3)


LIMITED = """
import resource
from style_transfer import api
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
"""


def test_a_picture_that_does_not_fit_the_hosts_memory_exits_with_5(place: Path) -> None:
    Image.new("RGB", (9000, 9000), "red").save("c.png", compress_level=1)
    Path("prog.py").write_text(PROGRAM.replace("sys.exit", LIMITED + "sys.exit"))
    done = run_program()
    assert done.returncode == 5, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "memory" in done.stderr


def test_a_device_that_breaks_exits_with_8_and_leaves_a_checkpoint_to_resume(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate, calls = Objective.evaluate, []

    def fail(self: Objective, image: Tensor, *more: object) -> Evaluation:
        calls.append(1)
        if len(calls) == 5:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")
        return evaluate(self, image, *more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "evaluate", fail)
        assert cli.main(command()) == 8
    err = capsys.readouterr().err.splitlines()[-1]
    assert "illegal memory access" in err and "checkpoint" in err and len(calls) == 5
    assert cli.main(command("--resume")) == 0


@pytest.mark.parametrize("where", ["Network.__init__", "Average.value", "Transfer.get"])
def test_a_device_that_breaks_outside_of_a_step_exits_with_8(
    where: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While weights are loaded, or where the host waits for what the device has computed."""

    def fail(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    kind, _, method = where.partition(".")
    monkeypatch.setattr({"Network": forward.Network, "Average": Average, "Transfer": Transfer}[kind], method, fail)
    assert cli.main(command()) == 8
    err = capsys.readouterr().err
    assert "illegal memory access" in err.splitlines()[-1] and "Traceback" not in err


PRIMITIVE = "could not create a primitive"
"""oneDNN's message if it has no memory for a convolution's code or weights, among other reasons."""


def test_memory_that_runs_out_in_onednn_leads_to_smaller_tiles(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate, calls = Objective.evaluate, []

    def fail(times: int) -> Callable[..., Evaluation]:
        def once(self: Objective, image: Tensor, *more: Any) -> Evaluation:
            calls.append(more)
            if len(calls) <= times:
                raise RuntimeError(PRIMITIVE)
            return evaluate(self, image, *more)

        return once

    monkeypatch.setattr(Objective, "evaluate", fail(2))
    assert cli.main(command()) == 0
    assert len(calls) == 9 and calls[0] != calls[1] != calls[2] == calls[3]
    calls.clear()
    monkeypatch.setattr(Objective, "evaluate", fail(1000))
    assert cli.main(command("-o", "other.png")) == 5
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"small tiles ({PRIMITIVE}); take a smaller --end-scale")
