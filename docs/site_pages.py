"""Adapts the documents to the site that mkdocs makes of them: a hook, named in mkdocs.yml.

The README becomes the home page, and other documents outside docs/ pages of their own. Links between documents are adapted;
links to other files of the repository become plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "training/README.md": "training.md",
}
"""Documents outside docs/, by their path in the repository, and the pages they become."""
LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)\)|(src=")([^"]+)(")')


def adapted(text: str, folder: Path) -> str:
    """Return the text of a document in a folder of the repository with its relative links as the site has them."""

    def replaced(found: re.Match[str]) -> str:
        target = found[3] or found[5]
        path, hash_, anchor = target.partition("#")
        if ":" in target or not path:
            return found[0]
        inside = (ROOT / folder / path).resolve().relative_to(ROOT).as_posix()
        page = PAGES.get(inside) or (inside.removeprefix("docs/") if inside.startswith("docs/") else None)
        if found[5]:
            return f"{found[4]}{page}{found[6]}"
        return f"{found[1]}[{found[2]}]({page}{hash_}{anchor})" if page else f"{found[2]}"

    return LINK.sub(replaced, text)


def on_files(files: Files, config: Any) -> Files:
    """Add the documents outside docs/."""
    for source, page in PAGES.items():
        text = adapted((ROOT / source).read_text(encoding="utf-8"), Path(source).parent)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the text of a document in docs/ with its links adapted."""
    return markdown if page.file.src_uri in PAGES.values() else adapted(markdown, Path("docs") / Path(page.file.src_uri).parent)
