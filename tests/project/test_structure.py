"""The shape of the package: public names, the direction of imports, limits on modules, what starting up imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import style_transfer
from style_transfer.cli.options import options_table

PACKAGE = Path(style_transfer.__file__).parent
README = PACKAGE.parent / "README.md"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    "errors", "registry", "settings", "geometry", "files", "pictures", "compute", "networks", "losses", "evaluation", "engine",
    "api", "observers", "cli", "__main__",
]  # fmt: skip
"""Packages and top-level modules from bottom to top: each imports only from those before it."""


def dotted(path: Path) -> tuple[str, ...]:
    """Return the name of a module below the package, such as ("engine", "loop"); that of a package for its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path: Path) -> set[str]:
    """Return the names of the packages and top-level modules of this package that a file imports, but for its own package."""
    parts = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level + 1]
            module = (*base, *(node.module.split(".") if node.module else ()))
            found |= {module[0]} if module else {alias.name for alias in node.names}
    return found - {"__version__", *parts[:1]}


@pytest.mark.parametrize("path", [path for path in MODULES if dotted(path)], ids=lambda path: ".".join(dotted(path)))
def test_imports_point_one_way(path: Path) -> None:
    own = dotted(path)[0]
    for other in imported(path):
        assert LAYERS.index(other) < LAYERS.index(own), f"{'.'.join(dotted(path))} imports {other}"


def test_every_package_says_what_it_is() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring and "\n" not in docstring.split("\n\n")[0].strip(), path


def test_only_observers_and_the_command_line_print() -> None:
    for path in MODULES:
        if dotted(path)[:1] in (("observers",), ("cli",)):
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


def test_help_does_not_import_torch() -> None:
    out = run("""if True:
        import sys
        from style_transfer.cli import main
        try:
            main(['--help'])
        except SystemExit:
            print('torch' in sys.modules)""")
    assert out.endswith("False\n")


def test_the_readme_holds_the_table_of_options() -> None:
    assert options_table() in README.read_text()
