"""The table of faults, row by row: those that are looked at here, where the others are, and which cannot be here and why."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support import tiny
from support.tiny import TINY
from torch import Tensor

from style_transfer import StyleTransfer, cli, networks
from style_transfer.cli.options import Options
from style_transfer.compute import devices
from style_transfer.engine.iterate import Iterate
from style_transfer.errors import DeviceError, ImageError
from style_transfer.evaluation.objective import Evaluation, Objective
from style_transfer.pictures import images
from style_transfer.settings.settings import Settings, flag_name, options_of

TESTS = Path(__file__).parents[1]

ELSEWHERE = {
    3: "test_unreadable_file_is_refused",
    7: "test_truncated_files_are_refused",
    8: "test_truncated_files_are_refused",
    9: "test_flipped_png_data_is_refused",
    10: "test_truncated_files_are_refused",
    11: "test_flipped_bytes_are_refused_or_read_but_nothing_else",
    12: "test_bomb_is_refused_from_the_header",
    13: "test_tiff_page_loop_is_refused",  # refused, where the table would read page 0: such a file is no honest one
    14: "test_bomb_is_refused_from_the_header",
    15: "test_pillows_own_limit_does_not_stop_an_honest_scan",
    16: "test_zero_size_is_refused",
    19: "test_alpha_is_ignored_with_a_note",
    20: "test_alpha_is_ignored_with_a_note",
    21: "test_alpha_is_ignored_with_a_note",
    22: "test_sixteen_bit_gray_keeps_its_tone",
    23: "test_cmyk_jpeg_is_not_inverted",
    24: "test_tiff_layouts",
    25: "test_hdr_is_clipped_with_a_note_and_nan_refused",
    26: "test_hdr_is_clipped_with_a_note_and_nan_refused",
    27: "test_every_orientation_comes_upright",
    28: "test_impossible_orientation_is_a_note",
    29: "test_broken_or_foreign_profile_is_a_note",
    30: "test_broken_or_foreign_profile_is_a_note",
    31: "test_profile_that_unpacks_without_end_is_a_note",
    32: "test_animation_uses_its_first_frame",
    33: "test_multi_page_tiff_uses_its_first_page",
    34: "test_other_files_are_named_for_what_they_are",
    36: "test_other_files_are_named_for_what_they_are",
    37: "test_what_is_no_file_is_refused",
    41: "test_output_linked_to_an_input_exits_2",
    44: "test_wrong_options_exit_2",
    45: "test_what_is_wrong_in_a_file_is_one_line_with_a_way_out",
    46: "test_what_is_wrong_in_a_file_is_one_line_with_a_way_out",
    47: "test_wrong_options_exit_2",
    48: "test_outputs_that_settings_forbid",
    50: "test_wrong_options_exit_2",
    52: "test_output_that_cannot_be_written_exits_6",
    53: "test_row_53_a_disk_that_is_full_at_the_end_leaves_everything_to_go_on_from",
    54: "test_rows_54_52_devices_and_folders_are_no_output",
    55: "test_row_55_kills_at_random_moments_lose_nothing",
    56: "test_big_tiff_is_chosen_by_the_size_of_the_raw_data",
    57: "test_row_57_two_runs_on_one_output_the_second_is_refused",
    58: "test_row_58_the_temporary_folder_is_not_used_for_the_output",
    59: "test_row_59_leftovers_of_a_crash_are_cleaned",
    60: "test_rows_60_62_a_signal_leaves_picture_and_checkpoint",
    61: "test_row_61_a_second_signal_ends_the_run_at_once_even_in_the_middle_of_a_long_computation",
    62: "test_rows_60_62_a_signal_leaves_picture_and_checkpoint",
    63: "test_a_pipe_that_closes_early_ends_nothing",
    64: "test_memory_that_does_not_suffice_exits_5_and_keeps_the_last_good_scale",
    65: "test_memory_that_is_never_enough_ends_with_an_error",
    67: "test_row_67_numbers_that_are_never_finite_end_with_exit_7_and_the_last_good_picture",
    68: "test_row_68_flat_pictures_stay_finite",
    69: "test_sums_of_many_features_are_float32",
    76: "test_rows_76_77_a_damaged_checkpoint_gives_way_to_the_one_before",
    77: "test_rows_76_77_a_damaged_checkpoint_gives_way_to_the_one_before",
    78: "test_rows_78_80_checkpoints_of_the_future_and_pickles_are_refused",
    79: "test_row_79_another_command_is_refused_and_the_checkpoint_stays",
    80: "test_rows_78_80_checkpoints_of_the_future_and_pickles_are_refused",
    81: "test_row_81_a_resumed_command_ends_in_the_same_bits",
    82: "test_download_failure_names_address_place_and_option",
    83: "test_bad_weights_are_refused",
    84: "test_bad_weights_are_refused",
    85: "test_a_pickle_that_runs_code_is_refused_and_not_run",
    86: "test_a_damaged_file_in_the_cache_is_found_by_its_hash",
    87: "test_bad_weights_are_refused",
    88: "test_bad_weights_are_refused",
    89: "test_bad_weights_are_refused",
    91: "test_hostile_caffemodels_are_refused_with_one_line",
    92: "test_a_damaged_file_in_the_cache_is_found_by_its_hash",  # the download itself is torch.hub's
    93: "test_a_cache_that_cannot_be_written_is_found",
    94: "test_only_names_of_this_machine_are_answered",
    95: "test_only_names_of_this_machine_are_answered",
    96: "test_other_origins_are_refused",
    97: "test_the_token_becomes_a_cookie",
    98: "test_there_are_no_other_paths",
    99: "test_slow_requests_are_cut_off",
    100: "test_a_client_that_does_not_read_costs_nothing",
    101: "test_there_is_a_limit_on_requests_and_connections",
    102: "test_nothing_else_can_be_sent",
    103: "test_tiles_that_do_not_exist_cost_nothing",
    104: "test_file_names_are_data",
    105: "test_ports_that_are_taken_give_way_to_the_next",
    106: "test_a_page_for_all_machines_needs_the_token_and_a_number",
    107: "test_a_handler_that_fails_is_told_and_harms_nobody",
}
"""Rows that are looked at in other files, by the name of the test."""

NOT_HERE = {
    49: "there is no option for the depth: the extension decides",
    51: "needs an accelerator: on a CPU the variable is not read",
    73: "nothing is compiled",
}
"""Rows that cannot be here, and why."""


def test_every_row_of_the_table_is_somewhere() -> None:
    tests = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    for row, name in ELSEWHERE.items():
        assert f"def {name}(" in tests, f"row {row}: there is no {name}"
    own = {int(row) for row in re.findall(r"def test_row_(\d+)_", Path(__file__).read_text())}
    assert not own & (set(ELSEWHERE) | set(NOT_HERE))
    assert own | set(ELSEWHERE) | set(NOT_HERE) == set(range(1, 108))


def command(content: str = "c.png", *more: str) -> list[str]:
    return [content, "s.png", "--weights", "w.safetensors", "-ms", "32", "-s", "46", "-ii", "3", "-i", "2", *more]


def fails(argv: Sequence[str], code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Check that a command ends with `code` and one line that holds `words`, and that an old output stays."""
    Path("out.png").write_bytes(b"old")
    tiny.fails(argv, code, capsys, *words)
    assert Path("out.png").read_bytes() == b"old"


def test_row_1_a_missing_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(command("none.png"), 3, capsys, "none.png: no such file")


def test_row_2_a_folder_as_a_picture(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder stands for the pictures in it; one without any, or where a single file is needed, is refused."""
    Path("empty").mkdir()
    fails(command("empty"), 3, capsys, "is a folder without pictures")
    fails([*command("c.png"), "--init", "empty"], 3, capsys, "is a folder")


def test_row_4_an_empty_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.png").touch()
    fails(command("x.png"), 3, capsys, "x.png: is empty")


def test_row_5_a_web_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.png").write_text("<!DOCTYPE html><html>sign in</html>")
    fails(command("x.png"), 3, capsys, "looks like HTML")


def test_row_6_a_git_lfs_pointer(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    fails(command("x.png"), 3, capsys, "Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize("side", [1, 2, 8])
def test_row_17_tiny_pictures(side: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny content is enlarged to the first scale; a tiny style is not, and the least size is told."""
    Image.new("RGB", (side, side), "red").save("x.png")
    assert cli.main(command("x.png")) == 0
    fails(["c.png", "x.png", *command()[2:]], 3, capsys, f"style picture 1 is {side}x{side}", "at least 16 pixels")


def test_row_18_a_long_strip(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (20000, 3), "red").save("x.png")
    fails(command("x.png"), 3, capsys, "at least 16 pixels each way", "raise --min-scale")


def test_row_35_a_picture_of_ten_gigabytes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sparse BigTIFF of honest size is stopped by the limit, and the way out is told."""
    with tifffile.TiffWriter("x.tif", bigtiff=True) as file:
        file.write(np.zeros((64, 64, 3), np.uint16), photometric="rgb")
    data = bytearray(Path("x.tif").read_bytes())
    for tag in (256, 257):
        at = data.index(tag.to_bytes(2, "little"), 16)
        data[at + 12 : at + 20] = (40000).to_bytes(8, "little")
    Path("x.tif").write_bytes(data)
    os.truncate("x.tif", 40000 * 40000 * 6 + 4096)
    fails(command("x.tif"), 3, capsys, "40000 x 40000", "--max-pixels 1600000000")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_row_38_a_file_that_is_cut_while_it_is_read(suffix: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / f"x{suffix}"
    images.save(path, np.random.default_rng(0).random((200, 200, 3), np.float32))
    recognize = images._recognize

    def cut(head: bytes, *more: str) -> object:
        os.truncate(path, 5000)
        return recognize(head, *more)

    monkeypatch.setattr(images, "_recognize", cut)
    with pytest.raises(ImageError, match=r"x\.\w+: "):
        images.load(path)


@pytest.mark.parametrize(
    "name",
    [
        "a\nb.png",
        "-x.png",
        "\x1b[31mred.png",
        os.fsdecode(b"\xff\xfe.png"),
        "CON.png",
        "x" * 240 + ".png",
        "ü 漢 🎨.png",
        "a;b$(c).png",
    ],
)
def test_row_39_odd_names(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.png").rename("style.png")
    Path("c.png").rename(name)
    argv = [f"./{name}", "style.png", *command()[2:], "-o", f"./o{name[-200:]}"]
    assert cli.main(argv) == 0
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert images.load(f"o{name[-200:]}").pixels.shape == (37, 46, 3)
    capsys.readouterr()
    assert cli.main([f"./{name}x", *argv[1:]]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err


def test_row_40_a_loop_of_links(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.png").symlink_to("y.png")
    Path("y.png").symlink_to("x.png")
    fails(command("x.png"), 3, capsys, "x.png: cannot be read")
    fails(command("c.png", "-o", "x.png"), 6, capsys, "x.png: cannot be written")


def test_row_42_no_style_and_a_hundred(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(["c.png"], 2, capsys, "style")
    assert cli.main(["c.png", *["s.png"] * 100, *command()[2:]]) == 0


NUMBERS = [(cls, name, about) for cls in (Settings, Options) for name, (_, about) in options_of(cls).items()
           if about.kind in (int, float) and not about.flag]  # fmt: skip


@pytest.mark.parametrize(("cls", "name", "about"), NUMBERS, ids=[name for _, name, _ in NUMBERS])
@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "-1", "1e99", "9" * 400, "x", ""])
def test_row_43_numbers_that_are_none(cls: type, name: str, about: object, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    if word == "1e99" and name in ("style_weights", "content_layer_weights", "style_layer_weights"):
        pytest.skip("factors are normalised, and may have any size")
    assert cli.main(["c.png", "s.png", f"{flag_name(name)}={word}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and flag_name(name) in err


def test_row_66_memory_of_the_host_runs_out(place: Path) -> None:
    code = (
        "import sys, resource\nfrom support import tiny\n"
        "from style_transfer import cli, networks, api\n"
        "networks.SPECS['vgg19'] = tiny.TINY\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    Image.new("RGB", (9000, 9000), "red").save("x.jpg")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *command("x.jpg")], env=environment, capture_output=True, text=True)
    assert done.returncode == 5, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "memory" in done.stderr


def test_row_70_a_device_that_fails_for_good(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate, calls = Objective.evaluate, []

    def fail(self: Objective, image: Tensor, *more: object) -> Evaluation:
        calls.append(1)
        if len(calls) == 5:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")
        return evaluate(self, image, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "evaluate", fail)
    assert cli.main(command()) == 8
    err = capsys.readouterr().err.splitlines()[-1]
    assert "illegal memory access" in err and "checkpoint" in err and len(calls) == 5
    monkeypatch.undo()
    monkeypatch.chdir(place)
    monkeypatch.setitem(networks.SPECS, "vgg19", TINY)
    assert cli.main(command("c.png", "--resume")) == 0


def accelerator(monkeypatch: pytest.MonkeyPatch, error: object) -> None:
    """Make a machine with an accelerator whose gradients have an error, or raise one."""

    def gradient_error(device: torch.device, *_: object) -> object:
        if isinstance(error, Exception):
            raise error
        return error

    monkeypatch.setattr(devices, "available", lambda: ("mps:0", "cpu"))
    monkeypatch.setattr(devices, "gradient_error", gradient_error)


def test_row_71_a_device_with_wrong_gradients_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator(monkeypatch, 0.5)
    chosen, (note,) = devices.resolve(None)
    assert [device.type for device in chosen] == ["cpu"] and "mps:0 computes wrong gradients" in note
    with pytest.raises(DeviceError, match="wrong gradients"):
        devices.resolve(["mps:0"])
    accelerator(monkeypatch, 1e-6)
    assert devices.resolve(None)[0][0].type == "mps"


def test_row_72_a_device_without_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator(monkeypatch, NotImplementedError("The operator 'aten::x' is not there for MPS"))
    chosen, (note,) = devices.resolve(None)
    assert [device.type for device in chosen] == ["cpu"] and "cannot be used (The operator 'aten::x'" in note


def test_row_74_a_callback_that_raises(place: Path) -> None:
    """The exception is the caller's own, and the picture so far can be had."""
    style = StyleTransfer(devices=["cpu"], weights="w.safetensors")

    def callback(iterate: Iterate) -> None:
        if iterate.step == 2:
            raise ZeroDivisionError("mine")

    picture = Image.open("c.png")
    about = {"min_scale": 32, "end_scale": 32, "initial_iterations": 4}
    with pytest.raises(ZeroDivisionError, match="mine"):
        style.stylize(picture, picture, callback=callback, **about)
    assert style.get_image().size == (32, 26)
    assert style.stylize(picture, picture, **about).size == (32, 26)


@pytest.mark.parametrize(
    "environment", [{"COLUMNS": "0"}, {"PYTHONIOENCODING": "cp1252"}, {"TERM": "dumb", "LC_ALL": "C", "HOME": "/none"}]
)
def test_row_75_odd_terminals(environment: dict[str, str], place: Path) -> None:
    Path("c.png").rename("漢.png")
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "prog.py", *command("漢.png", "-o", "漢o.png")]
    done = subprocess.run(argv, env=os.environ | paths | environment, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert images.load("漢o.png").pixels.shape == (37, 46, 3)


def test_row_90_a_zip_bomb_as_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zipfile

    with (
        zipfile.ZipFile("x.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("x/data/0", "w", force_zip64=True) as f,
    ):
        for _ in range(5):
            f.write(bytes(2**20))
    forged = Path("x.pth").read_bytes().replace((5 * 2**20).to_bytes(4, "little"), (2**32 - 2).to_bytes(4, "little"))
    Path("x.pth").write_bytes(forged)
    fails(["c.png", "s.png", "--weights", "x.pth"], 4, capsys, "x.pth")


def test_sockets_are_no_pictures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("x.png")
        fails(command("x.png"), 3, capsys, "is not a regular file")
