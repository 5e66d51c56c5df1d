"""The results of the benchmarks: complete data files, and documents whose tables are made from them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").iterdir())
KEYS = ["benchmark", "command", "date", "commit", "hardware", "conditions", "baseline", "rows"]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the modules of benchmarks/ available to an import."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield
    for name in ("record", "tables"):
        sys.modules.pop(name, None)


@pytest.fixture
def tables(benchmarks: None) -> ModuleType:
    return __import__("tables")


@pytest.fixture
def record(benchmarks: None) -> ModuleType:
    return __import__("record")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_files_are_complete(path: Path, record: ModuleType) -> None:
    """Each has all fields, each row its samples or null, and the file is written as `record` writes it."""
    data = json.loads(path.read_text())
    assert list(data) == KEYS
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", data["date"]) and data["commit"] and data["rows"]
    assert path.stem.startswith(data["benchmark"]) or data["benchmark"] in ("schedule", "scaling", "speed")
    for rows in data["rows"].values():
        assert rows and all("samples" in row and len(row) > 1 for row in rows)
    assert record.dumps(data) == path.read_text()
    assert not re.search(r"[\s\"]/\w+/", path.read_text()), "an absolute path"


def test_tables_in_documents_are_up_to_date(tables: ModuleType) -> None:
    for path in tables.documents():
        assert tables.render(path.read_text()) == path.read_text(), f"run python benchmarks/tables.py for {path.name}"


def test_every_table_is_in_a_document_once(tables: ModuleType) -> None:
    placed = [found[2] for path in tables.documents() for found in tables.PLACE.finditer(path.read_text())]
    assert sorted(placed) == sorted(tables.tables())


def test_a_stale_table_is_found(tables: ModuleType) -> None:
    text = "a\n\n<!-- table: seams -->\n\n| old |\n<!-- end of table -->\n\nb\n"
    made = tables.render(text)
    assert made.startswith("a\n\n<!-- table: seams -->\n\n| long side |") and made.endswith("<!-- end of table -->\n\nb\n")
    assert "| 512 px | 96 px | 60 | 1.0832 | 1.0838 | 0.9994 |" in made and "old" not in made
    assert tables.render(made) == made


def test_cells_show_ranges_and_leave_out_what_is_missing(tables: ModuleType) -> None:
    assert tables.filled("{a:.1f} s", {"a": [3, 1, 2]}) == "1.0 to 3.0 s"
    assert tables.filled("{b} s", {"a": 1}) == ""
    row = tables.with_derived({"before": 4, "after": [1, 2], "unit": "ms", "content": "c", "style": "s"})
    assert (row["change"], row["pair"]) == ("4 → 1 to 2 ms", "c, s")


def test_records_hold_what_was_measured_where_and_how(
    record: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "speed.py"), str(tmp_path / "photo.jpg"), "--rounds", "2"])
    measured = record.Record("speed", "quiet", "the textbook")
    measured.add("steps", {"seconds": [1.0, 3.0]}, size="4x3", seconds=2.0)
    measured.add("start", seconds=1.23456789)
    data = json.loads(measured.write(tmp_path / "folder" / "new.json").read_text())
    assert list(data) == KEYS and data["command"] == "python benchmarks/speed.py photo.jpg --rounds 2"
    assert data["hardware"]["cores"] > 0 and data["hardware"]["torch"] and isinstance(data["hardware"]["flags"], list)
    assert data["rows"]["steps"] == [{"size": "4x3", "seconds": 2.0, "samples": {"seconds": [1.0, 3.0]}}]
    assert data["rows"]["start"] == [{"seconds": 1.23457, "samples": None}]
