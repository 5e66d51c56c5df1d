"""The command line as its users meet it, in this process with a tiny network, and as a program where that matters."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.command_line import SMALL, command
from support.tiny import fails

from style_transfer import cli, networks
from style_transfer.cli.options import Options, parse
from style_transfer.cli.output import LIBRARIES
from style_transfer.cli.painting import Painting
from style_transfer.engine import loop as engine
from style_transfer.engine.iterate import Iterate
from style_transfer.errors import DeviceError, OutputError, SettingsError
from style_transfer.networks import weights
from style_transfer.pictures import images
from style_transfer.settings.settings import Settings


def test_without_a_network_the_built_in_one_works_and_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(url: str) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place / "cache"))
    monkeypatch.setattr(weights, "_knock", offline)
    argv = ["c.png", "s.png", *SMALL, "-o", "o.png"]
    assert cli.main(argv) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    for word in ("built-in compact network", "Name or service not known", "--weights", "https://", str(place / "cache")):
        assert word in note
    recipe = json.loads((place / "o.png.json").read_text())
    assert recipe["network"]["name"] == "compact"
    assert recipe["network"]["weights"].startswith("built-in sha256:")
    assert note.endswith(recipe["network"]["note"])
    assert str(place) not in images.read_metadata("o.png")["Recipe"]  # which goes where the picture goes
    fails([*argv, "--network", "vgg19"], 4, capsys, "could not be fetched", "Name or service not known")
    assert cli.main([*argv, "--network", "compact"]) == 0
    assert "note" not in capsys.readouterr().err
    assert json.loads((place / "o.png.json").read_text())["network"]["note"] is None
    fails([*argv, "--network", "compact", "--style-layers", "relu3_4"], 2, capsys, "compact has no layer 'relu3_4'")


def test_a_command_of_style_transfer_pytorch_parses_unchanged() -> None:
    content, styles, settings, options = parse(
        "c.jpg a.jpg b.jpg -o x.tif -sw 1 2 --devices cuda:0 cuda:1 -r 3 -cw 0.02 -tw 1.5 --optimizer lbfgs -ms 64 -s 1024+ "
        "-i 100 -ii 200 --save-every 10 -ss 0.01 -ad 0.9 --init style_stats --style-scale-fac 1.5 --style-size 300 "
        "--pooling max --proof p.icc --web --host 0.0.0.0 --port 9000 --browser firefox".split()
    )
    assert (content, styles) == ("c.jpg", ["a.jpg", "b.jpg"])
    assert settings == Settings(
        style_weights=(1, 2), devices=("cuda:0", "cuda:1"), random_seed=3, content_weight=0.02, tv_weight=1.5, optimizer="lbfgs",
        min_scale=64, end_scale="1024+", iterations=100, initial_iterations=200, step_size=0.01, avg_decay=0.9,
        init="style_stats", style_scale_fac=1.5, style_size=300, pooling="max",
    )  # fmt: skip
    assert options == Options(
        output="x.tif", save_every=10, proof="p.icc", web=True, host="0.0.0.0", port=9000, browser="firefox"
    )


def test_styles_may_stand_after_options() -> None:
    for line in ("a.jpg -s 64 b.jpg c.jpg", "-o o.png a.jpg -s 64 b.jpg c.jpg", "a.jpg b.jpg -s 64 c.jpg"):
        content, styles, settings, _ = parse(line.split())
        assert (content, styles, settings.end_scale) == ("a.jpg", ["b.jpg", "c.jpg"], "64")
    with pytest.raises(SettingsError, match="unrecognized arguments: --sidez 3"):
        parse("a.jpg b.jpg --sidez 3".split())


def test_long_names_and_the_lone_browser_flag_parse() -> None:
    _, _, settings, options = parse(
        "c s --output o.png --style-weights 1 --random-seed 1 --content-weight 1 --tv-weight 1 --min-scale 9 --end-scale 99 "
        "--iterations 1 --initial-iterations 1 --step-size 1 --avg-decay 0 --browser".split()
    )
    assert (options.browser, settings.end_scale) == ("", "99")


def test_defaults_of_the_options() -> None:
    _, _, settings, options = parse(["c", "s"])
    assert settings == Settings()
    assert options == Options()
    assert (options.output, options.save_every, options.host, options.port) == ("out.png", 50, "127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("name", "dtype"), [("o.tif", np.uint16), ("o.png", np.uint16), ("o.jpg", np.uint8), ("o.webp", np.uint8)]
)
def test_a_run_writes_the_picture_its_recipe_and_says_where(
    name: str, dtype: type, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command("-o", name, "--dpi", "300", "-r", "7")) == 0
    out, err = capsys.readouterr()
    assert out == f"{name}\n"
    assert "scale 2 of 2: 46x37, 3 steps" in err
    assert images.load(name).pixels.shape == (37, 46, 3)
    recipe = json.loads(Path(f"{name}.json").read_text())
    assert recipe["finished"] is True
    assert recipe["settings"]["random_seed"] == 7
    assert recipe["command"].startswith("style_transfer c.png s.png --weights")
    inside = json.loads(images.read_metadata(name)["Recipe"])
    assert inside["settings"] == recipe["settings"] and "command" not in inside
    assert inside["content"]["sha256"] == recipe["content"]["sha256"]
    assert sorted(p.name for p in place.iterdir()) == sorted(
        ["c.png", "s.png", "t.jpg", "prog.py", "w.safetensors", name, f"{name}.json"]
    )


def test_the_recipe_makes_the_same_picture_again(place: Path) -> None:
    assert cli.main(command("-o", "a.tif", "--init", "uniform", "-r", "9", "--quiet")) == 0
    settings = json.loads(Path("a.tif.json").read_text())["settings"]
    from style_transfer.api import to_pixels, to_tensor
    from style_transfer.engine.loop import stylize

    content, style = (to_tensor(images.load(p)) for p in ("c.png", "s.png"))
    *_, last = stylize(content, [style], Settings.from_dict(settings))
    again = images.quantize(to_pixels(last.image()), np.uint16)
    assert np.array_equal(images.quantize(images.load("a.tif").pixels, np.uint16), again)


def test_quiet_prints_the_path_alone(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from style_transfer.compute import devices

    assert cli.main(command("--quiet")) == 0
    assert capsys.readouterr() == ("out.png\n", "")
    monkeypatch.setattr(devices, "_fast", lambda device: "bf16")
    monkeypatch.setattr(devices, "available", lambda: ("cuda:0", "cpu"))
    monkeypatch.setattr(devices, "problem", lambda device: "is broken")
    assert cli.main(command()) == 0
    noisy = capsys.readouterr().err
    assert "works in bf16 on cpu" in noisy and "cuda:0 is broken" in noisy
    assert cli.main(command("--quiet")) == 0
    assert capsys.readouterr() == ("out.png\n", "")


def test_json_prints_each_iteration_and_the_end(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--json", "-o", "o.png")) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["iterate"] * 7 + ["done"]
    assert events[0]["loss"] == pytest.approx(sum(events[0]["parts"].values()), rel=1e-5)
    assert events[-1] == {"event": "done", "output": "o.png", "width": 46, "height": 37, "interrupted": False}


def test_saving_on_the_way(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    save = images.save

    def spy(path: Path, pixels: np.ndarray, **more: object) -> None:
        written.append(pixels.shape[:2])
        save(path, pixels, **more)

    monkeypatch.setattr(images, "save", spy)
    assert cli.main(command("--save-every", "2", "--quiet")) == 0
    assert written == [(26, 33)] * 2 + [(37, 46)] * 2  # steps 2 and 4; step 2 and the end
    written.clear()
    assert cli.main(command("--save-every", "0", "--quiet")) == 0
    assert written == [(26, 33), (37, 46)]


def test_an_init_file_and_several_styles(place: Path) -> None:
    assert cli.main(["c.png", "s.png", "t.jpg", "-sw", "2", "1", "--init", "t.jpg", *command("--quiet")[2:]]) == 0
    assert json.loads(Path("out.png.json").read_text())["init"]["name"] == "t.jpg"


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
        (["--devices", "cuda:99"], "'cuda:99' is not there"),
        (["--init", "grey"], "did you mean 'gray'"),
        (["--style-layers", "relu4-1"], "did you mean 'relu4_1'"),
        (["--pol", "3"], "--pol"),
        (["--dpi", "0"], "--dpi must be at least 0.1"),
        (["--port", "99999"], "--port"),
    ],
)
def test_wrong_options_exit_2(more: list[str], word: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(command(*more), 2, capsys, word)
    assert not Path("out.png").exists()


def test_no_arguments_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    fails([], 2, capsys, "content", "--help")


def test_output_linked_to_an_input_exits_2(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.link("c.png", "linked.png")
    fails(command("-o", "linked.png"), 2, capsys, "also an input")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("none.png", "none.png"),
        ("nothing", "folder without pictures"),
        ("empty.png", "empty"),
        ("page.png", "HTML"),
        ("cut.jpg", "cut.jpg"),
        ("tiny.png", "needs at least 16"),
    ],
)
def test_wrong_pictures_exit_3_before_weights_load(
    content: str, words: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("nothing").mkdir()
    Path("empty.png").write_bytes(b"")
    Path("page.png").write_text("<html><body>no</body></html>")
    Path("cut.jpg").write_bytes(Path("t.jpg").read_bytes()[:700])
    Image.new("RGB", (200, 1)).save("tiny.png")
    monkeypatch.setattr(networks, "load", lambda *a, **k: pytest.fail("the weights were loaded"))
    Path("out.png").write_bytes(b"old")
    fails([content, *command()[1:]], 3, capsys, words)
    fails(["c.png", content, *command()[2:]], 3, capsys)
    assert Path("out.png").read_bytes() == b"old"


def test_wrong_weights_exit_4(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.png").write_bytes(b"old")
    Path("w.safetensors").write_bytes(b"nothing")
    fails(command(), 4, capsys, "w.safetensors")
    fails([*command()[:3], "none.pth"], 4, capsys, "none.pth", "no such file")
    assert Path("out.png").read_bytes() == b"old"


def test_output_that_cannot_be_written_exits_6(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(command("-o", "no/such/folder.png"), 6, capsys, "no/such")
    Path("folder.png").mkdir()
    fails(command("-o", "folder.png"), 6, capsys, "folder.png")
    if os.geteuid() != 0:
        locked = Path("locked")
        locked.mkdir()
        locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
        fails(command("-o", "locked/x.png"), 6, capsys, "locked")


def test_control_characters_in_names_do_not_reach_the_terminal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(["a\x1b[31m\nb.png", "s.png"], 3, capsys, "a\\x1b[31m\\nb.png")


def test_ctrl_c_writes_the_picture_and_says_so(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from style_transfer.observers.console import TimeLeft

    update = TimeLeft.update

    def press(self: TimeLeft, index: int, step: int, seconds: float) -> float:
        if (index, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, index, step, seconds)

    monkeypatch.setattr(TimeLeft, "update", press)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(command("-o", "o.tif")) == 130
    out, err = capsys.readouterr()
    assert out == "o.tif\n"
    assert "stopped at 46x37, iteration 2 of 3; the picture so far is in o.tif" in err
    assert images.load("o.tif").pixels.shape == (37, 46, 3)
    assert json.loads(Path("o.tif.json").read_text())["finished"] is False
    assert signal.getsignal(signal.SIGINT) is before


def test_the_live_page_serves_the_picture_while_painting(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import urllib.request

    seen: dict[str, object] = {}

    def look() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and "url" not in seen:
            time.sleep(0.02)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        opener.open(str(seen["url"]), timeout=5).close()
        while time.monotonic() < deadline:
            try:
                with opener.open(str(seen["url"]).split("?")[0] + "image", timeout=5) as answer:
                    seen["image"] = answer.read()
                    return
            except OSError:
                time.sleep(0.05)

    def look_and_stop() -> None:
        try:
            look()
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    from style_transfer.observers.web import WebObserver

    start = WebObserver.start

    def started(self: WebObserver) -> str:
        seen["url"] = start(self)
        return str(seen["url"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebObserver, "start", started)
        thread = threading.Thread(target=look_and_stop)
        thread.start()
        argv = command("--web", "--port", "0")
        argv[argv.index("-ii") + 1] = "100000"
        assert cli.main(argv) == 130
        thread.join()
    assert isinstance(seen["image"], bytes) and seen["image"][:2] == b"\xff\xd8"
    assert "watch it at http://127.0.0.1:" in capsys.readouterr().err


def watch(monkeypatch: pytest.MonkeyPatch, view: Callable[[str, urllib.request.OpenerDirector], None]) -> threading.Thread:
    """Return a thread that views the live page of the next run: `view(base address, opener)`; any error ends the run."""
    from style_transfer.observers.web import WebObserver

    addresses: queue.Queue[str] = queue.Queue()
    start = WebObserver.start

    def started(self: WebObserver) -> str:
        addresses.put(start(self))
        return self.address

    def look() -> None:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        try:
            address = addresses.get(timeout=60)
            opener.open(address, timeout=10).close()
            view(address.split("?")[0], opener)
        except BaseException:
            os.kill(os.getpid(), signal.SIGINT)
            raise

    monkeypatch.setattr(WebObserver, "start", started)
    thread = threading.Thread(target=look)
    thread.start()
    return thread


def page_state(base: str, opener: urllib.request.OpenerDirector, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the page's state as soon as it is as wanted."""
    deadline = time.monotonic() + 60
    while True:
        with opener.open(base + "state.json", timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
        if holds(state):
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.02)


def press(base: str, opener: urllib.request.OpenerDirector, name: str) -> str:
    """Press a button of the page and return the answer."""
    with opener.open(urllib.request.Request(base + name, method="POST"), timeout=10) as answer:
        return str(json.load(answer)["answer"])


def test_the_live_page_steers_the_run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    steps: list[int] = []

    def view(base: str, opener: urllib.request.OpenerDirector) -> None:
        page_state(base, opener, lambda state: state.get("step", 0) >= 2)
        said.append(press(base, opener, "pause"))
        for _ in range(2):
            steps.append(page_state(base, opener, lambda state: state["phase"] == "paused")["step"])
            time.sleep(0.3)
        said.append(press(base, opener, "finish-scale"))
        page_state(base, opener, lambda state: state["index"] == 1 and state["phase"] == "paused")
        said.append(press(base, opener, "resume"))
        page_state(base, opener, lambda state: state["step"] >= 3)
        said.append(press(base, opener, "finish"))

    thread = watch(monkeypatch, view)
    argv = command("--web", "--port", "0", "-o", "o.png")
    argv[argv.index("-ii") + 1] = argv[argv.index("-i") + 1] = "100000"
    assert cli.main(argv) == 0
    thread.join()
    assert [text.split()[0] for text in said] == ["Paused", "Finished", "The", "Finished"], said
    assert steps[0] == steps[1] >= 2
    recipe = json.loads((place / "o.png.json").read_text())
    assert recipe["finished"] is False and recipe["skipped"] == [{"scale": 1, "after": steps[0]}]
    assert (recipe["width"], recipe["height"]) == (46, 37) and recipe["step"] >= 3
    out, err = capsys.readouterr()
    assert out == "o.png\n" and "finished at 46x37" in err

    def end(base: str, opener: urllib.request.OpenerDirector) -> None:
        page_state(base, opener, lambda state: state.get("step", 0) > recipe["step"])
        said.append(press(base, opener, "finish"))

    thread = watch(monkeypatch, end)
    assert cli.main([*argv, "--resume"]) == 0
    thread.join()
    assert json.loads((place / "o.png.json").read_text())["skipped"] == recipe["skipped"]


def test_a_page_for_other_machines_comes_with_a_warning(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--web", "--port", "0", "--host", "0.0.0.0")) == 0
    assert "can be reached from other machines" in capsys.readouterr().err


def test_finishing_the_last_scale_finishes_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def view(base: str, opener: urllib.request.OpenerDirector) -> None:
        page_state(base, opener, lambda state: state.get("index", 0) == 1)
        assert press(base, opener, "finish-scale").startswith("Finished this scale")

    thread = watch(monkeypatch, view)
    argv = command("--web", "--port", "0", "-o", "o.png")
    argv[argv.index("-i") + 1] = "100000"
    assert cli.main(argv) == 0
    thread.join()
    assert json.loads((place / "o.png.json").read_text())["skipped"][0]["scale"] == 2


def test_the_page_shows_why_a_run_failed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from style_transfer.observers.web import WebObserver

    reasons: list[str] = []
    monkeypatch.setattr(WebObserver, "fail", lambda self, reason: reasons.append(reason))

    def full(self: Painting, iterate: Iterate, *, finished: bool) -> None:
        raise OutputError("out.png: the disk is full")

    monkeypatch.setattr(Painting, "_write", full)
    assert cli.main(command("--web", "--port", "0")) == 6
    (reason,) = reasons
    assert reason.startswith("out.png: the disk is full; mend that and go on")


def test_the_python_api(place: Path) -> None:
    from style_transfer import StyleTransfer

    content, style = Image.open("c.png"), Image.open("s.png")
    seen = []
    st = StyleTransfer(devices=["cpu"], pooling="max", weights="w.safetensors")
    with pytest.raises(SettingsError, match="call stylize first"):
        st.get_image()
    about = {"min_scale": 32, "end_scale": 46, "initial_iterations": 3, "iterations": 2}
    result = st.stylize(content, [style, style], style_weights=[1, 3], callback=seen.append, **about)
    assert (result.size, result.mode, len(seen)) == ((46, 37), "RGB", 5)
    assert st.get_image("np_uint16").dtype == np.uint16
    assert st.get_image_tensor().shape == (3, 37, 46)
    assert abs(np.asarray(result) / 255 - st.get_image("np_uint16") / 65535).max() < 0.5 / 255 + 1e-6
    st.stylize(content, [style], init=style, **about)
    network = st._networks[0]
    precisions = []
    for more in ({"precision": "fp32"}, {"precision": "fp32", "end_scale": 40}, {"precision": "bf16"}):
        st.stylize(content, [style], **about | more)
        precisions.append((st._networks[0] is network, st._networks[0].precision))
        network = st._networks[0]
    assert precisions == [(False, "fp32"), (True, "fp32"), (False, "bf16")]
    with pytest.raises(DeviceError):
        st.stylize(content, [style], **about | {"precision": "tf32"})
    assert st.stylize(content, [style], **about | {"precision": "bf16"}).size == (46, 37)
    for wrong in ({"iterations": 0}, {"pooling": "max"}, {"contentweight": 1}, {"init": "file.png"}):
        with pytest.raises(SettingsError):
            st.stylize(content, [style], **wrong)
    with pytest.raises(SettingsError, match="np_uint16"):
        st.get_image("uint8")


def program(*argv: str) -> list[str]:
    """Return the command that runs the program with the tiny network in VGG-19's place."""
    code = """if True:
        import sys
        from support import tiny
        from style_transfer import cli, networks
        networks.SPECS["vgg19"] = tiny.TINY
        sys.exit(cli.main(sys.argv[1:]))"""
    return [sys.executable, "-c", code, *argv]


def environment() -> dict[str, str]:
    here = Path(__file__).parents[1]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux")
def test_idle_threads_soon_sleep_unless_the_user_says_otherwise() -> None:
    plain = {key: value for key, value in environment().items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    for chosen, expected in (({}, "'10000'"), ({"GOMP_SPINCOUNT": "77"}, "'77'"), ({"OMP_WAIT_POLICY": "passive"}, "'0'")):
        variables = plain | chosen | {"OMP_DISPLAY_ENV": "verbose"}
        done = subprocess.run(
            [sys.executable, "-m", "style_transfer", "--doctor"], capture_output=True, text=True, env=variables, check=False
        )
        assert f"GOMP_SPINCOUNT = {expected}" in done.stderr


def test_a_pipe_that_closes_early_ends_nothing(place: Path) -> None:
    line = " ".join(["exec", *("'" + w.replace("'", "'\\''") + "'" for w in program(*command("--json")))])
    done = subprocess.run(f"({line}) | head -n 1", shell=True, capture_output=True, text=True, env=environment(), check=True)
    assert done.stderr == "" or "Traceback" not in done.stderr
    assert json.loads(done.stdout)["event"] == "iterate"
    assert Path("out.png").exists()


def test_a_real_ctrl_c_leaves_a_whole_picture(place: Path) -> None:
    argv = command("-o", "o.tif", "--json")
    argv[argv.index("-ii") + 1] = "100000"
    running = subprocess.Popen(program(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert images.load("o.tif").pixels.shape == (26, 33, 3)


def test_torch_default_dtype_is_left_alone(place: Path) -> None:
    assert cli.main(command("--quiet")) == 0
    assert torch.get_default_dtype() == torch.float32


def test_a_sidecar_that_cannot_be_written_is_found_before_any_work(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "o.png").write_bytes(b"precious")
    (place / "o.png.json").mkdir()
    fails(command("-o", "o.png"), 6, capsys, "o.png.json", "is a folder")
    assert (place / "o.png").read_bytes() == b"precious"


def test_a_failed_save_on_the_way_does_not_end_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, calls = images.save, []

    def full_at_first(*args: object, **more: object) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise OutputError("o.png: cannot be written: No space left on device; free some space")
        save(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "save", full_at_first)
    assert cli.main(command("-o", "o.png", "--save-every", "2")) == 0
    err = capsys.readouterr().err
    assert err.count("No space left") == 2 and "goes on" in err
    assert json.loads((place / "o.png.json").read_text())["finished"] is True


def signals_at(monkeypatch: pytest.MonkeyPatch, when: Callable[[Iterate], bool], times: int) -> None:
    """Make the engine send SIGINT to this process so many times while it computes the iteration that `when` names."""
    original = engine.stylize

    def interrupted(*args: object, **more: object) -> Iterator[Iterate]:
        for iterate in original(*args, **more):  # type: ignore[arg-type]
            if when(iterate):
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.2)  # closer together they count as one
            yield iterate

    monkeypatch.setattr(engine, "stylize", interrupted)


def test_ctrl_c_in_the_last_iteration_is_a_finished_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals_at(monkeypatch, lambda iterate: iterate.ends_run, 1)
    assert cli.main(command("-o", "o.png")) == 0
    assert json.loads((place / "o.png.json").read_text())["finished"] is True


def test_a_second_ctrl_c_names_the_last_saved_picture(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signals_at(monkeypatch, lambda iterate: iterate.step == 3, 2)
    assert cli.main(command("-o", "o.png", "--save-every", "1")) == 130
    assert "o.png has the picture at 33x26" in capsys.readouterr().err
    (place / "o.png").unlink()
    signals_at(monkeypatch, lambda iterate: iterate.step == 1, 2)
    assert cli.main(command("-o", "o.png", "--save-every", "1")) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (place / "o.png").exists()


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_standard_streams_are_no_error(place: Path, closed: str) -> None:
    argv = ["bash", "-c", f'"$0" "$@" {closed}', *program(*command("-o", "o.png"))]
    assert subprocess.run(argv, env=environment()).returncode == 0
    assert (place / "o.png").exists()


def test_a_path_that_standard_output_cannot_encode_is_escaped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    assert cli.main(command("-o", "bild_ü.png")) == 0
    sys.stdout.flush()
    assert buffer.getvalue() == b"bild_\\xfc.png\n"


def test_the_recipe_has_threads_and_versions(place: Path) -> None:
    assert cli.main(command("-o", "o.png")) == 0
    recipe = json.loads((place / "o.png.json").read_text())
    assert recipe["threads"] == torch.get_num_threads()
    assert set(recipe["versions"]) == {"python", *LIBRARIES}


def test_replacing_a_picture_keeps_its_mode(place: Path) -> None:
    (place / "o.png").write_bytes(b"old")
    (place / "o.png").chmod(0o600)
    assert cli.main(command("-o", "o.png")) == 0
    assert stat.S_IMODE((place / "o.png").stat().st_mode) == 0o600


def test_a_dry_run_says_what_it_would_take_and_does_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("-o", "o.png", "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["size", "steps", "tiles", "memory", "time"]
    assert [line.split()[:3] for line in lines[1:3]] == [["33x26", "4", "1"], ["46x37", "3", "1"]]
    assert lines[-1].startswith("vgg19 on cpu; about 0:0") or lines[-1].startswith("tiny on cpu; about 0:0")
    assert not (place / "o.png").exists()


def test_tiles_are_announced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("-o", "o.png", "--tile", "16", "--devices", "cpu", "cpu")) == 0
    assert "46x37 is worked on in 9 + 6 tiles" in capsys.readouterr().err
    assert json.loads((place / "o.png.json").read_text())["devices"] == ["cpu", "cpu"]


def test_memory_that_does_not_suffice_exits_5_and_keeps_the_last_good_scale(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from style_transfer.evaluation import memory

    state = memory.state_bytes

    def huge_at_the_end(network: object, size: tuple[int, int], *more: object, **about: object) -> int:
        return 10**15 if size[1] == 46 else state(network, size, *more, **about)  # type: ignore[arg-type]

    monkeypatch.setattr(memory, "state_bytes", huge_at_the_end)
    assert cli.main(command("-o", "o.png")) == 5
    err = capsys.readouterr().err
    assert "46x37 needs" in err and "o.png has the picture at 33x26" in err
    assert images.load("o.png").pixels.shape == (26, 33, 3)


@pytest.mark.parametrize("flag", ["--help-presets", "--help-networks"])
def test_a_reader_that_goes_is_no_error(flag: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([sys.executable, "-m", "style_transfer", flag], stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
