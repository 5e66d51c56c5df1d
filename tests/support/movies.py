"""Reading animations back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def opened(path: Path) -> list[tuple[np.ndarray, float]]:
    """Return the frames of an animation and how many seconds each stays."""
    if path.suffix in (".gif", ".webp"):
        frames = []
        with Image.open(path) as image:
            for number in range(image.n_frames):
                image.seek(number)
                image.load()
                frames.append((np.asarray(image.convert("RGB")), image.info.get("duration", 0) / 1000))
        return frames
    import av

    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        return [(frame.to_ndarray(format="rgb24"), 1 / rate) for frame in container.decode(video=0)]
