"""Compares the schedules of steps: the loss of the finished picture, and the time until it is there.

    python benchmarks/schedule.py --contents A B --styles C D [--losses gram wasserstein] [--end-scale 181] [--weights FILE]

Each pair is painted by the engine with the default number of iterations and with `--iterations auto`. The loss is that of the
averaged picture at the end of each scale; "reached" is when, in the run with auto, the average had the final loss of the
default run, looked at every ten steps of the last scale and not counted in the time.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from style_transfer import images, networks
from style_transfer.api import to_tensor
from style_transfer.config import Settings
from style_transfer.engine import stylize
from style_transfer.initial import ready
from style_transfer.networks.graph import Network
from style_transfer.objective import Objective, size_of
from style_transfer.schedule import plan


@dataclass(frozen=True)
class Trace:
    """The loss of the average and the seconds of painting, at some steps of the last scale; the last entry is the end."""

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    steps: int

    def reached(self, loss: float) -> float | None:
        """Return the seconds after which the loss was reached, or None."""
        return next((s for s, found in zip(self.seconds, self.losses, strict=True) if found <= loss), None)


def trace(content: torch.Tensor, style: torch.Tensor, settings: Settings, network: Network) -> Trace:
    """Paint, and look at the average every ten steps of the last scale."""
    stage = plan(size_of(content), [size_of(style)], settings)[-1]
    target, reduced = ready(content, stage.size, network), ready(style, stage.style_sizes[0], network)
    judge = Objective([network], target, [reduced], settings)
    losses, seconds, steps = [], [], 0
    start, looking = time.perf_counter(), 0.0
    for iterate in stylize(content, [style], settings, networks=[network]):
        steps += 1
        if iterate.size == stage.size and (iterate.step % 10 == 0 or iterate.ends_run):
            before = time.perf_counter()
            losses.append(float(judge.evaluate(iterate.image().requires_grad_()).loss))
            seconds.append(before - start - looking)
            looking += time.perf_counter() - before
    return Trace(tuple(losses), tuple(seconds), steps)


def compare(content: Path, style: Path, settings: Sequence[Settings], network: Network) -> None:
    """Print a row of the table."""
    pictures = [to_tensor(images.load(str(path))) for path in (content, style)]
    usual, auto = (trace(*pictures, each, network) for each in settings)
    reached = auto.reached(usual.losses[-1])
    print(
        f"| {settings[0].style_loss} | {content.stem} | {style.stem} | {usual.losses[-1]:.4f} | {auto.losses[-1]:.4f} "
        f"| {usual.steps} | {auto.steps} | {usual.seconds[-1]:.0f} | {auto.seconds[-1]:.0f} "
        f"| {'not' if reached is None else f'{usual.seconds[-1] / reached:.1f} times sooner'} |",
        flush=True,
    )


def main() -> None:
    """Paint all pairs and print the table."""
    parser = argparse.ArgumentParser(description="Compare the schedules of steps.")
    parser.add_argument("--contents", nargs="+", type=Path, required=True)
    parser.add_argument("--styles", nargs="+", type=Path, required=True)
    parser.add_argument("--losses", nargs="+", default=["gram", "wasserstein"])
    parser.add_argument("--end-scale", default="181")
    parser.add_argument("--weights", help="VGG-19's; left out: the built-in network")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = {"weights": args.weights} if args.weights else {"network": "compact"}
    (network,) = networks.load(Settings(**about), [torch.device("cpu")])
    print("| loss | content | style | final loss, default | auto | steps | auto | seconds | auto | default's loss reached |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for loss, content, style in itertools.product(args.losses, args.contents, args.styles):
        common = {"style_loss": loss, "end_scale": args.end_scale, **about}
        compare(content, style, [Settings(**common), Settings(**common, iterations="auto")], network)


if __name__ == "__main__":
    main()
