"""Compares two ways to paint the same pair: the loss of the finished picture, and the time until it is there.

    python benchmarks/schedule.py --contents A B --styles C D [--losses gram wasserstein] [--end-scale 181] [--weights FILE]
        [--runs constant auto]

Runs are `constant`, 1000 and 500 iterations of constant size, and `auto`, in the precision that the program takes, or in one
that is said, as in `constant/fp32`; or `textbook`, all of textbook.py's run with the iterations of `constant`, for VGG-19. All
have the content loss of style-transfer-pytorch and no margin, so that losses compare. The loss is that of the averaged picture at
the end of the last scale, in float32. "Reached" is when, in the second run, the average had the final loss of the first, which
is evaluated every ten steps of the last scale and not counted in the time. Writes a file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import textbook
import torch
from record import Record, rounded

from style_transfer import pictures as images
from style_transfer.compute.devices import PRECISIONS
from style_transfer.engine.initial import resized_for
from style_transfer.engine.loop import stylize
from style_transfer.engine.schedule import plan_stages as plan
from style_transfer.evaluation import Objective, size_of
from style_transfer.networks import VGG19, weights
from style_transfer.networks.forward import Network
from style_transfer.networks.loading import load_networks
from style_transfer.pictures.tensors import to_tensor
from style_transfer.settings import Resolved, Settings

RUNS = "constant", "auto", "textbook"


CLASSIC: dict[str, Any] = {
    "iterations": 500, "initial_iterations": 1000, "content_weight": 0.015, "content_layers": ("relu4_2",), "padding": "network"
}  # fmt: skip
"""The schedule and the content loss of style-transfer-pytorch."""


@dataclass(frozen=True)
class Trace:
    """The loss of the average and the seconds of painting, at some steps of the last scale; the last entry is the end."""

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    steps: int

    def reached(self, loss: float) -> float | None:
        """Return the seconds after which the loss was reached, or None."""
        return next((s for s, found in zip(self.seconds, self.losses, strict=True) if found <= loss), None)


def last_objective(content: torch.Tensor, style: torch.Tensor, settings: Resolved, network: Network) -> Objective:
    """Return the objective of the last scale."""
    stage = plan(size_of(content), [size_of(style)], settings)[-1]
    return Objective(
        [network], resized_for(network, content, stage.size), [resized_for(network, style, stage.style_sizes[0])], settings
    )


def trace(content: torch.Tensor, style: torch.Tensor, settings: Resolved, objective: Objective) -> Trace:
    """Paint, and look at the average every ten steps of the last scale."""
    (network,) = load_networks(settings, [torch.device("cpu")])
    losses, seconds, steps = [], [], 0
    start, looking = time.perf_counter(), 0.0
    for iterate in stylize(content, [style], settings, networks=[network]):
        steps += 1
        if iterate.size == objective.size and (iterate.step % 10 == 0 or iterate.ends_run):
            before = time.perf_counter()
            losses.append(float(objective.evaluate(iterate.image().requires_grad_()).loss))
            seconds.append(before - start - looking)
            looking += time.perf_counter() - before
    return Trace(tuple(losses), tuple(seconds), steps)


def textbook_trace(content: torch.Tensor, style: torch.Tensor, settings: Resolved, objective: Objective) -> Trace:
    """Paint as the textbook does, and look at the end."""
    assert settings.weights is not None
    state = weights.check(weights.read(settings.weights), VGG19, settings.weights)
    stages = plan(size_of(content), [size_of(style)], settings)
    sizes, steps = [stage.size for stage in stages], [stage.steps for stage in stages]
    done = textbook.run(textbook.VGG(state, settings.pooling), content, style, settings.style_loss, sizes, steps)
    loss = float(objective.evaluate(done.image.clone().requires_grad_()).loss)
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


def compare(record: Record, content: Path, style: Path, settings: Resolved, runs: Sequence[Run]) -> None:
    """Paint a pair in both ways and record losses, steps and seconds, with the trace of both as samples."""
    pictures = [to_tensor(images.load(str(path))) for path in (content, style)]
    (exact,) = load_networks(dataclasses.replace(settings, precision="fp32"), [torch.device("cpu")])
    objective, found = last_objective(*pictures, settings, exact), []
    for run in runs:
        if run.kind == "textbook":
            found.append(textbook_trace(*pictures, settings, objective))
            continue
        iterations = "auto" if run.kind == "auto" else settings.iterations  # the settings' are those of `CLASSIC`
        about = {"iterations": iterations, "precision": run.precision or settings.precision}
        found.append(trace(*pictures, dataclasses.replace(settings, **about), objective))
    first, second = found
    reached = second.reached(first.losses[-1])
    samples = {f"{name} {kind}": rounded(list(getattr(trace, kind))) for name, trace in (("first", first), ("second", second))
               for kind in ("losses", "seconds")}  # fmt: skip
    record.add(
        "runs",
        samples,
        loss=settings.style_loss,
        content=content.stem,
        style=style.stem,
        end_scale=settings.end_scale,
        first=str(runs[0]),
        second=str(runs[1]),
        first_loss=rounded(first.losses[-1]),
        second_loss=rounded(second.losses[-1]),
        first_steps=first.steps,
        second_steps=second.steps,
        first_seconds=rounded(first.seconds[-1]),
        second_seconds=rounded(second.seconds[-1]),
        reached_seconds=None if reached is None else rounded(reached),
        sooner=None if reached is None else rounded(first.seconds[-1] / reached, 3),
    )


def main() -> None:
    """Paint all pairs and record them."""
    parser = argparse.ArgumentParser(description="Compare two ways to paint.")
    parser.add_argument("--contents", nargs="+", type=Path, required=True)
    parser.add_argument("--styles", nargs="+", type=Path, required=True)
    parser.add_argument("--losses", nargs="+", default=["gram", "wasserstein"])
    usual = [Run.of("constant"), Run.of("auto")]
    parser.add_argument("--runs", nargs=2, type=Run.of, default=usual, metavar=("FIRST", "SECOND"))
    parser.add_argument("--end-scale", default="181")
    parser.add_argument("--weights", help="VGG-19's; left out: the built-in network")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = {"weights": args.weights} if args.weights else {"network": "compact"}
    one, two = args.runs
    network = "VGG-19" if args.weights else "built-in network"
    record = Record("schedule", f"{network}, {args.threads} threads; first run {one}, second run {two}", f"the run {one}")
    for loss, content, style in itertools.product(args.losses, args.contents, args.styles):
        compare(
            record, content, style, Settings(style_loss=loss, end_scale=args.end_scale, **CLASSIC, **about).resolve(), args.runs
        )
    record.write()


if __name__ == "__main__":
    main()
