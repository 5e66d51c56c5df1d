"""Modes of torch that the caller set do not reach into an evaluation, and are restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.settings import resolved
from support.tiny import picture

from style_transfer.compute.modes import exact_products
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import Sweep
from style_transfer.networks.forward import Network

BACKENDS: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]


def modes() -> tuple[str, ...]:
    return tuple(backend.fp32_precision for backend in BACKENDS)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")


def everything() -> None:
    torch.backends.fp32_precision = "tf32"  # type: ignore[attr-defined]
    for backend in BACKENDS:
        backend.fp32_precision = "none"


def one() -> None:
    BACKENDS[1].fp32_precision = "bf16"


CHOICES: dict[str, Callable[[], Any]] = {
    "highest": lambda: torch.set_float32_matmul_precision("highest"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "everything": everything,
    "one backend": one,
}


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_products_are_exact_in_the_block_and_as_before_after_it(choose: Callable[[], Any]) -> None:
    choose()
    before = modes()
    for _ in range(2):
        with exact_products():
            assert set(modes()) <= {"ieee", "none"}
            assert torch.get_float32_matmul_precision() == "highest"
        assert modes() == before


def test_a_mode_for_all_backends_can_still_be_changed_after_the_block() -> None:
    everything()
    with exact_products():
        pass
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    assert modes() == ("ieee", "ieee")


def test_an_evaluation_computes_exact_products(make_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_float32_matmul_precision("medium")
    before, seen = modes(), []
    for name in ("measure", "gradient"):
        plain = getattr(Sweep, name)
        monkeypatch.setattr(Sweep, name, lambda *args, plain=plain, **about: seen.append(modes()) or plain(*args, **about))
    content, style, image = (picture(seed, 40, 50, torch.float32) for seed in (1, 2, 3))
    objective = Objective([make_network()], content, [style], resolved())
    assert seen and modes() == before
    objective.evaluate(image)
    assert set(seen) == {("ieee", "ieee")} and modes() == before
