"""The shape of the package and of the tests: public names, the direction of imports, sizes, what starting up imports.

A rule is a function that yields what breaks it in a module; `test_the_rules_find_what_breaks_them` shows that each can fail.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from support.tiny import TESTS

import style_transfer

PACKAGE = Path(style_transfer.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
TEST_MODULES = sorted(TESTS.rglob("*.py"))

LAYERS = [
    "errors", "registry", "settings", "geometry", "files", "compute", "pictures", "networks", "losses", "evaluation", "engine",
    "api", "observers", "notebook", "cli", "__main__",
]  # fmt: skip
"""Packages and top-level modules from bottom to top: each imports only from those before it."""

MODULE_LINES, CLASS_LINES, FUNCTION_LINES, TEST_MODULE_LINES = 450, 199, 59, 500
"""The most lines of each."""

LOCAL_IMPORTS = {
    "cli.main:main": "quick answers such as --version must not wait for torch",
    "cli.main:_translated": "the same, and torch itself may have failed to load",
    "cli.information:_print": "quick answers must not wait for torch or for shell completion",
    "observers.web.observer:__init__": "aiohttp takes a quarter of a second, and only --web needs it",
    "observers.animation.movie:_write_video": "PyAV is optional",
    "observers.animation.movie:_frame_count": "PyAV is optional",
    "observers.animation.options:find_codec": "PyAV is optional",
}
"""Functions that may import, as "module:function", and why they cannot leave it to the top of their module."""


def name_of(path: Path, folder: Path = PACKAGE) -> str:
    """Return the dotted name of a module below the package, such as "engine.loop"; a package's `__init__` keeps its name."""
    return ".".join(path.relative_to(folder).with_suffix("").parts)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


# the rules


def too_long(tree: ast.AST, kinds: tuple[type[ast.AST], ...], most: int) -> Iterator[str]:
    """Yield the names of the classes or functions of a module that have more lines than `most`."""
    for node in ast.walk(tree):
        if isinstance(node, kinds) and node.end_lineno - node.lineno >= most:
            yield node.name


def long_classes(tree: ast.AST) -> Iterator[str]:
    yield from too_long(tree, (ast.ClassDef,), CLASS_LINES)


def long_functions(tree: ast.AST) -> Iterator[str]:
    yield from too_long(tree, (ast.FunctionDef, ast.AsyncFunctionDef), FUNCTION_LINES)


def local_imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the functions that import something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node)
        ):
            yield node.name


def prints(tree: ast.AST) -> Iterator[str]:
    """Yield "print" for each call of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield "print"


def docstring_faults(tree: ast.AST) -> Iterator[str]:
    """Yield what is wrong with the docstring of a package, which is a sentence on one line, perhaps with paragraphs after it."""
    first = (ast.get_docstring(tree) or "").split("\n\n")[0]
    if not first.endswith(".") or "\n" in first:
        yield "docstring"


def unlisted_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a package imports from its modules and does not list in `__all__`."""
    listed: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed |= set(ast.literal_eval(node.value))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from ({alias.asname or alias.name for alias in node.names} - listed)


def imports(tree: ast.AST, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield what a module imports from this package, as paths below it; `parts` is the path of the module's folder.

    `from ..files import atomic` gives ("files", "atomic") in a module of engine, whether that is a module or a function.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*parts[: len(parts) - node.level + 1], *(node.module.split(".") if node.module else ()))
            yield from ((*base, alias.name) for alias in node.names)


def edges(found: Iterable[tuple[str, ...]], folder: tuple[str, ...]) -> Iterator[str]:
    """Yield the members of a package that imports lead to; `__init__` for what the package itself defines."""
    members = {path.stem for path in PACKAGE.joinpath(*folder).iterdir() if path.suffix == ".py" or path in FOLDERS}
    for path in found:
        if path[: len(folder)] == folder:
            yield path[len(folder)] if path[len(folder)] in members else "__init__"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return members of a package that import each other in a circle; empty if none do."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def broken(rule: Callable[[ast.Module], Iterable[str]], paths: Iterable[Path], folder: Path = PACKAGE) -> list[str]:
    """Return what breaks a rule in modules, each as "module:what"."""
    return sorted(f"{name_of(path, folder)}:{what}" for path in paths for what in rule(parsed(path)))


def long_modules(paths: Iterable[Path], folder: Path, most: int) -> Iterator[str]:
    yield from (name_of(path, folder) for path in paths if len(path.read_text().splitlines()) > most)


# what they are applied to


def test_packages_import_only_those_below_them() -> None:
    found = []
    for path in MODULES:
        folder = path.relative_to(PACKAGE).parts[:-1]
        own = (*folder, path.stem)[0]
        for other in edges(imports(parsed(path), folder), ()):
            if own != "__init__" and other not in ("__init__", own) and LAYERS.index(other) >= LAYERS.index(own):
                found.append(f"{name_of(path)}:{other}")
    assert found == []


def test_members_of_a_package_import_each_other_one_way() -> None:
    found = []
    for package in FOLDERS:
        folder = package.relative_to(PACKAGE).parts
        graph: dict[str, set[str]] = {}
        for path in package.rglob("*.py"):
            member = path.relative_to(package).with_suffix("").parts[0]
            inner = imports(parsed(path), path.relative_to(PACKAGE).parts[:-1])
            graph.setdefault(member, set()).update(set(edges(inner, folder)) - {member})
        found += [f"{name_of(package)}:{' -> '.join(circle(graph))}"] if circle(graph) else []
    assert found == []


def test_every_package_has_a_docstring_of_one_sentence() -> None:
    assert broken(docstring_faults, PACKAGE.rglob("__init__.py")) == []


def test_every_package_lists_its_public_names() -> None:
    assert broken(unlisted_names, PACKAGE.rglob("__init__.py")) == []


def test_only_observers_and_the_command_line_print() -> None:
    quiet = [path for path in MODULES if name_of(path).split(".")[0] not in ("observers", "cli")]
    assert broken(prints, quiet) == []


def test_imports_stand_at_the_top() -> None:
    assert [entry for entry in broken(local_imports, MODULES) if entry not in LOCAL_IMPORTS] == []


def test_classes_and_functions_are_short() -> None:
    assert broken(long_classes, MODULES) == []
    assert broken(long_functions, MODULES) == []
    assert broken(long_functions, TEST_MODULES, TESTS) == []


def test_modules_are_short() -> None:
    assert list(long_modules(MODULES, PACKAGE, MODULE_LINES)) == []
    assert list(long_modules(TEST_MODULES, TESTS, TEST_MODULE_LINES)) == []


def test_names_of_test_modules_are_unique() -> None:
    names = [path.name for path in TEST_MODULES if path.name.startswith("test_")]
    assert len(names) == len(set(names))


def test_the_rules_find_what_breaks_them() -> None:
    lines = "\n".join("    x = 1" for _ in range(FUNCTION_LINES))
    tree = ast.parse(
        f'"""Two\nlines."""\nfrom .a import b\n__all__ = []\ndef f():\n{lines}\ndef g():\n    import h\n    print(h)\n'
    )
    assert list(long_functions(tree)) == ["f"] and list(long_functions(ast.parse(f"def f():\n{lines[10:]}"))) == []
    assert list(long_classes(ast.parse("class C:\n" + "    x = 1\n" * CLASS_LINES))) == ["C"]
    assert list(local_imports(tree)) == ["g"] and list(prints(tree)) == ["print"]
    assert list(docstring_faults(tree)) == ["docstring"] and list(unlisted_names(tree)) == ["b"]
    assert list(imports(tree, ("engine",))) == [("engine", "a", "b")]
    assert list(imports(ast.parse("from ..files import atomic\nfrom . import x"), ("engine",))) == [
        ("files", "atomic"),
        ("engine", "x"),
    ]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not circle({"a": {"b"}, "b": {"c"}})
    assert list(edges([("engine", "loop", "stylize"), ("engine", "State"), ("files",)], ("engine",))) == ["loop", "__init__"]


# public names and starting up


def test_every_public_name_can_be_imported() -> None:
    for name in style_transfer.__all__:
        assert getattr(style_transfer, name) is not None
    with pytest.raises(AttributeError):
        _ = style_transfer.nothing


def run(code: str) -> str:
    """Return what a program prints in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, style_transfer, style_transfer.cli; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    assert run(code) == "[]\n"
