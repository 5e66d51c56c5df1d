"""Picture files that become shorter while they are read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from style_transfer import pictures
from style_transfer.errors import ImageError
from style_transfer.pictures.decode import loading


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_file_that_is_cut_after_its_header_was_read_is_refused(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{suffix}"
    pictures.save(path, np.random.default_rng(0).random((200, 200, 3), np.float32))
    recognize = loading.recognize

    def cut(head: bytes, *more: str) -> object:
        os.truncate(path, 5000)
        return recognize(head, *more)

    monkeypatch.setattr(loading, "recognize", cut)
    with pytest.raises(ImageError, match=r"x\.\w+: "):
        pictures.load(path)
