"""Which error a style loss uses, and which norms it accepts, as first and as second loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.equivalence import evaluate

from style_transfer.errors import SettingsError
from style_transfer.evaluation.sweep import UNLIMITED
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

TERMS: dict[str, dict[str, object]] = {
    "style": {"style_loss": "mean-std"},
    "extra": {"extra_loss": "mean-std", "extra_weight": 1.0},
}


@pytest.mark.parametrize("term", TERMS)
def test_the_given_error_is_used_for_mean_std_too(term: str, make_network: Callable[..., Network]) -> None:
    network, layers = make_network(dtype=torch.float64), ("relu1_1",)

    def part(**about: object) -> float:
        _, parts, _, _ = evaluate(network, (40, 50), UNLIMITED, style_layers=layers, **TERMS[term], **about)
        return float(parts[f"{term} relu1_1"])

    left_out = part()
    assert part(style_error="mean") == left_out
    assert part(style_error="sum") == pytest.approx(2 * 4 * left_out)  # of two moments of four channels
    assert part(style_error="scaled") != pytest.approx(left_out)


def test_each_loss_has_its_own_default(make_network: Callable[..., Network]) -> None:
    network = make_network(dtype=torch.float64)
    both = {"style_loss": "gram", "extra_loss": "mean-std", "extra_weight": 1.0}
    _, left_out, _, _ = evaluate(network, (40, 50), UNLIMITED, **both)
    for error, prefix, other in (("scaled", "style", "extra"), ("mean", "extra", "style")):
        _, chosen, _, _ = evaluate(network, (40, 50), UNLIMITED, style_error=error, **both)
        assert float(chosen[f"{prefix} relu2_1"]) == float(left_out[f"{prefix} relu2_1"])
        assert float(chosen[f"{other} relu2_1"]) != pytest.approx(float(left_out[f"{other} relu2_1"]))


@pytest.mark.parametrize("norm", ["raw", "raw-squared"])
def test_raw_norms_are_refused_for_other_losses(norm: str) -> None:
    with pytest.raises(
        SettingsError, match=f"--gram-norm {norm} does not go with --style-loss covariance; use pixels or elements"
    ):
        Settings(gram_norm=norm, style_loss="covariance")
    with pytest.raises(SettingsError, match=f"--gram-norm {norm} does not go with --extra-loss mean-std"):
        Settings(gram_norm=norm, extra_loss="mean-std", extra_weight=0.5)
    Settings(gram_norm=norm, extra_loss="mean-std")
    Settings(gram_norm=norm, extra_loss="gram", extra_weight=0.5)
