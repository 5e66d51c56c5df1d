"""Six short runs whose losses and pictures must stay the same to the bit on a CPU while the code is rearranged.

    python tests/tools/fixed_runs.py FOLDER             write the losses and pictures of this checkout into FOLDER
    python tests/tools/fixed_runs.py FOLDER OTHER       and compare them with those in OTHER, written by another checkout

Both must be written on the same machine: sums differ in their last bits between processors. To run an older checkout, set
PYTHONPATH to it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = ["-m", "style_transfer"]
COMMON = [
    *(str(EXAMPLES / name) for name in ("scene.jpg", "painting.jpg")),
    *"--network compact --devices cpu --precision fp32 --json --checkpoint off --save-every 0 -ms 90 -s 128 -ii 8 -i 6".split(),
]
RUNS: dict[str, tuple[list[str], list[str]]] = {
    "gram": (PROGRAM, []),
    "wasserstein": (PROGRAM, ["--style-loss", "wasserstein"]),
    "lbfgs": (PROGRAM, ["--optimizer", "lbfgs", "--line-search", "strong-wolfe"]),
    "sgd": (PROGRAM, ["--optimizer", "sgd", "-ss", "2000", "--style-loss", "covariance"]),
    "tiled": (PROGRAM, ["--tile", "48", "--extra-loss", "histogram", "--extra-weight", "0.5"]),
    "two-ranks": (["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *PROGRAM], []),
}
"""By name: how the program is started, and the options of the run."""


def run(name: str, folder: Path) -> None:
    """Write NAME.json, the loss and its terms at each step, and NAME.png into a folder."""
    program, options = RUNS[name]
    picture = folder / f"{name}.png"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *program, *COMMON, *options, "-o", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    losses = [[event["loss"], event["parts"]] for event in events if event["event"] == "iterate"]
    (folder / f"{name}.json").write_text(json.dumps(losses, indent=1) + "\n")


def same(name: str, folder: Path, other: Path) -> bool:
    """Return whether two folders hold the same losses and pixels."""
    losses = [json.loads((place / f"{name}.json").read_text()) for place in (folder, other)]
    pixels = [np.asarray(Image.open(place / f"{name}.png")) for place in (folder, other)]
    return losses[0] == losses[1] and np.array_equal(*pixels)


def main() -> None:
    """Make the runs, compare them, and exit with 1 if one differs."""
    folder, *others = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    differing = []
    for name in RUNS:
        run(name, folder)
        for other in others:
            equal = same(name, folder, other)
            print(f"{name}: {'equal' if equal else 'DIFFERENT'}")
            differing += [] if equal else [name]
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
