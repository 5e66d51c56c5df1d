"""Several processes give the picture that one gives, and an error or the end of one of them is known to all."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.command_line import command
from support.ranks import FORKS, PROGRAM, TORCHRUN, launch

from style_transfer import pictures as images
from style_transfer.compute import distributed
from style_transfer.compute.distributed import Group, Heartbeat, backend_for, overlap
from style_transfer.errors import SettingsError

WORKER = """
import json, sys, torch
from support import tiny
from support.settings import resolved
from style_transfer.compute.distributed import LOCAL, joined
from style_transfer.engine.loop import stylize
from style_transfer.networks.forward import Network

CASES = [
    dict(),
    dict(style_loss="wasserstein", pooling="max", tile="32"),
    dict(optimizer="lbfgs", pooling="l2"),
    dict(init="uniform", tile="48", style_weights=(1.0, 3.0)),
    dict(style_loss="relaxed-emd", content_loss="self-similarity", init="uniform", tile="48"),
    dict(style_loss="neighbors", band_weight=2.0, init="uniform", tile="48"),
]
found = []
with joined(lambda _: torch.device("cpu")) as group:
    for case in CASES:
        settings = resolved(min_scale=72, end_scale="144", initial_iterations=3, iterations=2, **case)
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
    for loss, expected, distance, rows in printed(size, WORKER, tmp_path, 6 * 7):
        assert loss == pytest.approx(expected, rel=1e-5)
        assert distance < 1e-3
        assert rows < 144 // size + 32  # no process holds the whole


def printed(size: int, code: str, folder: Path, count: int) -> list[list[float]]:
    """Return the list of so many entries that a program prints as JSON when it runs in several processes."""
    (folder / "worker.py").write_text(code)
    done = launch(size, "worker.py", folder=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found) == count
    return found


RESUMER = """
import json, sys, torch
from support import tiny
from pathlib import Path
from style_transfer.engine import checkpoint_file as checkpoint
from style_transfer.engine.checkpointer import Checkpointer
from support.settings import resolved
from style_transfer.compute.distributed import LOCAL, joined
from style_transfer.engine.loop import stylize
from style_transfer.networks.forward import Network

found = []
with joined(lambda _: torch.device("cpu")) as group:
    network = Network(tiny.TINY, tiny.tiny_weights(), dtype=torch.float32)
    content, style = tiny.picture(1, 144, 101, torch.float32), tiny.picture(2, 80, 70, torch.float32)
    for about in (dict(), dict(optimizer="lbfgs")):
        settings = resolved(min_scale=72, end_scale="102", initial_iterations=4, iterations=5, **about)
        go = lambda **more: stylize(content, [style], settings, networks=[network], group=group, **more)
        straight = [iterate.image() for iterate in go()]
        for stop, beside in ((2, True), (4, False), (7, True)):
            checkpointer = Checkpointer(Path("kept"), 0)
            for number, iterate in enumerate(go(), 1):
                if number == stop:
                    assert iterate.finite()
                    checkpointer.write(iterate.state(), group, 10**9 if beside else 0)
                    break
            checkpointer.close()
            state = None
            if group.rank == 0:
                state = checkpoint.load("kept")
                alone = [i.image() for i in stylize(content, [style], settings, networks=[network], resume=state)]
            resumed = [iterate.image() for iterate in go(resume=state)]
            if group.rank == 0:
                same = len(resumed) == len(straight) - stop
                same = same and all(torch.equal(a, b) for a, b in zip(resumed, straight[stop:], strict=True))
                found.append((same, float((alone[-1] - straight[-1]).abs().mean())))
    if group.rank == 0:
        print(json.dumps(found))
"""


def test_ranks_resume_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    """In the middle of scales and between them; and one process resumes what several kept."""
    for same, distance in printed(2, RESUMER, tmp_path, 6):
        assert same and distance < 1e-3


REQUESTER = """
import json, torch
from support import tiny
from support.settings import resolved
from style_transfer.compute.distributed import Request, joined
from style_transfer.engine.control import Control
from style_transfer.engine.loop import stylize
from style_transfer.networks.forward import Network

with joined(lambda _: torch.device("cpu")) as group:
    network, control, seen = Network(tiny.TINY, tiny.tiny_weights()), Control(), []
    content, style = tiny.picture(1, 96, 80, torch.float32), tiny.picture(2, 80, 70, torch.float32)
    settings = resolved(min_scale=64, end_scale="91", initial_iterations=9, iterations=9)
    for iterate in stylize(content, [style], settings, networks=[network], group=group, control=control):
        seen.append((iterate.index, iterate.step))
        if group.rank and iterate.step == 2:
            control.request(Request.FINISH if iterate.index else Request.FINISH_SCALE)
    assert group.all_reduce_counts([len(seen)]) == [2 * len(seen)]
    if group.rank == 0:
        print(json.dumps(seen))
"""


def test_a_request_to_any_rank_reaches_all_with_the_next_step(tmp_path: Path) -> None:
    assert printed(2, REQUESTER, tmp_path, 6) == [[0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3]]


def test_a_group_of_one_process_returns_its_own_rows() -> None:
    x = torch.arange(24.0).reshape(1, 1, 6, 4)
    group = Group()
    assert torch.equal(group.exchange_rows(x, [(0, 6)], [(0, 6)]), x)
    assert torch.equal(group.reduce_rows(x, [(0, 6)], [(0, 6)]), x)
    assert group.all_reduce_counts([1, 2]) == [1, 2]
    assert group.broadcast("x") == "x"


def test_overlap_is_the_common_rows_of_two_ranges() -> None:
    assert overlap((0, 5), (3, 9)) == (3, 5)
    assert overlap((0, 3), (3, 9)) is None
    assert overlap((4, 4), (0, 9)) is None


def run(place: Path, size: int, *more: str, start: list[str] = FORKS, **variables: str) -> subprocess.CompletedProcess[str]:
    """Make a run of two scales, up to 91x73, in several processes."""
    (place / "prog.py").write_text(PROGRAM)
    options = ["-ms", "64", "-s", "91", "-ii", "4", "-i", "300", *more]
    return launch(size, "prog.py", *command(*options), folder=place, start=start, **variables)


def test_the_program_under_torchrun_writes_one_picture(place: Path) -> None:
    done = run(place, 2, "-i", "3", "--json", start=TORCHRUN)
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["iterate"] * 7 + ["done"]
    assert images.load("out.png").pixels.shape == (73, 91, 3)
    recipe = json.loads(Path("out.png.json").read_text())
    assert recipe["finished"] and recipe["devices"] == ["cpu", "cpu"]


def test_the_backend_follows_from_the_devices_and_machines() -> None:
    assert backend_for(["cpu of a", "cpu of a", "cpu of b"]) == "gloo"
    assert backend_for(["cuda:0 of a", "cuda:1 of a", "cuda:0 of b"]) == "nccl"
    for places in (["cuda:0 of a", "cuda:0 of a"], ["cuda:0 of a", "cpu of a"], ["xpu:0 of a", "xpu:1 of a"]):
        with pytest.raises(SettingsError, match="need one CUDA device each, or all of them the CPU, not .*of a"):
            backend_for(places)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--devices", "cpu", "tpu:9"), "--devices 'tpu:9' is not available"),
        (("--init", "empty.png"), "empty.png"),
    ],
    ids=["device", "picture"],
)
def test_an_error_ends_all_ranks_with_one_line(more: tuple[str, ...], message: str, place: Path) -> None:
    (place / "empty.png").touch()
    done = run(place, 2, *more)
    assert done.returncode != 0
    assert done.stderr.count(f"style_transfer: {message}") == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_rank_that_dies_ends_the_run_and_the_saved_picture_stays(place: Path) -> None:
    done = run(place, 3, DIES="1 1 5")
    assert done.returncode != 0
    assert "style_transfer: rank 1 of 3 died; rank 0 exits" in done.stderr, done.stderr[-3000:]
    assert images.load("out.png").pixels.shape == (51, 64, 3)
    assert json.loads(Path("out.png.json").read_text())["finished"] is False


def test_a_rank_that_hangs_ends_the_run(place: Path) -> None:
    """SIGSTOP: no connection breaks, and the other waits in a call that cannot be interrupted."""
    done = run(place, 2, DIES="1 1 5", SIGNAL=str(int(signal.SIGSTOP)), SILENCE="6")
    assert "style_transfer: rank 1 of 2 died, silent for 6 s; rank 0 exits" in done.stderr, done.stderr[-3000:]
    assert images.load("out.png").pixels.shape == (51, 64, 3)


def test_a_signal_to_any_rank_stops_all_and_keeps_the_picture_so_far(place: Path) -> None:
    done = run(place, 2, DIES="1 1 5", SIGNAL=str(int(signal.SIGTERM)))
    assert "stopped at 91x73" in done.stderr, done.stderr[-2000:]
    recipe = json.loads(Path("out.png.json").read_text())
    assert recipe["width"] == 91 and not recipe["finished"] and recipe["step"] < 20


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "falls silent"])
def test_a_rank_that_leaves_is_not_missed_and_one_that_falls_silent_is(leaves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(distributed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(distributed, "BEAT_SECONDS", 0.01)
    lost: list[list[int]] = []
    store = dist.HashStore()
    watching, other = (Heartbeat(store, rank, 2, lost.append, silence=4.0) for rank in (0, 1))

    def wait_for_beats() -> None:
        """Wait until `watching` has looked at the other twice, or has ended because the other is lost."""
        seen = watching.store.get("0")
        while not lost and int(watching.store.get("0")) < int(seen) + 3:
            time.sleep(0.01)

    wait_for_beats()
    if leaves:
        other.close()
    else:
        other._done.set()
        other._thread.join()
    for _ in range(5):
        now[0] += 3.0
        wait_for_beats()
    assert lost == ([] if leaves else [[1]])
    watching.close()
