"""Compares the built-in network's pictures with VGG-19's: quality judged by VGG-19, and time per iteration.

    python benchmarks/networks.py --contents A B --styles C D --weights FILE [--folder DIR] [--pooling max] [-- MORE OPTIONS]

Every content is painted in the manner of every style with both networks by the program itself, at 362 px unless MORE OPTIONS say
otherwise. VGG-19 with the same pooling then gives each picture its default style loss (all five layers) as a share of the
photograph's own, and its content loss. Pictures that are in DIR already are not painted again. Times are medians
of one size, the two networks taking turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from style_transfer import networks
from style_transfer.api import to_tensor
from style_transfer.engine.initial import ready
from style_transfer.evaluation.objective import Objective
from style_transfer.geometry.scales import Stage, fit
from style_transfer.networks.graph import Network
from style_transfer.pictures import images
from style_transfer.settings.settings import Settings

CPU = (torch.device("cpu"),)


def paint(network: str, content: Path, style: Path, args: argparse.Namespace) -> Path:
    """Return the picture that the program paints, 16 bits, from the folder if it is there."""
    output = args.folder / f"{content.stem}_{style.stem}_{network}.png"
    if not output.exists():
        command = [
            sys.executable,
            "-m",
            "style_transfer",
            str(content),
            str(style),
            "--network",
            network,
            "--pooling",
            args.pooling,
        ]
        command += ["--weights", args.weights] if network == "vgg19" else []
        new = output.with_name(f"new_{output.name}")
        subprocess.run([*command, "-s", "362", "--quiet", *args.more, "-o", str(new)], check=True, capture_output=True)
        new.with_name(f"{new.name}.json").replace(output.with_name(f"{output.name}.json"))
        new.replace(output)
    return output


def judge(objective: Objective, picture: torch.Tensor) -> tuple[float, float]:
    """Return the style loss and the content loss of a picture, unweighted."""
    parts = objective.evaluate(picture.clone().requires_grad_()).parts
    content = sum(float(value) for name, value in parts.items() if name.startswith("content")) / Settings().content_weight
    return sum(float(value) for name, value in parts.items() if name.startswith("style")), content


def step_times(built: list[Network], size: tuple[int, int], rounds: int = 7) -> list[float]:
    """Return the median seconds of one loss and gradient for each network, in turns; the first round is left out."""
    torch.manual_seed(0)
    image, other = torch.rand(1, 3, *size), torch.rand(1, 3, *size)
    objectives = [Objective([network], other, [other], Settings()) for network in built]
    times: list[list[float]] = [[] for _ in built]
    for _ in range(rounds):
        for found, objective in zip(times, objectives, strict=True):
            x = image.clone().requires_grad_()
            start = time.perf_counter()
            objective.evaluate(x)
            found.append(time.perf_counter() - start)
    return [statistics.median(found[1:]) for found in times]


def main() -> None:
    """Paint, judge and print the tables."""
    parser = argparse.ArgumentParser(description="Compare the built-in network with VGG-19.")
    parser.add_argument("--contents", nargs="+", type=Path, required=True)
    parser.add_argument("--styles", nargs="+", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="VGG-19's")
    parser.add_argument("--folder", type=Path, default=Path("networks"))
    parser.add_argument("--pooling", default="max")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("more", nargs="*", help="options for style_transfer, after --")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    pairs = list(itertools.product(args.contents, args.styles))
    pictures = {(pair, n): paint(n, *pair, args) for pair in pairs for n in ("vgg19", "compact")}
    (vgg,) = networks.load(Settings(pooling=args.pooling, weights=args.weights), CPU)
    print("| content | style | VGG-19: share of the photograph's style loss | compact: share | content loss, compact / VGG-19 |")
    print("|---|---|---|---|---|")
    for pair in pairs:
        content, style = (to_tensor(images.load(str(path))) for path in pair)
        size = tuple(to_tensor(images.load(str(pictures[pair, "vgg19"]))).shape[2:])
        stage = Stage(max(size), size, (fit(tuple(style.shape[2:]), max(size), enlarge=False),), 1)  # type: ignore[arg-type]
        objective = Objective([vgg], ready(content, stage.size, vgg), [ready(style, stage.style_sizes[0], vgg)], Settings())
        photograph, _ = judge(objective, ready(content, stage.size, vgg))
        found = {n: judge(objective, to_tensor(images.load(str(pictures[pair, n])))) for n in ("vgg19", "compact")}
        shares = [100 * found[n][0] / photograph for n in ("vgg19", "compact")]
        ratio = found["compact"][1] / found["vgg19"][1]
        print(f"| {pair[0].stem} | {pair[1].stem} | {shares[0]:.1f} % | {shares[1]:.1f} % | {ratio:.2f} |")
    (compact,) = networks.load(Settings(pooling=args.pooling, network="compact"), CPU)
    print("\n| size | VGG-19, s | compact, s | ratio |\n|---|---|---|---|")
    for size in ((136, 181), (192, 256), (272, 362), (384, 512)):
        a, b = step_times([vgg, compact], size)
        print(f"| {size[1]}x{size[0]} | {a:.3f} | {b:.3f} | {a / b:.1f} |")
    for key, path in pictures.items():
        report = json.loads(path.with_name(f"{path.name}.json").read_text())
        print(
            f"\n{key[0][0].stem}, {key[0][1].stem}, {key[1]}: {report['seconds']:.0f} s, {report['network']['weights'][:40]}",
            end="",
        )
    print()


if __name__ == "__main__":
    main()
