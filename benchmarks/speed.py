"""Speed against the textbook implementation (textbook.py), in one run, in turns, on the same weights and pictures.

    python benchmarks/speed.py CONTENT STYLE --weights FILE                     the rows of a CPU, about half an hour on two cores
    python benchmarks/speed.py CONTENT STYLE --weights FILE --device cuda:0     the rows of a GPU, about ten minutes

Prints Markdown tables. Each implementation works in a process of its own, so that memory is its own; they take turns, one to five
iterations each, and medians are given. The textbook is in float32, on a GPU in TF32; ours is what the program does by itself.
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

from style_transfer.cli.main import SPIN

KERNELS = ("conv", "xmma", "implicit", "cudnn", "winograd")
"""Parts of the names of the GPU's kernels that are convolutions."""
OPERATIONS = ("aten::conv2d", "_Convolve", "ConvolutionBackward0", "_ConvolveBackward")
"""Names of the operations that are convolutions, with all that they consist of."""


def prepare(args: argparse.Namespace, size: tuple[int, int]) -> Callable[[], float]:
    """Return one iteration of an implementation, which returns the loss if that is read."""
    from style_transfer import networks
    from style_transfer.api import to_tensor
    from style_transfer.compute.distributed import LOCAL
    from style_transfer.compute.resampling import resize
    from style_transfer.engine.loop import make_optimizer
    from style_transfer.engine.optimizers import Average
    from style_transfer.engine.step import Step
    from style_transfer.evaluation.objective import Objective
    from style_transfer.evaluation.planning import Workshop
    from style_transfer.geometry.scales import Stage
    from style_transfer.networks import weights
    from style_transfer.pictures import images
    from style_transfer.settings.settings import Settings

    device = torch.device(args.device)
    originals = [to_tensor(images.load(path)) for path in (args.content, args.style)]
    pictures = [resize(picture, size, antialias=True).clamp(0, 1).to(device) for picture in originals]
    if args.worker == "textbook":
        import textbook

        vgg = textbook.VGG(weights.check(weights.read(args.weights), networks.VGG19, args.weights), "average").to(device)
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
    settings = Settings(weights=args.weights, style_loss=args.loss, devices=(args.device,))
    (network,) = networks.load(settings, [device])
    shop = Workshop([network], Stage(max(size), size, (size,), 1), settings, LOCAL, 0)
    objective = Objective([network], pictures[0], pictures[1:], settings, shop.limits)
    take = Step(objective, pictures[0].clone(), make_optimizer(settings), Average(0.99), None, shop)

    def ours() -> float:
        take()
        return 0.0

    return ours


def peak(device: torch.device) -> int:
    """Return the peak memory so far: what torch held of the GPU's, recordings too, or the process's."""
    from style_transfer.evaluation import memory

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

    spent = {"at_once": 0.0, "measure": 0.0, "gradient": 0.0}

    def timed(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            start = time.perf_counter()
            result = plain(*args)
            spent[name] += time.perf_counter() - start
            return result

        setattr(owner, name, wrapped)

    timed(objective, "at_once")
    timed(Sweep, "measure")
    timed(Sweep, "gradient")
    found = []
    for _ in range(steps):
        spent.update(dict.fromkeys(spent, 0.0))
        step()
        found.append((spent["at_once"], spent["measure"] + spent["gradient"]))
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
    from style_transfer.geometry.scales import fit
    from style_transfer.pictures import images

    pixels = images.load(args.content).pixels
    return fit((pixels.shape[0], pixels.shape[1]), side, enlarge=True)


@dataclass(frozen=True)
class Turns:
    """What two workers took an iteration: median seconds, peak memory in bytes, and the second's share outside convolutions."""

    seconds: tuple[float, float]
    peaks: tuple[int, int]
    outside: float


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
    return Turns((statistics.median(times[0]), statistics.median(times[1])), (peaks[0], peaks[1]), outside)


def against_the_textbook(args: argparse.Namespace, loss: str, side: int, each: int) -> float:
    """Print a row: seconds per iteration and memory of both; return the seconds of ours."""
    height, width = size_at(args, side)
    workers = [Worker(args, which, loss, (height, width)) for which in ("textbook", "ours")]
    found = in_turns(workers, args.rounds, (each, each), 3)
    theirs, ours = found.seconds
    memory = " | ".join(f"{count / 1e6:.0f}" for count in found.peaks)
    print(
        f"| {width}x{height} | {loss} | {theirs:.4f} | {ours:.4f} | {theirs / ours:.2f} | {memory} "
        f"| {1e6 * ours / width / height:.2f} | {100 * found.outside:.0f} % |",
        flush=True,
    )
    return ours


def against_a_smaller_one(args: argparse.Namespace, side: int, smaller: int) -> None:
    """Print the time per pixel at a long side and at a smaller one, as many pixels a turn, Gram matrices."""
    sizes = [size_at(args, smaller), size_at(args, side)]
    each = max(1, round((side / smaller) ** 2))
    found = in_turns([Worker(args, "ours", "gram", size) for size in sizes], args.rounds, (each, 1), 1)
    rates = [1e6 * seconds / height / width for seconds, (height, width) in zip(found.seconds, sizes, strict=True)]
    (height, width), small = sizes[1], sizes[0]
    print(
        f"\n{width}x{height} and {small[1]}x{small[0]} in turns, Gram: {found.seconds[1]:.3g} s an iteration, {rates[1]:.3g} and "
        f"{rates[0]:.3g} us a pixel, {rates[1] / rates[0]:.2f} times; {found.peaks[1] / 1e9:.1f} GB; outside convolutions "
        f"{100 * found.outside:.0f} %",
        flush=True,
    )


def share_of_roots(args: argparse.Namespace, side: int, steps: int) -> None:
    """Print the time of the Wasserstein losses, square roots above all, as a share of the network's: a process each round."""
    found = []
    for _ in range(args.rounds):
        worker = Worker(args, "ours", "wasserstein", size_at(args, side))
        worker.ask(5)
        found.append(worker.ask(f"scored {steps}"))
        worker.close()
    shares = sorted(values / passes for values, passes in found)
    values, passes = (1e3 * statistics.median(times) for times in zip(*found, strict=True))
    print(
        f"\nSquare roots at {side} px: {values:.0f} ms a step, {100 * statistics.median(shares):.1f} % of the network's passes "
        f"({passes:.0f} ms); {100 * shares[0]:.1f} to {100 * shares[-1]:.1f} % in {len(shares)} processes",
        flush=True,
    )


def cold_start(args: argparse.Namespace) -> float:
    """Return the seconds from the command to the first iteration, built-in network, 256 px: the median of five."""
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
    return statistics.median(found)


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

    from style_transfer.networks import SPECS
    from style_transfer.settings.settings import Settings

    (segment,) = SPECS["vgg19"].segments(Settings().layers, cut=False)
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
    from style_transfer.geometry.scales import plan
    from style_transfer.settings.settings import Settings

    seconds = 0.0
    size = size_at(args, side)
    for stage in plan(size, [size], Settings(end_scale=str(side))):
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
    print("| size | loss | textbook, s | ours, s | ratio | textbook, MB | ours, MB | ours, us a pixel | outside convolutions |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    each = {side: 5 if gpu or side <= 256 else 1 for side in sides}  # short steps want their caches warm, as in a run
    ours = {side: against_the_textbook(args, "gram", side, each[side]) for side in sides}
    for side in [side for side in sides if side <= 512]:
        against_the_textbook(args, "wasserstein", side, each[side])
    if not gpu:
        share_of_roots(args, 256, 40)
    if args.print_side:
        against_a_smaller_one(args, args.print_side, 1024)
    print(f"\nCold start, built-in network, 256 px: {cold_start(args):.1f} s to the first iteration")
    if gpu:
        rate = product_rate(torch.device(args.device))
        print(f"bfloat16 matrix product: {rate / 1e12:.0f} TFLOP/s")
        for side, seconds in ours.items():
            height, width = size_at(args, side)
            share = operations_per_pixel() * height * width / seconds / rate
            print(f"an iteration at {side} px does {100 * share:.0f} % of that")
        if args.print_side:
            mine, theirs = ladder(args, args.print_side), textbook_ladder(args, args.print_side)
            print(
                f"Whole ladder to {args.print_side} px: {mine:.1f} s; textbook, TF32: {theirs:.1f} s, {theirs / mine:.1f} times"
            )


if __name__ == "__main__":
    main()
