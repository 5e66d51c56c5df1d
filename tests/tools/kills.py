"""Kill a run at random moments, resume it from its checkpoint each time, and check what each kill leaves behind.

    python tests/tools/kills.py FOLDER KILLS [SEED]

A run is a process forked from this one, so that it starts at once. Prints the numbers of kills and of complete runs.
"""

from __future__ import annotations

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

from style_transfer import cli
from style_transfer import pictures as images
from style_transfer.engine import checkpoint_file as checkpoint

COMMAND = (
    "c.png s.png --weights w.safetensors -ms 45 -s 64 -ii 80 -i 80 -o o.png --json --save-every 3 --checkpoint-every 0.1".split()
)

Position = tuple[int, int]
"""A scale and a step of it."""


def start(*more: str) -> int:
    """Start a run in a fork and return the number of its process."""
    child = os.fork()
    if child == 0:
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(cli.main([*COMMAND, *more]))
    return child


def position_after_kill(before: Position | None) -> Position | None:
    """Check what a kill left in the folder and return the position of the checkpoint, which must not be before the last one.

    A complete run removes its checkpoint, and may be killed after that.
    """
    if Path("o.png").exists():
        images.load("o.png")
    complete = Path("o.png.json").exists() and json.loads(Path("o.png.json").read_text())["finished"]
    found = checkpoint.newest("o.png.checkpoint")
    if found is None:
        assert before is None or complete, f"the checkpoint of {before} is lost"
        return None
    position = found.state.index, found.state.step
    assert before is None or position >= before, f"{position} after {before}"
    return position


def main() -> None:
    """Kill runs until there were so many kills, and compare each complete run with one that was not killed."""
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    moments = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    os.chdir(folder)
    tiny.use_tiny_vgg19()
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
        position: Position | None = None
        while True:
            child = start(*(["--resume"] if position else []))
            if done < kills:
                time.sleep(moments.uniform(0, took / 2))
            if done < kills and os.waitpid(child, os.WNOHANG)[0] == 0:
                os.kill(child, signal.SIGKILL)
                done += 1
                os.waitpid(child, 0)
                position = position_after_kill(position)
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
