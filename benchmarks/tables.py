"""Makes the tables of the documents from the data files in benchmarks/results.

    python benchmarks/tables.py [--check]

A document marks the place of a table by `<!-- table: NAME -->` and `<!-- end of table -->`; what stands between is replaced.
`tables.toml` defines the tables by name. Below each table a note names date, commit, hardware, conditions, baseline, command and
data file. --check writes nothing and exits with 1 if a document is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of a document: the data file, which of its lists of rows, and the header and the format of each column.

    A format is a string such as "{seconds:.2f}" for the row's fields. A cell stays empty where the row lacks a field; of several
    values the smallest and the largest are shown. Every row also has `pair` (content and style) and `change` (before and after).
    """

    file: str
    rows: str
    columns: tuple[tuple[str, str], ...]
    brief: bool = False

    def markdown(self) -> str:
        """Return the table and its note."""
        data = json.loads((RESULTS / f"{self.file}.json").read_text())
        lines = [line(header for header, _ in self.columns), line("---" for _ in self.columns)]
        lines += [line(filled(cell, with_derived(row)) for _, cell in self.columns) for row in data["rows"][self.rows]]
        link = f"[{self.file}.json](../benchmarks/results/{self.file}.json)"
        return "\n".join([*lines, "", f"<small>{link}" + ("" if self.brief else f": {note(data)}") + "</small>", ""])


class Span(list[float]):
    """Several values of a field, formatted as the smallest and the largest."""

    def __format__(self, spec: str) -> str:
        return f"{min(self):{spec}} to {max(self):{spec}}"


def line(cells: Iterable[str]) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def filled(cell: str, row: Row) -> str:
    """Return the text of a cell, empty if the row lacks one of its fields."""
    try:
        return cell.format_map({key: Span(value) if isinstance(value, list) else value for key, value in row.items()})
    except KeyError:
        return ""


def with_derived(row: Row) -> Row:
    """Return a row with `pair` and `change`, where it has the fields of which these are made."""
    derived = {}
    if "content" in row and "style" in row:
        derived["pair"] = f"{row['content']}, {row['style']}"
    unit = f" {row['unit']}" if "unit" in row else ""
    if "before" in row and "after" in row:
        derived["change"] = f"{listed(row['before'])} → {listed(row['after'])}{unit}"
    elif "after" in row:
        derived["change"] = f"{listed(row['after'])}{unit}"
    elif "ratio" in row:
        derived["change"] = f"{listed(row['ratio'])} times"
    return {**row, **derived}


def listed(value: Any) -> str:
    """Return a number, the two ends of a range, or a list of more than two."""
    if not isinstance(value, list):
        return str(value)
    return (" to " if len(value) == 2 else ", ").join(map(str, value))


def note(data: Mapping[str, Any]) -> str:
    """Return where, how and against what the figures of a file were measured."""
    parts = [f"{data['date']}, commit {data['commit']}"]
    if data["hardware"]:
        found = data["hardware"]
        cpu = f"{found['cores']} cores of {found['cpu']} ({', '.join(found['flags'])}), {found['memory_gb']} GB"
        parts[0] += f", {', '.join([*found['gpus'], cpu])}, Python {found['python']}, torch {found['torch']}"
    parts.append(data["conditions"])
    if data["baseline"]:
        parts.append(f"Baseline: {data['baseline']}")
    if data["command"]:
        parts.append(f"`{data['command']}`")
    return ". ".join(part[0].upper() + part[1:] for part in parts)


def tables() -> dict[str, Table]:
    """Return the tables of tables.toml by name."""
    with (ROOT / "benchmarks" / "tables.toml").open("rb") as file:
        known = tomllib.load(file)
    found = {}
    for name, about in known.items():
        columns = known[about["like"]]["columns"] if "like" in about else about["columns"]
        found[name] = Table(about["file"], about["rows"], tuple(map(tuple, columns)), about.get("brief", False))
    return found


def render(text: str) -> str:
    """Return the text of a document with its tables made anew. Raises KeyError for a table that does not exist."""
    known = tables()
    return PLACE.sub(lambda found: f"{found[1]}\n{known[found[2]].markdown()}\n{found[3]}", text)


def documents() -> list[Path]:
    """Return the documents that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> int:
    """Write the documents, or check them; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the tables of the documents from benchmarks/results.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a document is out of date")
    args = parser.parse_args()
    stale = [path for path in documents() if render(path.read_text()) != path.read_text()]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date' if args.check else 'written'}")
        if not args.check:
            path.write_text(render(path.read_text()))
    return int(bool(stale) and args.check)


if __name__ == "__main__":
    sys.exit(main())
