"""Recovery from a lack of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from support.engine_runs import iterates_of
from support.settings import resolved

from style_transfer.compute import memory
from style_transfer.compute.distributed import LOCAL, Group
from style_transfer.engine.schedule import plan_stages
from style_transfer.errors import MemoryLimitError
from style_transfer.evaluation import planner
from style_transfer.evaluation.retry import RETRIES, OutOfMemoryRetrier, smaller
from style_transfer.evaluation.sweep import UNLIMITED, Limits, Sweep
from style_transfer.networks.forward import Network

MakeNetwork = Callable[..., Network]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    """Restore what a retrier without a run sets."""
    yield
    memory.keep_freed(False)


def test_kept_memory_is_given_back_when_it_has_become_too_much(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(memory, "trim", lambda: given.append(1))
    (stage,) = plan_stages((40, 50), [(40, 50)], resolved(min_scale=50, end_scale="50"))
    retrier = OutOfMemoryRetrier([make_network()], stage, resolved(), LOCAL, 0)
    limit = memory.used_bytes(CPU) + planner.SHARE * memory.free_bytes(CPU)
    for used, trims in ((0.9 * limit, 0), (1.1 * limit, 1)):
        monkeypatch.setattr(memory, "used_bytes", lambda device, used=used: used)
        assert retrier.attempt(lambda limits: limits) == retrier.limits
        assert len(given) == trims


class Failing:
    """Fails like an allocator for the first so many sweeps whose tiles are larger than a limit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left, self.seen = times, []  # type: ignore[var-annotated]
        original = Sweep.gradient

        def gradient(sweep: Sweep, *more: object) -> torch.Tensor:
            self.seen.append(sweep.tiles)
            if self.left:
                self.left -= 1
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried 1 bytes"
                )
            return original(sweep, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(Sweep, "gradient", gradient)


def test_a_step_that_runs_out_of_memory_is_done_again_in_smaller_tiles(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = make_network(dtype=torch.float64)
    expected = iterates_of(exact)
    failing = Failing(monkeypatch, 3)
    found = iterates_of(exact)
    assert len(found) == len(expected)
    assert [sum(tiles) for tiles in failing.seen[:4]] == sorted(sum(tiles) for tiles in failing.seen[:4])
    assert failing.seen[0] == (1,) and sum(failing.seen[3]) > 2
    for a, b in zip(expected, found, strict=True):
        assert float(a.loss) == pytest.approx(float(b.loss), rel=1e-6)
    assert torch.allclose(expected[-1].image(), found[-1].image(), atol=1e-3)


def test_memory_that_is_never_enough_ends_with_an_error(tiny: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, 10**6)
    with pytest.raises(MemoryLimitError, match="even in small tiles"):
        iterates_of(tiny)
    assert len(failing.seen) == RETRIES


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Sweep, "gradient", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        iterates_of(tiny)


def test_smaller_limits_end_at_the_smallest_tiles(tiny: Network) -> None:
    limits, size = UNLIMITED, (500, 700)
    areas = []
    for _ in range(30):
        limits = smaller(limits, size, tiny)
        areas.append(limits.areas)
    assert areas == sorted(areas, reverse=True)
    assert limits == Limits(False, (1, 1), (0, 0))


def test_one_of_several_processes_does_not_claim_to_have_tried_small_tiles(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage,) = plan_stages((40, 50), [(40, 50)], resolved(min_scale=50, end_scale="50"))
    monkeypatch.setattr(Group, "broadcast", lambda group, thing: thing)
    retrier = OutOfMemoryRetrier([make_network()], stage, resolved(), Group(rank=0, size=2), 0)
    attempts = []

    def work(limits: Limits) -> None:
        attempts.append(limits)
        raise MemoryError("no more")

    with pytest.raises(MemoryLimitError, match="50x40 ran out of memory on rank 0 .no more., and several processes cannot"):
        retrier.attempt(work)
    assert len(attempts) == 1
