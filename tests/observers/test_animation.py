"""Animations: what is kept of a run, how it is paced, and the files."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.movies import opened
from support.tiny import picture

from style_transfer.compute.distributed import LOCAL
from style_transfer.errors import OutputError, SettingsError
from style_transfer.observers import animation, movie
from style_transfer.observers.animation import Animation, Kept, Pace, Spool, between, change, counts, timeline
from style_transfer.observers.frames import Shot, fitted, reduced

SIZE = 48, 64
COARSE = [picture(seed, 3, 4, torch.float32) for seed in range(3)]
CORNERS = [
    torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).numpy() for coarse in COARSE
]
"""Smooth pictures, which files with losses hardly change."""


def painted(share: float) -> np.ndarray:
    """Return a picture on a way with a bend: from the first corner over the second to the third, float32 (H, W, 3)."""
    leg, part = divmod(min(share, 1 - 1e-9) * 2, 1)
    a, b = CORNERS[int(leg)], CORNERS[int(leg) + 1]
    return (a + (b - a) * np.float32(part)).astype(np.float32)


def seen(share: float) -> np.ndarray:
    return np.rint(255 * painted(share)).astype(np.uint8)


def iterate(step: int, steps: int, share: float, index: int = 0, scales: int = 1, seconds: float | None = None) -> Any:
    """Return what an animation looks at of an iterate whose picture is `share` of its way."""
    tensor = torch.from_numpy(painted(share)).permute(2, 0, 1)[None]
    ends = step == steps
    return SimpleNamespace(
        index=index, step=step, steps=steps, ends_scale=ends, ends_run=ends and index == scales - 1, group=LOCAL, cover=None,
        seconds=float(step) if seconds is None else seconds, average=SimpleNamespace(value=lambda: tensor.clone()),
    )  # fmt: skip


def uneven(step: int, steps: int) -> float:
    """Return how far a run has come that does most of its work at first, as real ones do."""
    return 1 - (1 - step / steps) ** 6


def moving(frames: list[tuple[np.ndarray, int]]) -> list[np.ndarray]:
    return [pixels for pixels, times in frames for _ in range(times)]


# pacing


def test_shown_frames_are_evenly_apart_in_change_though_the_run_is_not() -> None:
    spool = Spool(limit=60)
    steps = 900
    for step in range(steps + 1):
        spool.add((0, step), seen(uneven(step, steps)), always=step == steps)
    shown = moving(list(between(spool.kept, 4.0, 25)))
    first, grows, last = counts(4.0, 25)
    assert (len(shown), first + grows + last) == (100, 100)
    apart = [change(a, b) for a, b in itertools.pairwise(shown[first - 1 : -last])]
    assert len(apart) == grows
    inner = sorted(apart[1:])[2:-2]  # across the bend it is nearer
    assert inner[-1] < 1.15 * inner[0]
    by_number = [change(seen(uneven(9 * i, steps)), seen(uneven(9 * i + 9, steps))) for i in range(100)]
    assert max(by_number) > 50 * min(by_number)
    assert change(shown[0], seen(0)) < 0.01 and change(shown[-1], seen(1)) < 0.01


def test_timeline_blends_between_pictures_and_reaches_both_ends() -> None:
    assert timeline([0.0, 1.0, 4.0], 5) == [(0, 0.0), (1, 0.0), (1, pytest.approx(1 / 3)), (1, pytest.approx(2 / 3)), (2, 0.0)]
    assert timeline([0.0], 3) == [(0, 0.0)] * 3
    assert timeline([0.0, 0.0], 2) == [(1, 0.0)] * 2
    assert timeline([0.0, 0.5], 1) == [(1, 0.0)]


@pytest.mark.parametrize(("seconds", "rate"), [(10, 30), (0.2, 10), (60, 23.976), (1, 1)])
def test_frames_add_up_to_the_length_and_the_last_picture_stays_longest(seconds: float, rate: float) -> None:
    first, grows, last = counts(seconds, rate)
    assert first + grows + last == max(1, round(seconds * rate))
    assert grows >= 1 and first <= last <= round(2 * rate)


def test_an_animation_of_one_picture_stands_still() -> None:
    spool = Spool()
    spool.add((0, 1), seen(0))
    ((frame, times),) = between(spool.kept, 2, 10)
    assert times == 20 and change(frame, seen(0)) < 0.01


def looks(pace: Pace, steps: int, *, spent: float = 0.0, index: int = 0, fineness: float = 0.01) -> list[int]:
    found, before = [], 0
    for step in range(1, steps + 1):
        if pace.due(index, step, last=step == steps):
            found.append(step)
            pace.seen(index, step - before, 2 * (uneven(step, steps) - uneven(before, steps)))
            before = step
            pace.looked(steps, float(step), spent, fineness)
    return found


def test_looks_are_close_while_much_changes_and_never_far_apart() -> None:
    pace = Pace()
    found = looks(pace, 1000)
    apart = [b - a for a, b in itertools.pairwise(found)]
    assert (found[0], found[-1]) == (1, 1000)
    assert max(apart[:10]) <= 4 and max(apart) <= 125
    assert sum(apart[-5:]) > 4 * sum(apart[:5])
    moved = [2 * (uneven(b, 1000) - uneven(a, 1000)) for a, b in itertools.pairwise(found)]
    assert max(moved) < 0.03
    assert looks(pace, 10, index=1)[:3] == [1, 2, 3]  # a new scale begins with close looks again


def test_looks_that_are_dear_are_rare() -> None:
    spent = 3.0
    found = looks(Pace(), 1000, spent=spent)
    assert found[-1] == 1000
    assert spent * len(found) < animation.CREDIT + 1000 * animation.SHARE + 2 * spent
    assert len(looks(Pace(), 1000)) > 3 * len(found)


def test_a_run_that_goes_back_is_looked_at_again() -> None:
    pace = Pace()
    looks(pace, 100)
    assert pace.due(0, 3, last=False)


# what is kept


def test_the_spool_is_bounded_and_keeps_both_ends() -> None:
    spool = Spool(limit=20, most_bytes=10**9)
    for step in range(400):
        spool.add((0, step), seen(uneven(step, 400)))
    spool.add((0, 400), seen(1.0), always=True)
    assert len(spool.kept) <= 20
    assert (spool.kept[0].at, spool.kept[-1].at) == ((0, 0), (0, 400))
    assert [kept.at for kept in spool.kept] == sorted(kept.at for kept in spool.kept)
    gaps = [b.position - a.position for a, b in itertools.pairwise(spool.kept)]
    assert max(gaps) < 6 * sum(gaps) / len(gaps)
    few = Spool(limit=1000, most_bytes=8 * len(spool.kept[0].data))
    for step in range(200):
        few.add((0, step), seen(step / 200))
    assert 2 < len(few.kept) < 12 and few.bytes == sum(len(kept.data) for kept in few.kept) <= few.most_bytes


def test_what_adds_least_goes_first() -> None:
    spool = Spool(limit=4)
    for step, share in enumerate((0.0, 0.3, 0.34, 0.6, 1.0)):
        spool.add((0, step), seen(share), always=True)
    assert [kept.at[1] for kept in spool.kept] == [0, 1, 3, 4]


def test_what_hardly_differs_is_not_kept_unless_it_must_be() -> None:
    spool = Spool()
    spool.add((0, 1), seen(0.2))
    assert 0 < spool.add((0, 2), seen(0.2003)) < animation.LEAST and len(spool.kept) == 1
    spool.add((0, 3), seen(0.2003), always=True)
    assert len(spool.kept) == 2
    assert spool.add((0, 4), seen(0.2003), always=True) == 0 and len(spool.kept) == 2


def test_pictures_of_steps_that_are_taken_back_go() -> None:
    spool = Spool()
    for step in range(5):
        spool.add((0, step), seen(step / 5))
    spool.add((0, 2), seen(0.9))
    assert [kept.at[1] for kept in spool.kept] == [0, 1, 2]
    assert spool.bytes == sum(len(kept.data) for kept in spool.kept)
    assert spool.kept[-1].position == pytest.approx(spool.kept[1].position + change(spool.kept[1].pixels(), seen(0.9)), abs=0.01)


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


def test_what_is_not_painted_shows_the_content() -> None:
    taken = iterate(1, 2, 0.0)
    content = torch.full((1, 3, *SIZE), 0.5)
    taken.cover = SimpleNamespace(laid_on=lambda image: torch.cat([content[..., :32], image[..., 32:]], dim=3))
    pixels = Shot(taken, SIZE).pixels()
    assert np.allclose(pixels[:, :32], 0.5) and not np.allclose(pixels[:, 32:], 0.5)


# the run's side


def run(watching: Animation, steps: int = 60, scales: int = 2) -> Any:
    last = None
    for index in range(scales):
        for step in range(1, steps + 1):
            last = iterate(step, steps, (index + uneven(step, steps)) / scales, index, scales)
            watching.update(last)
            watching._queue.join()
    return last


def test_a_run_becomes_an_animation_from_the_content_to_the_last_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    start = torch.full((1, 3, 96, 128), 0.5)
    watching = Animation(path, SIZE, seconds=3, rate=10, start=start)
    assert watching.write(run(watching))
    watching.close()
    assert not watching._thread.is_alive()
    frames = opened(path)
    assert sum(seconds for _, seconds in frames) == pytest.approx(3)
    assert all(frame.shape == (*SIZE, 3) for frame, _ in frames)
    assert change(frames[0][0], np.full((*SIZE, 3), 128, np.uint8)) < 0.01
    assert change(frames[-1][0], seen(1)) < 0.02
    assert frames[-1][1] > frames[0][1] > 0.1
    assert [path.name] == [found.name for found in tmp_path.iterdir()]


def test_an_interrupted_run_ends_with_the_picture_it_has(tmp_path: Path) -> None:
    watching = Animation(tmp_path / "a.gif", SIZE, seconds=2)
    for step in range(1, 40):
        watching.update(iterate(step, 1000, 0.2 if step < 39 else 0.9))
    assert watching.write(iterate(39, 1000, 0.9))
    watching.close()
    assert change(opened(tmp_path / "a.gif")[-1][0], seen(0.9)) < 0.05


def test_shown_frames_have_finished_colours_and_white_behind_what_is_transparent(tmp_path: Path) -> None:
    def finish(pixels: np.ndarray) -> np.ndarray:
        alpha = np.zeros((*SIZE, 1), np.float32)
        alpha[:, 32:] = 1
        return np.concatenate([pixels * 0, alpha], axis=2)

    watching = Animation(tmp_path / "a.webp", SIZE, seconds=1, finish=finish)
    watching.write(run(watching, 3, 1))
    watching.close()
    frame = opened(tmp_path / "a.webp")[-1][0]
    assert frame[:, :28].min() > 245 and frame[:, 36:].max() < 10


def test_the_run_never_waits_for_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    add = Spool.add

    def slow(self: Spool, *args: Any, **about: Any) -> float:
        gate.wait(30)
        return add(self, *args, **about)

    monkeypatch.setattr(Spool, "add", slow)
    watching = Animation(tmp_path / "a.gif", SIZE, seconds=1)
    began = time.monotonic()
    for step in range(1, 200):
        watching.update(iterate(step, 200, step / 200))
    assert time.monotonic() - began < 10
    assert watching._queue.qsize() <= animation.WAITING
    gate.set()
    assert watching.write(iterate(199, 200, 0.99))
    watching.close()


def test_a_device_that_is_full_costs_a_frame_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Animation(tmp_path / "a.gif", SIZE, seconds=1)
    with monkeypatch.context() as patched:
        patched.setattr(animation, "Shot", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
        watching.update(iterate(1, 9, 0.1))
        patched.setattr(animation, "Shot", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
        with pytest.raises(RuntimeError, match="a bug"):
            watching.update(iterate(2, 9, 0.2))
    watching.update(iterate(3, 9, 0.3))
    assert watching.write(iterate(3, 9, 0.3))
    watching.close()
    assert {kept.at for kept in watching._spool.kept} == {(0, 3)}


def test_pictures_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    watching = Animation(tmp_path / "a.gif", SIZE, seconds=1)
    bad = iterate(1, 9, 0.1)
    bad.average.value = lambda: torch.full((1, 3, *SIZE), float("nan"))
    watching.update(bad)
    assert not watching.write(bad)
    watching.close()
    assert not (tmp_path / "a.gif").exists()


def test_a_bug_in_the_thread_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Animation(tmp_path / "a.gif", SIZE, finish=lambda pixels: pixels[:, :, None, None])
    last = run(watching, 3, 1)
    with pytest.raises(Exception, match="."):
        watching.write(last)
    watching.close()


# going on later


def test_a_run_that_goes_on_has_its_beginning(tmp_path: Path) -> None:
    store = tmp_path / "a.gif.frames"
    first = Animation(tmp_path / "a.gif", SIZE, start=torch.zeros(1, 3, *SIZE), store=store, run="x")
    for step in range(1, 31):
        first.update(iterate(step, 60, uneven(step, 60)))
        first._queue.join()
    first.store(now=True)
    first.close()
    before = [kept.at for kept in first._spool.kept]
    assert len(before) > 5 and before[0] == animation.START

    again = Animation(tmp_path / "a.gif", SIZE, start=torch.zeros(1, 3, *SIZE), store=store, run="x")
    assert again.resume((0, 20))
    again._queue.join()
    assert [kept.at for kept in again._spool.kept] == [at for at in before if at <= (0, 20)]
    for step in range(21, 61):
        again.update(iterate(step, 60, uneven(step, 60)))
        again._queue.join()
    assert again.write(iterate(60, 60, 1.0))
    again.forget()
    again.close()
    assert not store.exists() and (tmp_path / "a.gif").exists()


@pytest.mark.parametrize("what", ["another run", "another size", "not a zip", "cut", "no picture", "missing"])
def test_what_cannot_be_used_of_an_earlier_run_is_left(what: str, tmp_path: Path) -> None:
    store = tmp_path / "frames"
    spool = Spool()
    for step in range(1, 4):
        spool.add((0, step), seen(step / 4), always=True)
    spool.save(store, "x")
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
    other.add((-1, 0), seen(0))
    size = (10, 10) if what == "another size" else SIZE
    assert not other.load(store, "y" if what == "another run" else "x", size, (0, 9))
    assert [kept.at for kept in other.kept] == [(-1, 0)]


def test_storing_waits_until_it_is_cheap(tmp_path: Path) -> None:
    watching = Animation(tmp_path / "a.gif", SIZE, store=tmp_path / "s", run="x")
    watching.update(iterate(1, 99, 0.0))
    watching.store()
    watching._queue.join()
    stamp = (tmp_path / "s").stat().st_mtime_ns
    watching._save_at = time.monotonic() + 100
    watching.update(iterate(3, 99, 0.5))
    watching.store()
    watching._queue.join()
    assert (tmp_path / "s").stat().st_mtime_ns == stamp
    watching.store(now=True)
    assert (tmp_path / "s").stat().st_mtime_ns > stamp
    watching.close()


# the files


def clip(count: int = 12) -> list[tuple[np.ndarray, int]]:
    frames = [(seen(number / (count - 1)), 1) for number in range(count)]
    return [(frames[0][0], 3), *frames[1:-1], (frames[-1][0], 5)]


def save(path: Path, frames: list[tuple[np.ndarray, int]], rate: float = 12.5) -> None:
    movie.write(path, iter(frames), size=frames[0][0].shape[:2], rate=rate, sample=[frame for frame, _ in frames], about="test 1")


@pytest.mark.parametrize(("suffix", "near"), [(".mp4", 0.03), (".webm", 0.03), (".gif", 0.04), (".webp", 0.03)])
def test_each_kind_of_file_opens_with_all_frames_and_the_right_length(suffix: str, near: float, tmp_path: Path) -> None:
    if suffix in movie.CODECS:
        pytest.importorskip("av")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    save(path, clip())
    found = opened(path)
    assert sum(seconds for _, seconds in found) == pytest.approx(18 / 12.5, abs=0.011)
    assert len(found) == (18 if suffix in movie.CODECS else 12)
    assert change(found[0][0], seen(0)) < near and change(found[-1][0], seen(1)) < near
    assert {frame.shape for frame, _ in found} == {(*SIZE, 3)}
    assert [path.name] == [other.name for other in tmp_path.iterdir()]


def test_videos_say_which_colours_they_have_and_can_be_played_while_they_load(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    flat = np.full((*SIZE, 3), (200, 60, 30), np.uint8)
    for suffix in movie.CODECS:
        path = tmp_path / f"a{suffix}"
        save(path, [(flat, 10)], 23.976)
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            codec = video.codec_context
            tags = codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range, codec.pix_fmt
            assert [int(tag) for tag in tags[:4]] == [1, 13, 1, 1] and tags[4] == "yuv420p"
            assert float(video.average_rate) == pytest.approx(23.976, rel=1e-4)
            assert float(container.duration / 1e6) == pytest.approx(10 / 23.976, abs=0.005)
            (luma, blue, red) = (np.frombuffer(bytes(plane), np.uint8)[0] for plane in next(container.decode(video=0)).planes)
        r, g, b = flat[0, 0] / 255
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b  # ITU-R BT.709, section 3
        assert int(luma) == pytest.approx(16 + 219 * y, abs=1.5)
        assert int(blue) == pytest.approx(128 + 224 * (b - y) / 1.8556, abs=1.5)
        assert int(red) == pytest.approx(128 + 224 * (r - y) / 1.5748, abs=1.5)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_file_is_whole_or_not_there(suffix: str, tmp_path: Path) -> None:
    if suffix in movie.CODECS:
        pytest.importorskip("av")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def broken() -> Iterator[tuple[np.ndarray, int]]:
        yield from clip()[:5]
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"No space left on device; free some space"):
        movie.write(path, broken(), size=SIZE, rate=10, sample=[seen(0)], about="")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_delays_of_a_gif_are_right_in_the_sum_and_long_ones_are_split(tmp_path: Path) -> None:
    frames = [(seen(number / 29), 1) for number in range(30)]
    save(tmp_path / "a.gif", frames, 15)
    seconds = [seconds for _, seconds in opened(tmp_path / "a.gif")]
    assert set(seconds) == {0.06, 0.07} and sum(seconds) == pytest.approx(2)
    save(tmp_path / "b.gif", [(seen(0), 7000), (seen(1), 100)], 10)
    assert sum(seconds for _, seconds in opened(tmp_path / "b.gif")) == pytest.approx(710)


def test_a_gif_repeats_and_is_smaller_where_nothing_moves(tmp_path: Path) -> None:
    still = [(np.where(np.arange(64)[:, None] < 60, seen(0), seen(number / 9)), 1) for number in range(10)]
    save(tmp_path / "a.gif", still)
    save(tmp_path / "b.gif", clip(10))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0 and image.n_frames == 10
    assert (tmp_path / "a.gif").stat().st_size < (tmp_path / "b.gif").stat().st_size / 2


def test_without_pyav_videos_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(movie.importlib.util, "find_spec", lambda name: None)
    for suffix in (".mp4", ".webm"):
        with pytest.raises(SettingsError, match=r"needs PyAV.*pip install av.*\.gif or \.webp"):
            movie.check("--animation", f"a{suffix}")
    assert movie.check("--animation", "A.GIF") == ".gif"


def test_a_pyav_without_encoders_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setitem(movie.CODECS, ".mp4", {"no-such-codec": {}})
    with pytest.raises(SettingsError, match="has none of no-such-codec"):
        movie.check("--animation", "a.mp4")


def test_other_endings_get_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"must end in .*did you mean '\.mp4'"):
        movie.check("--animation", "a.mp3")


def test_kept_pictures_are_jpegs() -> None:
    spool = Spool()
    spool.add((0, 1), seen(0.5))
    (kept,) = spool.kept
    assert isinstance(kept, Kept) and kept.data[:3] == b"\xff\xd8\xff" and kept.pixels().shape == (*SIZE, 3)
