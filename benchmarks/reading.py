"""Measures how long content pictures take to read, and the memory that reading takes at its peak.

    python benchmarks/reading.py [--megapixels 12 50 280] [--before FOLDER]

What is read is what a run needs: the picture at the sizes of its scales. --before names another checkout of the project, which
reads the same files in turn with this one; one that cannot reduce a picture while it reads converts the whole, and then resizes
it. Each reading has a process of its own; time and memory of its start and of its imports are not counted. Runs on Linux; writes
a file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from record import RESULTS, Record

from style_transfer.pictures import signals

ROOT = Path(__file__).resolve().parents[1]
DISPLAY_P3 = signals.Signal(signals.PRIMARIES[12])
KINDS = {
    "JPEG, sRGB": ("jpg", None),
    "JPEG, Display P3": ("jpg", DISPLAY_P3),
    "16-bit TIFF, Adobe RGB": ("tif", signals.ADOBE_RGB),
}
PROGRAM = """
import json, sys, time
from style_transfer import pictures
from style_transfer.compute.resampling import resize
from style_transfer.geometry import fit
from style_transfer.pictures import tensors
def read(path, *scales):
    sizes = lambda size: [fit(size, scale, enlarge=True) for scale in scales]
    if hasattr(tensors, "pyramid_of"):
        picture = pictures.open_picture(path, max_pixels=10**9)
        return tensors.pyramid_of(picture, sizes(picture.size))
    picture = tensors.to_tensor(pictures.load(path, max_pixels=10**9))
    return [resize(picture, size, antialias=True).clamp(0, 1) for size in sizes(tuple(picture.shape[2:]))]
def memory(kind): return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(kind))
read(sys.argv[2], 20)
before, wall, processor = memory("VmRSS"), time.perf_counter(), time.process_time()
read(sys.argv[1], 256, 362, 512, 724, 1024, 1448, 2048)
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor, memory("VmHWM") - before]))
"""


def make(path: Path, megapixels: float, signal: signals.Signal | None) -> None:
    """Write a picture of noise, enlarged so that its compression takes a usual time, with the profile of a signal."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    small = np.random.default_rng(0).integers(0, 256, (height // 4, height * 3 // 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((height * 3 // 2, height), Image.Resampling.BICUBIC)
    profile = None if signal is None else signals.profile(signal)
    if path.suffix == ".jpg":
        image.save(path, quality=90, icc_profile=profile)
    else:
        deep = np.asarray(image).astype(np.uint16) * 257
        tifffile.imwrite(path, deep, photometric="rgb", iccprofile=profile, rowsperstrip=64)


def read(root: Path, path: Path, small: Path) -> tuple[float, float, float]:
    """Return wall-clock seconds, processor seconds, and bytes at the peak of reading a file with the program in `root`."""
    command = [sys.executable, "-c", PROGRAM, str(path), str(small)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)}, cwd=root
    )
    wall, processor, memory = json.loads(done.stdout)
    return wall, processor, memory


def main() -> None:
    """Write the pictures, read them, and record the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[12, 50, 280])
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    programs = {"this": ROOT, **({"before": args.before.resolve()} if args.before else {})}
    record = Record("reading", f"a process for each reading, files cached; median of {args.runs}", "the earlier program")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small.jpg")
        make(small, 0.01, DISPLAY_P3)
        for megapixels in args.megapixels:
            for kind, (suffix, signal) in KINDS.items():
                path = Path(folder, f"a.{suffix}")
                make(path, megapixels, signal)
                found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in programs}
                for _ in range(args.runs):
                    for name, root in programs.items():
                        found[name].append(read(root, path, small))
                for name, rows in found.items():
                    wall, processor, memory = (statistics.median(column) for column in zip(*rows, strict=True))
                    record.add(
                        "reading", {"seconds": [row[0] for row in rows]}, kind=kind, megapixels=megapixels, program=name,
                        seconds=round(wall, 2), processor_seconds_per_megapixel=round(processor / megapixels, 4),
                        bytes_per_pixel=round(memory / megapixels / 1e6, 1),
                    )  # fmt: skip
    record.write(RESULTS / "reading.json")


if __name__ == "__main__":
    main()
