"""PIL pictures in and out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from support.picture_files import noise, pil_bytes

from style_transfer import pictures
from style_transfer.errors import ImageError


def test_pil_round_trip() -> None:
    samples = noise(5, 7, dtype=np.uint8)
    picture = pictures.from_pil(Image.fromarray(samples))
    np.testing.assert_array_equal(np.asarray(pictures.to_pil(picture.pixels)), samples)
    assert pictures.to_pil(picture.pixels).mode == "RGB"


def test_unreadable_pil_pictures() -> None:
    with pytest.raises(ImageError, match="LAB"):
        pictures.from_pil(Image.new("LAB", (2, 2)))
    cut = Image.open(io.BytesIO(pil_bytes(Image.fromarray(noise(64, 64, dtype=np.uint8)), "JPEG")[:1500]))
    with pytest.raises(ImageError, match="truncated"):
        pictures.from_pil(cut)


def test_other_objects_than_pil_pictures_are_refused() -> None:
    with pytest.raises(ImageError, match="not ndarray"):
        pictures.from_pil(np.zeros((4, 4, 3), np.uint8))  # type: ignore[arg-type]
