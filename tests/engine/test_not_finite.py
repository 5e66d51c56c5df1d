"""Recovery from numbers that are not finite: the run goes back to its last good state with half the step size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.disturbances import make_not_finite
from support.engine_runs import CONTENT, SHORT, STYLE, run

from style_transfer.engine import loop as engine
from style_transfer.engine.scale import FiniteCheck
from style_transfer.engine.state import State
from style_transfer.errors import NumericError
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings


@pytest.mark.parametrize(
    "about", [{}, {"optimizer": "lbfgs"}, {"optimizer": "lbfgs", "line_search": "strong-wolfe"}, {"optimizer": "sgd"},
              {"style_loss": "wasserstein"}, {"style_loss": "histogram"}, {"style_loss": "sliced-wasserstein"}],
    ids=["adam", "lbfgs", "search", "sgd", "wasserstein", "histogram", "sliced-wasserstein"],
)  # fmt: skip
def test_a_run_that_is_not_finite_goes_back_a_few_steps_and_halves_the_step_size(
    about: dict[str, Any], monkeypatch: pytest.MonkeyPatch, make_network: Callable[..., Network]
) -> None:
    hit = make_not_finite(monkeypatch, lambda call: call == 16)
    monkeypatch.setattr(engine, "COPY_INTERVAL", 0)  # a copy whenever one may be made
    iterates = list(engine.stylize(CONTENT, [STYLE], Settings(**SHORT | about), networks=[make_network()]))
    assert hit == [16]
    assert iterates[-1].ends_run and iterates[-1].image().isfinite().all()
    assert [it.halvings for it in iterates] == sorted(it.halvings for it in iterates)
    back = next(it for it in iterates if it.halvings)
    assert (back.index, back.step) == (1, 9)  # the copy was made after step 8


def test_a_run_goes_back_to_its_start_or_to_the_state_of_its_caller(
    state: State, monkeypatch: pytest.MonkeyPatch, make_network: Callable[..., Network]
) -> None:
    make_not_finite(monkeypatch, lambda call: call == 2)
    iterates = list(engine.stylize(CONTENT, [STYLE], Settings(**SHORT), networks=[make_network()], fallback=lambda: None))
    assert next((it.index, it.step) for it in iterates if it.halvings) == (0, 1)
    make_not_finite(monkeypatch, lambda call: call == 12)
    iterates = list(engine.stylize(CONTENT, [STYLE], Settings(**SHORT), networks=[make_network()], fallback=lambda: state))
    assert next((it.index, it.step) for it in iterates if it.halvings) == (1, 3)


def test_the_step_size_is_halved_three_times_at_most(
    monkeypatch: pytest.MonkeyPatch, make_network: Callable[..., Network]
) -> None:
    hit = make_not_finite(monkeypatch, lambda call: True)
    with pytest.raises(NumericError, match="not finite at 33x28, iteration 5 or a few before, although .* halved 3 times"):
        run(make_network(), Settings(**SHORT))
    assert len(hit) == 4 * 5


def test_an_iterate_reports_whether_its_numbers_are_finite(
    monkeypatch: pytest.MonkeyPatch, make_network: Callable[..., Network]
) -> None:
    make_not_finite(monkeypatch, lambda call: call == 3)
    iterates = engine.stylize(CONTENT, [STYLE], Settings(**SHORT), networks=[make_network()])
    good = [next(iterates).finite() for _ in range(4)]
    assert good == [True, True, False, True]  # the fourth is the first again


def test_losses_are_not_read_from_the_device_at_every_step(
    monkeypatch: pytest.MonkeyPatch, make_network: Callable[..., Network]
) -> None:
    reads = []
    now = FiniteCheck.now

    def counted(self: Any, *args: Any) -> bool:
        reads.append(1)
        return now(self, *args)

    monkeypatch.setattr(FiniteCheck, "now", counted)
    settings = Settings(min_scale=32, end_scale="32", initial_iterations=32)
    list(engine.stylize(CONTENT, [STYLE], settings, networks=[make_network()], fallback=lambda: None))
    assert len(reads) == 1  # at the end; the others are asked for, and looked at when they have come
