"""Measures speed against the textbook implementation (textbook.py), in one run, in turns, on the same weights and pictures.

    python benchmarks/speed.py CONTENT STYLE --weights FILE                     the rows of a CPU, about half an hour on two cores
    python benchmarks/speed.py CONTENT STYLE --weights FILE --device cuda:0     the rows of a GPU, about ten minutes

Writes a file of benchmarks/results. Each implementation works in a process of its own, so that memory is its own; they take
turns, one to five iterations each. The textbook is in float32, on a GPU in TF32; the program takes its own default precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import Record, rounded

from style_transfer.cli.main import SPIN

KERNELS = ("conv", "xmma", "implicit", "cudnn", "winograd")
"""Parts of the names of the GPU's kernels that are convolutions."""
OPERATIONS = ("aten::conv2d", "_Convolve", "ConvolutionBackward0", "_ConvolveBackward")
"""Names of the operations that are convolutions, with all that they consist of."""


def prepare(args: argparse.Namespace, size: tuple[int, int]) -> Callable[[], float]:
    """Return one iteration of an implementation, which returns the loss if that is read."""
    from style_transfer import pictures as images
    from style_transfer.compute.distributed import LOCAL
    from style_transfer.compute.resampling import resize
    from style_transfer.engine.optimizers import Average
    from style_transfer.engine.step import Step
    from style_transfer.evaluation.objective import Objective
    from style_transfer.evaluation.retry import OutOfMemoryRetrier
    from style_transfer.geometry.scales import Stage
    from style_transfer.networks import VGG19, weights
    from style_transfer.networks.loading import load_networks
    from style_transfer.pictures.tensors import to_tensor
    from style_transfer.registry import OPTIMIZERS
    from style_transfer.settings import Settings

    device = torch.device(args.device)
    originals = [to_tensor(images.load(path)) for path in (args.content, args.style)]
    pictures = [resize(picture, size, antialias=True).clamp(0, 1).to(device) for picture in originals]
    if args.worker == "textbook":
        import textbook

        vgg = textbook.VGG(weights.check(weights.read(args.weights), VGG19, args.weights), "average").to(device)
        theirs = textbook.Objective(vgg, *pictures, args.loss)
        image = pictures[0].clone().requires_grad_()
        adam, average = torch.optim.Adam([image], lr=0.02), torch.zeros_like(image)

        def step() -> float:
            adam.zero_grad()
            loss = theirs(image)
            loss.backward()
            adam.step()
            with torch.no_grad():
                image.clamp_(0, 1)
                average.mul_(0.99).add_(image, alpha=0.01)
            return loss.item()

        return step
    settings = Settings(weights=args.weights, style_loss=args.loss, devices=(args.device,)).resolve()
    (network,) = load_networks(settings, [device])
    retrier = OutOfMemoryRetrier([network], Stage(max(size), size, (size,), 1), settings, LOCAL, 0)
    objective = Objective([network], pictures[0], pictures[1:], settings, retrier.limits)
    take = Step(
        objective,
        pictures[0].clone(),
        OPTIMIZERS[settings.optimizer].from_settings(settings, LOCAL, 1.0),
        Average(0.99),
        None,
        retrier,
    )

    def ours() -> float:
        take()
        return 0.0

    return ours


def peak(device: torch.device) -> int:
    """Return the peak memory so far: what torch held of the GPU's, recordings too, or the process's."""
    from style_transfer.compute import memory

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return memory.peak_bytes([device])


def profiled(step: Callable[[], float], device: torch.device, steps: int) -> float:
    """Return the share of so many steps' time outside of convolutions."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as found:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = time.perf_counter() - start
    if device.type == "cuda":
        kernels = {event.key: event.self_device_time_total for event in found.key_averages()}
        inside = sum(spent for key, spent in kernels.items() if any(word in key.lower() for word in KERNELS))
        return 1 - inside / sum(kernels.values())
    inside = sum(event.cpu_time_total for event in found.key_averages() if event.key in OPERATIONS)
    return 1 - inside / (1e6 * seconds)


def scored(step: Callable[[], float], steps: int) -> tuple[float, float]:
    """Return a step's median seconds in the losses' values, square roots above all, and in the network's passes. On a CPU."""
    from style_transfer.evaluation import objective
    from style_transfer.evaluation.sweep import Sweep

    spent = {"in_parallel": 0.0, "measure": 0.0, "gradient": 0.0}

    def timed(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            start = time.perf_counter()
            result = plain(*args)
            spent[name] += time.perf_counter() - start
            return result

        setattr(owner, name, wrapped)

    timed(objective, "in_parallel")
    timed(Sweep, "measure")
    timed(Sweep, "gradient")
    found = []
    for _ in range(steps):
        spent.update(dict.fromkeys(spent, 0.0))
        step()
        found.append((spent["in_parallel"], spent["measure"] + spent["gradient"]))
    return statistics.median(values for values, _ in found), statistics.median(passes for _, passes in found)


def work(args: argparse.Namespace) -> None:
    """Answer each line of standard input.

    How many iterations: with their seconds and the peak memory. `profile STEPS`: with the share of steps outside of convolutions.
    `scored STEPS`: with the seconds of a step's losses and of the network's passes.
    """
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    height, width = args.size
    step = prepare(args, (height, width))
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for line in sys.stdin:
        if line.startswith("profile"):
            # what the profiler itself keeps moves the memory of the first ones
            steps = int(line.split()[1])
            print(json.dumps(statistics.median(profiled(step, device, steps) for _ in range(7))), flush=True)
            continue
        if line.startswith("scored"):
            print(json.dumps(scored(step, int(line.split()[1]))), flush=True)
            continue
        wait()
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        wait()
        print(json.dumps([time.perf_counter() - start, peak(device)]), flush=True)


class Worker:
    """A process that does iterations of one implementation."""

    def __init__(self, args: argparse.Namespace, which: str, loss: str, size: tuple[int, int]) -> None:
        command = [sys.executable, __file__, args.content, args.style, "--weights", args.weights, "--device", args.device]
        command += ["--threads", str(args.threads), "--worker", which, "--loss", loss, "--size", *map(str, size)]
        environment = os.environ | dict([SPIN] if which == "ours" else [])  # as the command line has it
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, question: object) -> Any:
        """Return the answer to a line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def size_at(args: argparse.Namespace, side: int) -> tuple[int, int]:
    """Return the content's size at a long side."""
    from style_transfer import pictures as images
    from style_transfer.geometry.scales import fit

    pixels = images.load(args.content).pixels
    return fit((pixels.shape[0], pixels.shape[1]), side, enlarge=True)


@dataclass(frozen=True)
class Turns:
    """What two workers took: seconds per iteration by turn, peak memory in bytes, the second's share outside convolutions."""

    times: tuple[list[float], list[float]]
    peaks: tuple[int, int]
    outside: float

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds per iteration of both."""
        return statistics.median(self.times[0]), statistics.median(self.times[1])


def in_turns(workers: Sequence[Worker], rounds: int, each: Sequence[int], profile: int) -> Turns:
    """Let two workers do so many iterations each a turn, then profile so many of the second's, and end them."""
    times: list[list[float]] = [[], []]
    peaks = [0, 0]
    try:
        for turn in range(rounds + 1):
            for index, worker in enumerate(workers):
                seconds, peaks[index] = worker.ask(each[index])
                if turn:  # the first one warms up
                    times[index].append(seconds / each[index])
        outside = workers[1].ask(f"profile {profile}")
    finally:
        for worker in workers:
            worker.close()
    return Turns((times[0], times[1]), (peaks[0], peaks[1]), outside)


def against_the_textbook(args: argparse.Namespace, record: Record, loss: str, side: int, each: int) -> float:
    """Record seconds per iteration and memory of both; return the seconds of ours."""
    height, width = size_at(args, side)
    workers = [Worker(args, which, loss, (height, width)) for which in ("textbook", "ours")]
    found = in_turns(workers, args.rounds, (each, each), 3)
    theirs, ours = found.seconds
    record.add(
        "steps",
        {"textbook_seconds": rounded(found.times[0]), "seconds": rounded(found.times[1])},
        size=f"{width}x{height}",
        loss=loss,
        textbook_seconds=rounded(theirs),
        seconds=rounded(ours),
        ratio=rounded(theirs / ours, 3),
        textbook_mb=round(found.peaks[0] / 1e6),
        mb=round(found.peaks[1] / 1e6),
        us_per_pixel=rounded(1e6 * ours / width / height),
        outside_percent=rounded(100 * found.outside, 3),
    )
    return ours


def against_a_smaller_one(args: argparse.Namespace, record: Record, side: int, smaller: int) -> None:
    """Record the time per pixel at a long side and at a smaller one, as many pixels a turn, Gram matrices."""
    sizes = [size_at(args, smaller), size_at(args, side)]
    each = max(1, round((side / smaller) ** 2))
    found = in_turns([Worker(args, "ours", "gram", size) for size in sizes], args.rounds, (each, 1), 1)
    rates = [1e6 * seconds / height / width for seconds, (height, width) in zip(found.seconds, sizes, strict=True)]
    (height, width), small = sizes[1], sizes[0]
    record.add(
        "print",
        {"smaller_seconds": rounded(found.times[0]), "seconds": rounded(found.times[1])},
        size=f"{width}x{height}",
        seconds=rounded(found.seconds[1]),
        us_per_pixel=rounded(rates[1]),
        smaller=f"{small[1]}x{small[0]}",
        smaller_us_per_pixel=rounded(rates[0]),
        ratio=rounded(rates[1] / rates[0], 3),
        gb=rounded(found.peaks[1] / 1e9, 3),
        outside_percent=rounded(100 * found.outside, 3),
    )


def share_of_roots(args: argparse.Namespace, record: Record, side: int, steps: int) -> None:
    """Record the time of the Wasserstein losses, square roots above all, as a share of the network's: a process each round."""
    found = []
    for _ in range(args.rounds):
        worker = Worker(args, "ours", "wasserstein", size_at(args, side))
        worker.ask(5)
        found.append(worker.ask(f"scored {steps}"))
        worker.close()
    shares = sorted(values / passes for values, passes in found)
    values, passes = (1e3 * statistics.median(times) for times in zip(*found, strict=True))
    record.add(
        "share",
        {"share_percent": [rounded(100 * share) for share in shares]},
        side=side,
        share_percent=rounded(100 * statistics.median(shares), 3),
        roots_ms=rounded(values, 3),
        network_ms=rounded(passes, 3),
        processes=len(shares),
    )


def cold_start(args: argparse.Namespace, record: Record) -> None:
    """Record the seconds from the command to the first iteration, built-in network, 256 px: the median of five."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(5):
            command = [sys.executable, "-m", "style_transfer", args.content, args.style, "--network", "compact", "--json"]
            command += ["-ms", "256", "-s", "256", "-ii", "1", "--devices", args.device, "-o", str(Path(folder) / "o.png")]
            start = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                process.stdout.readline()
                found.append(time.perf_counter() - start)
    median = rounded(statistics.median(found), 3)
    record.add("cold_start", {"seconds": rounded(found)}, network="compact", size=256, seconds=median, of=5)


def product_rate(device: torch.device, side: int = 8192) -> float:
    """Return the operations a second of a bfloat16 matrix product."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(2 * side**3 / statistics.median(times[5:]))


def operations_per_pixel() -> float:
    """Return the operations of one iteration with VGG-19 and the default layers, forward and backward."""
    from scaling import flops_per_cell

    from style_transfer.networks import VGG19
    from style_transfer.settings import Settings

    (segment,) = VGG19.segments(Settings().resolve().layers, cut=False)
    return 2 * flops_per_cell(segment)


def ladder(args: argparse.Namespace, side: int) -> float:
    """Return the seconds of a whole run of the program, from its start to the file written."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "style_transfer", args.content, args.style, "--weights", args.weights, "--quiet"]
        command += ["-s", str(side), "--devices", args.device, "--save-every", "0", "-o", str(Path(folder) / "o.tif")]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def textbook_ladder(args: argparse.Namespace, side: int) -> float:
    """Return the seconds of the textbook's whole run: one short of ten steps at each scale, times the steps it has."""
    from style_transfer.engine.schedule import plan_stages as plan
    from style_transfer.settings import Settings

    seconds = 0.0
    size = size_at(args, side)
    for stage in plan(size, [size], Settings(end_scale=str(side)).resolve()):
        worker = Worker(args, "textbook", "gram", stage.size)
        worker.ask(2)
        seconds += worker.ask(10)[0] / 10 * stage.steps
        worker.close()
    return seconds


def main() -> None:
    """Measure, or work for a process that measures."""
    parser = argparse.ArgumentParser(description="Compare the program's speed with the textbook's.")
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="*", type=int, help="long sides to compare at")
    parser.add_argument("--print-side", type=int, default=2896, help="long side of a print; 0 leaves it out")
    parser.add_argument("--worker", choices=("textbook", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--loss", help=argparse.SUPPRESS)
    parser.add_argument("--size", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    gpu = torch.device(args.device).type == "cuda"
    sides = args.sides if args.sides is not None else ([128, 512, 1024, 2896] if gpu else [128, 256, 512, 1024])
    record = Record(
        "speed", f"VGG-19, average pooling, {args.threads} threads", "benchmarks/textbook.py in turns in the same run"
    )
    each = {side: 5 if gpu or side <= 256 else 1 for side in sides}  # short steps want their caches warm, as in a run
    ours = {side: against_the_textbook(args, record, "gram", side, each[side]) for side in sides}
    for side in [side for side in sides if side <= 512]:
        against_the_textbook(args, record, "wasserstein", side, each[side])
    if not gpu:
        share_of_roots(args, record, 256, 40)
    if args.print_side:
        against_a_smaller_one(args, record, args.print_side, 1024)
    cold_start(args, record)
    if gpu:
        rate = product_rate(torch.device(args.device))
        for side, seconds in ours.items():
            height, width = size_at(args, side)
            share = operations_per_pixel() * height * width / seconds / rate
            record.add("product_rate", side=side, tflop_per_second=rounded(rate / 1e12), share_percent=rounded(100 * share, 3))
        if args.print_side:
            mine, theirs = ladder(args, args.print_side), textbook_ladder(args, args.print_side)
            record.add("whole_run", side=args.print_side, seconds=rounded(mine), textbook_seconds=rounded(theirs))
    record.write()


if __name__ == "__main__":
    main()
