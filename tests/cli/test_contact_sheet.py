"""The contact sheet: a table of contents by styles, or a square of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from style_transfer.cli.contact_sheet import contact_sheet
from style_transfer.cli.tasks import plan_several
from style_transfer.files import Task


def flat(path: str, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> str:
    Image.new("RGB", size, colour).save(path)
    return path


def test_the_contact_sheet_of_a_grid_is_a_table_of_contents_by_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    colours = {"a.png": (250, 0, 0), "b.png": (0, 250, 0), "s.png": (0, 0, 250), "t.png": (250, 250, 0)}
    for name, colour in colours.items():
        flat(name, colour)
    tasks = plan_several(["a.png", "b.png"], ["s.png", "t.png"], "o", grid=True)
    for number, task in enumerate(tasks):
        task.output.parent.mkdir(exist_ok=True)
        flat(str(task.output), (60 * number, 100, 100))
    made = {task: task.output for task in tasks} | {tasks[3]: None}
    sheet = np.rint(contact_sheet(tasks, made, grid=True) * 255)
    pitch_x, pitch_y = (sheet.shape[1] - 13) / 3, (sheet.shape[0] - 13) / 3
    centres = [[tuple(sheet[int(13 + (y + 0.5) * pitch_y), int(13 + (x + 0.4) * pitch_x)].astype(int)) for x in range(3)]
               for y in range(3)]  # fmt: skip
    white = (255, 255, 255)
    assert centres[0] == [white, (0, 0, 250), (250, 250, 0)]
    assert centres[1] == [(250, 0, 0), (0, 100, 100), (60, 100, 100)]
    assert centres[2][:2] == [(0, 250, 0), (120, 100, 100)]
    cell = sheet[int(13 + 2 * pitch_y) : int(13 + 2 * pitch_y) + 240, int(13 + 2 * pitch_x) : int(13 + 2 * pitch_x) + 320]
    assert 3 * 240 < sheet.shape[0] < 3 * 320  # rows are as high as the pictures, 4:3
    assert 0 < (cell < 100).all(axis=2).sum() < 2000  # the word "failed" on white


def test_a_contact_sheet_of_many_results_is_square_and_its_labels_stay_in_their_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = [Task(f"{'very long name ' * 9}{i}.png", ("s.png",), Path(flat(f"{i}.png", (9, 9, 9)))) for i in range(5)]
    sheet = contact_sheet(tasks, {task: task.output for task in tasks}, grid=False)
    assert 1.6 < sheet.shape[1] / sheet.shape[0] < 2
    assert (sheet[:, :13] == 1).all() and (sheet[:, -13:] == 1).all()
