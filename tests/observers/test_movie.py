"""Animations as files: frames, lengths, colours, and what happens to files that cannot be written."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.growth import SIZE, seen
from support.movies import opened

from style_transfer.errors import OutputError, SettingsError
from style_transfer.observers.animation import movie, options
from style_transfer.observers.animation.options import CODECS, check_format
from style_transfer.observers.animation.spool import change

Clip = list[tuple[np.ndarray, int]]


def clip(count: int = 12) -> Clip:
    frames = [(seen(number / (count - 1)), 1) for number in range(count)]
    return [(frames[0][0], 3), *frames[1:-1], (frames[-1][0], 5)]


def save(path: Path, frames: Clip, rate: float = 12.5) -> None:
    pixels = [frame for frame, _ in frames]
    times = [times for _, times in frames]
    movie.write(path, iter(pixels), times, size=pixels[0].shape[:2], rate=rate, sample=pixels, comment="test 1")


@pytest.mark.parametrize(("suffix", "near"), [(".mp4", 0.03), (".webm", 0.03), (".gif", 0.04), (".webp", 0.03)])
def test_each_format_has_all_frames_and_the_right_length(suffix: str, near: float, tmp_path: Path) -> None:
    if suffix in CODECS:
        pytest.importorskip("av")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    save(path, clip())
    found = opened(path)
    assert sum(seconds for _, seconds in found) == pytest.approx(18 / 12.5, abs=0.011)
    assert len(found) == (18 if suffix in CODECS else 12)
    assert change(found[0][0], seen(0)) < near and change(found[-1][0], seen(1)) < near
    assert {frame.shape for frame, _ in found} == {(*SIZE, 3)}
    assert [path.name] == [other.name for other in tmp_path.iterdir()]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_of_equal_frames_is_a_still_picture(suffix: str, tmp_path: Path) -> None:
    for number, frames in enumerate(([(seen(0.5), 25)], [(seen(0.5), 20), (seen(0.5), 5)])):
        save(tmp_path / f"{number}{suffix}", frames)
        ((frame, seconds),) = opened(tmp_path / f"{number}{suffix}")
        assert change(frame, seen(0.5)) < 0.04 and seconds == (2 if suffix == ".gif" else 0)


def test_slow_changes_in_a_webp_are_even(tmp_path: Path) -> None:
    frames = [seen(0.2 * number / 29) for number in range(30)]
    save(tmp_path / "a.webp", [(frame, 1) for frame in frames], 15)
    found = [frame for frame, _ in opened(tmp_path / "a.webp")]
    apart = [change(a, b) for a, b in itertools.pairwise(found)]
    assert len(apart) >= 10 and max(apart) < 2 * np.median(apart)


def test_videos_declare_their_colours_and_can_be_played_while_they_load(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    flat = np.full((*SIZE, 3), (200, 60, 30), np.uint8)
    for suffix in CODECS:
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
def test_an_animation_is_written_whole_or_not_at_all(suffix: str, tmp_path: Path) -> None:
    if suffix in CODECS:
        pytest.importorskip("av")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def broken() -> Iterator[np.ndarray]:
        yield from (frame for frame, _ in clip()[:5])
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"No space left on device; free some space"):
        movie.write(path, broken(), [1] * 9, size=SIZE, rate=10, sample=[seen(0)], comment="")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("suffix", "length"), [(".mp4", "_frame_count"), (".gif", "_seconds"), (".webp", "_seconds")])
def test_a_file_of_another_length_is_refused(
    suffix: str, length: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    if suffix in CODECS:
        pytest.importorskip("av")
    monkeypatch.setattr(movie, length, lambda *_: 1)
    with pytest.raises(OutputError, match="the written file has a length of 1, not"):
        save(tmp_path / f"a{suffix}", clip())


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the written file is 64x48, not 30x20"):
        movie.write(tmp_path / "a.webp", iter([seen(0), seen(1)]), [1, 1], size=(20, 30), rate=10, sample=[], comment="")


def test_durations_in_a_gif_are_rounded_so_that_their_sum_is_right(tmp_path: Path) -> None:
    save(tmp_path / "a.gif", [(seen(number / 29), 1) for number in range(30)], 15)
    seconds = [seconds for _, seconds in opened(tmp_path / "a.gif")]
    assert set(seconds) == {0.06, 0.07} and sum(seconds) == pytest.approx(2)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_frame_can_stay_for_ten_minutes(suffix: str, tmp_path: Path) -> None:
    save(tmp_path / f"a{suffix}", [(seen(0), 5900), (seen(1), 100)], 10)
    assert sum(seconds for _, seconds in opened(tmp_path / f"a{suffix}")) == pytest.approx(600)


def test_a_gif_repeats_and_is_smaller_where_nothing_moves(tmp_path: Path) -> None:
    still = [(np.where(np.arange(64)[:, None] < 60, seen(0), seen(number / 9)), 1) for number in range(10)]
    save(tmp_path / "a.gif", still)
    save(tmp_path / "b.gif", clip(10))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0 and image.n_frames == 10
    assert (tmp_path / "a.gif").stat().st_size < (tmp_path / "b.gif").stat().st_size / 2


def test_without_pyav_the_error_for_videos_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    for suffix in (".mp4", ".webm"):
        with pytest.raises(SettingsError, match=r"needs PyAV.*pip install av.*\.gif or \.webp"):
            check_format("--animation", f"a{suffix}")
    assert check_format("--animation", "A.GIF") == ".gif"


def test_a_pyav_without_encoders_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setitem(CODECS, ".mp4", {"no-such-codec": {}})
    with pytest.raises(SettingsError, match="has none of the encoders no-such-codec"):
        check_format("--animation", "a.mp4")


def test_unknown_formats_and_rates_are_errors() -> None:
    with pytest.raises(SettingsError, match=r"must end in .*did you mean '\.mp4'"):
        check_format("--animation", "a.mp3")
    with pytest.raises(SettingsError, match="at most 50 frames per second, not 60"):
        check_format("--animation", "a.gif", 60)
    assert check_format("--animation", "a.gif", 50) == ".gif"
