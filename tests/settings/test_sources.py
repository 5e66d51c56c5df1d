"""Options from a file, from the environment and from flags, and which of them wins."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from style_transfer import cli
from style_transfer.cli.parser import option_classes, parse
from style_transfer.errors import SettingsError
from style_transfer.settings import CommandOptions, Settings, sources

PICTURES = ["c.png", "s.png"]


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder and without variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(sources.PREFIX)]:
        monkeypatch.delenv(name)


def parsed(*argv: str) -> tuple[Settings, CommandOptions]:
    command = parse([*PICTURES, *argv])
    return command.settings, command.options


def test_flags_win_over_the_environment_over_the_file_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("o.toml").write_text('iterations = 1\nend_scale = 256\npooling = "max"\n')
    monkeypatch.setenv("STYLE_TRANSFER_END_SCALE", "300+")
    monkeypatch.setenv("STYLE_TRANSFER_POOLING", "l2")
    settings = parsed("--config", "o.toml", "--pooling", "average")[0].resolve()
    assert (settings.min_scale, settings.iterations, settings.end_scale, settings.pooling) == (128, 1, "300+", "average")


def test_the_environment_can_name_the_file_and_a_flag_another(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.toml").write_text("iterations = 1")
    Path("b.toml").write_text("iterations = 2")
    monkeypatch.setenv("STYLE_TRANSFER_CONFIG", "a.toml")
    assert parsed()[0].iterations == 1
    assert parsed("--config", "b.toml")[0].iterations == 2


def test_values_of_every_kind_in_a_file() -> None:
    Path("o.toml").write_text(
        'style-weights = [1, 0.5]\nend-scale = 512\ntile = 300\nquiet = true\nstyle_layers = ["relu1_1"]\nmemory = "6GB"\n'
        "style_layer_weights = 2\nstep_size = 1\n"
    )
    command = parse(["c.png", "s.png", "t.png", "--config", "o.toml"])
    assert command.settings == Settings(
        style_weights=(1, 0.5), end_scale="512", tile="300", style_layers=("relu1_1",), style_layer_weights=(2,), memory="6GB",
        step_size=1,
    )  # fmt: skip
    assert command.options.quiet


def test_values_of_every_kind_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "STYLE_WEIGHTS": "1 0.5", "ITERATIONS": "auto", "STEP_SIZE": "0.5", "QUIET": "yes", "JSON": "OFF", "DEVICES": "cpu 'cpu'",
        "END_SCALE": "99", "PROOF": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"STYLE_TRANSFER_{name}", text)
    command = parse(["c.png", "s.png", "t.png"])
    options = command.options
    assert command.settings == Settings(
        style_weights=(1, 0.5), iterations="auto", step_size=0.5, devices=("cpu", "cpu"), end_scale="99"
    )
    assert (options.quiet, options.json, options.proof) == (True, False, None)


def test_a_flag_can_be_turned_off_again() -> None:
    Path("o.toml").write_text("quiet = true\ngrid = true\n")
    options = parsed("--config", "o.toml", "--no-quiet")[1]
    assert (options.quiet, options.grid) == (False, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("end_scal = 5", ["--config o.toml: end_scal: there is no such option", "did you mean 'end_scale'"]),
        ("[picture]\niterations = 5", ["picture: there are no sections"]),
        ("iterations = 'many'", ["--config o.toml: iterations must be a whole number or auto, not 'many'"]),
        ("iterations = 0", ["o.toml: iterations must be at least 1, not 0"]),
        ("iterations = 1.5", ["must be a whole number"]),
        ("quiet = 1", ["quiet is on or off"]),
        ("pooling = 'maximum'", ["o.toml: pooling 'maximum' is not one of", "did you mean 'max'"]),
        ("pooling = true", ["must be text"]),
        ("end_scale = true", ["end_scale must be text, not True"]),
        ("init = 2026-01-01", ["must be text"]),
        ("end_scale = [1, 2]", ["end_scale takes one value, not [1, 2]"]),
        ("style_layers = []", ["at least one value"]),
        ("avg_decay = nan", ["must be finite"]),
        ("end-scale = 1\nend_scale = 2", ["end_scale appears twice"]),
        ("config = 'x.toml'", ["config: there is no such option"]),
        ("dump_config = true", ["dump_config: there is no such option"]),
        ("iterations = ", ["o.toml: cannot be read", "Invalid value"]),
        ("init = '\udcff'", ["cannot be read"]),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_with_a_way_out(text: str, words: list[str]) -> None:
    Path("o.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError) as error:
        parsed("--config", "o.toml")
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_error() -> None:
    Path("o.toml").write_bytes(b"\xef\xbb\xbfiterations = 7\n")
    assert parsed("--config", "o.toml")[0].iterations == 7


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path, word in (("none.toml", "does not exist"), (".", "is not a file"), ("", "must not be empty")):
        with pytest.raises(SettingsError, match=word):
            parse([*PICTURES, "--config", path])
    Path("big.toml").write_bytes(b"#" * (sources.MAX_BYTES + 1))
    with pytest.raises(SettingsError, match="larger than"):
        parsed("--config", "big.toml")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("END_SCAL", "5", ["STYLE_TRANSFER_END_SCAL: there is no such option", "did you mean 'STYLE_TRANSFER_END_SCALE'"]),
        ("DUMP_CONFIG", "1", ["there is no such option"]),
        ("ITERATIONS", "many", ["STYLE_TRANSFER_ITERATIONS must be a whole number or auto, not 'many'"]),
        ("STEP_SIZE", "-1", ["STYLE_TRANSFER_STEP_SIZE must be above 0"]),
        ("QUIET", "perhaps", ["STYLE_TRANSFER_QUIET must be one of 1, true", "'perhaps'"]),
        ("DEVICES", "'cpu", ["STYLE_TRANSFER_DEVICES", "No closing quotation"]),
        ("COLOR", "contents", ["did you mean 'content'"]),
    ],
)
def test_what_is_wrong_in_the_environment(name: str, text: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"STYLE_TRANSFER_{name}", text)
    with pytest.raises(SettingsError) as error:
        parsed()
    for word in words:
        assert word in str(error.value)


def test_what_is_dumped_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["-sw", "1", "2", "--init", 'a "quoted" \\ päth\x7f.png', "-ss", "1e-05", "--grid", "--each", "a", "b", "-s", "400+"]
    assert cli.main(["c.png", "s.png", *argv, "--dump-config"]) == 0
    text = capsys.readouterr().out
    Path("o.toml").write_text(text, encoding="utf-8")
    mine, theirs = parse([*PICTURES, *argv]), parse([*PICTURES, "--config", "o.toml"])
    assert (mine.content, mine.styles, mine.settings) == (theirs.content, theirs.styles, theirs.settings)
    assert vars(theirs.options) | {"config": None} == vars(mine.options)
    assert cli.main([*PICTURES, "--config", "o.toml", "--no-grid", "--dump-config"]) == 0
    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(text) | {"grid": False}


def test_a_dump_needs_no_pictures_and_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--dump-config"]) == 0
    out = capsys.readouterr().out
    assert tomllib.loads(out) == {}
    for name in sources.known_options(option_classes()):
        assert (f"\n# {name} =" in out) == (name not in sources.NOT_IN_FILES)


def test_a_dump_holds_choices_alone_so_that_defaults_still_follow_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLE_TRANSFER_TV_WEIGHT", "3")
    Path("o.toml").write_text("iterations = 7\n")
    text = parse([*PICTURES, "--config", "o.toml", "--style-loss", "gram"]).dump()
    assert tomllib.loads(text) == {"tv_weight": 3.0, "iterations": 7, "style_loss": "gram"}
    assert '# content_error = "scaled"\n' in text and "# style_error =\n" in text and "# grid = false\n" in text
    Path("o.toml").write_text(text.replace('style_loss = "gram"', 'style_loss = "wasserstein"'))
    settings = parsed("--config", "o.toml")[0].resolve()
    assert (settings.style_loss, settings.content_error, settings.tv_loss) == ("wasserstein", "mean", "nine-point")


def test_every_value_in_a_dump_can_be_uncommented() -> None:
    text = parse([*PICTURES, "--preset", "neuralart"]).dump()
    lines = [line.removeprefix("# ") for line in text.splitlines() if " = " in line and not line.endswith(" =")]
    lines = [line for line in lines if line.split(" = ")[0] in sources.known_options(option_classes())]
    Path("o.toml").write_text("\n".join(lines))
    assert parsed("--config", "o.toml")[0].resolve() == Settings(preset="neuralart").resolve()


def test_variables_of_kubernetes_are_not_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is named style-transfer sets these in every container."""
    monkeypatch.setenv("STYLE_TRANSFER_SERVICE_HOST", "10.0.0.11")
    monkeypatch.setenv("STYLE_TRANSFER_SERVICE_PORT_HTTP", "8080")
    monkeypatch.setenv("STYLE_TRANSFER_PORT", "tcp://10.0.0.11:8080")
    monkeypatch.setenv("STYLE_TRANSFER_PORT_8080_TCP_ADDR", "10.0.0.11")
    parse(["c.png", "s.png"])
    monkeypatch.setenv("STYLE_TRANSFER_SERVICE_HOSTS", "x")
    with pytest.raises(SettingsError, match="STYLE_TRANSFER_SERVICE_HOSTS"):
        parse(["c.png", "s.png"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_files_of_powershell_are_read(encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "own.toml").write_bytes((mark + "end_scale = 300\n").encode(encoding))
    assert parse(["c.png", "s.png", "--config", str(tmp_path / "own.toml")]).settings.end_scale == "300"


def test_the_home_folder_in_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "own.toml").write_text('output = "~/out.png"\ncontent_mask = ["~/a.png", "b.png"]\n')
    monkeypatch.setenv("STYLE_TRANSFER_CONFIG", "~/own.toml")
    monkeypatch.setenv("STYLE_TRANSFER_WEIGHTS", "~/net.pth")
    command = parse(["c.png", "s.png"])
    assert command.options.output == str(tmp_path / "out.png")
    assert command.options.content_mask == (str(tmp_path / "a.png"), "b.png")
    assert command.settings.weights == str(tmp_path / "net.pth")


def test_the_command_that_is_recorded_has_the_options_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("STYLE_WEIGHTS", "1 2.5"), ("NORMALIZE_GRADIENTS", "no"), ("END_SCALE", "300+"), ("POOLING", "l2")):
        monkeypatch.setenv(f"STYLE_TRANSFER_{name}", text)
    given = ["c.png", "s.png", "--pooling", "max"]
    command = parse(given)
    assert command.argv[:4] == tuple(given)
    for name in ("STYLE_WEIGHTS", "NORMALIZE_GRADIENTS", "END_SCALE", "POOLING"):
        monkeypatch.delenv(f"STYLE_TRANSFER_{name}")
    assert parse(command.argv).settings == command.settings
    assert sorted(command.argv[4:]) == sorted("--style-weights 1.0 2.5 --no-normalize-gradients --end-scale 300+".split())
