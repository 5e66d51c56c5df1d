"""States of a run: a run that starts from one ends in the same bits, and a state of another run is refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine_runs import CONTENT, SHORT, STYLE, Step, run, run_with_states, same

from style_transfer.compute.distributed import LOCAL, Request
from style_transfer.engine import checkpoint_file as checkpoint
from style_transfer.engine import loop as engine
from style_transfer.engine import schedule
from style_transfer.engine.control import Control
from style_transfer.engine.state import State
from style_transfer.errors import CheckpointError
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings


@pytest.mark.parametrize(
    "about",
    [{}, {"optimizer": "lbfgs"}, {"optimizer": "lbfgs", "line_search": "strong-wolfe"},
     {"optimizer": "lbfgs", "line_search": "strong-wolfe", "bounds": "on", "optimizer_range": 255.0, "lbfgs_history": 3},
     {"optimizer": "sgd", "style_error": "sum", "content_error": "sum"}, {"tile": "24"},
     {"style_loss": "wasserstein", "init": "uniform"}, {"style_loss": "histogram", "style_scale": (1, 2)},
    {"style_loss": "relaxed-emd", "content_loss": "self-similarity"}, {"style_loss": "sliced-wasserstein"},
    {"style_loss": "neighbors", "band_weight": 2.0}, {"iterations": "auto"}],
    ids=["adam", "lbfgs", "search", "bounded search", "sgd", "tiles", "wasserstein", "histogram", "sampled", "sliced-wasserstein",
         "neighbors", "auto"],
)  # fmt: skip
def test_a_run_resumed_from_a_file_ends_in_the_same_bits(
    about: dict[str, Any], tmp_path: Path, make_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of a scale, at its end, at the start of the next, and one step before the end."""
    monkeypatch.setattr(schedule, "AUTO", dataclasses.replace(schedule.AUTO, initial_steps=5, last_steps=13))
    settings, network = Settings(**SHORT | about), make_network(dtype=torch.float32)
    straight = run(network, settings)
    steps, states = run_with_states(network, settings)
    assert same(steps, straight)
    for done in (1, 5, 6, 9, 17):
        checkpoint.save(tmp_path / "c", states[done - 1])
        assert same(run(network, settings, resume=checkpoint.load(tmp_path / "c")), straight[done:])


def test_a_run_resumed_from_a_slightly_different_state_ends_in_other_bits(
    short_states: list[State], make_network: Callable[..., Network]
) -> None:
    settings, network = Settings(**SHORT), make_network()
    straight = run(network, settings)
    assert same(run(network, settings, resume=short_states[7]), straight[8:])
    for name in ("first", "second", "average", "image"):
        state = copy.deepcopy(short_states[7])
        state.tensors[name] *= 0.999
        assert not same(run(network, settings, resume=state), straight[8:])


def test_a_run_resumed_five_times_ends_in_the_same_bits(tmp_path: Path, make_network: Callable[..., Network]) -> None:
    settings, network = Settings(**SHORT), make_network()
    found: list[Step] = []
    state = None
    for steps in (2, 3, 1, 5, 7):
        for _, iterate in zip(
            range(steps), engine.stylize(CONTENT, [STYLE], settings, networks=[network], resume=state), strict=False
        ):
            found.append((float(iterate.loss), iterate.image()))
        checkpoint.save(tmp_path / "c", iterate.state().whole(LOCAL))
        state = checkpoint.load(tmp_path / "c")
    assert same(found, run(network, settings))


def test_a_scale_that_was_ended_early_stays_ended_after_resuming(tmp_path: Path, make_network: Callable[..., Network]) -> None:
    settings, network = Settings(**SHORT), make_network()
    straight, states, control = [], [], Control()
    for iterate in engine.stylize(CONTENT, [STYLE], settings, networks=[network], control=control):
        straight.append((float(iterate.loss), iterate.image()))
        states.append(iterate.state().whole(LOCAL))
        if (iterate.index, iterate.step) == (0, 3):
            control.request(Request.FINISH_SCALE)
    assert len(straight) == 3 + 13 and [state.ended for state in states] == [()] * 3 + [((0, 3),)] * 13
    states[2] = dataclasses.replace(states[2], ended=((0, 3),))  # as it is kept at the end of that scale
    for done in (3, 4, 10):
        checkpoint.save(tmp_path / "c", states[done - 1])
        kept = checkpoint.load(tmp_path / "c")
        assert kept.ended == ((0, 3),)
        assert same(run(network, settings, resume=kept), straight[done:])


def test_resuming_a_complete_run_yields_nothing(short_states: list[State], make_network: Callable[..., Network]) -> None:
    settings, network = Settings(**SHORT), make_network()
    assert run(network, settings, resume=short_states[17]) == []
    assert torch.equal(short_states[17].picture(), run(network, settings)[-1][1])


def test_resuming_does_not_change_the_state_it_starts_from(state: State, make_network: Callable[..., Network]) -> None:
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    run(make_network(), Settings(**SHORT), resume=state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors.items())


def test_a_state_of_another_run_is_refused_with_a_list_of_differences(state: State, make_network: Callable[..., Network]) -> None:
    network = make_network(digest="other")
    settings = Settings(**SHORT | {"iterations": 20}, content_weight=0.5, style_weights=(2,))
    with pytest.raises(CheckpointError) as caught:
        engine.stylize(STYLE, [STYLE, CONTENT], Settings(**settings.as_dict() | {"style_weights": (2, 1)}),
                       networks=[network], init=CONTENT, resume=state)  # fmt: skip
    for words in (
        "--content-weight was 0.04 and is 0.5",
        "--iterations was 13 and is 20",
        "--style-weights was not set and is 2.0 1.0",
        "--init is a different picture",
        "the content picture differs",
        "the number of style pictures was 1 and is 2",
        "the weights of the network differ",
    ):
        assert words in str(caught.value)


def test_a_run_may_be_resumed_with_other_tiles_memory_and_devices(state: State, make_network: Callable[..., Network]) -> None:
    settings = Settings(**SHORT, tile="24", memory="50GB", devices=("cpu",))
    found = run(make_network(), settings, resume=state)
    straight = run(make_network(), Settings(**SHORT))
    assert (found[-1][1] - straight[-1][1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("name", "value"), [("index", 2), ("index", -1), ("step", 0), ("step", 99), ("size", (9, 9)), ("halvings", 9)]
)
def test_a_state_with_impossible_numbers_is_refused(
    name: str, value: Any, state: State, make_network: Callable[..., Network]
) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        run(make_network(), Settings(**SHORT), resume=dataclasses.replace(state, **{name: value}))


def test_a_state_without_the_moments_of_its_optimizer_is_refused(state: State, make_network: Callable[..., Network]) -> None:
    del state.tensors["second"]
    with pytest.raises(CheckpointError, match="has no 'second'"):
        run(make_network(), Settings(**SHORT), resume=state)
