"""The tables of docs/coming-from.md: every row is run and has its effect, and every flag of the programs has a row.

Rows are run as they stand, but for sizes and steps, which are small, on networks with few channels and random weights. Beside
each row the same command is run without it: the picture must change, or stay, as the settings of the row say. A row whose value
is the default already is run with another one.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.formats import write
from support.profiles import cmyk_profile
from support.tiny import TINY, picture, random_state, replace_network, tiny_weights
from support.zoo import SMALL

from style_transfer import cli
from style_transfer import pictures as images
from style_transfer.cli.parser import parse
from style_transfer.cli.programs import TABLES
from style_transfer.engine.initial import first_picture
from style_transfer.networks import network_spec
from style_transfer.networks.loading import Weights, load_weights
from style_transfer.pictures import to_pil
from style_transfer.pictures.tensors import to_pixels
from style_transfer.registry import NETWORKS
from style_transfer.settings import Resolved, Settings, flag_name, options_of

FLAGS = {
    "style-transfer-pytorch": "-o --output -sw --style-weights --devices -r --random-seed -cw --content-weight -tw --tv-weight "
    "--optimizer -ms --min-scale -s --end-scale -i --iterations -ii --initial-iterations --save-every -ss --step-size "
    "-ad --avg-decay --init --style-scale-fac --style-size --pooling --proof --web --host --port --browser",
    "neural-style": "-style_image -style_blend_weights -content_image -image_size -gpu -multigpu_strategy "
    "-content_weight -style_weight -tv_weight -num_iterations -normalize_gradients -init -init_image -optimizer -learning_rate "
    "-lbfgs_num_correction -print_iter -save_iter -output_image -style_scale -original_colors -pooling -proto_file -model_file "
    "-backend -cudnn_autotune -seed -content_layers -style_layers",
    "neuralart": "--model --style --content --style_factor --num_iters --size --display_interval --smoothness --init --backend "
    "--optimizer --cpu --output_dir",
    "fzliu/style-transfer": "-s -c -g -m -i -r -n -l -v -o",
}
"""Every flag, from the programs' sources."""

SPECS = SMALL | {"vgg19": TINY, "vgg19-normalized": SMALL["vgg19-caffe"]}

COMMON = "-s 48 -ii 12 -i 2 --quiet"
LESS = {"-s": "40", "-ii": "9", "-i": "3", "-ms": "30", "--style-size": "24", "--save-every": "1", "-tw": "1e6"}
LISTS = {"--scales": "24 30 36 40 44", "--steps": "3 2 2 2 2"}
"""What stands for the numbers of a row, which would take long or, on networks such as these, be too small to see."""

OTHER = {
    "style_weights": ("1", "3"), "avg_decay": ("0.5",), "lbfgs_history": ("1",), "optimizer": ("sgd",), "random_seed": ("9",),
    "init": ("gray",), "end_scale": ("44",), "initial_iterations": ("5",), "iterations": ("4",), "min_scale": ("30",),
    "content_layers": ("relu3_1",), "style_layers": ("relu1_1", "relu3_1"),
}  # fmt: skip
"""Values for settings of a row that are the default already; numbers are tripled and words changed for another."""

SAME = {"devices", "sharding", "split", "weights"}
"""Settings that do not change the picture."""

HELP = {"init": "--style-factor 1", "optimizer": "--style-factor 1", "random_seed": "--init normal", "style_factor": "-cw 1e5",
        "iterations": "-ms 28", "noise": "--init noise"}  # fmt: skip
"""What it takes for a setting to count, by its name."""


def tables() -> dict[str, list[tuple[str, str, str]]]:
    """Return the rows of each section's table."""
    return {name: [(row.theirs, row.here, row.result) for row in rows] for name, rows in TABLES.items()}


ROWS = [row for rows in tables().values() for row in rows]
GIVEN = [row for row in ROWS if row[1] != "—"]


@pytest.mark.parametrize("program", FLAGS)
def test_every_flag_has_a_row(program: str) -> None:
    cells = " ".join(theirs for theirs, _, _ in tables()[program])
    there = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", cells))
    assert not set(FLAGS[program].split()) - there


@pytest.mark.parametrize("row", GIVEN, ids=lambda row: row[0])
def test_every_row_can_be_given_as_it_stands(row: tuple[str, str, str]) -> None:
    _, here, result = row
    assert result
    command = parse(["content.jpg", "style.jpg", *shlex.split(here)])
    assert "style.jpg" in command.styles
    settings = command.settings.resolve()
    spec = network_spec(settings)
    spec.check_layers(settings)
    spec.check_split(settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all files that rows name."""
    place = tmp_path_factory.mktemp("pictures")
    for name, seed, size in (("content", 1, (40, 48)), ("style", 2, (80, 96)), ("other", 3, (70, 90))):
        to_pil(to_pixels(picture(seed, *size))).save(place / f"{name}.png")
    to_pil(to_pixels(picture(4, 40, 48))).save(place / "start.png")
    left, part = np.zeros((40, 48), np.uint8), np.zeros((80, 96), np.uint8)
    left[:, :24] = part[:40] = 255
    for name, mask in (("left", left), ("part", part)):
        Image.fromarray(mask).save(place / f"{name}.png")
    Image.fromarray(np.stack([left, 255 - left, 0 * left], 2)).save(place / "colours.png")
    (place / "cmyk.icc").write_bytes(cmyk_profile(0.1))
    for name in ("w.pth", "w.caffemodel"):
        write(place / name, SPECS["vgg19-caffe"], random_state(SPECS["vgg19-caffe"], 1))
    return place


@pytest.fixture
def paint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Return a function that runs a command in the folder and returns its picture."""
    monkeypatch.chdir(folder)
    for name, spec in SPECS.items():
        if name in NETWORKS:
            replace_network(name, spec, monkeypatch)

    def fetch(settings: Resolved, **about: object) -> Weights:
        if settings.weights is not None:
            return load_weights(settings)
        name = "vgg19" if settings.network == "auto" else settings.network
        state = tiny_weights() if name == "vgg19" else random_state(SPECS[name], 1)
        return Weights(network_spec(settings), {k: v.float() for k, v in state.items()}, "random")

    monkeypatch.setattr("style_transfer.cli.job.load_weights", fetch)
    monkeypatch.setattr("webbrowser.open", lambda *_: True)

    def run(words: str, styles: tuple[str, ...] = ("style.png",), output: str = "out.png") -> np.ndarray:
        for old in folder.glob("out*"):
            old.unlink()
        contents = [] if "--each" in words else ["content.png"]
        assert cli.main([*contents, *styles, *shlex.split(words)]) == 0, words
        return images.load(output).pixels

    return run


def shrunk(words: list[str]) -> list[str]:
    """Return a row's words with numbers that do not take long."""
    found, flag, lists = [], "", {name: iter(text.split()) for name, text in LISTS.items()}
    for word in words:
        less = LESS.get(flag) or next(lists.get(flag, iter(())), "")
        found.append(less + "+" * word.endswith("+") if less else "start.png" if flag == "--init" and "." in word else word)
        flag = word if word.startswith("-") or flag not in lists else flag
    return found


def changed(settings: Resolved, base: Resolved) -> list[str]:
    """Return the names of settings that differ."""
    return [f.name for f in dataclasses.fields(Settings) if getattr(settings, f.name) != getattr(base, f.name)]


def varied(words: list[str]) -> list[str]:
    """Return words with another value for the last flag, which is at its default."""
    at = max(i for i, word in enumerate(words) if word.startswith("-"))
    known = options_of(Settings)
    name = next(n for n, about in known.items() if words[at] in (about.short, "--" + n.replace("_", "-")))
    about = known[name]
    if name in OTHER:
        values = OTHER[name]
    elif about.choices:
        values = (next(word for word in about.choices if word not in (*words[at + 1 :], "auto")),)
    else:
        values = tuple(str(3 * float(word) + 1e-3) for word in words[at + 1 :])
    return [*words[: at + 1], *values]


PICTURES = [row for row in GIVEN if (set(shlex.split(row[1])) & {"--each"}) == set()]


@pytest.mark.parametrize("row", PICTURES, ids=lambda row: row[0])
def test_every_row_has_its_effect(row: tuple[str, str, str], paint: Callable[..., np.ndarray]) -> None:
    words = shlex.split(row[1])
    preset = words[:2] if words[:1] == ["--preset"] else []
    parsed = functools.partial(_settings, preset or ["-i", "500", "-ii", "1000"])  # the schedule that -ss and -ad select
    own = words[len(preset) :]
    names = changed(parsed(own), parsed([])) if own else []
    extra = [flag for flag in own if flag.startswith("-") and not names and not _for_files(flag)]
    run = shrunk(own)
    if extra or "-sw" in own:
        run = varied(run)
        names = changed(parsed(run), parsed([]))
        assert names, "another value makes no other settings"
    names = [name for name in names if name not in ("style_layer_weights",)] or names
    styles = ("style.png", "other.png") if "style_weights" in names else ("style.png",)
    small = [] if preset else ["-ms", "40"]
    help_ = next((shlex.split(HELP[name]) for name in names if name in HELP), [])
    common = [*preset, *shlex.split(COMMON), *small, *help_]
    output = next((word for flag, word in pairwise(run) if flag == "-o"), "out.png")
    before, after = paint(shlex.join(common), styles), paint(shlex.join([*common, *run]), styles, output)
    files = [flag for flag in own if _for_files(flag) and flag in ("--proof", "--content-mask")]
    if set(names) - SAME or files:
        assert before.shape != after.shape or np.abs(before - after).max() > 2e-3, (names, files)
    else:
        assert before.shape == after.shape and np.abs(before - after).mean() < (0.03 if ".jpg" in output else 1e-3), names


def _settings(preset: list[str], words: list[str]) -> Resolved:
    two = "-sw" in words and words[-2] != "-sw"
    return parse(["content.jpg", "style.jpg", *["other.jpg"] * two, *preset, *words]).settings.resolve()


def _for_files(flag: str) -> bool:
    """Return whether a flag is about files, messages and the like, and not of `Settings`."""
    return not any(flag in (about.short, flag_name(name)) for name, about in options_of(Settings).items())


def test_no_row_is_left_out() -> None:
    assert len(PICTURES) == len(GIVEN) - 1


# what rows say beside the picture


def test_numbered_pictures_and_lines(paint: Callable[..., np.ndarray], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint("-ms 28 -s 40 -ii 3 -i 2 --quiet --save-every 2 --save-iterates out_{iteration:d}.png")
    assert sorted(path.name for path in folder.glob("out_*.png")) == ["out_2.png", "out_3.png", "out_5.png"]
    paint("-ms 28 -s 40 -ii 3 -i 2 --quiet --save-every 2 --save-iterates shots/{number}.jpg")
    assert sorted(path.name for path in (folder / "shots").iterdir()) == ["0001.jpg", "0002.jpg", "0003.jpg"]
    capsys.readouterr()
    paint("-ms 28 -s 40 -ii 3 -i 2 --json")
    assert capsys.readouterr().out.count('"loss"') == 5


def test_what_a_mask_leaves_out_stays(paint: Callable[..., np.ndarray]) -> None:
    content = images.load("content.png").pixels
    for more in ("--style-mask part.png", "--style-loss histogram"):
        found = paint(f"-ms 48 -s 48 -ii 4 --quiet --content-mask left.png {more}")
        assert np.abs(found[:, 26:] - content[:, 26:]).max() < 1e-4 and np.abs(found[:, :20] - content[:, :20]).max() > 0.02


def test_original_colours_are_the_photographs(paint: Callable[..., np.ndarray]) -> None:
    """Chrominance as the content's, luma as the picture's without the flag."""
    words = "--preset neural-style --init content -s 48 -ii 4 --quiet"
    plain, kept = paint(words), paint(f"{words} --color content --color-space yuv")
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    content = images.load("content.png").pixels
    inside = (kept > 0.01).all(2) & (kept < 0.99).all(2)
    assert np.abs((kept - plain) @ luma)[inside].max() < 2e-3
    assert np.abs((kept - (kept @ luma)[..., None]) - (content - (content @ luma)[..., None]))[inside].max() < 2e-3


def test_a_mixed_start_is_nearly_the_photograph(folder: Path) -> None:
    settings = Settings(preset="fzliu", init="style", init_blend=0.95).resolve()
    content, style = picture(1, 30, 40), picture(2, 30, 40)
    assert torch.allclose(first_picture(content, [style], (30, 40), settings), 0.95 * content + 0.05 * style)


def test_products_of_contents_and_styles(paint: Callable[..., np.ndarray], folder: Path) -> None:
    small = "-ms 28 -s 40 -ii 2 -i 2 --quiet"
    paint(f"{small} --grid --each content.png -o folder", ("style.png", "other.png"), "folder/content_style.png")
    assert {path.name for path in (folder / "folder").glob("*.png")} == {"content_style.png", "content_other.png"}
