"""Writing animations frame by frame: MP4 and WebM with PyAV, GIF and animated WebP with Pillow.

Frames are uint8 (H, W, 3), sRGB, with even height and width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from PIL import Image

from ...files import replacing
from .options import CODECS, check_format, find_codec

if TYPE_CHECKING:
    import numpy.typing as npt

    from ...geometry.scales import Size
    from .frames import Bytes

KEY_SECONDS: Final = 20
"""The seconds between key frames of a video: a key frame shows all changes at once that were too small to encode before."""
PALETTE_FRAMES: Final = 24
"""The most frames from which the palette of a GIF is computed."""
DITHER_AMPLITUDE: Final = 12.0
"""The range of the ordered dithering of a GIF, in 1/255."""
TRANSPARENT: Final = 255
"""The palette index of pixels that are equal to those of the previous frame."""
WEBP_QUALITY: Final = 88
LENGTH_TOLERANCE: Final = 0.02
"""The most seconds by which the length of a GIF or WebP may be wrong. Durations in them are multiples of 1/100 and 1/1000 s."""

# Code points of ISO/IEC 23091-2: BT.709 primaries and matrix, the sRGB transfer function, limited range.
BT709, SRGB, LIMITED = 1, 13, 1


def write(
    path: str | Path, frames: Iterator[Bytes], times: Sequence[int], *, size: Size, rate: float, sample: Iterable[Bytes],
    comment: str,
) -> None:  # fmt: skip
    """Write an animation atomically, after reading it back to check its size and length.

    Frame i is shown for `times[i]` periods of 1/`rate` seconds. The palette of a GIF is computed from the frames in `sample`.
    Videos contain `comment`. Raises `OutputError`, and `SettingsError` as `check_format` does.
    """
    suffix = check_format("--animation", path)

    def check(written: BinaryIO) -> None:
        found = _frame_count(written, size) if suffix in CODECS else _seconds(written, size)
        expected, tolerance = (sum(times), 0.0) if suffix in CODECS else (sum(times) / rate, LENGTH_TOLERANCE)
        if found is not None and abs(found - expected) > tolerance:
            raise OSError(f"the written file has a length of {found:g}, not {expected:g}")

    with replacing(path, check) as stream:
        if suffix in CODECS:
            _write_video(stream, suffix, zip(frames, times, strict=True), size, rate, comment)
        elif suffix == ".gif":
            _write_gif(stream, frames, times, size, rate, sample)
        else:
            _write_webp(stream, frames, times, rate)


def _check_size(found: Size, size: Size) -> None:
    if found != size:
        raise OSError(f"the written file is {found[1]}x{found[0]}, not {size[1]}x{size[0]}")


def _frame_count(stream: BinaryIO, size: Size) -> int:
    """Return how many frames a video has. Raises `OSError` if its size is not `size`."""
    import av  # an optional dependency

    reader: Any = av.open(stream)
    with reader as container:
        video = container.streams.video[0]
        count = sum(1 for packet in container.demux(video) if packet.size)
        _check_size((video.codec_context.height, video.codec_context.width), size)
    return count


def _seconds(stream: BinaryIO, size: Size) -> float | None:
    """Return the length of a GIF or WebP, all of whose frames are decoded; None for a WebP of one frame, which has none.

    Raises `OSError` if its size is not `size`.
    """
    seconds = 0.0
    with Image.open(stream) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            seconds += image.info.get("duration", 0) / 1000
        _check_size((image.height, image.width), size)
    return seconds or None


def _write_video(
    stream: BinaryIO, suffix: str, frames: Iterator[tuple[Bytes, int]], size: Size, rate: float, comment: str
) -> None:
    import av  # an optional dependency
    from av.video.reformatter import ColorRange, Colorspace

    name = find_codec("--animation", suffix)
    exact_rate = Fraction(rate).limit_denominator(1001)
    muxing = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    try:  # by name, because the muxer opens the file a second time to move the index to its beginning
        with av.open(stream.name, "w", format=suffix[1:], options=muxing) as container:
            container.metadata["comment"] = comment
            video: Any = container.add_stream(name, rate=exact_rate, options=dict(CODECS[suffix][name]))
            video.height, video.width = size
            video.pix_fmt = "yuv420p"
            codec = video.codec_context
            codec.gop_size = max(1, round(KEY_SECONDS * rate))
            codec.color_primaries, codec.color_trc = BT709, SRGB
            codec.colorspace, codec.color_range = BT709, LIMITED
            number = 0
            for pixels, times in frames:
                rgb: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
                frame.color_primaries, frame.color_trc = BT709, SRGB
                frame.time_base = 1 / exact_rate
                for _ in range(times):
                    frame.pts = number
                    number += 1
                    container.mux(video.encode(frame))
            container.mux(video.encode(None))
    except av.FFmpegError as error:
        raise OSError(error.errno or 0, error.strerror or str(error)) from error


def durations(times: Sequence[int], rate: float, units: int) -> list[int]:
    """Return the duration of each frame in 1/`units` seconds, rounded so that the errors do not add up."""
    ends = [round(end * units / rate) for end in itertools.accumulate(times)]
    return [end - start for start, end in itertools.pairwise([0, *ends])]


def make_palette(frames: Iterable[Bytes]) -> Image.Image:
    """Return an image with a palette of at most 255 colours for all frames, which leaves one entry for transparency."""
    parts = [Image.fromarray(frame) for frame in itertools.islice(frames, PALETTE_FRAMES)]
    for part in parts:
        part.thumbnail((160, 160))
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), parts[0].getpixel((0, 0)))
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet.quantize(TRANSPARENT, Image.Quantize.MEDIANCUT, kmeans=2)


def dither_thresholds(size: Size) -> npt.NDArray[np.float32]:
    """Return thresholds of ordered dithering, (H, W, 1), in (-1/2, 1/2): an 8x8 matrix (Bayer 1973), repeated."""
    matrix = np.zeros((1, 1))
    for _ in range(3):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    thresholds = ((matrix + 0.5) / 64 - 0.5).astype(np.float32)
    height, width = size
    return np.tile(thresholds, (height // 8 + 1, width // 8 + 1))[:height, :width, None]


def _write_gif(
    stream: BinaryIO, frames: Iterator[Bytes], times: Sequence[int], size: Size, rate: float, sample: Iterable[Bytes]
) -> None:
    """Write a GIF that repeats for ever.

    All frames have the same palette. The dithering is ordered, because error diffusion would flicker from frame to frame. Pillow
    keeps all frames in memory, with one byte per pixel, which is about three times the size of the file.
    """
    palette = make_palette(sample)
    pattern = dither_thresholds(size) * np.float32(DITHER_AMPLITUDE)
    colours = [*(palette.getpalette("RGB") or ()), *[0] * 768][:768]

    def quantized() -> Iterator[Image.Image]:
        for pixels in frames:
            dithered = Image.fromarray(np.clip(np.rint(pixels + pattern), 0, 255).astype(np.uint8))
            image = dithered.quantize(palette=palette, dither=Image.Dither.NONE)
            image.putpalette(colours)
            yield image

    images = quantized()
    next(images).save(
        stream, "GIF", save_all=True, append_images=images, duration=[10 * each for each in durations(times, rate, 100)], loop=0,
        disposal=1, optimize=True, transparency=TRANSPARENT, palette=bytes(colours),
    )  # fmt: skip


class _FrameSequence:
    """The frames of an iterator as one image of several frames, which Pillow requests one at a time, in order."""

    def __init__(self, frames: Iterator[Bytes], count: int) -> None:
        self.n_frames = count
        self._frames = frames
        self._image = Image.new("RGB", (1, 1))

    def seek(self, number: int) -> None:
        """Advance to the next frame."""
        self._image = Image.fromarray(next(self._frames))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image, name)


def _write_webp(stream: BinaryIO, frames: Iterator[Bytes], times: Sequence[int], rate: float) -> None:
    """Write an animated WebP that repeats for ever.

    All frames are key frames (`kmax=1`), because libwebp omits small changes in other frames and shows them all at once in the
    next key frame. It still merges a frame with the previous one if no pixel differs by more than about 3/255.
    """
    first = Image.fromarray(next(frames))
    rest = [_FrameSequence(frames, len(times) - 1)] if len(times) > 1 else []
    first.save(
        stream, "WEBP", save_all=True, append_images=rest, duration=durations(times, rate, 1000), loop=0,
        quality=WEBP_QUALITY, method=3, kmin=0, kmax=1,
    )  # fmt: skip
