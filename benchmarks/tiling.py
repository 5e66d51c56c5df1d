"""Measures memory and time of one iteration in tiles, against the untiled pixel rate, and what several processes gain.

    python benchmarks/tiling.py CONTENT STYLE --weights FILE [--sizes 4096x3G 8192x8G] [--ranks 2] [--device cuda]

Each figure comes from a process of its own, which builds the objective of one size (long side x memory limit), takes two
iterations and says how long loss and gradient took in the second, and the peak of its memory. The untiled rate is taken
at 1024 px before and after. With --ranks, one process and so many processes of one thread each paint 1024 px, in turns.
Writes a file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from record import Record, rounded

CHILD = "--child"


def child(argv: list[str]) -> None:
    """Take a few iterations at one size and print what they took."""
    content, style, weights, side, limit, steps, threads, device = argv
    import torch

    from style_transfer import pictures as images
    from style_transfer.compute.devices import of_local_rank
    from style_transfer.compute.distributed import joined
    from style_transfer.engine.loop import stylize
    from style_transfer.evaluation.objective import Evaluation, Objective
    from style_transfer.evaluation.sweep import Limits
    from style_transfer.pictures.tensors import to_tensor
    from style_transfer.settings import Settings

    torch.set_num_threads(int(threads))
    times: list[float] = []
    sent: list[int] = []
    evaluate = Objective.evaluate

    def timed(self: Objective, image: torch.Tensor, limits: Limits | None = None) -> Evaluation:
        start, before = time.perf_counter(), self.group.sent
        result = evaluate(self, image, limits)
        result.loss.item()  # waits for a GPU
        if image.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        sent.append(self.group.sent - before)
        return result

    Objective.evaluate = timed  # type: ignore[method-assign]
    settings = Settings(
        min_scale=int(side), end_scale=side, initial_iterations=int(steps), weights=weights,
        tile="off" if limit == "off" else "auto", memory=None if limit in ("off", "auto") else limit, devices=(device,),
    ).resolve()  # fmt: skip
    pictures = [to_tensor(images.load(path)) for path in (content, style)]
    with joined(functools.partial(of_local_rank, settings.devices)) as group:
        for iterate in stylize(pictures[0], pictures[1:], settings, group=group):
            last = iterate
        peak = last.memory if device.startswith("cuda") else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        mine = [peak, sent[-1]]
        everybody = group.all_reduce_counts([x if i == group.rank else 0 for i in range(group.size) for x in mine])
        height, width = last.size
        if group.rank == 0:
            found = {"size": f"{width}x{height}", "pixels": width * height, "tiles": last.tiles, "peaks": everybody[::2],
                     "sent": everybody[1::2], "step": statistics.median(times[1:] or times)}  # fmt: skip
            print(json.dumps(found))


def measure(args: argparse.Namespace, side: str, limit: str, steps: int, threads: int, ranks: int = 1) -> dict[str, Any]:
    """Return the size, pixels, tiles, each rank's peak bytes and bytes sent for an iteration, and the seconds of one."""
    words = [args.content, args.style, args.weights, side, limit, str(steps), str(threads), args.device]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*(start if ranks > 1 else [sys.executable]), __file__, CHILD, *words]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description="Measure tiled iterations.")
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--sizes", nargs="*", default=["4096x3G", "8192x8G"], help="long side x memory limit")
    parser.add_argument("--steps", type=int, default=2, help="iterations at each size; of more than one the first is not timed")
    parser.add_argument("--ranks", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    record = Record("tiling", f"VGG-19, Gram matrices, Adam, {args.threads} threads", "1024 px in one piece, before and after")
    if args.sizes:
        rates: list[float] = []
        for size in ["1024xoff", *args.sizes, "1024xoff"]:
            side, limit = size.split("x")
            found = measure(args, side, limit, 3 if limit == "off" else args.steps, args.threads)
            step = found["step"]
            rate = step / found["pixels"] * 1e6
            rates += [rate] if limit == "off" else []
            record.add(
                "sizes",
                size=found["size"],
                limit=limit,
                tiles=" + ".join(map(str, found["tiles"])),
                gb=rounded(max(found["peaks"]) / 1e9),
                seconds=rounded(step),
                us_per_pixel=rounded(rate),
                ratio=rounded(rate / rates[0], 3),
                threads=args.threads,
            )
    if args.ranks:
        alone, together = [], []
        for _ in range(3):
            alone.append(measure(args, "1024", "off", 3, 1)["step"])
            together.append(measure(args, "1024", "auto", 3, 1, args.ranks)["step"])
        a, b = statistics.median(alone), statistics.median(together)
        record.add(
            "processes",
            {"one_seconds": rounded(alone), "seconds": rounded(together)},
            size="1024 px",
            threads=1,
            processes=args.ranks,
            one_seconds=rounded(a),
            seconds=rounded(b),
            ratio=rounded(a / b, 3),
        )
    record.write()


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2:])
    else:
        main()
