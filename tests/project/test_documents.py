"""The documents: their size, links, tables, commands and Python examples."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image
from support.tiny import picture

from style_transfer.cli.parser import parse
from style_transfer.networks import network_spec
from style_transfer.pictures import to_pil
from style_transfer.pictures.tensors import to_pixels

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "training" / "README.md"]
README = ROOT / "README.md"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:home|root|tmp|work|Users|mnt|opt)/|[A-Z]:\\Users")


def name(path: Path) -> str:
    """Return a document's path in the repository."""
    return path.relative_to(ROOT).as_posix()


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and the site make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document."""
    return {slug(found[1]) for found in re.finditer(r"^#{1,6} (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)}


def broken(path: Path, text: str) -> list[str]:
    """Return the relative links of a document's text whose file or anchor does not exist."""
    found = []
    for match in LINK.finditer(FENCE.sub("", text)):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or not to.is_relative_to(ROOT) or (anchor and anchor not in anchors(to)):
            found.append(target)
    return found


def test_the_readme_is_short() -> None:
    assert README.stat().st_size <= 7 * 1024


def test_the_readme_has_the_test_command() -> None:
    """Continuous integration runs the command block after this marker."""
    found = re.search(r"^<!-- test command -->\n```sh\n(.+?)\n```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None and found[1].endswith("scripts/check")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    assert broken(path, path.read_text()) == []


def test_broken_links_are_found() -> None:
    text = "[a](docs/nothing.md) [b](docs/guide.md#nothing) [c](docs/guide.md#files) [d](https://example.org/x) [e](../x)"
    assert broken(README, text) == ["docs/nothing.md", "docs/guide.md#nothing", "../x"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_documents_name_no_paths_of_a_machine(path: Path) -> None:
    assert MACHINE_PATH.findall(path.read_text()) == []


def test_paths_of_a_machine_are_found() -> None:
    assert all(MACHINE_PATH.search(text) for text in ("in /home/me/x", "`/tmp/out.png`", r"C:\Users\me"))
    assert not any(MACHINE_PATH.search(text) for text in ("images/home/x", "`/image.png`", "https://example.org/tmp/x"))


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r": ([\w-]+\.md)$", navigation, re.MULTILINE)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(listed)
    assert len(listed) == len(set(listed))


def commands(path: Path) -> list[str]:
    """Return the commands of this program in a document's shell blocks, without those that have placeholders in capitals."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    found = [line.partition("style_transfer ")[2] for block in blocks for line in block.splitlines() if "style_transfer " in line]
    return [words for words in found if not re.search(r"(?<![\w-])[A-Z]{3,}", words)]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path)], ids=name)
def test_commands_have_existing_options(path: Path) -> None:
    for words in commands(path):
        command = parse(shlex.split(words))
        settings = command.settings.resolve()
        assert command.styles, words
        network_spec(settings).check_layers(settings)


def examples(path: Path) -> list[str]:
    """Return the Python examples of a document."""
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [README, ROOT / "docs" / "python-api.md"], ids=name)
def test_python_examples_run(path: Path, place: Path) -> None:
    """Examples run as they stand, but on small pictures and tiny weights, with a small end scale and few steps."""
    for file, seed in (("photo.jpg", 1), ("painting.jpg", 2)):
        to_pil(to_pixels(picture(seed, 24, 32))).save(file)
    less = "weights='w.safetensors', initial_iterations=2, min_scale=40, "
    small = {
        "StyleTransfer(": "StyleTransfer(weights='w.safetensors', ",
        "end_scale=256": "end_scale=40, min_scale=40, initial_iterations=2",
        'Settings(end_scale="256"': f'Settings({less}end_scale="40"',
    }
    found = examples(path)
    assert found
    for code in found:
        for before, after in small.items():
            code = code.replace(before, after)
        assert code.count("w.safetensors") == code.count("=2") == 1
        (place / "example.py").write_text(code)
        shown = runpy.run_path(str(place / "example.py"))["picture"]
        assert (shown.size if isinstance(shown, Image.Image) else shown.shape) in ((40, 30), (1, 3, 30, 40))


def test_the_page_of_input_formats_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "input_formats_page.py"))["page"]
    written = (ROOT / "docs" / "what-is-read.md").read_text(encoding="utf-8")
    assert written == page(), "run python scripts/input_formats_page.py"


def test_the_guide_for_users_of_other_programs_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "coming_from_page.py"))["page"]
    written = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    assert written == page(), "run python scripts/coming_from_page.py"


def test_the_picture_of_the_packages_is_up_to_date() -> None:
    draw = runpy.run_path(str(ROOT / "scripts" / "package_diagram.py"))["draw"]
    picture = (ROOT / "docs" / "images" / "packages.svg").read_text(encoding="utf-8")
    assert picture == draw(), "run python scripts/package_diagram.py"
