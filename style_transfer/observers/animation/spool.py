"""The frames that are kept of a run for its animation, in bounded memory."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from ... import pictures as images
from ...files import replacing

if TYPE_CHECKING:
    from ...geometry.scales import Size
    from .frames import Bytes

Place = tuple[int, int]
"""A step of a run: the number of the scale, from 0, and that of the step, from 1."""

START: Final[Place] = (-1, 0)
"""The place of the picture that the run starts from."""
MAX_FRAMES: Final = 256
MAX_BYTES: Final = 64 << 20
QUALITY: Final = 95
MIN_CHANGE: Final = 0.0005
"""The least change that is visible: an eighth of an 8-bit step."""
SPACING: Final = 0.5
"""A frame is kept if it differs from the last one by this share of the mean change between frames of a full spool."""
SCHEMA: Final = 1
INDEX: Final = "index.json"
READ_ERRORS: Final = (
    OSError, EOFError, ValueError, LookupError, TypeError, SyntaxError, RuntimeError, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip
"""The exceptions that reading a damaged file may raise."""


def change(a: Bytes, b: Bytes) -> float:
    """Return the mean absolute difference of two uint8 pictures, where white is 1.

    It must be measured before compression, since JPEG adds more than the difference between two neighbouring frames.
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    return float((high - low).mean(dtype=np.float64)) / 255


@dataclass(frozen=True)
class Frame:
    """A kept frame as JPEG data; `position` is the sum of the changes from the first frame to it."""

    place: Place
    data: bytes
    position: float

    def open(self) -> Image.Image:
        """Return the picture, not yet decoded."""
        return Image.open(io.BytesIO(self.data), formats=["JPEG"])

    def pixels(self) -> Bytes:
        """Return the decoded picture, uint8 (H, W, 3)."""
        return np.asarray(self.open())


class Spool:
    """The frames of a run in order, at most `max_frames` with `max_bytes` in all.

    Over these limits, the frame whose two neighbours differ least is removed.
    """

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self.max_frames, self.max_bytes = max_frames, max_bytes
        self.frames: list[Frame] = []
        self.bytes = 0
        self._last: Bytes | None = None

    @property
    def threshold(self) -> float:
        """The least change since the last frame for which a new frame is kept."""
        return max(MIN_CHANGE, SPACING * self.frames[-1].position / self.max_frames) if self.frames else MIN_CHANGE

    def add(self, place: Place, pixels: Bytes, *, always: bool = False) -> float:
        """Keep a frame if the change since the last one reaches the threshold, or with `always`; return that change.

        A frame without any change is never kept. Frames of the same and later steps are removed, as the run has returned to it.
        """
        self.truncate(place)
        changed = 0.0
        if self.frames:
            if self._last is None:
                self._last = self.frames[-1].pixels()
            changed = change(self._last, pixels)
            if changed == 0 or (changed < self.threshold and not always):
                return changed
        position = self.frames[-1].position + changed if self.frames else 0.0
        data = images.encode_jpeg(pixels, QUALITY)
        self.frames.append(Frame(place, data, position))
        self.bytes += len(data)
        self._last = pixels
        while len(self.frames) > max(2, self.max_frames) or (self.bytes > self.max_bytes and len(self.frames) > 2):
            gaps = [after.position - before.position for before, after in zip(self.frames, self.frames[2:], strict=False)]
            self.bytes -= len(self.frames.pop(1 + gaps.index(min(gaps))).data)
        return changed

    def truncate(self, place: Place) -> None:
        """Remove the frames of a step and of later ones."""
        while self.frames and self.frames[-1].place >= place:
            self.bytes -= len(self.frames.pop().data)
            self._last = None

    def save(self, path: Path, run: str) -> None:
        """Write the frames atomically to a file, with the identity of their run. Raises `OutputError`."""
        index = {"schema": SCHEMA, "run": run, "kept": [(*frame.place, frame.position) for frame in self.frames]}
        with replacing(path) as stream, zipfile.ZipFile(stream, "w") as file:
            file.writestr(INDEX, json.dumps(index))
            for number, frame in enumerate(self.frames):
                file.writestr(f"{number:04}.jpg", frame.data)

    def load(self, path: Path, run: str, size: Size, place: Place) -> bool:
        """Replace the frames by those that `save` wrote for the same run and `size`, up to a step. Return whether there are any.

        If the file is damaged, the frames do not change.
        """
        frames = []
        try:
            with zipfile.ZipFile(path) as file:
                index = json.loads(file.read(INDEX))
                if (index["schema"], index["run"]) != (SCHEMA, run):
                    return False
                for number, (scale, step, position) in enumerate(index["kept"]):
                    name = f"{number:04}.jpg"
                    if file.getinfo(name).compress_type != zipfile.ZIP_STORED:  # a compressed entry could be of any size
                        return False
                    frame = Frame((int(scale), int(step)), file.read(name), float(position))
                    if frame.place > place:
                        break
                    image = frame.open()
                    if (image.height, image.width, image.mode) != (*size, "RGB"):
                        return False
                    image.load()
                    frames.append(frame)
        except READ_ERRORS:
            return False
        self.frames, self.bytes, self._last = frames, sum(len(frame.data) for frame in frames), None
        return bool(frames)
