"""A decoder of the control sequences that show pictures in a terminal."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image


def decode_kitty(text: str) -> tuple[dict[str, str], np.ndarray]:
    """Return the keys of the first chunk of a picture and its pixels; all of `text` must be that picture."""
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert sum(len(keys) + len(data) + 6 for keys, data in parts) == len(text)
    found = [dict(pair.split("=") for pair in keys.split(",")) for keys, _ in parts]
    assert [keys["m"] for keys in found] == ["1"] * (len(parts) - 1) + ["0"]
    assert all(len(data) <= 4096 for _, data in parts) and all(len(data) % 4 == 0 for _, data in parts)
    assert all(keys["q"] == "2" for keys in found)
    return found[0], np.asarray(Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in parts)))))
