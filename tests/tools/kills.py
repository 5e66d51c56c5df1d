"""Kill a run at random moments, go on from its checkpoint, and look at what is there each time.

    python tests/tools/kills.py FOLDER KILLS [SEED]

A run is a process that is forked from this one, so that it starts at once. Prints how many kills there were, in how many runs.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image
from safetensors.torch import save_file
from support import tiny

from style_transfer import cli, networks
from style_transfer.engine import checkpoint
from style_transfer.pictures import images

INTERVAL = 0.2
SLACK = 1.0
"""Seconds that writing may take beside the interval, on a machine with other work."""
PAUSE = 0.3
"""A step that takes longer, in seconds, shows that the machine was busy with something else, and does not count."""
COMMAND = (
    "c.png s.png --weights w.safetensors -ms 45 -s 64 -ii 150 -i 150 -o o.png --json --save-every 3 --checkpoint-every".split()
)


def start(*more: str) -> int:
    """Begin a run in a process of its own and return that."""
    child = os.fork()
    if child == 0:
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(cli.main([*COMMAND, str(INTERVAL), *more]))
    return child


def look(events: list[dict[str, float]]) -> bool:
    """Check what lies in the folder after a kill; return whether a run can go on from it."""
    if Path("o.png").exists():
        images.load("o.png")
    if Path("o.png.json").exists():
        json.loads(Path("o.png.json").read_text())
    found = checkpoint.newest("o.png.checkpoint")
    if events:
        kept = 0.0 if found is None else found.state.seconds
        times = [kept, *(event["seconds"] for event in events if event["seconds"] > kept)]
        lost = sum(min(PAUSE, b - a) for a, b in itertools.pairwise(times))
        assert lost <= INTERVAL + SLACK, f"{lost:.2f} s of {events[-1]} were lost"
    return found is not None


def logged() -> list[dict[str, float]]:
    """Return the iterations that the last run told of."""
    lines = Path("log").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith('{"event": "iterate"') and line.endswith("\n")]


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    moments = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    os.chdir(folder)
    networks.SPECS["vgg19"] = tiny.TINY
    noise = np.random.default_rng(0)
    for name in ("c.png", "s.png"):
        Image.fromarray(noise.integers(0, 255, (48, 60, 3), dtype=np.uint8)).save(name)
    save_file({key: value.float() for key, value in tiny.tiny_weights().items()}, "w.safetensors")
    began = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]) == 0
    took = time.monotonic() - began
    expected = images.load("o.png").pixels
    done = runs = 0
    while done < kills:
        Path("o.png").write_bytes(Path("c.png").read_bytes())  # an old picture, which must stay until the new one is whole
        Path("o.png.json").unlink(missing_ok=True)
        resume = False
        while True:
            child = start(*(["--resume"] if resume else []))
            time.sleep(moments.uniform(0, took / 2) if done < kills else took)
            if done < kills and os.waitpid(child, os.WNOHANG)[0] == 0:
                os.kill(child, signal.SIGKILL)
                done += 1
                os.waitpid(child, 0)
                resume = look(logged())
            else:
                if done >= kills:
                    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, Path("log").read_text()[-2000:]
                break
        assert '{"event": "done"' in Path("log").read_text(), Path("log").read_text()[-2000:]
        assert np.array_equal(images.load("o.png").pixels, expected)
        left = sorted(path.name for path in Path().iterdir())
        assert left == ["c.png", "log", "o.png", "o.png.json", "s.png", "w.safetensors"], left
        runs += 1
    print(f"{done} kills in {runs} runs")


if __name__ == "__main__":
    main()
