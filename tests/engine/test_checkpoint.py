"""Checkpoint files: what is written is read back, and what is damaged, forged or of another version is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.engine_runs import CONTENT, SHORT, STYLE, run, same

from style_transfer.compute.distributed import LOCAL
from style_transfer.engine import checkpoint_file as checkpoint
from style_transfer.engine import checkpointer as background
from style_transfer.engine import loop as engine
from style_transfer.engine.checkpoint_file import newest, older
from style_transfer.engine.checkpointer import Checkpointer
from style_transfer.engine.state import State
from style_transfer.errors import CheckpointError, OutputError
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

# files


def test_a_checkpoint_is_a_safetensors_file_with_json(state: State, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", state)
    found = load_file(tmp_path / "c")
    assert found.keys() == state.tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.tensors.items())
    again = checkpoint.load(tmp_path / "c")
    assert dataclasses.replace(again, tensors={}) == dataclasses.replace(state, tensors={})


def test_two_generations_are_kept_and_the_newest_undamaged_one_is_read(state: State, tmp_path: Path) -> None:
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
    assert "c.old" in remark and "hash" in remark and remark.endswith(f"resuming from {path}")
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated"):
        newest(path)


def test_a_damaged_checkpoint_does_not_displace_the_one_that_was_read(state: State, tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, state, number=1)
    checkpoint.save(path, state, number=2)
    path.write_bytes(b"broken")
    found = newest(path)
    assert found is not None
    checkpoint.make_current(found, path)
    checkpoint.save(path, state, number=3)
    path.unlink()
    found = newest(path)
    assert found is not None and found.number == 1


def test_a_checkpoint_of_a_later_version_is_refused_even_beside_an_older_one(state: State, tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, state, number=1)
    checkpoint.save(path, state, number=2)
    path.write_bytes(path.read_bytes().replace(b'"schema": "2"', b'"schema": "7"'))
    with pytest.raises(
        CheckpointError, match="schema 7, and this version of the program reads schema 2; use the version that wrote it"
    ):
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


def test_a_checkpoint_cut_or_flipped_anywhere_is_refused(state: State, tmp_path: Path) -> None:
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
     {"__metadata__": {"schema": "2"}, "image": {"dtype": "F32", "shape": [1, 3, 2**31, 2**31], "data_offsets": [0, 2**66]}},
     {"__metadata__": {"schema": "2"}, "image": {"dtype": "F32", "shape": [1, -3, -1, 8], "data_offsets": [0, 96]}},
     {"__metadata__": {"schema": "2"}, "image": {"dtype": "object", "shape": [1, 1, 1, 1], "data_offsets": [0, 4]}},
     {"__metadata__": {"schema": "2"}, "image": {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [4, 8]}},
     {"__metadata__": {"schema": "2"}, "image": 5}],
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
def test_any_state_with_a_right_hash_is_refused_unless_it_is_whole(
    name: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever forges a file can forge its hash as well."""
    path = tmp_path_factory.mktemp("forged") / "c"
    about = {"schema": "2", "number": "1", "sha256": checkpoint.NO_DIGEST, "state": json.dumps({name: value})}
    entry = {"dtype": "F32", "shape": [1, 3, 1, 1], "data_offsets": [0, 12]}
    forge(path, {"__metadata__": about, "image": entry, "average": entry | {"data_offsets": [12, 24]}}, 24)
    path.write_bytes(
        path.read_bytes().replace(checkpoint.NO_DIGEST.encode(), hashlib.sha256(path.read_bytes()).hexdigest().encode())
    )
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        checkpoint.load(path)


# writing while a run continues


def test_a_checkpoint_is_due_at_the_start_and_then_by_the_clock(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: now[0]))
    checkpointer = Checkpointer(tmp_path / "c", 60)
    assert checkpointer.due()
    checkpointer.write(state, LOCAL, 0)
    assert not checkpointer.due()
    now[0] += 59.9
    assert not checkpointer.due()
    now[0] += 0.2
    assert checkpointer.due()
    assert not Checkpointer(tmp_path / "c", 0, number=1).due()


def test_a_checkpoint_that_takes_long_is_written_less_often(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(*args: object, **about: object) -> None:
        now[0] += 10

    monkeypatch.setattr(background, "save", slow)
    checkpointer = Checkpointer(tmp_path / "c", 60)
    checkpointer.write(state, LOCAL, 0)
    now[0] += 499
    assert not checkpointer.due()
    now[0] += 2
    assert checkpointer.due()


@pytest.mark.parametrize("first", ["run", "thread"])
def test_the_cost_of_a_checkpoint_is_that_of_the_run_and_of_its_thread(
    first: str, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them adds its part first: the run waits for 2 s, and the thread computes for 3 s."""
    now, run_is_done = [100.0], threading.Event()

    def clock() -> float:
        if first == "thread":
            checkpointer._join()
        return now[0]

    def save(*args: object, **about: object) -> None:
        if first == "run":
            run_is_done.wait(10)

    def whole(self: State, group: object) -> State:
        now[0] += 2
        return self

    checkpointer = Checkpointer(tmp_path / "c", 1, number=7)
    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=clock, thread_time=lambda: 3.0))
    monkeypatch.setattr(background, "save", save)
    monkeypatch.setattr(State, "whole", whole)
    for count in (1, 2):
        run_is_done.clear()
        checkpointer.write(state, LOCAL, 10**12)
        run_is_done.set()
        checkpointer.close()
        assert checkpointer.cost == count * 5.0
        now[0] += background.LEAST_INTERVAL * 5.0 - 1
        assert not checkpointer.due()
        now[0] += 1
        assert checkpointer.due()


@pytest.mark.parametrize("room", [0, 10**12], ids=["at once", "in a thread"])
def test_a_checkpoint_holds_the_state_of_the_moment_it_was_asked_for(
    room: int, tmp_path: Path, make_network: Callable[..., Network]
) -> None:
    settings, network = Settings(**SHORT), make_network()
    checkpointer = Checkpointer(tmp_path / "c", 60)
    for number, iterate in enumerate(engine.stylize(CONTENT, [STYLE], settings, networks=[network]), 1):
        if number in (2, 6):
            checkpointer.write(iterate.state(), LOCAL, room)
    last = checkpointer.last()
    assert last is not None and checkpointer.problem() is None
    assert same(run(network, settings, resume=last), run(network, settings)[6:])
    checkpointer.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = Checkpointer(tmp_path / "c", 60)
    checkpointer.write(state, LOCAL, 10**12)
    checkpointer.close()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    checkpointer.write(state, LOCAL, 10**12)
    checkpointer.close()
    assert isinstance(checkpointer.problem(), OutputError) and checkpointer.problem() is None
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
