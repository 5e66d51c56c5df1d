"""The baseline of the speed benchmarks minimises the same loss."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from support.settings import resolved
from support.tiny import picture, random_state

from style_transfer.evaluation.objective import Objective
from style_transfer.networks import VGG19
from style_transfer.networks.forward import Network

PATH = Path(__file__).parents[2] / "benchmarks" / "textbook.py"
SPEC = importlib.util.spec_from_file_location("textbook", PATH)
assert SPEC is not None and SPEC.loader is not None
textbook = importlib.util.module_from_spec(SPEC)
sys.modules["textbook"] = textbook
SPEC.loader.exec_module(textbook)


@pytest.mark.parametrize(("pooling", "loss", "tolerance"), [("average", "gram", 1e-4), ("max", "gram", 1e-4),
                                                            ("average", "wasserstein", 0.3)])  # fmt: skip
def test_the_first_loss_and_its_gradient_agree(pooling: str, loss: str, tolerance: float) -> None:
    """Twelve Newton-Schulz steps overstate the Wasserstein loss where covariances are rank-deficient: 19 % at this size."""
    state = random_state(VGG19, 0)
    content, style, image = (picture(seed, 64, 80, torch.float32) for seed in (1, 2, 3))
    network = Network(VGG19, state, pooling=pooling)
    ours = Objective([network], content, [style], resolved(style_loss=loss)).evaluate(image)
    other = image.detach().clone().requires_grad_()
    theirs = textbook.Objective(textbook.VGG(state, pooling), content, style, loss)(other)
    theirs.backward()
    assert float(theirs.detach()) == pytest.approx(float(ours.loss), rel=tolerance)
    assert image.grad is not None and other.grad is not None
    cosine = torch.nn.functional.cosine_similarity(image.grad.flatten(), other.grad.flatten(), dim=0)
    assert float(cosine) > (0.9999 if loss == "gram" else 0.9)
