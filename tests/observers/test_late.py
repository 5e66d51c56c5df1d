"""Scalars that are read from a device once they have arrived."""

from __future__ import annotations

import pytest
import torch
from support.tiny import TINY, picture, tiny_weights

from style_transfer.compute.capture import Transfer
from style_transfer.engine.loop import stylize
from style_transfer.networks.forward import Network
from style_transfer.observers.history import Late
from style_transfer.settings import Settings


def test_numbers_on_the_cpu_are_available_at_once() -> None:
    queue: Late[str] = Late()
    queue.put("a", {"loss": torch.tensor(1.5), "tv": torch.tensor(0.25, dtype=torch.float64)})
    assert list(queue.arrived()) == [("a", {"loss": 1.5, "tv": 0.25})]
    assert list(queue.arrived(wait=True)) == []


def test_items_leave_in_order_and_old_numbers_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ready: set[float] = set()
    monkeypatch.setattr(Transfer, "ready", property(lambda self: float(self.get()) in ready))
    queue: Late[int] = Late(behind=2)

    def names() -> list[int]:
        return [name for name, _ in queue.arrived()]

    for step in range(3):
        queue.put(step, {"loss": torch.tensor(float(step))})
        assert names() == ([0] if step == 2 else [])  # two may be late
    ready.add(2.0)
    assert names() == []  # not before the item put earlier
    ready.add(1.0)
    assert names() == [1, 2]
    queue.put(3, {"loss": torch.tensor(3.0)})
    assert [name for name, _ in queue.arrived(wait=True)] == [3]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu() -> None:
    network = Network(TINY, tiny_weights(), devices=(torch.device("cuda:0"),))
    settings = Settings(min_scale=64, end_scale="64", initial_iterations=12)
    queue: Late[int] = Late()
    iterates = stylize(picture(1, 64, 64, torch.float32), [picture(2, 64, 64, torch.float32)], settings, networks=[network])
    for iterate in iterates:
        queue.put(iterate.step, {"loss": iterate.loss, **iterate.parts})
        if iterate.step == 2:
            torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")
    assert [step for step, _ in queue.arrived(wait=True)] == list(range(1, 13))
