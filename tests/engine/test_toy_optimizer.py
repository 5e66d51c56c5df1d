"""An optimizer registered from outside of the package runs through the command line, tiled and untiled, and resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from support.command_line import command
from torch import Tensor

from style_transfer import cli
from style_transfer.engine.optimizers import Optimizer, Resize, Saved
from style_transfer.registry import OPTIMIZERS


class SignDescent(Optimizer):
    """Changes every pixel by the same amount along the sign of the gradient."""

    help = "steps of constant size along the sign of the gradient"

    def __init__(self, size: float) -> None:
        self.size = size

    @classmethod
    def from_settings(cls, settings: Any, group: Any, factor: float) -> Self:
        return cls(settings.step_size * factor)

    @staticmethod
    def pictures(settings: Any) -> int:
        return 0

    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        assert image.grad is not None
        image.data.sub_(self.size * image.grad.sign()).clamp_(0, 1)

    def resized(self, resize: Resize) -> Self:
        return self

    def state(self, image: Tensor) -> Saved:
        return {}, {}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        pass


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    OPTIMIZERS.register("toy")(SignDescent)
    yield
    OPTIMIZERS.unregister("toy")


@pytest.mark.parametrize("tile", ["auto", "32"])
def test_a_toy_optimizer_paints(place: Path, tile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--optimizer", "toy", "-ss", "0.001", "--tile", tile, "--json", "-o", "o.png")) == 0
    losses = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert losses[3] < losses[0]
    assert json.loads(Path("o.png.json").read_text())["settings"]["optimizer"] == "toy"


def test_an_unknown_optimizer_is_refused_with_a_suggestion(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--optimizer", "toyy")) == 2
    assert "did you mean 'toy'?" in capsys.readouterr().err
