"""Commands from the documents of other programs, pasted as they stand: each is answered with a line that can be run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.command_line import fails, pixels
from support.tiny import TINY, replace_network

from style_transfer import cli
from style_transfer.cli.parser import parse
from style_transfer.cli.programs import MODULES, TABLES
from style_transfer.cli.translate import PROGRAMS, recognized, translated
from style_transfer.networks import VGG19, network_spec

LINES = (Path(__file__).parent / "other_programs.txt").read_text().splitlines()
COMMANDS = dict(zip(*[(line.strip() for line in LINES if not line.startswith("#"))] * 2, strict=True))
"""Commands, and what stands for them here; neural-style's default weights are left out."""
VGG19_FILE = "--weights models/VGG_ILSVRC_19_layers.caffemodel"


@pytest.mark.parametrize("theirs", COMMANDS)
def test_a_pasted_command_is_answered_with_one_that_runs(theirs: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = theirs.replace("<", "").replace(">", "").split()
    expected = shlex.split(COMMANDS[theirs])
    if "neural-style" in expected and "--weights" not in expected:
        expected += VGG19_FILE.split()
    fails(words, 2, capsys, "here it is: style_transfer", "docs/coming-from.md")
    assert cli.main(["translate", "--", *words]) == 0
    line = shlex.split(capsys.readouterr().out)
    assert line == ["style_transfer", *expected]
    settings = parse(line[1:]).settings.resolve()
    network_spec(settings).check_layers(settings)
    network_spec(settings).check_split(settings)


def test_there_are_thirty() -> None:
    found = [recognized(words.split()) for words in COMMANDS]
    assert len(found) >= 30 and all(program in found for program in PROGRAMS)


def test_own_commands_are_not_taken_for_another_programs() -> None:
    for row in TABLES["style-transfer-pytorch"]:
        assert recognized(["c.png", "s.png", *shlex.split(row.here)]) is None


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ("-image_sise 512 -gpu 0", ["neural-style has no flag -image_sise", "did you mean '-image_size'"]),
        ("-image_size", ["-image_size of neural-style needs a value"]),
        ("-style_weight much", ["-style_weight much: is not a value"]),
        ("c.jpg s.jpg", ["give a command of neural-style"]),
    ],
)
def test_what_cannot_be_translated_is_an_error(theirs: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(["translate", "--", *theirs.split()], 2, capsys, *words)


def test_a_translated_command_can_be_run_at_once(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_network("vgg19-caffe", TINY, monkeypatch)
    words = "-style_image s.png -content_image c.png -model_file w.safetensors -image_size 46 -num_iterations 3"
    assert cli.main(["translate", "--run", "--", *words.split(), "-optimizer", "adam"]) == 0
    assert capsys.readouterr().out == "out.png\n" and pixels().shape[1] == 46


def test_devices_begin_at_convolutions_of_the_network() -> None:
    assert set(MODULES) <= {step.name for step in VGG19.steps}
    assert list(MODULES.values()) == sorted(MODULES.values())
    (program, *_) = PROGRAMS
    assert "conv2_1" in " ".join(translated("-multigpu_strategy 8 -gpu 0,1".split(), program))
