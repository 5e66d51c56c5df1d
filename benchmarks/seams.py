"""Looks for seams: gradient energy on the borders of tiles over elsewhere, in a picture painted in tiles and in one whole.

    python benchmarks/seams.py CONTENT STYLE [--weights FILE] [--side 512] [--tile 128] [--steps 60] [--device cuda]

Without seams the two ratios agree. On a GPU: --side 4000 --tile 640. Writes a file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import dataclasses

import torch
from record import Record, rounded
from torch import Tensor

from style_transfer import pictures as images
from style_transfer.engine.loop import stylize
from style_transfer.evaluation.planner import tiles_of
from style_transfer.evaluation.sweep import Sweep
from style_transfer.networks.loading import load_networks
from style_transfer.pictures.tensors import to_tensor
from style_transfer.settings import Settings


def seam_statistic(image: Tensor, rows: set[int], columns: set[int]) -> float:
    """Return the mean squared difference across the given rows and columns over that across all others."""
    down, right = image.diff(dim=2).square().mean((0, 1, 3)), image.diff(dim=3).square().mean((0, 1, 2))
    on = torch.tensor([y + 1 in rows for y in range(len(down))] + [x + 1 in columns for x in range(len(right))])
    energy = torch.cat([down, right])
    return float(energy[on].mean() / energy[~on].mean())


def borders(sweep: Sweep) -> tuple[set[int], set[int]]:
    """Return the rows and the columns of pixels at which tiles begin."""
    rows, columns, scale = set(), set(), 1
    for part in sweep.parts:
        boxes = [tile.own for tiles in part.tiles for tile in tiles]
        rows |= {scale * box.top for box in boxes}
        columns |= {scale * box.left for box in boxes}
        scale *= part.segment.geometry.stride
    return rows, columns


def main() -> None:
    """Paint twice and record both ratios."""
    parser = argparse.ArgumentParser(description="Look for seams between tiles.")
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--weights", help="VGG-19's; left out: the built-in network")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--tile", default="128")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    content, style = (to_tensor(images.load(path)) for path in (args.content, args.style))
    about = {"weights": args.weights} if args.weights else {"network": "compact"}
    common = Settings(
        min_scale=args.side, end_scale=str(args.side), initial_iterations=args.steps, devices=(args.device,), **about
    ).resolve()
    network = load_networks(common, [torch.device(args.device)])
    found: dict[str, Tensor] = {}
    for tile in (args.tile, "off"):
        settings = dataclasses.replace(common, tile=tile)
        for iterate in stylize(content, [style], settings, networks=network):
            last = iterate
        found[tile] = last.image()
        if tile != "off":
            tiles = " + ".join(map(str, last.tiles))
    rows, columns = borders(Sweep(network, last.size, common.layers, tiles_of(int(args.tile), network[0], common.layers)))
    tiled, whole = (seam_statistic(found[tile], rows, columns) for tile in (args.tile, "off"))
    difference = (found[args.tile] - found["off"]).abs()
    conditions = f"{'VGG-19' if args.weights else 'built-in network'}, {args.device}"
    record = Record("seams", conditions, "the same picture in one piece")
    record.add(
        "seams",
        side=args.side,
        tile=int(args.tile),
        steps=args.steps,
        tiles=tiles,
        tiled=rounded(tiled, 5),
        whole=rounded(whole, 5),
        ratio=rounded(tiled / whole, 5),
        mean_difference=rounded(float(difference.mean()), 2),
        largest_difference=rounded(float(difference.max()), 2),
    )
    record.write()


if __name__ == "__main__":
    main()
