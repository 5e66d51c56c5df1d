"""Draw docs/images/packages.svg, the packages of the program and their imports, from the source."""

from __future__ import annotations

import ast
import html
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "style_transfer"
PICTURE = ROOT / "docs" / "images" / "packages.svg"
ORDER = ("settings", "geometry", "files", "compute", "pictures", "networks", "losses", "evaluation", "engine", "observers", "cli")
"""The packages from bottom to top."""
WIDTH, HEIGHT, GAP, LEFT, TEXT = 1080, 34, 16, 200, 290


def imports(package: str) -> set[str]:
    """Return the packages that a package imports."""
    found = set()
    for path in (PACKAGE / package).rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = parts[: len(parts) - node.level + 1]
                names = [*base, *(node.module or "").split(".")] if node.module else [*base, *(n.name for n in node.names)]
                found.add(names[0])
    return found & set(ORDER) - {package}


def direct(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that do not follow from others: those to packages that no other import leads to."""

    def reach(start: str) -> set[str]:
        return {start}.union(*(reach(after) for after in edges[start]))

    return [
        (package, other)
        for package, others in edges.items()
        for other in others
        if not any(other in reach(between) for between in others - {other})
    ]


def draw() -> str:
    """Return the picture as SVG: packages from top to bottom, with an arrow for each direct import."""
    top = {name: GAP + row * (HEIGHT + GAP) for row, name in enumerate(reversed(ORDER))}
    total = GAP + len(ORDER) * (HEIGHT + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" font-family="sans-serif" font-size="13">',
        '<marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#888"/></marker>',
    ]
    for package, other in sorted(direct({name: imports(name) for name in ORDER}), key=lambda edge: (top[edge[0]], top[edge[1]])):
        start, end = top[package] + HEIGHT / 2, top[other] + HEIGHT / 2
        if end - start <= HEIGHT + GAP:
            path = f"M{LEFT / 2} {top[package] + HEIGHT}V{top[other]}"
        else:
            bend = LEFT - 30 + 22 * (end - start) / (HEIGHT + GAP)
            path = f"M{LEFT - 30} {start}C{bend} {start} {bend} {end} {LEFT - 30} {end}"
        lines.append(f'<path d="{path}" fill="none" stroke="#888" marker-end="url(#a)"/>')
    for name, y in top.items():
        docstring = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))) or ""
        first = docstring.splitlines()[0]
        lines += [
            f'<rect x="30" y="{y}" width="{LEFT - 60}" height="{HEIGHT}" rx="4" fill="#e8eef7" stroke="#4a6fa5"/>',
            f'<text x="{LEFT / 2}" y="{y + 22}" text-anchor="middle" fill="#1c2a3a">{name}</text>',
            f'<text x="{TEXT}" y="{y + 21}" font-size="12" fill="#666">{html.escape(first)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
