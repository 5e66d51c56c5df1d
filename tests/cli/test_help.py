"""The help: a summary on one screen, topics, near misses, and the page of options."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.command_line import fails

from style_transfer import cli
from style_transfer.cli.help import SUMMARY, TOPICS, options_page, topic_page
from style_transfer.cli.parser import option_classes
from style_transfer.registry import CONTENT_LOSSES, OPTIMIZERS, STYLE_LOSSES
from style_transfer.settings import flag_name
from style_transfer.settings.sources import known_options

ROOT = Path(__file__).parents[2]
KNOWN = known_options(option_classes())


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_summary_fits_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "-h")
    lines = text.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert sum(line.startswith("usage: ") for line in lines) == 1
    assert all(flag_name(name) in text for name in SUMMARY) and all(f"\n  {topic} " in text for topic in TOPICS)
    assert printed(capsys, "--help") == printed(capsys, "c.png", "s.png", "--quiet", "-h") == text


def test_each_option_is_in_exactly_one_topic(capsys: pytest.CaptureFixture[str]) -> None:
    pages = [printed(capsys, "--help", topic) for topic in TOPICS]
    flags = Counter(line.split()[0] for page in pages for line in page.splitlines() if line.startswith("  -"))
    starts = {about.short + "," if about.short else flag_name(name) for name, about in KNOWN.items()}
    assert flags == dict.fromkeys(starts, 1)
    assert {about.topic for about in KNOWN.values()} == set(TOPICS)


@pytest.mark.parametrize("topic", [*TOPICS, "all"])
def test_every_page_is_narrow_and_lists_choices_with_phrases(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, f"--help={topic}")
    assert max(map(len, text.splitlines())) <= 100
    for name, about in KNOWN.items():
        if topic in (about.topic, "all"):
            assert flag_name(name) in text
            for word, phrase in about.choices.items():
                assert word in text and all(part in text for part in phrase.split())


def test_choices_of_registries_have_their_help() -> None:
    for name, registry in (("style_loss", STYLE_LOSSES), ("content_loss", CONTENT_LOSSES), ("optimizer", OPTIMIZERS)):
        page = topic_page(KNOWN[name].topic, KNOWN)
        assert all(word in page and entry.help in page for word, entry in registry.items())


def test_other_names_of_the_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--help-networks") == printed(capsys, "--help", "networks")
    assert printed(capsys, "--help-presets") == printed(capsys, "--help", "presets")
    assert printed(capsys, "--version").startswith("style_transfer ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--help", "colur"], ["--help colur: there is no such topic", "did you mean 'colour'", "presets"]),
        (["--help=opt"], ["there is no such topic"]),
        (["c", "s", "--iteratoins", "3"], ["did you mean '--iterations'"]),
        (["c", "s", "--hlep"], ["did you mean '--help'"]),
        (["c", "s", "--doctr"], ["did you mean '--doctor'"]),
        (["c", "s", "--end-scal=3", "--verison"], ["did you mean '--version'"]),
        (
            ["c", "s", "--style-loss", "wassertein"],
            ["--style-loss 'wassertein' is not one of covariance", "did you mean 'wasserstein'"],
        ),
        (["c", "s", "--network", "vgg9"], ["did you mean 'vgg19'"]),
        (["c", "s", "--preset", "neural-stlye"], ["did you mean 'neural-style'"]),
        (["c", "s", "--color", "contnet"], ["did you mean 'content'"]),
        (["c", "s", "--optimizer", "lbgfs"], ["did you mean 'lbfgs'"]),
        (["c", "s", "--style", "x"], ["ambiguous option: --style could match"]),
        (["c", "s", "-i"], ["expected one argument"]),
        (["c", "s", "-sw"], ["expected at least one argument"]),
        (["c", "s", "-i", "x"], ["--iterations must be a whole number or auto, not 'x'"]),
    ],
)
def test_near_misses(argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(argv, 2, capsys, *words)


def test_after_two_dashes_everything_is_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    fails(["--", "-h.png", "none.png"], 3, capsys, "-h.png")


def test_the_page_of_options_is_up_to_date() -> None:
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == options_page(), "run python scripts/options_page.py"


def test_the_summary_loads_no_registry() -> None:
    code = """if True:
        import sys
        from style_transfer import cli
        assert cli.main(sys.argv[1:]) == 0
        print([name for name in ("torch", "numpy", "PIL", "aiohttp", "style_transfer.losses") if name in sys.modules])"""
    for flag in ("-h", "--version"):
        done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("[]\n")
