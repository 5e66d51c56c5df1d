"""Options from a finished picture: `--config RESULT` makes it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import command, fails, pixels

from style_transfer import cli
from style_transfer.cli.from_result import options_in, without_consequences
from style_transfer.cli.parser import parse

OPTIONS = ("--style-loss", "wasserstein", "--strength", "0.5", "-r", "7", "--content-layers", "relu2_1", "--dpi", "200")


@pytest.mark.parametrize("name", ["o.tif", "o.png", "o.jpg", "o.webp"])
def test_a_picture_is_made_again_from_itself(name: str, place: Path) -> None:
    assert cli.main(command(*OPTIONS, "-o", name)) == 0
    recipe = json.loads(Path(f"{name}.json").read_text())
    for source in (name, f"{name}.json"):
        argv = ["c.png", "s.png", "--config", source, "--weights", "w.safetensors", "-o", f"again-{name}", "--overwrite"]
        assert cli.main(argv) == 0
        again = json.loads(Path(f"again-{name}.json").read_text())
        assert again["settings"] == recipe["settings"]
        assert (pixels(Path(f"again-{name}")) == pixels(Path(name))).all()


def test_only_what_was_chosen_is_fixed(place: Path) -> None:
    assert cli.main(command(*OPTIONS, "-o", "o.png")) == 0
    chosen = parse(["c.png", "s.png", "--config", "o.png", "--strength", "0.8"], read=options_in).settings
    before = json.loads(Path("o.png.json").read_text())["settings"]
    assert chosen.style_loss == "wasserstein" and chosen.random_seed == 7 and chosen.content_weight is None
    assert chosen.resolve().content_weight == pytest.approx(before["content_weight"] / 4)  # (1 / 0.8 - 1) / (1 / 0.5 - 1)
    assert without_consequences({"style_loss": "gram", "strength": 0.5, "content_weight": 0.16}) == {"strength": 0.5}


def test_a_print_is_made_again(place: Path) -> None:
    argv = ["c.png", "s.png", "--weights", "w.safetensors", "--print-size", "66x33mm", "--dpi", "25.4", "--bleed", "3mm"]
    assert cli.main([*argv, "--style-print-size", "5cm", "--strength", "0", "-o", "o.tif"]) == 0
    options = parse(["c.png", "s.png", "--config", "o.tif"], read=options_in).options
    assert (options.print_size, options.bleed, options.resolution) == ("66x33mm", "3mm", 25.4)
    assert cli.main(["c.png", "s.png", "--weights", "w.safetensors", "--config", "o.tif", "-o", "again.tif"]) == 0
    assert (pixels(Path("again.tif")) == pixels(Path("o.tif"))).all()


def test_files_without_a_recipe_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.json").write_text("[1]")
    Path("y.json").write_text("{")
    Path("z.json").write_text(json.dumps({"program": "style_transfer 9.0", "settings": {"shine": 3}}))
    for name, words in (
        ("c.png", "c.png: has no recipe of this program"), ("x.json", "x.json: has no recipe"),
        ("y.json", "y.json: cannot be read"), ("none.png", "none.png"),
        ("z.json", "shine: there is no such option; the picture was made by style_transfer 9.0"),
    ):  # fmt: skip
        fails(command("--config", name), 2, capsys, "--config", words)
