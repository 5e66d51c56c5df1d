"""A style loss from outside of the package, in under 30 lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.settings import resolved
from support.tiny import picture
from torch import Tensor

from style_transfer import cli
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits
from style_transfer.geometry.tiles import Window
from style_transfer.losses import StageRegion, Stats, StyleLoss, moments
from style_transfer.networks.forward import Network
from style_transfer.registry import STYLE_LOSSES

SIZE = (96, 80)


class MeanLoss(StyleLoss):
    """Mean squared difference of the channels' means."""

    help = "the mean of each channel"

    @staticmethod
    def statistic(features: Tensor, window: Window | None = None, weights: Tensor | None = None) -> Stats:
        """Return the sum over cells of f, (C,)."""
        return moments(features, window, weights, second="none")

    def score(self, total: Stats) -> Tensor:
        """Return the mean squared difference."""
        return (total.means()["mean"] - self.target["mean"]).square().mean()


@pytest.fixture
def toy() -> Iterator[str]:
    STYLE_LOSSES.register("toy")(MeanLoss)
    yield "toy"
    STYLE_LOSSES.unregister("toy")


@pytest.mark.parametrize("masks", [False, True])
def test_a_style_loss_from_outside_is_evaluated_tiled_and_untiled(
    masks: bool, toy: str, make_network: Callable[..., Network]
) -> None:
    settings, left = resolved(style_loss=toy), torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    network = make_network(dtype=torch.float64)
    left[..., :30] = 1
    regions = [StageRegion(left, {0: None}), StageRegion(1 - left, {1: left[..., :64, :70]})] if masks else []
    found = []
    for limits, workers in ((UNLIMITED, 1), (Limits(False, (60 * 70, 24 * 24), (0, 0)), 2)):
        styles, image = [picture(2, 64, 70), picture(4, 64, 70)], picture(3, *SIZE)
        objective = Objective([network] * workers, picture(1, *SIZE), styles, settings, limits, regions=regions)
        evaluation = objective.evaluate(image)
        assert (image.grad is not None and sum(objective.sweep.tiles) > 2) or limits == UNLIMITED
        found.append((float(evaluation.parts["style relu3_1 1" if masks else "style relu3_1"]), image.grad))
    assert found[0][0] > 0 and found[1][0] == pytest.approx(found[0][0], rel=1e-10)
    assert float((found[1][1] - found[0][1]).norm() / found[0][1].norm()) < 1e-10


def test_a_style_loss_from_outside_runs_from_the_command_line(toy: str, place: Path) -> None:
    small = ["--network", "compact", "-ms", "32", "-s", "46", "-ii", "2", "-i", "2", "--quiet"]
    for flags in (["--style-loss", toy], ["--extra-loss", toy, "--extra-weight", "1", "--tile", "24"]):
        assert cli.main(["c.png", "s.png", *small, *flags, "-o", "toy.png"]) == 0
        assert Path("toy.png").exists()
        Path("toy.png").unlink()
