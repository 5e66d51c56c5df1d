"""Records what a benchmark measures, as one JSON file of benchmarks/results.

A file holds the benchmark's name, the command, the date, the commit, the hardware, the conditions and the baseline, and under
`rows` the figures: a list of objects for each table. `samples` in a row holds every single measurement behind its medians, by
name, or null where none were kept. `benchmarks/tables.py` makes the tables of the documents from these files.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

RESULTS = Path(__file__).parent / "results"
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16")
"""The CPU's instruction sets that decide how fast convolutions are, by their names in /proc/cpuinfo."""


def hardware() -> dict[str, Any]:
    """Return the processor, its relevant instruction sets, cores, memory in GB, GPUs and the versions of Python and torch."""
    path = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in path.read_text().splitlines()] if path.exists() else []
    info = {key.strip(): value.strip() for key, _, value in lines}
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flags": [flag for flag in FLAGS if flag in flags],
    }


def commit() -> str | None:
    """Return the short hash of the checked-out commit, with "+" if files differ from it; None outside a Git checkout."""
    git = ["git", "-C", str(RESULTS.parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + "+" * bool(changed)


def command() -> str:
    """Return the command that was given, with the names of files in place of absolute paths."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


class Record:
    """The figures of one run of a benchmark.

    `conditions` says what else decides the figures (network, precision, threads, other load), `baseline` what they are
    compared with.
    """

    def __init__(self, benchmark: str, conditions: str, baseline: str | None) -> None:
        self.head = {
            "benchmark": benchmark,
            "command": command(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "commit": commit(),
            "hardware": hardware(),
            "conditions": conditions,
            "baseline": baseline,
        }
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, table: str, samples: dict[str, list[float]] | None = None, **figures: Any) -> None:
        """Add a row to a table, and print it on standard output without the samples."""
        print(f"{table}: " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
        self.rows.setdefault(table, []).append({**figures, "samples": samples})

    def write(self, path: Path | None = None) -> Path:
        """Write the file, by default BENCHMARK_DATE_COMMIT.json in benchmarks/results, print its path and return it."""
        path = path or RESULTS / f"{self.head['benchmark']}_{self.head['date']}_{self.head['commit'] or 'unknown'}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps({**self.head, "rows": self.rows}))
        print(path, flush=True)
        return path


def rounded(value: Any, digits: int = 4) -> Any:
    """Return a number, or the numbers of a list, with so many significant digits."""
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def dumps(data: dict[str, Any]) -> str:
    """Return the text of a result file: one line for each row, floats of at most six significant digits."""
    head = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items() if key != "rows"]
    groups = []
    for name, rows in data["rows"].items():
        lines = [json.dumps({key: rounded(value, 6) for key, value in row.items()}) for row in rows]
        groups.append(f"    {json.dumps(name)}: [\n      " + ",\n      ".join(lines) + "\n    ]")
    return "{\n" + ",\n".join([*head, '  "rows": {\n' + ",\n".join(groups) + "\n  }"]) + "\n}\n"
