"""The notebook of the examples, and the display that it uses."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import tifffile
from nbclient import NotebookClient
from PIL import Image

from style_transfer import notebook
from style_transfer.geometry.scales import Stage

EXAMPLES = Path(__file__).parents[1] / "examples"
STAGES = (Stage(100, (80, 100), (), 2), Stage(1000, (800, 1000), (), 3))


@pytest.mark.filterwarnings("ignore")  # of the kernel's client
def test_the_example_runs_from_top_to_bottom(tmp_path: Path) -> None:
    for name in ("scene.jpg", "watercolour.jpg"):
        shutil.copy(EXAMPLES / name, tmp_path)
    book = nbformat.read(EXAMPLES / "style_transfer.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "clear the outputs before committing"
    for cell in book.cells:
        cell.source = cell.source.replace("SIZE = 512", "SIZE = 64")
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]
    assert len(shown) == 1, "the picture is renewed in its place"
    assert tifffile.imread(tmp_path / "painted.tif").dtype == np.uint16
    assert Image.open(tmp_path / "painted.jpg").size == (64, 48)


def test_the_picture_is_renewed_at_intervals_and_at_the_end_of_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, int]] = []
    handle = SimpleNamespace(update=lambda picture: shown.append(picture.size))

    def display(picture: Image.Image, *, display_id: bool) -> Any:
        assert display_id
        handle.update(picture)
        return handle

    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(notebook, "display", display)
    monkeypatch.setattr(notebook, "time", clock)
    size = (0, 0)
    painter: Any = SimpleNamespace(get_image=lambda: Image.new("RGB", size))
    callback = notebook.NotebookDisplay(painter, interval=2)
    now = 100.0
    for index, stage in enumerate(STAGES):
        for step in range(1, stage.steps + 1):
            size = stage.size[1], stage.size[0]
            ends = step == stage.steps
            callback(SimpleNamespace(  # type: ignore[arg-type]
                stages=STAGES, index=index, step=step, steps=stage.steps, w=size[0], h=size[1], seconds=now - 99,
                ends_scale=ends, ends_run=ends and index == 1,
            ))  # fmt: skip
            now += 1.5
    assert shown == [(100, 80), (100, 80), (640, 512), (640, 512)]
