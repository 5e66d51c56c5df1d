"""Checkpoints: a run that was cut short goes on to the same bits, and what is damaged or of another run is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.tiny import picture
from torch import Tensor

from style_transfer.compute.distributed import LOCAL
from style_transfer.engine import checkpoint
from style_transfer.engine import loop as engine
from style_transfer.engine.checkpoint import Keeper, State, newest, older
from style_transfer.errors import CheckpointError, NumericError, OutputError
from style_transfer.evaluation.objective import Evaluation, Objective
from style_transfer.files import atomic as files
from style_transfer.geometry import scales as schedule
from style_transfer.networks.graph import Network
from style_transfer.settings.settings import Settings

MakeNetwork = Callable[..., Network]
CONTENT, STYLE = picture(1, 51, 60, torch.float32), picture(2, 70, 55, torch.float32)
SHORT: dict[str, Any] = {"min_scale": 32, "end_scale": "46", "initial_iterations": 5, "iterations": 13}


def run(network: Network, settings: Settings, **about: Any) -> list[tuple[float, Tensor]]:
    """Return the loss and the averaged picture of each iteration."""
    iterates = engine.stylize(CONTENT, [STYLE], settings, networks=[network], **about)
    return [(float(iterate.loss), iterate.image()) for iterate in iterates]


def state_after(steps: int, network: Network, settings: Settings) -> State:
    """Return a copy of a run's state after so many iterations."""
    iterates = engine.stylize(CONTENT, [STYLE], settings, networks=[network])
    for _ in range(steps):
        iterate = next(iterates)
    return iterate.state().whole(LOCAL)


def same(a: list[tuple[float, Tensor]], b: list[tuple[float, Tensor]]) -> bool:
    return len(a) == len(b) and all(x == y and torch.equal(p, q) for (x, p), (y, q) in zip(a, b, strict=True))


@pytest.fixture
def state(make_network: MakeNetwork) -> State:
    return state_after(7, make_network(), Settings(**SHORT))


@pytest.mark.parametrize("stop", [1, 5, 6, 9, 17])
@pytest.mark.parametrize(
    "about",
    [{}, {"optimizer": "lbfgs"}, {"optimizer": "lbfgs", "line_search": "strong-wolfe"},
     {"optimizer": "lbfgs", "line_search": "strong-wolfe", "bounds": "on", "optimizer_range": 255.0, "lbfgs_history": 3},
     {"optimizer": "sgd", "style_error": "sum", "content_error": "sum"}, {"tile": "24"},
     {"style_loss": "wasserstein", "init": "uniform"}, {"style_loss": "histogram", "style_scale": (1, 2)},
     {"iterations": "auto"}],
    ids=["adam", "lbfgs", "search", "bounded search", "sgd", "tiles", "wasserstein", "histogram", "auto"],
)  # fmt: skip
def test_a_resumed_run_ends_in_the_same_bits(
    about: dict[str, Any], stop: int, tmp_path: Path, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a scale, at its end, at the start of the next, and next to the end; through a file."""
    monkeypatch.setattr(schedule, "AUTO", dataclasses.replace(schedule.AUTO, initial_steps=5, last_steps=13))
    settings, network = Settings(**SHORT | about), make_network(dtype=torch.float32)
    checkpoint.save(tmp_path / "c", state_after(stop, network, settings))
    resumed = run(network, settings, resume=checkpoint.load(tmp_path / "c"))
    assert same(resumed, run(network, settings)[stop:])


@pytest.mark.parametrize("lost", ["first", "second", "average", "image"])
def test_the_guard_of_equal_bits_can_fail(lost: str, make_network: MakeNetwork) -> None:
    settings, network = Settings(**SHORT), make_network()
    state = state_after(8, network, settings)
    state.tensors[lost] *= 0.999
    assert not same(run(network, settings, resume=state), run(network, settings)[8:])


def test_resuming_five_times_gives_the_straight_run(tmp_path: Path, make_network: MakeNetwork) -> None:
    settings, network = Settings(**SHORT), make_network()
    found: list[tuple[float, Tensor]] = []
    state = None
    for steps in (2, 3, 1, 5, 7):
        for _, iterate in zip(
            range(steps), engine.stylize(CONTENT, [STYLE], settings, networks=[network], resume=state), strict=False
        ):
            found.append((float(iterate.loss), iterate.image()))
        checkpoint.save(tmp_path / "c", iterate.state().whole(LOCAL))
        state = checkpoint.load(tmp_path / "c")
    assert same(found, run(network, settings))


def test_a_scale_that_was_ended_stays_so(tmp_path: Path, make_network: MakeNetwork) -> None:
    settings, network = Settings(**SHORT), make_network()
    straight, states = [], []
    iterates = engine.stylize(CONTENT, [STYLE], settings, networks=[network])
    ends: bool | None = None
    with contextlib.suppress(StopIteration):
        while True:
            iterate = iterates.send(ends)
            straight.append((float(iterate.loss), iterate.image()))
            states.append(iterate.state().whole(LOCAL))
            ends = (iterate.index, iterate.step) == (0, 3)
    assert len(straight) == 3 + 13 and [state.ended for state in states] == [()] * 3 + [((0, 3),)] * 13
    states[2] = dataclasses.replace(states[2], ended=((0, 3),))  # as it is kept at the end of that scale
    for done in (3, 4, 10):
        checkpoint.save(tmp_path / "c", states[done - 1])
        kept = checkpoint.load(tmp_path / "c")
        assert kept.ended == ((0, 3),)
        assert same(run(network, settings, resume=kept), straight[done:])


def test_a_state_of_a_complete_run_has_nothing_left_to_do(make_network: MakeNetwork) -> None:
    settings, network = Settings(**SHORT), make_network()
    state = state_after(18, network, settings)
    assert run(network, settings, resume=state) == []
    assert torch.equal(state.picture(), run(network, settings)[-1][1])


def test_the_users_state_is_left_alone(state: State, make_network: MakeNetwork) -> None:
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    run(make_network(), Settings(**SHORT), resume=state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors.items())


def test_other_runs_are_refused_with_a_list_of_what_differs(state: State, make_network: MakeNetwork) -> None:
    network = make_network(digest="other")
    settings = Settings(**SHORT | {"iterations": 20}, content_weight=0.5, style_weights=(2,))
    with pytest.raises(CheckpointError) as caught:
        engine.stylize(STYLE, [STYLE, CONTENT], settings.__class__(**settings.as_dict() | {"style_weights": (2, 1)}),
                       networks=[network], init=CONTENT, resume=state)  # fmt: skip
    for words in (
        "--content-weight was 0.015 and is 0.5",
        "--iterations was 13 and is 20",
        "--style-weights was not given and is 2.0 1.0",
        "--init is another picture",
        "the content picture is another",
        "there were 1 style pictures and are 2",
        "the network's weights are others",
    ):
        assert words in str(caught.value)


def test_where_the_work_is_done_may_change(state: State, make_network: MakeNetwork) -> None:
    settings = Settings(**SHORT, tile="24", memory="50GB", devices=("cpu",))
    found = run(make_network(), settings, resume=state)
    straight = run(make_network(), Settings(**SHORT))
    assert (found[-1][1] - straight[-1][1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("name", "value"), [("index", 2), ("index", -1), ("step", 0), ("step", 99), ("size", (9, 9)), ("halvings", 9)]
)
def test_a_state_that_cannot_be_is_refused(name: str, value: Any, state: State, make_network: MakeNetwork) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        run(make_network(), Settings(**SHORT), resume=dataclasses.replace(state, **{name: value}))


def test_a_state_without_its_moments_is_refused(state: State, make_network: MakeNetwork) -> None:
    del state.tensors["second"]
    with pytest.raises(CheckpointError, match="has no 'second'"):
        run(make_network(), Settings(**SHORT), resume=state)


# ------------------------------------------------------------------------------------------------------------- files


def test_a_file_is_safetensors_and_json(state: State, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", state)
    found = load_file(tmp_path / "c")
    assert found.keys() == state.tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.tensors.items())
    again = checkpoint.load(tmp_path / "c")
    assert dataclasses.replace(again, tensors={}) == dataclasses.replace(state, tensors={})


def test_there_are_two_generations_and_the_newest_that_is_whole_wins(state: State, tmp_path: Path) -> None:
    path = tmp_path / "c"
    assert newest(path) is None
    for number in (1, 2, 3):
        checkpoint.save(path, dataclasses.replace(state, step=number), number=number)
    found = newest(path)
    assert found is not None and (found.number, found.state.step, found.remarks) == (3, 3, ())
    path.rename(tmp_path / "x")
    older(path).rename(path)
    (tmp_path / "x").rename(older(path))  # the count decides, not the name nor the clock
    os.utime(path, (0, 0))
    found = newest(path)
    assert found is not None and found.number == 3 and found.path == older(path)
    data = bytearray(older(path).read_bytes())
    data[-5] ^= 1
    older(path).write_bytes(data)
    found = newest(path)
    assert found is not None and found.number == 2
    (remark,) = found.remarks
    assert "c.old" in remark and "hash" in remark and remark.endswith(f"going on with {path}")
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated"):
        newest(path)


def test_what_was_found_is_not_pushed_out_by_what_is_damaged(state: State, tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, state, number=1)
    checkpoint.save(path, state, number=2)
    path.write_bytes(b"broken")
    found = newest(path)
    assert found is not None
    checkpoint.settle(found, path)
    checkpoint.save(path, state, number=3)
    path.unlink()
    found = newest(path)
    assert found is not None and found.number == 1


def test_a_checkpoint_of_a_later_version_is_refused_though_an_older_one_is_there(state: State, tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, state, number=1)
    checkpoint.save(path, state, number=2)
    path.write_bytes(path.read_bytes().replace(b'"schema": "1"', b'"schema": "7"'))
    with pytest.raises(CheckpointError, match="schema 7 and this version of the program reads schema 1"):
        newest(path)


class Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in (("p", pickle.dumps(Boom())), ("t", b"")):
        Path(name).write_bytes(data)
    torch.save({"x": Boom()}, "t")
    for name in ("p", "t"):
        with pytest.raises(CheckpointError):
            checkpoint.load(name)
    assert not Path("ran").exists()


def test_truncated_anywhere_and_flipped_anywhere_is_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, state)
    data = path.read_bytes()
    for at in (0, 1, 7, 8, 9, 500, 3000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at])
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
    path.write_bytes(data + b"more")
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def forge(path: Path, header: object, size: int = 0) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))


@pytest.mark.parametrize(
    "header",
    [[], 7, {}, {"__metadata__": []}, {"__metadata__": {"schema": "one"}},
     {"__metadata__": {"schema": "1"}, "image": {"dtype": "F32", "shape": [1, 3, 2**31, 2**31], "data_offsets": [0, 2**66]}},
     {"__metadata__": {"schema": "1"}, "image": {"dtype": "F32", "shape": [1, -3, -1, 8], "data_offsets": [0, 96]}},
     {"__metadata__": {"schema": "1"}, "image": {"dtype": "object", "shape": [1, 1, 1, 1], "data_offsets": [0, 4]}},
     {"__metadata__": {"schema": "1"}, "image": {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [4, 8]}},
     {"__metadata__": {"schema": "1"}, "image": 5}],
)  # fmt: skip
def test_forged_headers_are_refused(header: object, tmp_path: Path) -> None:
    forge(tmp_path / "c", header)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "c")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    text = b"[" * 200_000
    (tmp_path / "c").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "c")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=3), max_leaves=5
)


@settings(deadline=None)
@given(name=st.sampled_from(["index", "size", "numbers", "limits", "identity", "made", "seconds", "halvings"]), value=JSON)
def test_any_state_with_a_right_hash_is_read_or_refused(name: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever forges a file can forge its hash as well."""
    path = tmp_path_factory.mktemp("forged") / "c"
    about = {"schema": "1", "number": "1", "sha256": checkpoint.NO_DIGEST, "state": json.dumps({name: value})}
    entry = {"dtype": "F32", "shape": [1, 3, 1, 1], "data_offsets": [0, 12]}
    forge(path, {"__metadata__": about, "image": entry, "average": entry | {"data_offsets": [12, 24]}}, 24)
    path.write_bytes(
        path.read_bytes().replace(checkpoint.NO_DIGEST.encode(), hashlib.sha256(path.read_bytes()).hexdigest().encode())
    )
    with pytest.raises(CheckpointError, match="no checkpoint of this program"):
        checkpoint.load(path)


# ------------------------------------------------------------------------------------------------------------ keeping


def test_one_is_due_at_the_start_and_then_by_the_clock(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    keeper = Keeper(tmp_path / "c", 60)
    assert keeper.due()
    keeper.keep(state, LOCAL, 0)
    assert not keeper.due()
    now[0] += 59.9
    assert not keeper.due()
    now[0] += 0.2
    assert keeper.due()
    assert not Keeper(tmp_path / "c", 0, number=1).due()


def test_one_that_takes_long_is_made_less_often(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])

    def slow(*args: object, **about: object) -> None:
        now[0] += 10

    monkeypatch.setattr(checkpoint, "save", slow)
    keeper = Keeper(tmp_path / "c", 60)
    keeper.keep(state, LOCAL, 0)
    now[0] += 499
    assert not keeper.due()
    now[0] += 2
    assert keeper.due()


@pytest.mark.parametrize("room", [0, 10**12], ids=["at once", "beside"])
def test_what_is_kept_is_the_state_of_that_moment(room: int, tmp_path: Path, make_network: MakeNetwork) -> None:
    settings, network = Settings(**SHORT), make_network()
    keeper = Keeper(tmp_path / "c", 60)
    for number, iterate in enumerate(engine.stylize(CONTENT, [STYLE], settings, networks=[network]), 1):
        if number in (2, 6):
            keeper.keep(iterate.state(), LOCAL, room)
    last = keeper.last()
    assert last is not None and keeper.told() is None
    assert same(run(network, settings, resume=last), run(network, settings)[6:])
    keeper.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(tmp_path / "c", 60)
    keeper.keep(state, LOCAL, 10**12)
    keeper.close()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    keeper.keep(state, LOCAL, 10**12)
    keeper.close()
    assert isinstance(keeper.told(), OutputError) and keeper.told() is None
    found = newest(tmp_path / "c")
    assert found is not None and found.number == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_checkpoints_of_another_run_are_set_aside(state: State, tmp_path: Path) -> None:
    path = tmp_path / "c"
    assert checkpoint.set_aside(path) is None
    checkpoint.save(path, state, number=1)
    checkpoint.save(path, state, number=2)
    kept = checkpoint.set_aside(path)
    assert kept is not None and sorted(p.name for p in tmp_path.iterdir()) == ["c.previous", "c.previous.old"]
    kept.write_bytes(kept.read_bytes()[:-1])
    found = newest(kept)
    assert found is not None and found.number == 1
    checkpoint.save(path, state, number=1)
    again = checkpoint.set_aside(path)
    assert again is not None and again.name == "c.previous-2" and kept.exists()  # nothing is lost


# -------------------------------------------------------------------------------------------------------- not finite


def poisoned(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> list[int]:
    """Make the loss and gradient of the evaluations that `when` names, counted from 1, NaN; return the list of them."""
    evaluate, calls, hit = Objective.evaluate, [0], []

    def bad(self: Objective, image: Tensor, *more: Any) -> Evaluation:
        found = evaluate(self, image, *more)
        calls[0] += 1
        if when(calls[0]):
            hit.append(calls[0])
            assert image.grad is not None
            image.grad *= torch.nan
            return Evaluation(found.loss * torch.nan, found.parts)
        return found

    monkeypatch.setattr(Objective, "evaluate", bad)
    return hit


@pytest.mark.parametrize(
    "about", [{}, {"optimizer": "lbfgs"}, {"optimizer": "lbfgs", "line_search": "strong-wolfe"}, {"optimizer": "sgd"},
              {"style_loss": "wasserstein"}, {"style_loss": "histogram"}],
    ids=["adam", "lbfgs", "search", "sgd", "wasserstein", "histogram"],
)  # fmt: skip
def test_a_run_that_is_not_finite_goes_back_and_on_with_half_the_step(
    about: dict[str, Any], monkeypatch: pytest.MonkeyPatch, make_network: MakeNetwork
) -> None:
    hit = poisoned(monkeypatch, lambda call: call == 16)
    monkeypatch.setattr(engine, "BUSY", 0)  # a copy whenever one may be made
    iterates = list(engine.stylize(CONTENT, [STYLE], Settings(**SHORT | about), networks=[make_network()]))
    assert hit == [16]
    assert iterates[-1].ends_run and iterates[-1].image().isfinite().all()
    assert [it.halvings for it in iterates] == sorted(it.halvings for it in iterates)
    back = next(it for it in iterates if it.halvings)
    assert (back.index, back.step) == (1, 9)  # the copy was made after step 8


def test_it_goes_back_to_the_start_or_to_the_callers_state(
    state: State, monkeypatch: pytest.MonkeyPatch, make_network: MakeNetwork
) -> None:
    poisoned(monkeypatch, lambda call: call == 2)
    iterates = list(engine.stylize(CONTENT, [STYLE], Settings(**SHORT), networks=[make_network()], fallback=lambda: None))
    assert next((it.index, it.step) for it in iterates if it.halvings) == (0, 1)
    poisoned(monkeypatch, lambda call: call == 12)
    iterates = list(engine.stylize(CONTENT, [STYLE], Settings(**SHORT), networks=[make_network()], fallback=lambda: state))
    assert next((it.index, it.step) for it in iterates if it.halvings) == (1, 3)


def test_three_times_at_most(monkeypatch: pytest.MonkeyPatch, make_network: MakeNetwork) -> None:
    hit = poisoned(monkeypatch, lambda call: True)
    with pytest.raises(NumericError, match="not finite at 33x28, iteration 5 or a few before, though the step size was halved 3"):
        run(make_network(), Settings(**SHORT))
    assert len(hit) == 4 * 5


def test_a_state_says_that_it_is_not_good(monkeypatch: pytest.MonkeyPatch, make_network: MakeNetwork) -> None:
    poisoned(monkeypatch, lambda call: call == 3)
    iterates = engine.stylize(CONTENT, [STYLE], Settings(**SHORT), networks=[make_network()])
    good = [next(iterates).finite() for _ in range(4)]
    assert good == [True, True, False, True]  # the fourth is the first again


def test_losses_are_not_read_at_every_step(monkeypatch: pytest.MonkeyPatch, make_network: MakeNetwork) -> None:
    reads = []
    finite = engine._Guard.finite

    def counted(self: Any, *args: Any) -> bool:
        reads.append(1)
        return finite(self, *args)

    monkeypatch.setattr(engine._Guard, "finite", counted)
    settings = Settings(min_scale=32, end_scale="32", initial_iterations=32)
    list(engine.stylize(CONTENT, [STYLE], settings, networks=[make_network()], fallback=lambda: None))
    assert len(reads) == 1  # at the end; the others are asked for, and looked at when they have come


# ------------------------------------------------------------------------------------------------------ places of files


def test_a_place_is_held_by_one(tmp_path: Path) -> None:
    with files.locked(tmp_path / "o.png"):
        with pytest.raises(OutputError, match="another run is writing there"), files.locked(tmp_path / "o.png"):
            pass
        with files.locked(tmp_path / "p.png"):
            pass
    with files.locked(tmp_path / "o.png"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_dead_process_does_not_hold(tmp_path: Path) -> None:
    with files.locked(tmp_path / "o.png"):
        (name,) = tmp_path.iterdir()
    name.write_text("left by a crash")
    with files.locked(tmp_path / "o.png"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed_but_not_those_in_work(tmp_path: Path) -> None:
    (tmp_path / ".style_transfer-0123456789abcdef.tmp").write_bytes(b"cut short")
    with files.replacing(tmp_path / "x") as stream:
        stream.write(b"new")
        stream.flush()
        assert files.clean(tmp_path) == 1
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"new")]


def test_what_is_not_read_back_as_written_does_not_take_the_place(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def check(written: Any) -> None:
        raise ValueError("the last strip differs")

    with pytest.raises(OutputError, match="the last strip differs"), files.replacing(tmp_path / "x", check) as stream:
        stream.write(b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_a_disk_that_is_too_small_is_found_before(tmp_path: Path) -> None:
    files.check_space({tmp_path / "a": 1000})
    with pytest.raises(OutputError, match="needs up to .* MB of disk there and .* MB are free"):
        files.check_space({tmp_path / "a": 10**18, tmp_path / "b": 10**18})
