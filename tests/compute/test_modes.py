"""Modes of torch that the caller set do not reach into an evaluation, and are restored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.settings import resolved
from support.tiny import picture

from style_transfer.compute.modes import SharedMode, deterministic, exact_products
from style_transfer.engine.loop import stylize
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import Sweep
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

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


def set_by_hand(values: list[str]) -> SharedMode:
    """Return a mode that is the last of `values`, `exact` or `loose`."""

    @contextmanager
    def change(exact: bool) -> Iterator[None]:
        before = values[-1]
        values.append("exact" if exact else "loose")
        yield
        values.append(before)

    return SharedMode(change)


def test_overlapping_blocks_restore_the_caller_s_mode_at_the_last_end() -> None:
    values = ["caller's"]
    mode = set_by_hand(values)
    first, second = mode.block(), mode.block()
    seen = []
    for change in (first.__enter__, second.__enter__, lambda: first.__exit__(None, None, None),
                   lambda: second.__exit__(None, None, None)):  # fmt: skip
        change()
        seen.append(values[-1])
    assert seen == ["exact", "exact", "exact", "caller's"] and len(values) == 3


def test_of_overlapping_blocks_the_exact_one_wins() -> None:
    values = ["caller's"]
    mode = set_by_hand(values)
    loose, exact = mode.block(exact=False), mode.block()
    loose.__enter__()
    exact.__enter__()
    assert values[-1] == "exact"
    exact.__exit__(None, None, None)
    assert values[-1] == "loose"
    loose.__exit__(None, None, None)
    assert values[-1] == "caller's"


def test_deterministic_runs_that_overlap_in_threads_leave_no_mode_on(make_network: Callable[..., Network]) -> None:
    """The steps of two runs overlap; the first one ends before the second."""
    content, style, network = picture(1, 40, 50, torch.float32), picture(2, 40, 50, torch.float32), make_network()
    began, ended = threading.Barrier(2, timeout=60), threading.Event()

    def run(first: bool) -> None:
        with deterministic(True):
            began.wait()
            settings = Settings(min_scale=40, end_scale="40", initial_iterations=2, deterministic=True)
            list(stylize(content, [style], settings, networks=[network]))
            if not first:
                assert ended.wait(60) and torch.are_deterministic_algorithms_enabled()
        if first:
            ended.set()

    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(run, first) for first in (True, False)]:
            task.result()
    assert not torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
