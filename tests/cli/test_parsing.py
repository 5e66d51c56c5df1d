"""Arguments: what they parse to, and those that are refused with exit code 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.command_line import command, fails

from style_transfer import cli
from style_transfer.cli.parser import option_classes, parse
from style_transfer.errors import SettingsError
from style_transfer.observers.web import WebOptions
from style_transfer.settings import CommandOptions, Settings, flag_name
from style_transfer.settings.sources import known_options


def test_a_command_of_style_transfer_pytorch_parses_unchanged() -> None:
    found = parse(
        "c.jpg a.jpg b.jpg -o x.tif -sw 1 2 --devices cuda:0 cuda:1 -r 3 -cw 0.02 -tw 1.5 --optimizer lbfgs -ms 64 -s 1024+ "
        "-i 100 -ii 200 --save-every 10 -ss 0.01 -ad 0.9 --init style_stats --style-scale-fac 1.5 --style-size 300 "
        "--pooling max --proof p.icc --web --host 0.0.0.0 --port 9000 --browser firefox".split()
    )
    assert (found.content, found.styles) == ("c.jpg", ("a.jpg", "b.jpg"))
    assert found.settings == Settings(
        style_weights=(1, 2), devices=("cuda:0", "cuda:1"), random_seed=3, content_weight=0.02, tv_weight=1.5, optimizer="lbfgs",
        min_scale=64, end_scale="1024+", iterations=100, initial_iterations=200, step_size=0.01, avg_decay=0.9,
        init="style_stats", style_scale_fac=1.5, style_size=300, pooling="max",
    )  # fmt: skip
    assert found.options == CommandOptions(output="x.tif", save_every=10, proof="p.icc")
    assert found.options_of(WebOptions) == WebOptions(web=True, host="0.0.0.0", port=9000, browser="firefox")


def test_styles_may_follow_options() -> None:
    for line in ("a.jpg -s 64 b.jpg c.jpg", "-o o.png a.jpg -s 64 b.jpg c.jpg", "a.jpg b.jpg -s 64 c.jpg"):
        found = parse(line.split())
        assert (found.content, found.styles, found.settings.end_scale) == ("a.jpg", ("b.jpg", "c.jpg"), "64")
    with pytest.raises(SettingsError, match="unrecognized arguments: --sidez 3"):
        parse("a.jpg b.jpg --sidez 3".split())


def test_long_names_parse_and_browser_needs_no_value() -> None:
    found = parse(
        "c s --output o.png --style-weights 1 --random-seed 1 --content-weight 1 --tv-weight 1 --min-scale 9 --end-scale 99 "
        "--iterations 1 --initial-iterations 1 --step-size 1 --avg-decay 0 --browser".split()
    )
    assert (found.options_of(WebOptions).browser, found.settings.end_scale) == ("", "99")


def test_two_pictures_alone_give_the_defaults() -> None:
    found = parse(["c", "s"])
    assert (found.settings, found.options) == (Settings(), CommandOptions())
    assert all(options == kind() for kind, options in found.observer_options.items())
    page = found.options_of(WebOptions)
    assert (found.options.save_every, page.web, page.host, page.port) == (50, False, "127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--pooling", "maximum"], "--pooling"),
        (["-cw", "nan"], "--content-weight must be finite"),
        (["-cw", "-1"], "--content-weight must be at least 0"),
        (["-cw", "abc"], "--content-weight"),
        (["-sw", "1", "2"], "--style-weights has 2 values for 1 style"),
        (["-sw", "0"], "sum to 0"),
        (["-s", "big"], "--end-scale"),
        (["--host", ""], "--host must not be empty"),
        (["--dpi", "70000"], "--dpi must be at most 65535"),
        (["-tw", "1e30"], "--tv-weight must be at most 1000000000"),
        (["-o", "x.xyz"], ".tif"),
        (["-o", "c.png"], "also an input"),
        (["-o", "./s.png"], "also an input"),
        (["--devices", "gpu"], "this machine has"),
        (["--devices", "cuda:99"], "'cuda:99' is not available"),
        (["--init", "grey"], "did you mean 'gray'"),
        (["--init", "t.jpeg"], "nor a picture file (did you mean 't.jpg'?)"),
        (["--config", "optoins.toml"], "does not exist or is not a file (did you mean 'options.toml'?)"),
        (["--style-layers", "relu4-1"], "did you mean 'relu4_1'"),
        (["--pol", "3"], "--pol"),
        (["--dpi", "0"], "--dpi must be at least 0.1"),
        (["--port", "99999"], "--port"),
    ],
)
def test_wrong_options_exit_with_2(more: list[str], word: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("options.toml").touch()
    fails(command(*more), 2, capsys, word)
    assert not Path("out.png").exists()


NUMBERS = [name for name, about in known_options(option_classes()).items() if about.kind in (int, float) and not about.flag]


@pytest.mark.parametrize("name", NUMBERS)
def test_words_that_are_not_finite_numbers_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    factors = ("style_weights", "content_layer_weights", "style_layer_weights")  # normalised, so that any size will do
    for word in ("nan", "inf", "-inf", "-1", *([] if name in factors else ["1e99"]), "9" * 400, "x", ""):
        fails(["c.png", "s.png", f"{flag_name(name)}={word}"], 2, capsys, flag_name(name))


def test_no_arguments_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    fails([], 2, capsys, "content", "--help")


def test_at_least_one_style_is_needed_and_a_hundred_are_accepted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(["c.png"], 2, capsys, "style")
    assert cli.main(["c.png", *["s.png"] * 100, *command("-ii", "1", "-i", "1")[2:]]) == 0


def test_an_output_that_is_linked_to_an_input_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.link("c.png", "linked.png")
    fails(command("-o", "linked.png"), 2, capsys, "also an input")
