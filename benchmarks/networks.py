"""Compares the built-in network's pictures with VGG-19's: quality judged by VGG-19, and time per iteration.

    python benchmarks/networks.py --contents A B --styles C D --weights FILE [--folder DIR] [--pooling max] [-- MORE OPTIONS]

Every content is painted in the manner of every style with both networks by the program itself, at 362 px unless MORE OPTIONS say
otherwise. VGG-19 with the same pooling then gives each picture its default style loss (all five layers) as a share of the
photograph's own, and its content loss. Pictures that are in DIR already are not painted again. Times are medians
of one size, the two networks taking turns. Writes a file of benchmarks/results.
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
from record import Record, rounded

from style_transfer import pictures as images
from style_transfer.engine.initial import resized_for
from style_transfer.evaluation.objective import Objective
from style_transfer.geometry.scales import Stage, fit
from style_transfer.networks.forward import Network
from style_transfer.networks.loading import load_networks
from style_transfer.pictures.tensors import to_tensor
from style_transfer.settings import Settings

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
    content = sum(float(value) for name, value in parts.items() if name.startswith("content"))
    content /= Settings().resolve().content_weight
    return sum(float(value) for name, value in parts.items() if name.startswith("style")), content


def step_times(built: list[Network], size: tuple[int, int], rounds: int = 7) -> list[list[float]]:
    """Return the seconds of one loss and gradient for each network, in turns; the first round is left out."""
    torch.manual_seed(0)
    image, other = torch.rand(1, 3, *size), torch.rand(1, 3, *size)
    objectives = [Objective([network], other, [other], Settings().resolve()) for network in built]
    times: list[list[float]] = [[] for _ in built]
    for _ in range(rounds):
        for found, objective in zip(times, objectives, strict=True):
            x = image.clone().requires_grad_()
            start = time.perf_counter()
            objective.evaluate(x)
            found.append(time.perf_counter() - start)
    return [found[1:] for found in times]


def main() -> None:
    """Paint, judge and record."""
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
    (vgg,) = load_networks(Settings(pooling=args.pooling, weights=args.weights).resolve(), CPU)
    record = Record("networks", f"362 px, {args.pooling} pooling, {args.threads} threads", "the photograph; VGG-19's own picture")
    for pair in pairs:
        content, style = (to_tensor(images.load(str(path))) for path in pair)
        size = tuple(to_tensor(images.load(str(pictures[pair, "vgg19"]))).shape[2:])
        stage = Stage(max(size), size, (fit(tuple(style.shape[2:]), max(size), enlarge=False),), 1)  # type: ignore[arg-type]
        objective = Objective(
            [vgg], resized_for(vgg, content, stage.size), [resized_for(vgg, style, stage.style_sizes[0])], Settings().resolve()
        )
        photograph, _ = judge(objective, resized_for(vgg, content, stage.size))
        found = {n: judge(objective, to_tensor(images.load(str(pictures[pair, n])))) for n in ("vgg19", "compact")}
        shares = [100 * found[n][0] / photograph for n in ("vgg19", "compact")]
        ratio = found["compact"][1] / found["vgg19"][1]
        record.add(
            "quality",
            content=pair[0].stem,
            style=pair[1].stem,
            vgg19_percent=rounded(shares[0], 3),
            compact_percent=rounded(shares[1], 3),
            content_ratio=rounded(ratio, 3),
        )
    (compact,) = load_networks(Settings(pooling=args.pooling, network="compact").resolve(), CPU)
    for size in ((136, 181), (192, 256), (272, 362), (384, 512)):
        times = step_times([vgg, compact], size)
        a, b = map(statistics.median, times)
        record.add(
            "steps",
            {"vgg19_seconds": rounded(times[0]), "compact_seconds": rounded(times[1])},
            size=f"{size[1]}x{size[0]}",
            threads=args.threads,
            vgg19_seconds=rounded(a),
            compact_seconds=rounded(b),
            ratio=rounded(a / b, 3),
        )
    for key, path in pictures.items():
        report = json.loads(path.with_name(f"{path.name}.json").read_text())
        (content, style), network = key
        record.add(
            "runs", content=content.stem, style=style.stem, network=network, seconds=round(report["seconds"]),
            weights=report["network"]["weights"][:40],
        )  # fmt: skip
    record.write()


if __name__ == "__main__":
    main()
