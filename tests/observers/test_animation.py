"""Animations: what is kept of a run, at what pace, and how the observer follows a run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.growth import SIZE, iterate, painted, seen, uneven
from support.movies import opened
from support.runs import Asked, progress, result, run_info
from support.tiny import picture

from style_transfer import pictures as images
from style_transfer.errors import NumericError, OutputError, SettingsError
from style_transfer.files import Task
from style_transfer.geometry.scales import Stage
from style_transfer.observers.animation import Animation, AnimationOptions, movie, pacing, recorder, spool
from style_transfer.observers.animation.frames import Snapshot, displayed, fitted, reduced
from style_transfer.observers.animation.pacing import Pacer, Shot, blended, evenly, split_counts, timeline
from style_transfer.observers.animation.spool import START, Frame, Spool, change
from style_transfer.registry import OBSERVERS


def shown_frames(kept: list[Frame], seconds: float, rate: float) -> list[np.ndarray]:
    """Return the picture of each frame period."""
    shots = timeline([frame.position for frame in kept], seconds, rate)
    return [pixels for pixels, shot in zip(blended(kept, shots), shots, strict=True) for _ in range(shot.times)]


# pacing


def test_shown_frames_are_evenly_apart_in_change_though_the_run_is_not() -> None:
    kept = Spool(max_frames=60)
    steps = 900
    for step in range(steps + 1):
        kept.add((0, step), seen(uneven(step, steps)), always=step == steps)
    shown = shown_frames(kept.frames, 4.0, 25)
    first, grows, last = split_counts(4.0, 25)
    assert (len(shown), first + grows + last) == (100, 100)
    apart = [change(a, b) for a, b in itertools.pairwise(shown[first - 1 : -last])]
    assert len(apart) == grows
    inner = sorted(apart[1:])[2:-2]  # across the bend it is nearer
    assert inner[-1] < 1.15 * inner[0]
    by_number = [change(seen(uneven(9 * i, steps)), seen(uneven(9 * i + 9, steps))) for i in range(100)]
    assert max(by_number) > 50 * min(by_number)
    assert change(shown[0], seen(0)) < 0.01 and change(shown[-1], seen(1)) < 0.01


def test_even_frames_are_blended_and_reach_both_ends() -> None:
    assert evenly([0.0, 1.0, 4.0], 5) == [(0, 0.0), (1, 0.0), (1, pytest.approx(1 / 3)), (1, pytest.approx(2 / 3)), (2, 0.0)]
    assert evenly([0.0], 3) == [(0, 0.0)] * 3
    assert evenly([0.0, 0.0], 2) == [(1, 0.0)] * 2
    assert evenly([0.0, 0.5], 1) == [(1, 0.0)]


@pytest.mark.parametrize(("seconds", "rate"), [(10, 30), (0.2, 10), (60, 23.976), (1, 1)])
def test_frames_add_up_to_the_length_and_the_last_picture_stays_longest(seconds: float, rate: float) -> None:
    first, grows, last = split_counts(seconds, rate)
    assert first + grows + last == max(1, round(seconds * rate))
    assert grows >= 1 and first <= last <= round(2 * rate)
    assert sum(shot.times for shot in timeline([0.0, 0.3, 1.0], seconds, rate)) == max(1, round(seconds * rate))


def test_an_animation_of_one_picture_stands_still() -> None:
    assert timeline([0.0], 2, 10) == [Shot(0, 0.0, 20)]


def captures(pacer: Pacer, steps: int, *, spent: float = 0.0, index: int = 0, threshold: float = 0.01) -> list[int]:
    found, before = [], 0
    for step in range(1, steps + 1):
        if pacer.due(index, step, last=step == steps):
            found.append(step)
            pacer.measured(index, step - before, 2 * (uneven(step, steps) - uneven(before, steps)))
            before = step
            pacer.captured(steps, float(step), spent, threshold)
    return found


def test_captures_are_close_while_much_changes_and_never_far_apart() -> None:
    pacer = Pacer()
    found = captures(pacer, 1000)
    apart = [b - a for a, b in itertools.pairwise(found)]
    assert (found[0], found[-1]) == (1, 1000)
    assert max(apart[:10]) <= 4 and max(apart) <= 125
    assert sum(apart[-5:]) > 4 * sum(apart[:5])
    moved = [2 * (uneven(b, 1000) - uneven(a, 1000)) for a, b in itertools.pairwise(found)]
    assert max(moved) < 0.03
    assert captures(pacer, 10, index=1)[:3] == [1, 2, 3]  # a new scale begins with close captures again


def test_captures_that_take_long_are_rare() -> None:
    spent = 3.0
    found = captures(Pacer(), 1000, spent=spent)
    assert found[-1] == 1000
    assert spent * len(found) < pacing.TIME_ALLOWANCE + 1000 * pacing.TIME_SHARE + 2 * spent
    assert len(captures(Pacer(), 1000)) > 3 * len(found)


def test_a_run_that_returns_to_an_earlier_step_is_captured_again() -> None:
    pacer = Pacer()
    captures(pacer, 100)
    assert pacer.due(0, 3, last=False)


# what is kept


def test_the_spool_is_bounded_and_keeps_both_ends() -> None:
    kept = Spool(max_frames=20, max_bytes=10**9)
    for step in range(400):
        kept.add((0, step), seen(uneven(step, 400)))
    kept.add((0, 400), seen(1.0), always=True)
    assert len(kept.frames) <= 20
    assert (kept.frames[0].place, kept.frames[-1].place) == ((0, 0), (0, 400))
    assert [frame.place for frame in kept.frames] == sorted(frame.place for frame in kept.frames)
    gaps = [b.position - a.position for a, b in itertools.pairwise(kept.frames)]
    assert max(gaps) < 6 * sum(gaps) / len(gaps)
    few = Spool(max_frames=1000, max_bytes=8 * len(kept.frames[0].data))
    for step in range(200):
        few.add((0, step), seen(step / 200))
    assert 2 < len(few.frames) < 12 and few.bytes == sum(len(frame.data) for frame in few.frames) <= few.max_bytes


def test_the_frame_between_the_closest_neighbours_is_removed_first() -> None:
    kept = Spool(max_frames=4)
    for step, share in enumerate((0.0, 0.3, 0.34, 0.6, 1.0)):
        kept.add((0, step), seen(share), always=True)
    assert [frame.place[1] for frame in kept.frames] == [0, 1, 3, 4]


def test_frames_that_hardly_differ_are_only_kept_on_request() -> None:
    kept = Spool()
    kept.add((0, 1), seen(0.2))
    assert 0 < kept.add((0, 2), seen(0.2003)) < spool.MIN_CHANGE and len(kept.frames) == 1
    kept.add((0, 3), seen(0.2003), always=True)
    assert len(kept.frames) == 2
    assert kept.add((0, 4), seen(0.2003), always=True) == 0 and len(kept.frames) == 2


def test_frames_of_steps_that_are_repeated_are_removed() -> None:
    kept = Spool()
    for step in range(5):
        kept.add((0, step), seen(step / 5))
    kept.add((0, 2), seen(0.9))
    assert [frame.place[1] for frame in kept.frames] == [0, 1, 2]
    assert kept.bytes == sum(len(frame.data) for frame in kept.frames)
    assert kept.frames[-1].position == pytest.approx(
        kept.frames[1].position + change(kept.frames[1].pixels(), seen(0.9)), abs=0.01
    )


# small pictures of a run


@pytest.mark.parametrize(
    ("size", "side", "found"), [((300, 400), 200, (150, 200)), ((301, 403), 999, (300, 404)), ((9, 4000), 400, (2, 400))]
)
def test_sizes_are_even_and_within_the_side(size: tuple[int, int], side: int, found: tuple[int, int]) -> None:
    assert fitted(size, side, multiple=2) == found


def test_a_reduced_picture_is_the_resized_one() -> None:
    image = picture(5, 480, 640, torch.float32)
    small = reduced(image, (48, 64))
    direct = torch.nn.functional.interpolate(image, (48, 64), mode="bicubic", antialias=True).clamp(0, 1)
    assert small.shape == (1, 3, 48, 64)
    assert float((small - direct).abs().mean()) < 0.01
    flat = reduced(torch.full((1, 3, 1001, 777), 0.25), (50, 38))
    assert torch.allclose(flat, torch.tensor(0.25), atol=1e-5)
    grown = reduced(image[:, :, :10, :10], (40, 40))
    assert grown.shape == (1, 3, 40, 40) and float(grown.min()) >= 0 and float(grown.max()) <= 1


def test_outside_the_masks_the_content_is_shown() -> None:
    taken = iterate(1, 2, 0.0)
    content = torch.full((1, 3, *SIZE), 0.5)
    taken.blend_mask = SimpleNamespace(composite=lambda image: torch.cat([content[..., :32], image[..., 32:]], dim=3))
    pixels = Snapshot(taken, SIZE).pixels()
    assert np.allclose(pixels[:, :32], 0.5) and not np.allclose(pixels[:, 32:], 0.5)


def test_transparent_pixels_are_displayed_on_white() -> None:
    pixels = np.zeros((2, 2, 4), np.float32)
    pixels[0, :, 3] = (1, 0.5)
    assert displayed(pixels)[..., 0].tolist() == [[0, 128], [255, 255]]


def test_kept_frames_are_jpegs() -> None:
    kept = Spool()
    kept.add((0, 1), seen(0.5))
    (frame,) = kept.frames
    assert frame.data[:3] == b"\xff\xd8\xff" and frame.pixels().shape == (*SIZE, 3)


# the observer


STAGES = tuple(Stage(64, SIZE, (), 60) for _ in range(2))


class Followed:
    """An animation whose thread is waited for after each step."""

    def __init__(self, path: Path, *, resumed: tuple[int, int] | None = None, quiet: bool = True, **more: Any) -> None:
        options = {name: more.pop(name) for name in list(more) if name.startswith("animation")}
        self.reports: list[str] = []
        command = Asked({"animation": str(path)} | options, quiet=quiet)
        observer = OBSERVERS["animation"].create(command)
        assert isinstance(observer, Animation)
        self.observer = observer
        self.observer.begin(run_info(stages=STAGES, report=self.reports.append, resumed=resumed, **more))
        assert self.observer._recorder is not None
        self.recorder = self.observer._recorder

    def step(self, iterate: Any, paused: float = 0.0) -> None:
        self.observer.step(progress(iterate, paused=paused))
        self.recorder._queue.join()

    def run(self, steps: int = 60, scales: int = 2) -> Any:
        last = None
        for index in range(scales):
            for step in range(1, steps + 1):
                last = iterate(step, steps, (index + uneven(step, steps)) / scales, index, scales)
                self.step(last)
        return last

    @property
    def places(self) -> list[tuple[int, int]]:
        return [frame.place for frame in self.recorder.spool.frames]


def test_a_run_becomes_an_animation_from_the_content_to_the_last_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    followed = Followed(
        path, start=torch.full((1, 3, 96, 128), 0.5), animation_seconds=3.0, animation_rate=10.0, quiet=False
    )  # fmt: skip
    last = followed.run()
    thread = followed.recorder._thread
    assert followed.observer.end(result(last)) == {"animation": path}
    assert not thread.is_alive() and followed.reports == [f"writing {path}"]
    frames = opened(path)
    assert sum(seconds for _, seconds in frames) == pytest.approx(3)
    assert all(frame.shape == (*SIZE, 3) for frame, _ in frames)
    assert change(frames[0][0], np.full((*SIZE, 3), 128, np.uint8)) < 0.01
    assert change(frames[-1][0], seen(1)) < 0.02
    assert frames[-1][1] > frames[0][1] > 0.1
    assert [path.name] == [found.name for found in tmp_path.iterdir()]


def test_an_interrupted_run_ends_with_the_picture_it_has(tmp_path: Path) -> None:
    followed = Followed(tmp_path / "a.gif", animation_seconds=2.0)
    for step in range(1, 40):
        followed.step(iterate(step, 1000, 0.2 if step < 39 else 0.9))
    assert followed.observer.end(result(iterate(39, 1000, 0.9), status="stopped"))
    assert change(opened(tmp_path / "a.gif")[-1][0], seen(0.9)) < 0.05


def test_displayed_frames_have_finished_colours(tmp_path: Path) -> None:
    def finish(pixels: np.ndarray) -> np.ndarray:
        alpha = np.zeros((*SIZE, 1), np.float32)
        alpha[:, 32:] = 1
        return np.concatenate([pixels * 0, alpha], axis=2)

    followed = Followed(tmp_path / "a.webp", finish=finish, animation_seconds=1.0)
    followed.observer.end(result(followed.run(3, 1)))
    frame = opened(tmp_path / "a.webp")[-1][0]
    assert frame[:, :28].min() > 245 and frame[:, 36:].max() < 10


def test_the_run_does_not_wait_for_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    add = Spool.add

    def slow(self: Spool, *args: Any, **about: Any) -> float:
        assert gate.wait(60)
        return add(self, *args, **about)

    monkeypatch.setattr(Spool, "add", slow)
    followed = Followed(tmp_path / "a.gif", animation_seconds=1.0)
    for step in range(1, 200):  # would never end if a step waited: the gate is closed
        followed.observer.step(progress(iterate(step, 200, step / 200)))
    assert followed.recorder._queue.qsize() <= recorder.MAX_QUEUED
    gate.set()
    assert followed.observer.end(result(iterate(199, 200, 0.99), status="stopped"))


def test_pauses_do_not_count_as_time_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    monkeypatch.setattr(Pacer, "captured", lambda self, steps, seconds, *_: times.append(seconds))
    followed = Followed(tmp_path / "a.gif")
    followed.step(iterate(1, 9, 0.1, seconds=100.0), paused=90.0)
    assert times == [10.0]
    followed.observer.close()


def test_without_memory_a_frame_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed(tmp_path / "a.gif", animation_seconds=1.0)

    def failing(error: Exception) -> Callable[..., None]:
        return lambda *_: (_ for _ in ()).throw(error)

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "Snapshot", failing(torch.OutOfMemoryError("out of memory")))
        followed.step(iterate(1, 9, 0.1))
        patched.setattr(recorder, "Snapshot", failing(RuntimeError("a bug")))
        with pytest.raises(RuntimeError, match="a bug"):
            followed.step(iterate(2, 9, 0.2))
    followed.step(iterate(3, 9, 0.3))
    assert followed.places == [(0, 3)]
    assert followed.observer.end(result(iterate(3, 9, 0.3), status="stopped"))


def test_pictures_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    followed = Followed(tmp_path / "a.gif")
    bad = iterate(1, 9, 0.1)
    bad.average.value = lambda: torch.full((1, 3, *SIZE), float("nan"))
    followed.step(bad)
    assert followed.observer.end(result(bad, status="stopped")) == {}
    assert not (tmp_path / "a.gif").exists()


def test_a_bug_in_the_thread_is_raised_at_the_end(tmp_path: Path) -> None:
    followed = Followed(tmp_path / "a.gif", finish=lambda pixels: pixels[:, :, None, None])
    last = followed.run(3, 1)
    with pytest.raises(TypeError, match="Cannot handle this data type"):
        followed.observer.end(result(last))
    assert not followed.recorder._thread.is_alive()


# checkpoints and failures


def test_a_resumed_run_continues_with_the_stored_frames(tmp_path: Path) -> None:
    store, start, checkpoint = tmp_path / "a.gif.frames", torch.zeros(1, 3, *SIZE), tmp_path / "c"
    first = Followed(tmp_path / "a.gif", start=start, checkpoint=checkpoint)
    for step in range(1, 31):
        first.step(iterate(step, 60, uneven(step, 60)))
    first.observer.end(result(iterate(30, 60, uneven(30, 60)), status="stopped"))
    before = first.places
    assert len(before) > 5 and before[0] == START and store.exists()

    again = Followed(tmp_path / "a.gif", start=start, checkpoint=checkpoint, resumed=(0, 20))
    assert again.places == [place for place in before if place <= (0, 20)] and not again.reports
    for step in range(21, 61):
        again.step(iterate(step, 60, uneven(step, 60)))
    assert again.observer.end(result(iterate(60, 60, 1.0)))
    assert not store.exists() and (tmp_path / "a.gif").exists()

    lost = Followed(tmp_path / "a.gif", start=start, checkpoint=checkpoint, resumed=(0, 20))
    lost.recorder._queue.join()
    assert lost.places == [START] and "no earlier frames" in lost.reports[0]
    lost.observer.close()


@pytest.mark.parametrize("what", ["another run", "another size", "not a zip", "cut", "no picture", "missing"])
def test_stored_frames_that_cannot_be_used_are_ignored(what: str, tmp_path: Path) -> None:
    store = tmp_path / "frames"
    kept = Spool()
    for step in range(1, 4):
        kept.add((0, step), seen(step / 4), always=True)
    kept.save(store, "x")
    data = store.read_bytes()
    if what == "not a zip":
        store.write_bytes(b"no")
    elif what == "cut":
        store.write_bytes(data[: len(data) // 2])
    elif what == "no picture":
        store.write_bytes(data.replace(b"\xff\xd8\xff", b"\0\0\0"))
    elif what == "missing":
        store.unlink()
    other = Spool()
    other.add(START, seen(0))
    size = (10, 10) if what == "another size" else SIZE
    assert not other.load(store, "y" if what == "another run" else "x", size, (0, 9))
    assert [frame.place for frame in other.frames] == [START]


def test_frames_are_stored_at_checkpoints_when_that_takes_little_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    followed = Followed(tmp_path / "a.gif", checkpoint=tmp_path / "c")
    store = tmp_path / "a.gif.frames"
    followed.step(iterate(1, 99, 0.0))
    followed.observer.checkpointed()
    followed.recorder._queue.join()
    stored = store.read_bytes()
    followed.recorder._store_after = float("inf")
    followed.step(iterate(3, 99, 0.5))
    followed.observer.checkpointed()
    followed.recorder._queue.join()
    assert store.read_bytes() == stored
    followed.observer.end(result(iterate(3, 99, 0.5), status="stopped"))
    assert len(store.read_bytes()) > len(stored)


def test_frames_that_cannot_be_stored_are_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("no space")

    monkeypatch.setattr(Spool, "save", full)
    followed = Followed(tmp_path / "a.gif", checkpoint=tmp_path / "c")
    for step in (1, 2):
        followed.step(iterate(step, 99, 0.5))
        followed.observer.checkpointed()
        followed.recorder._queue.join()
    assert followed.reports == ["style_transfer: note: no space; the run continues without storing the frames of its animation"]
    followed.observer.close()


def test_a_run_that_was_complete_before_ends_with_the_picture_in_its_file(tmp_path: Path) -> None:
    images.save(tmp_path / "o.png", np.concatenate([painted(1), np.ones((*SIZE, 1), np.float32)], axis=2))
    followed = Followed(
        tmp_path / "a.gif", start=torch.zeros(1, 3, *SIZE), checkpoint=tmp_path / "c", resumed=(1, 60), animation_seconds=2.0,
        finish=lambda pixels: pixels * 0,
    )  # fmt: skip
    assert followed.observer.end(result(path=tmp_path / "o.png")) == {"animation": tmp_path / "a.gif"}
    frames = opened(tmp_path / "a.gif")
    assert change(frames[0][0], np.zeros((*SIZE, 3), np.uint8)) < 0.05 and change(frames[-1][0], seen(1)) < 0.05


def test_a_run_that_fails_leaves_the_animation_so_far_and_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed(tmp_path / "a.gif", checkpoint=tmp_path / "c")
    followed.run(5, 1)
    followed.observer.fail(NumericError("not finite"), None)
    assert len(opened(tmp_path / "a.gif")) > 3 and (tmp_path / "a.gif.frames").exists()
    assert not followed.recorder._thread.is_alive()

    def full(*_: object, **__: object) -> None:
        raise OutputError("a.gif: cannot be written")

    monkeypatch.setattr(movie, "write", full)
    followed = Followed(tmp_path / "b.gif", checkpoint=tmp_path / "c")
    last = followed.run(5, 1)
    with pytest.raises(OutputError, match="cannot be written"):
        followed.observer.end(result(last))
    assert not followed.recorder._thread.is_alive()


def test_the_observer_is_made_from_its_options() -> None:
    kind = OBSERVERS["animation"]
    assert kind.create(Asked()) is None
    made = kind.create(Asked({"animation": "{content}.gif"}))
    task = Task("c.png", ("s.png",), Path("o.png"))
    assert list(made.files(task)) == [("--animation", Path("c.gif"))]
    with pytest.raises(SettingsError, match="at most 50 frames per second"):
        kind.create(Asked({"animation": "a.gif", "animation_rate": 60.0})).files(task)
    with pytest.raises(SettingsError, match="--animation-seconds must be at least 0.1"):
        AnimationOptions(animation_seconds=0.0)
