"""The shape of the package: public names, the direction of imports, what starting up costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import style_transfer
from style_transfer.options import options_table

PACKAGE = Path(style_transfer.__file__).parent
README = PACKAGE.parent / "README.md"

LAYERS = [
    ["errors", "interrupt", "allocator", "workers", "catalog", "presets"],
    ["config", "files"],
    ["schedule", "sources"],
    ["tiling"],
    ["distributed"],
    ["matrix", "devices", "images"],
    ["networks", "losses", "optimizers", "resampling"],
    ["statistics", "masks", "color"],
    ["sweep"],
    ["memory", "objective", "checkpoint", "initial"],
    ["planning", "iterate"],
    ["step"],
    ["engine"],
    ["api", "batch", "observers", "doctor"],
    ["options"],
    ["output"],
    ["painting"],
    ["cli"],
    ["__main__"],
]
"""Each module may import only from rows above its own, or from its own package."""


def imports(path: Path) -> set[str]:
    """Return the top-level modules of this package that a file imports."""
    depth = len(path.relative_to(PACKAGE).parts) - 1
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=str)
def test_imports_point_one_way(path: Path) -> None:
    module = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if module == "__init__":
        return
    rank = {name: row for row, names in enumerate(LAYERS) for name in names}
    for other in imports(path):
        assert rank[other] < rank[module], f"{module} imports {other}"


def test_only_observers_and_the_command_line_print() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "observers" or path.name == "cli.py":
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), path


def test_every_public_name_is_there() -> None:
    for name in style_transfer.__all__:
        assert getattr(style_transfer, name) is not None
    with pytest.raises(AttributeError):
        _ = style_transfer.nothing


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, style_transfer, style_transfer.cli; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    assert run(code) == "[]\n"


def test_help_answers_at_once() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        out = run("""if True:
            import sys
            from style_transfer.cli import main
            try:
                main(['--help'])
            except SystemExit:
                print('torch' in sys.modules)""")
        times.append(time.perf_counter() - start)
        assert out.endswith("False\n")
    assert min(times) < 0.5  # importing torch alone takes longer


def test_the_readme_holds_the_table_of_options() -> None:
    assert options_table() in README.read_text()
