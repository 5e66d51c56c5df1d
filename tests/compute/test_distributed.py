"""Several processes give the picture that one gives, whatever happens to one of them is known to all."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import save_file
from support import tiny
from support.ranks import ENVIRONMENT, PROGRAM, TORCHRUN

from style_transfer.compute import devices
from style_transfer.compute.distributed import Group, Pulse, backend_for, overlap
from style_transfer.errors import SettingsError
from style_transfer.pictures import images

WORKER = """
import json, sys, torch
from support import tiny
from style_transfer.settings.settings import Settings
from style_transfer.compute.distributed import LOCAL, joined
from style_transfer.engine.loop import stylize
from style_transfer.networks.graph import Network

CASES = [
    dict(),
    dict(style_loss="wasserstein", pooling="max", tile="32"),
    dict(optimizer="lbfgs", pooling="l2"),
    dict(init="uniform", tile="48", style_weights=(1.0, 3.0)),
]
found = []
with joined(lambda _: torch.device("cpu")) as group:
    for case in CASES:
        settings = Settings(min_scale=72, end_scale="144", initial_iterations=3, iterations=2, **case)
        network = Network(tiny.TINY, tiny.tiny_weights(), pooling=settings.pooling, dtype=torch.float64)
        content = tiny.picture(1, 144, 101)
        styles = [tiny.picture(2, 80, 70), tiny.picture(3, 50, 144)]
        run = []
        for iterate in stylize(content, styles, settings, networks=[network], group=group):
            image = iterate.image() if iterate.ends_scale else None
            rows = iterate.average.value().shape[2]
            run.append((float(iterate.loss), image, rows))
        if group.rank == 0 and group.size > 1:
            single = stylize(content, styles, settings, networks=[network])
            alone = [(float(i.loss), i.image() if i.ends_scale else None) for i in single]
            for (loss, image, rows), (expected, picture) in zip(run, alone, strict=True):
                distance = 0.0 if picture is None else float((image - picture).abs().mean())
                found.append((loss, expected, distance, rows))
        elif group.rank:
            assert all(image is None or image.shape[2] == 0 for _, image, _ in run)
    if group.rank == 0:
        print(json.dumps(found))
"""


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_give_the_picture_of_one_process(size: int, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    done = subprocess.run([*TORCHRUN, str(size), str(script)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found) == 4 * 7
    for loss, expected, distance, rows in found:
        assert loss == pytest.approx(expected, rel=1e-5)
        assert distance < 1e-3
        assert rows < 144 // size + 32  # no process holds the whole


RESUMER = """
import json, sys, torch
from support import tiny
from style_transfer.engine import checkpoint
from style_transfer.settings.settings import Settings
from style_transfer.compute.distributed import LOCAL, joined
from style_transfer.engine.loop import stylize
from style_transfer.networks.graph import Network

found = []
with joined(lambda _: torch.device("cpu")) as group:
    network = Network(tiny.TINY, tiny.tiny_weights(), dtype=torch.float32)
    content, style = tiny.picture(1, 144, 101, torch.float32), tiny.picture(2, 80, 70, torch.float32)
    for about in (dict(), dict(optimizer="lbfgs")):
        settings = Settings(min_scale=72, end_scale="102", initial_iterations=4, iterations=5, **about)
        go = lambda **more: stylize(content, [style], settings, networks=[network], group=group, **more)
        straight = [iterate.image() for iterate in go()]
        for stop, beside in ((2, True), (4, False), (7, True)):
            keeper = checkpoint.Keeper(checkpoint.Path(sys.argv[1]), 0)
            for number, iterate in enumerate(go(), 1):
                if number == stop:
                    assert iterate.finite()
                    keeper.keep(iterate.state(), group, 10**9 if beside else 0)
                    break
            keeper.close()
            state = None
            if group.rank == 0:
                state = checkpoint.load(sys.argv[1])
                alone = [i.image() for i in stylize(content, [style], settings, networks=[network], resume=state)]
            resumed = [iterate.image() for iterate in go(resume=state)]
            if group.rank == 0:
                same = len(resumed) == len(straight) - stop
                same = same and all(torch.equal(a, b) for a, b in zip(resumed, straight[stop:], strict=True))
                found.append((same, float((alone[-1] - straight[-1]).abs().mean())))
    if group.rank == 0:
        print(json.dumps(found))
"""


def test_ranks_go_on_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    """In the middle of scales and between them; and one process goes on from what several kept."""
    script = tmp_path / "worker.py"
    script.write_text(RESUMER)
    argv = [*TORCHRUN, "2", str(script), str(tmp_path / "kept")]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found) == 6
    for same, distance in found:
        assert same and distance < 1e-3


def test_one_process_alone_gets_its_own_rows() -> None:
    x = torch.arange(24.0).reshape(1, 1, 6, 4)
    group = Group()
    assert torch.equal(group.exchange(x, [(0, 6)], [(0, 6)]), x)
    assert torch.equal(group.fold(x, [(0, 6)], [(0, 6)]), x)
    assert group.counts([1, 2]) == [1, 2]
    assert group.broadcast("x") == "x"


def test_overlaps() -> None:
    assert overlap((0, 5), (3, 9)) == (3, 5)
    assert overlap((0, 3), (3, 9)) is None
    assert overlap((4, 4), (0, 9)) is None


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with two pictures and the program's command line on a tiny network as prog.py."""
    rng = np.random.default_rng(0)
    for name in ("c.png", "s.png"):
        Image.fromarray(rng.integers(0, 255, (48, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    save_file({key: value.float() for key, value in tiny.tiny_weights().items()}, tmp_path / "w.safetensors")
    (tmp_path / "prog.py").write_text(PROGRAM)
    return tmp_path


COMMAND = [
    "prog.py",
    "c.png",
    "s.png",
    "--weights",
    "w.safetensors",
    "-ms",
    "64",
    "-s",
    "91",
    "-ii",
    "4",
    "-i",
    "300",
    "-o",
    "o.png",
]


def launch(place: Path, size: int, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, str(size), *COMMAND, *more]
    return subprocess.run(command, cwd=place, env=ENVIRONMENT | variables, capture_output=True, text=True, timeout=300)


def test_the_program_under_torchrun_writes_one_picture(place: Path) -> None:
    done = launch(place, 2, "-i", "3", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["iterate"] * 7 + ["done"]
    assert images.load(place / "o.png").pixels.shape == (73, 91, 3)
    report = json.loads((place / "o.png.json").read_text())
    assert report["finished"] and report["devices"] == ["cpu", "cpu"]


def test_processes_take_turns_in_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.of_local_rank(None, 3) == devices.of_local_rank(["cpu"], 3) == torch.device("cpu")
    monkeypatch.setattr(devices, "available", lambda: ("cuda:0", "cuda:1", "cpu"))
    monkeypatch.setattr(devices, "problem", lambda device: None)
    assert [str(devices.of_local_rank(["cuda:1", "cuda"], rank)) for rank in range(3)] == ["cuda:1", "cuda:0", "cuda:1"]
    with pytest.raises(SettingsError, match="'cuda:9' is not there"):
        devices.of_local_rank(["cuda:9", "cpu"], 0)


def test_what_carries_tensors_between_processes() -> None:
    assert backend_for(["cpu of a", "cpu of a", "cpu of b"]) == "gloo"
    assert backend_for(["cuda:0 of a", "cuda:1 of a", "cuda:0 of b"]) == "nccl"
    for places in (["cuda:0 of a", "cuda:0 of a"], ["cuda:0 of a", "cpu of a"], ["xpu:0 of a", "xpu:1 of a"]):
        with pytest.raises(SettingsError, match="needs a CUDA device of its own, or all the CPU; here they have .*of a"):
            backend_for(places)


def test_a_device_that_is_not_there_ends_all_with_one_line(place: Path) -> None:
    done = launch(place, 2, "--devices", "cpu", "tpu:9")
    assert done.returncode != 0
    assert done.stderr.count("style_transfer: --devices 'tpu:9' is not there") == 1
    assert "Traceback" not in done.stderr.split("torch/distributed")[0]


def test_an_error_of_rank_0_ends_all_with_one_line(place: Path) -> None:
    done = launch(place, 2, "--style-weights", "1", "2")
    assert done.returncode != 0
    assert done.stderr.count("style_transfer: --style-weights has 2 values") == 1
    (place / "s.png").write_bytes(b"")
    done = launch(place, 2)
    assert done.stderr.count("style_transfer: s.png") == 1
    assert "Traceback" not in done.stderr.split("torch/distributed")[0]


def test_a_rank_that_dies_ends_the_run_and_what_was_saved_stays(place: Path) -> None:
    start = time.monotonic()
    done = launch(place, 3, DIES="1 1 5")
    assert time.monotonic() - start < 60
    assert done.returncode != 0
    assert "style_transfer: rank 1 of 3 died; rank 0 ends" in done.stderr, done.stderr[-3000:]
    assert images.load(place / "o.png").pixels.shape == (51, 64, 3)
    assert json.loads((place / "o.png.json").read_text())["finished"] is False


def test_a_rank_that_hangs_ends_the_run_within_a_minute(place: Path) -> None:
    """SIGSTOP: no connection breaks, and the others wait in calls that cannot be interrupted."""
    start = time.monotonic()
    done = launch(place, 2, DIES="1 1 5", SIGNAL=str(int(signal.SIGSTOP)))
    assert time.monotonic() - start < 90  # the start, a minute, and torchrun's own farewell
    assert "style_transfer: rank 1 of 2 died, silent for 40 s; rank 0 ends" in done.stderr, done.stderr[-3000:]
    assert images.load(place / "o.png").pixels.shape == (51, 64, 3)


def test_a_rank_that_leaves_is_not_missed() -> None:
    lost: list[list[int]] = []
    store = dist.HashStore()
    pulses = [Pulse(store, rank, 2, lost.append, silence=4.0) for rank in (0, 1)]
    time.sleep(2)
    pulses[1].close()
    time.sleep(6)
    assert not lost
    pulses[0].close()


def test_a_signal_to_any_rank_stops_all_with_the_picture_so_far(place: Path) -> None:
    done = launch(place, 2, DIES="1 1 5", SIGNAL=str(int(signal.SIGTERM)))
    assert "stopped at 91x73" in done.stderr, done.stderr[-2000:]
    report = json.loads((place / "o.png.json").read_text())
    assert report["width"] == 91 and not report["finished"] and report["step"] < 20
