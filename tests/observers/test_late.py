"""Numbers that come from a device when they have arrived."""

from __future__ import annotations

import pytest
import torch

from style_transfer.observers import late


def test_numbers_of_the_cpu_are_there_at_once() -> None:
    queue: late.Late[str] = late.Late()
    queue.put("a", {"loss": torch.tensor(1.5), "tv": torch.tensor(0.25, dtype=torch.float64)})
    assert list(queue.arrived()) == [("a", {"loss": 1.5, "tv": 0.25})]
    assert list(queue.arrived(wait=True)) == []


def test_late_numbers_come_in_order_and_are_waited_for_when_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    ready: set[float] = set()
    monkeypatch.setattr(late.Reading, "ready", property(lambda self: self.read()["loss"] in ready))
    queue: late.Late[int] = late.Late(behind=2)

    def names() -> list[int]:
        return [name for name, _ in queue.arrived()]

    for step in range(3):
        queue.put(step, {"loss": torch.tensor(float(step))})
        assert names() == ([0] if step == 2 else [])  # two may be on their way
    ready.add(2.0)
    assert names() == []  # not before the one that came earlier
    ready.add(1.0)
    assert names() == [1, 2]
    queue.put(3, {"loss": torch.tensor(3.0)})
    assert [name for name, _ in queue.arrived(wait=True)] == [3]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_in_a_step_waits_for_the_gpu() -> None:
    from support.tiny import TINY, picture, tiny_weights

    from style_transfer.engine.loop import stylize
    from style_transfer.networks.graph import Network
    from style_transfer.settings.settings import Settings

    network = Network(TINY, tiny_weights(), devices=(torch.device("cuda:0"),))
    settings = Settings(min_scale=64, end_scale="64", initial_iterations=12)
    queue: late.Late[int] = late.Late()
    iterates = stylize(picture(1, 64, 64, torch.float32), [picture(2, 64, 64, torch.float32)], settings, networks=[network])
    for iterate in iterates:
        queue.put(iterate.step, {"loss": iterate.loss, **iterate.parts})
        if iterate.step == 2:
            torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")
    assert [step for step, _ in queue.arrived(wait=True)] == list(range(1, 13))
