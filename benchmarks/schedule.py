"""Compares two ways to paint the same pair: the loss of the finished picture, and the time until it is there.

    python benchmarks/schedule.py --contents A B --styles C D [--losses gram wasserstein] [--end-scale 181] [--weights FILE]
        [--runs default auto]

Runs are `default` and `auto`, the numbers of iterations, in the precision that the program takes, or in one that is said, as in
`default/fp32`; or `textbook`, all of textbook.py's run with the default's iterations, for VGG-19. The loss is that of the
averaged picture at the end of the last scale, in float32. "Reached" is when, in the second run, the average had the final loss
of the first, looked at every ten steps of the last scale and not counted in the time.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import textbook
import torch

from style_transfer import networks
from style_transfer.api import to_tensor
from style_transfer.compute.devices import PRECISIONS
from style_transfer.engine.initial import ready
from style_transfer.engine.loop import stylize
from style_transfer.evaluation.objective import Objective, size_of
from style_transfer.geometry.scales import plan
from style_transfer.networks import weights
from style_transfer.networks.graph import Network
from style_transfer.pictures import images
from style_transfer.settings.settings import Settings

RUNS = "default", "auto", "textbook"


@dataclass(frozen=True)
class Trace:
    """The loss of the average and the seconds of painting, at some steps of the last scale; the last entry is the end."""

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    steps: int

    def reached(self, loss: float) -> float | None:
        """Return the seconds after which the loss was reached, or None."""
        return next((s for s, found in zip(self.seconds, self.losses, strict=True) if found <= loss), None)


def judge_of(content: torch.Tensor, style: torch.Tensor, settings: Settings, network: Network) -> Objective:
    """Return what tells the loss at the last scale."""
    stage = plan(size_of(content), [size_of(style)], settings)[-1]
    return Objective([network], ready(content, stage.size, network), [ready(style, stage.style_sizes[0], network)], settings)


def trace(content: torch.Tensor, style: torch.Tensor, settings: Settings, judge: Objective) -> Trace:
    """Paint, and look at the average every ten steps of the last scale."""
    (network,) = networks.load(settings, [torch.device("cpu")])
    losses, seconds, steps = [], [], 0
    start, looking = time.perf_counter(), 0.0
    for iterate in stylize(content, [style], settings, networks=[network]):
        steps += 1
        if iterate.size == judge.size and (iterate.step % 10 == 0 or iterate.ends_run):
            before = time.perf_counter()
            losses.append(float(judge.evaluate(iterate.image().requires_grad_()).loss))
            seconds.append(before - start - looking)
            looking += time.perf_counter() - before
    return Trace(tuple(losses), tuple(seconds), steps)


def textbook_trace(content: torch.Tensor, style: torch.Tensor, settings: Settings, judge: Objective) -> Trace:
    """Paint as the textbook does, and look at the end."""
    assert settings.weights is not None
    state = weights.check(weights.read(settings.weights), networks.VGG19, settings.weights)
    stages = plan(size_of(content), [size_of(style)], settings)
    sizes, steps = [stage.size for stage in stages], [stage.steps for stage in stages]
    done = textbook.run(textbook.VGG(state, settings.pooling), content, style, settings.style_loss, sizes, steps)
    loss = float(judge.evaluate(done.image.clone().requires_grad_()).loss)
    return Trace((loss,), (done.seconds[-1][-1],), sum(steps))


@dataclass(frozen=True)
class Run:
    """A way to paint: its kind, one of `RUNS`, and the precision if one is said."""

    kind: str
    precision: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.precision}" if self.precision else self.kind

    @classmethod
    def of(cls, word: str) -> Run:
        """Return the run of a name. Raises ArgumentTypeError if there is none of this name, or its precision is unknown."""
        kind, _, precision = word.partition("/")
        if kind not in RUNS or (precision and precision not in PRECISIONS):
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(RUNS)}, alone or as in default/fp32")
        return cls(kind, precision)


def compare(content: Path, style: Path, settings: Settings, runs: Sequence[Run]) -> None:
    """Print a row of the table."""
    pictures = [to_tensor(images.load(str(path))) for path in (content, style)]
    (exact,) = networks.load(dataclasses.replace(settings, precision="fp32"), [torch.device("cpu")])
    judge, found = judge_of(*pictures, settings, exact), []
    for run in runs:
        if run.kind == "textbook":
            found.append(textbook_trace(*pictures, settings, judge))
            continue
        iterations = "auto" if run.kind == "auto" else settings.iterations
        about = {"iterations": iterations, "precision": run.precision or settings.precision}
        found.append(trace(*pictures, dataclasses.replace(settings, **about), judge))
    first, second = found
    reached = second.reached(first.losses[-1])
    print(
        f"| {settings.style_loss} | {content.stem} | {style.stem} | {first.losses[-1]:.4f} | {second.losses[-1]:.4f} "
        f"| {first.steps} | {second.steps} | {first.seconds[-1]:.0f} | {second.seconds[-1]:.0f} "
        f"| {'not' if reached is None else f'{reached:.0f} s, {first.seconds[-1] / reached:.1f} times sooner'} |",
        flush=True,
    )


def main() -> None:
    """Paint all pairs and print the table."""
    parser = argparse.ArgumentParser(description="Compare two ways to paint.")
    parser.add_argument("--contents", nargs="+", type=Path, required=True)
    parser.add_argument("--styles", nargs="+", type=Path, required=True)
    parser.add_argument("--losses", nargs="+", default=["gram", "wasserstein"])
    usual = [Run.of("default"), Run.of("auto")]
    parser.add_argument("--runs", nargs=2, type=Run.of, default=usual, metavar=("FIRST", "SECOND"))
    parser.add_argument("--end-scale", default="181")
    parser.add_argument("--weights", help="VGG-19's; left out: the built-in network")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = {"weights": args.weights} if args.weights else {"network": "compact"}
    one, two = args.runs
    print(f"| loss | content | style | final loss, {one} | {two} | steps | {two} | seconds | {two} | loss of {one} reached |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for loss, content, style in itertools.product(args.losses, args.contents, args.styles):
        compare(content, style, Settings(style_loss=loss, end_scale=args.end_scale, **about), args.runs)


if __name__ == "__main__":
    main()
