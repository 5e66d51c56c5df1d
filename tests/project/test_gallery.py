"""The gallery: its page is what its script writes, its commands can be given, its pictures are there and small."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from style_transfer.cli.parser import parse
from style_transfer.networks import network_spec
from style_transfer.settings.presets import PRESETS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    """Return the script docs/gallery.py."""
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["gallery"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(gallery: ModuleType) -> None:
    assert gallery.PAGE.read_text() == gallery.page(), "run python docs/gallery.py --page"


def test_every_command_can_be_given(gallery: ModuleType) -> None:
    seen = []
    for sheet in gallery.SHEETS:
        assert len(set(sheet.commands)) == len(sheet.commands) > 0
        for command in sheet.commands:
            program, *words = shlex.split(command)
            assert program == "style_transfer"
            asked = parse(words)
            settings, options = asked.settings.resolve(), asked.options
            assert asked.styles and options.output != "out.png"
            spec = network_spec(settings)
            spec.check_layers(settings)
            seen.append((settings, options))
    assert {settings.preset for settings, _ in seen} >= set(PRESETS)
    assert {settings.color for settings, _ in seen} == {"style", "content", "luminance", "match-style", "match-content"}
    assert {options.content_mask is None for _, options in seen} == {True, False}


def test_pictures_are_there_and_small(gallery: ModuleType) -> None:
    names = {f"{sheet.name}.jpg" for sheet in gallery.SHEETS}
    assert {path.name for path in gallery.PLACE.iterdir()} == names
    sizes = [(gallery.PLACE / name).stat().st_size for name in names]
    assert max(sizes) < 400_000 and sum(sizes) < 4_000_000
    for name in names:
        with Image.open(gallery.PLACE / name) as sheet:
            assert max(sheet.size) <= 1400
    for page in ("README.md", "docs/gallery.md"):
        for link in re.findall(r"(?:src=\"|\]\()((?:docs/)?gallery/[^\")]*)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / link).is_file(), f"{page}: {link}"
