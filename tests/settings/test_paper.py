"""Sizes on paper: lengths, width x height, formats and their turns, and texts that are none of these."""

from __future__ import annotations

import itertools

import pytest

from style_transfer.errors import SettingsError
from style_transfer.settings import CommandOptions
from style_transfer.settings.paper import PAPERS, parse_length, parse_print_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("60x40cm", (600, 400)),
        ("60cm x 40cm", (600, 400)),
        ("24X16IN", (609.6, 406.4)),
        ("8.5x11in", (215.9, 279.4)),
        ("500mmx1m", (500, 1000)),
        ("30\u00d720cm", (300, 200)),
        ("A3-landscape", (420, 297)),
        ("a3-Portrait", (297, 420)),
        ("letter-landscape", (279.4, 215.9)),
    ],
)
def test_sizes(text: str, size: tuple[float, float]) -> None:
    parsed = parse_print_size("--print-size", text)
    assert (parsed.width, parsed.height) == pytest.approx(size)
    for shape in ((10, 20), (20, 10)):
        assert parsed.beside(*shape) == parsed  # what is written out is not turned


def test_formats_turn_with_the_photograph() -> None:
    for paper, (short, long) in PAPERS.items():
        parsed = parse_print_size("--print-size", paper)
        upright, lying = parsed.beside(30, 20), parsed.beside(20, 30)
        assert (upright.width, upright.height) == (lying.height, lying.width) == (short, long)
        assert parsed.beside(20, 20) == upright


def test_iso_formats_halve() -> None:
    for series, names in (("A", "0123456"), ("B", "012345")):
        for larger, smaller in itertools.pairwise(names):
            (short, long), (half, side) = PAPERS[series + larger], PAPERS[series + smaller]
            assert side == short and half == long // 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A3-landcape", "did you mean 'A3-landscape'"),
        ("leter", "did you mean 'letter'"),
        ("60x40", "such as 60x40cm"),
        ("60cm", "such as 60x40cm"),
        ("0x40cm", "sides must be above 0"),
        ("60x200m", "at most 100 m"),
        ("-60x40cm", "such as 60x40cm"),
        ("", "such as 60x40cm"),
    ],
)
def test_sizes_nobody_knows(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match="--print-size") as caught:
        parse_print_size("--print-size", text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_lengths() -> None:
    texts = {"3mm": 3, "0.5 cm": 5, "0.125in": 3.175, "1M": 1000}
    assert {text: parse_length("--bleed", text) for text in texts} == pytest.approx(texts)
    for text in ("3", "0mm", "mm", "3px", "nan mm", "200m"):
        with pytest.raises(SettingsError, match="--bleed must be a length such as 3mm"):
            parse_length("--bleed", text)


def test_what_goes_with_a_print() -> None:
    assert CommandOptions().resolution == 72 and CommandOptions(print_size="A4").resolution == 300
    assert CommandOptions(print_size="A4", dpi=150).resolution == 150 and CommandOptions(dpi=240).resolution == 240
    assert CommandOptions(print_size="A4", bleed="3mm").bleed_length == 3
    for options, words in (
        ({"bleed": "3mm"}, "--bleed 3mm goes with --print-size"),
        ({"style_print_size": "3cm"}, "--style-print-size 3cm goes with --print-size"),
        ({"print_size": "10x20cm", "bleed": "10cm"}, "--bleed 10cm must be at most a quarter of the short side of 10x20cm"),
    ):
        with pytest.raises(SettingsError, match=words):
            CommandOptions(**options)
