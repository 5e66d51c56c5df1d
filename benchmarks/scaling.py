"""The model of docs/size-and-devices.md: what an iteration takes in operations, memory and traffic; checked against runs.

    python benchmarks/scaling.py CONTENT STYLE --weights FILE [--runs 512:1 1024:1 1024:2 2048:2] [--limit 3G]
    python benchmarks/scaling.py --draw 36500x27400 --ranks 8 64 --rate 200e12 --link 300e9

The first form runs an iteration at each long side and number of processes, one thread each, and records the prediction
beside the measurement; the time of the first run sets the rate of the others. The second records predictions for GPUs
of a rate, in operations a second, and a link, in bytes a second. Both write a file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import torch
from record import Record, rounded
from tiling import measure

from style_transfer.evaluation.planner import state_bytes
from style_transfer.geometry.scales import Size
from style_transfer.geometry.tiles import plan_tiles, share_rows
from style_transfer.networks import VGG19, Segment
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

FLOAT = 4
TILE_SIDE = 640
DEFAULT = Settings().resolve()


@dataclass(frozen=True)
class Prediction:
    """What one iteration takes on the busiest rank: operations, bytes that grow with the picture, bytes sent."""

    flops: float
    state: float
    sent: float


def flops_per_cell(segment: Segment) -> float:
    """Return the operations (two for each multiplication) of a segment's convolutions and Gram matrices per cell of its input."""
    total = 0.0
    for conv, stride in segment.convs:
        grams = sum(layer in DEFAULT.style_layers for layer in conv.layers)
        total += 2 * (9 * conv.inputs + grams * conv.outputs) * conv.outputs / stride**2
    return total


def predict(size: Size, ranks: int, *, tiled: bool) -> Prediction:
    """Return what an iteration of a picture takes on the rank in the middle.

    In tiles of which none is kept: two passes forward and one back over what the tiles read. Untiled: one of each.
    """
    height, width = size
    segments = VGG19.segments(DEFAULT.layers, cut=tiled or ranks > 1)
    bands = share_rows(height, ranks, VGG19.stride)
    band = bands[len(bands) // 2]
    flops = state = sent = 0.0
    side, shape, neighbours = TILE_SIDE, size, min(2, ranks - 1)
    for segment in segments:
        stride, halo = segment.geometry.stride, segment.geometry.halo
        read = (side + 2 * halo) ** 2 if tiled else math.prod(shape)
        tiles = plan_tiles(shape, segment.geometry, read, None, band)
        flops += sum(tile.read.area for tile in tiles) * flops_per_cell(segment) * (3 if tiled else 2)
        # neighbours get the rows that they read beyond their band, and send back the gradient of them
        sent += 2 * neighbours * halo * shape[1] * segment.inputs * FLOAT
        band = band[0] // stride, band[1] // stride
        shape, side = segment.output_size(shape), side // stride
        if not segment.last:
            state += 2 * (band[1] - band[0]) * shape[1] * segment.channels * FLOAT
    rows = bands[len(bands) // 2]
    state += state_bytes(_shape_only(), (rows[1] - rows[0], width), DEFAULT)
    sums = sum(VGG19.channels[layer] ** 2 for layer in DEFAULT.style_layers) * FLOAT
    return Prediction(flops, state, sent + 2 * sums * (ranks - 1) / ranks)


def _shape_only() -> Network:
    """Return an object that has only what `state_bytes` asks of a network: its spec and the type of its features."""
    network = Network.__new__(Network)
    network.spec, network.features = VGG19, torch.float32
    return network


def check(args: argparse.Namespace) -> None:
    """Run, and record the measurements beside the predictions."""
    record = Record("scaling", f"VGG-19, float32, one thread a process, at most {args.limit} each", "the model of this script")
    rate = base = 0.0
    for run in args.runs:
        side, ranks = run.split(":")
        found = measure(args, side, args.limit, 2, 1, int(ranks))
        width, height = map(int, found["size"].split("x"))
        tiled = max(found["tiles"]) > 1
        wanted = predict((height, width), int(ranks), tiled=tiled)
        peak = max(found["peaks"])
        if not rate:
            rate = wanted.flops / found["step"]
            base = args.base or peak
        record.add(
            "check",
            size=found["size"],
            processes=int(ranks),
            tiles=" + ".join(map(str, found["tiles"])),
            tflop=rounded(wanted.flops / 1e12),
            model_seconds=rounded(wanted.flops / rate),
            seconds=rounded(found["step"]),
            **({"model_gb": rounded((base + wanted.state) / 1e9)} if tiled else {}),
            gb=rounded(peak / 1e9),
            model_mb_sent=rounded(wanted.sent / 1e6),
            mb_sent=rounded(max(found["sent"]) / 1e6),
        )
    record.write()


def draw(args: argparse.Namespace) -> None:
    """Record what GPUs would take."""
    conditions = f"the model alone, {args.draw}, {args.rate:.3g} operations a second, {args.link:.3g} bytes a second"
    record = Record("scaling_model", conditions, None)
    width, height = map(int, args.draw.split("x"))
    for ranks in args.ranks:
        for tiled in (True, False):
            found = predict((height, width), ranks, tiled=tiled)
            record.add(
                "model",
                ranks=ranks,
                kept="no" if tiled else "yes",
                tflop=rounded(found.flops / 1e12),
                state_gb=rounded(found.state / 1e9),
                mb_sent=round(found.sent / 1e6),
                seconds=rounded(found.flops / args.rate),
                sending_seconds=rounded(found.sent / args.link),
            )
    record.write()


def main() -> None:
    """Check or draw."""
    parser = argparse.ArgumentParser(description="Check the model of docs/size-and-devices.md, or extrapolate it.")
    parser.add_argument("content", nargs="?")
    parser.add_argument("style", nargs="?")
    parser.add_argument("--weights")
    parser.add_argument("--runs", nargs="*", default=["512:1", "1024:1", "1024:2", "2048:1", "2048:2", "2048:4"])
    parser.add_argument("--limit", default="3G", help="memory limit of each process")
    parser.add_argument("--base", type=float, default=0, help="bytes of a process before any picture; the first run's peak if 0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--draw", help="width x height")
    parser.add_argument("--ranks", nargs="*", type=int, default=[8, 64])
    parser.add_argument("--rate", type=float, default=200e12)
    parser.add_argument("--link", type=float, default=300e9)
    args = parser.parse_args()
    if args.draw:
        draw(args)
    else:
        check(args)


if __name__ == "__main__":
    main()
