"""Files of moving pictures, written frame by frame: MP4 and WebM through PyAV, GIF and animated WebP through Pillow.

Frames are uint8 (H, W, 3) sRGB, of even height and width, each with the number of frames that it stays for.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from PIL import Image

from ..errors import SettingsError, near_miss
from ..files.atomic import replacing, shown

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..geometry.scales import Size

    Bytes = npt.NDArray[np.uint8]
    Frames = Iterable[tuple[Bytes, int]]

SUFFIXES: Final = (".mp4", ".webm", ".gif", ".webp")
CODECS: Final[dict[str, dict[str, dict[str, str]]]] = {
    ".mp4": {"libx264": {"crf": "16", "preset": "medium"}},
    ".webm": {
        "libvpx-vp9": {"crf": "10", "qmin": "10", "qmax": "10", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        "libvpx": {"crf": "6", "qmin": "6", "qmax": "8", "b": "20M", "deadline": "good", "cpu-used": "4"},
    },
}
"""Encoders for each kind of video, the best first, and how they are set: to a constant quality. Left free, those of VPx give
most to every eighth frame, and all changes jump there."""
KEY_SECONDS = 20
"""Seconds between frames that are coded for themselves. At each of them all that was too little to be coded comes at once."""
WAY_OUT = "pip install av, or take a name that ends in .gif or .webp"
MAX_GIF_RATE = 50.0
"""Delays in a GIF are hundredths of a second, and viewers take less than two for ten."""
SAMPLES = 24
"""How many frames the colours of a GIF are chosen from."""
SPREAD = 12.0
"""How far a GIF's dithering spreads values, in 1/255."""
QUALITY = 88
"""Quality of the frames of a WebP, of 100."""

# Values of ISO/IEC 23091-2: primaries and matrix of BT.709, the transfer characteristics of sRGB, limited range.
BT709, SRGB, LIMITED = 1, 13, 1


def check(flag: str, path: str | Path, rate: float | None = None) -> str:
    """Return the path's ending in lower case; raise `SettingsError` unless such a file can be written, at a rate if given."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise SettingsError(f"{flag} {shown(path)}: must end in {', '.join(SUFFIXES)}{near_miss(suffix, SUFFIXES)}")
    if suffix in CODECS:
        if importlib.util.find_spec("av") is None:
            raise SettingsError(f"{flag} {shown(path)} needs PyAV, which is not installed; {WAY_OUT}")
        _codec(flag, suffix)
    elif suffix == ".gif" and rate is not None and rate > MAX_GIF_RATE:
        raise SettingsError(f"{flag} {shown(path)}: a GIF has at most {MAX_GIF_RATE:g} frames per second, not {rate:g}")
    return suffix


def _codec(flag: str, suffix: str) -> str:
    """Return the encoder for videos with an ending. Raises `SettingsError` if PyAV has none."""
    try:
        import av
    except ImportError as error:
        raise SettingsError(f"{flag}: PyAV cannot be loaded ({error}); {WAY_OUT}") from None
    for name in CODECS[suffix]:
        try:
            av.Codec(name, "w")
        except (ValueError, LookupError):
            continue
        return name
    raise SettingsError(f"{flag}: this PyAV has none of {', '.join(CODECS[suffix])}; {WAY_OUT}")


def write(path: str | Path, frames: Frames, *, size: Size, rate: float, sample: Iterable[Bytes], about: str) -> None:
    """Write frames of `size` at `rate` per second, in place of an old file at once.

    `sample` are frames that the colours of a GIF are chosen from; `about` names the program. Raises `OutputError`, or
    `SettingsError` as `check` does.
    """
    suffix = check("animation", path)
    count = 0

    def counted() -> Iterator[tuple[Bytes, int]]:
        nonlocal count
        for frame, times in frames:
            count += times
            yield frame, times

    def whole(written: BinaryIO) -> None:
        found = _length(written, suffix, size)
        expected = count if suffix in CODECS else count / rate
        if abs(found - expected) > (0 if suffix in CODECS else 0.02):
            raise OSError(f"what was read back has a length of {found:g}, not {expected:g}")

    with replacing(path, whole) as stream:
        if suffix in CODECS:
            _write_video(stream, suffix, counted(), size, rate, about)
        elif suffix == ".gif":
            _write_gif(stream, counted(), size, rate, palette_of(sample))
        else:
            _write_webp(stream, counted(), size, rate)


def _length(stream: BinaryIO, suffix: str, size: Size) -> float:
    """Return how many frames a video has, or how many seconds another animation takes. Raises `OSError` for another size."""
    if suffix not in CODECS:
        with Image.open(stream) as image:
            seconds = 0.0
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                seconds += (image.info.get("duration", 0) if image.format == "GIF" else 0) / 1000
            found = image.height, image.width
            if image.format == "WEBP":
                stream.seek(0)
                seconds = sum(duration for duration in _webp_durations(stream.read())) / 1000
    else:
        import av

        reader: Any = av.open(stream)
        with reader as container:
            video = container.streams.video[0]
            seconds = sum(packet.size > 0 for packet in container.demux(video))
            found = video.codec_context.height, video.codec_context.width
    if found != size:
        raise OSError(f"what was read back is {found[1]}x{found[0]}, not {size[1]}x{size[0]}")
    return seconds


def _write_video(stream: BinaryIO, suffix: str, frames: Iterator[tuple[Bytes, int]], size: Size, rate: float, about: str) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    name = _codec("animation", suffix)
    pace = Fraction(rate).limit_denominator(1001)
    muxing = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    try:  # by its name: to move the index to the front the muxer opens the file again
        with av.open(stream.name, "w", format=suffix[1:], options=muxing) as container:
            container.metadata["comment"] = about
            video: Any = container.add_stream(name, rate=pace, options=dict(CODECS[suffix][name]))
            video.height, video.width = size
            video.pix_fmt = "yuv420p"
            codec = video.codec_context
            codec.gop_size = max(1, round(KEY_SECONDS * rate))
            codec.color_primaries, codec.color_trc = BT709, SRGB
            codec.colorspace, codec.color_range = BT709, LIMITED
            number = 0
            for pixels, times in frames:
                rgb: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                picture = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
                picture.color_primaries, picture.color_trc = BT709, SRGB
                picture.time_base = 1 / pace
                for _ in range(times):
                    picture.pts = number
                    number += 1
                    container.mux(video.encode(picture))
            container.mux(video.encode(None))
    except av.FFmpegError as error:
        raise OSError(error.errno or 0, error.strerror or str(error)) from error


# GIF


def palette_of(frames: Iterable[Bytes]) -> Image.Image:
    """Return a palette picture of 255 colours for all of the frames; the last entry is left for what is transparent."""
    parts = []
    for frame in islice(frames, SAMPLES):
        image = Image.fromarray(frame)
        image.thumbnail((160, 160))
        parts.append(image)
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), parts[0].getpixel((0, 0)))
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet.quantize(255, Image.Quantize.MEDIANCUT, kmeans=2)


def bayer(order: int) -> npt.NDArray[np.float32]:
    """Return the thresholds of ordered dithering (Bayer 1973), 2^order on a side, evenly spread about 0 within (-1/2, 1/2)."""
    found = np.zeros((1, 1))
    for _ in range(order):
        found = np.block([[4 * found, 4 * found + 2], [4 * found + 3, 4 * found + 1]])
    side = len(found)
    return ((found + 0.5) / side**2 - 0.5).astype(np.float32)


def _delays(rate: float, units: int) -> Iterator[int]:
    """Yield when each frame ends, in 1/`units` of a second, as the difference to the one before: right in the sum."""
    number, before = 0, 0
    while True:
        number += 1
        now = round(number * units / rate)
        yield now - before
        before = now


def _write_gif(stream: BinaryIO, frames: Iterator[tuple[Bytes, int]], size: Size, rate: float, palette: Image.Image) -> None:
    """Write a GIF (version 89a) that repeats for ever. A pixel that stays as it is is transparent, which compresses well.

    Colours are dithered in a fixed pattern, since errors that are spread from pixel to pixel would flicker.
    """
    height, width = size
    colours = np.zeros((256, 3), np.uint8)
    found = np.asarray(palette.getpalette("RGB"), np.uint8).reshape(-1, 3)[:255]
    colours[: len(found)] = found
    stream.write(b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + b"\xf7\0\0" + colours.tobytes())
    stream.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
    pattern = np.tile(bayer(3), (height // 8 + 1, width // 8 + 1))[:height, :width, None] * SPREAD
    delays = _delays(rate, 100)
    before: Bytes | None = None
    for pixels, times in frames:
        dithered = np.clip(np.rint(pixels + pattern), 0, 255).astype(np.uint8)
        index = np.asarray(Image.fromarray(dithered).quantize(palette=palette, dither=Image.Dither.NONE))
        changed = index if before is None else np.where(index == before, np.uint8(255), index)
        before = index
        left = sum(islice(delays, times))
        while left:  # a delay has 16 bits
            delay = min(left, 65535)
            left -= delay
            stream.write(b"\x21\xf9\x04\x05" + delay.to_bytes(2, "little") + b"\xff\0" + _gif_image(changed))
            changed = np.full_like(index, 255)
    stream.write(b"\x3b")


def _gif_image(index: Bytes) -> bytes:
    """Return one frame's descriptor and its compressed indices, cut out of a GIF that Pillow makes."""
    image = Image.fromarray(index)
    image.putpalette(bytes(range(256)) * 3)  # all 256 entries, so that none is renumbered
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False)
    data = buffer.getvalue()
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while data[at] == 0x21:  # an extension: its blocks follow, the last of them empty
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return data[at:-1]


# WebP


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def _write_webp(stream: BinaryIO, frames: Iterator[tuple[Bytes, int]], size: Size, rate: float) -> None:
    """Write an animated WebP that repeats for ever (the container of RFC 9649); Pillow encodes the frames."""
    corner = (size[1] - 1).to_bytes(3, "little") + (size[0] - 1).to_bytes(3, "little")
    stream.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", b"\x02\0\0\0" + corner) + _chunk(b"ANIM", b"\xff" * 4 + b"\0\0"))
    delays = _delays(rate, 1000)
    for pixels, times in frames:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, method=3)
        delay = sum(islice(delays, times)).to_bytes(3, "little")
        stream.write(_chunk(b"ANMF", bytes(6) + corner + delay + b"\x02" + buffer.getvalue()[12:]))
    end = stream.tell()
    stream.seek(4)
    stream.write((end - 8).to_bytes(4, "little"))
    stream.seek(end)


def _webp_durations(data: bytes) -> Iterator[int]:
    """Yield how long each frame of an animated WebP stays, in milliseconds."""
    at = 12
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"ANMF":
            yield int.from_bytes(data[at + 20 : at + 23], "little")
        at += 8 + length + length % 2
