"""Reading moving pictures back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from style_transfer.observers import movie


def opened(path: Path) -> list[tuple[np.ndarray, float]]:
    """Return the frames of an animation and how many seconds each stays."""
    if path.suffix in (".gif", ".webp"):
        found = []
        with Image.open(path) as image:
            for number in range(image.n_frames):
                image.seek(number)
                found.append([np.asarray(image.convert("RGB")), image.info.get("duration", 0) / 1000])
        if path.suffix == ".webp":
            for frame, milliseconds in zip(found, movie._webp_durations(path.read_bytes()), strict=True):
                frame[1] = milliseconds / 1000
        return [(pixels, seconds) for pixels, seconds in found]
    import av

    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        return [(frame.to_ndarray(format="rgb24"), 1 / rate) for frame in container.decode(video=0)]
