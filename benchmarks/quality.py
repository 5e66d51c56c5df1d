"""Paints a fixed set of pairs with several settings, and measures the pictures.

    python benchmarks/quality.py --pictures FOLDER --variants NAME=OPTIONS ... [--pairs PAIR ...] [--size 256] [--weights FILE]
        [--seconds S] [--out build/quality] [--record FILE]

FOLDER has `contents` and `styles` with the files that `PAIRS` names. A variant is a name and the options of the command line that
make it, such as "wasserstein=--style-loss wasserstein", or "default=" for none. --weights is a file of VGG-19, which paints the
pictures and is the judge of those that the built-in network paints; the built-in network judges VGG-19's. Without it the
built-in network does both, which says little of the style. --seconds gives each variant of numbered iterations so many steps that
it takes S seconds. A picture that is there is not painted again.

Writes the pictures, a page that shows them side by side with their names hidden (`index.html`), and a file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from quality_measures import Judge, artefacts, reduced
from quality_page import write_page
from record import RESULTS, Record
from torch import Tensor

from style_transfer import pictures as images
from style_transfer.compute.resampling import resize
from style_transfer.networks.forward import Network
from style_transfer.networks.loading import load_networks
from style_transfer.pictures.tensors import from_pixels
from style_transfer.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAIRS = {
    "portrait-gauguin": ("portrait_jemison", "gauguin_ia_orana_maria"),
    "portrait-dore": ("portrait_jemison", "dore_riding_hood"),
    "night-wheatfield": ("night_singapore", "vangogh_wheatfield"),
    "night-monet": ("night_singapore", "monet_water_lilies"),
    "lake-wave": ("landscape_lake", "hokusai_great_wave"),
    "lake-wheatfield": ("landscape_lake", "vangogh_wheatfield"),
    "otters-seurat": ("animal_otters", "seurat_port_en_bessin"),
    "spices-glass": ("stilllife_spices", "lafarge_stained_glass"),
    "dune-turner": ("sky_dune", "turner_venice"),
    "dune-andante": ("sky_dune", "ciurlionis_andante"),
}
"""Photographs and paintings of different kinds: a portrait, a city at night, a big sky, animals, a still life; oils, a woodcut,
a wood engraving, stained glass, pointillism, tempera."""
LARGEST = 2048
"""Pictures are reduced to this long side when they are read for the judge."""


@dataclass(frozen=True)
class Variant:
    """A name, and the options of the command line."""

    name: str
    options: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Variant:
        """Return the variant of NAME=OPTIONS. Raises ArgumentTypeError without a name that a file can have."""
        name, separator, options = text.partition("=")
        if not separator or not re.fullmatch(r"[\w.-]+", name):
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=OPTIONS")
        return cls(name, tuple(shlex.split(options)))

    def with_steps(self, factor: float) -> Variant:
        """Return the variant with its numbers of iterations multiplied. Raises ValueError if it takes automatic ones."""
        settings = dict(zip(self.options[::2], self.options[1::2], strict=False))
        if "auto" in (settings.get("-i"), settings.get("--iterations")):
            raise ValueError(f"{self.name}: --seconds needs numbers of iterations, -i and -ii")
        initial, others = (int(settings.get(flag, default)) for flag, default in (("-ii", "1000"), ("-i", "500")))
        counts = (str(max(1, round(number * factor))) for number in (initial, others))
        return Variant(self.name, (*self.options, "-ii", next(counts), "-i", next(counts)))


@dataclass(frozen=True)
class Painted:
    """A painted picture of a pair by a variant, and its measures."""

    pair: str
    variant: Variant
    path: Path
    seconds: float
    measures: dict[str, float]


class Bench:
    """Paints and measures the pictures of some pairs; `words` are options of all variants."""

    def __init__(self, pictures: Path, out: Path, size: int, weights: Path | None, network: str) -> None:
        self.pictures, self.out, self.size = pictures, out, size
        painter = ["--network", network, *(["--weights", str(weights)] if weights and network == "vgg19" else [])]
        self.words = ["-s", str(size), *painter]
        self.judge = self._judge(network, weights)

    def _judge(self, network: str, weights: Path | None) -> Network:
        """Return the network that did not paint, or the built-in one if there are no other weights."""
        other = network == "compact" and weights is not None
        settings = Settings(network="vgg19", weights=str(weights)) if other else Settings(network="compact")
        (judge,) = load_networks(settings.resolve(), [torch.device("cpu")])
        return judge

    def load(self, folder: str, name: str) -> Tensor:
        """Return a picture of the set, reduced to `LARGEST`."""
        (path,) = (self.pictures / folder).glob(f"{name}.*")
        return reduced(from_pixels(images.load(path).pixels), LARGEST)

    def paint(self, pair: str, variant: Variant) -> tuple[Path, float]:
        """Paint a picture unless it exists; return its file and the seconds that the command took."""
        path = self.out / f"{pair}_{variant.name}.png"
        log = path.with_suffix(".bench.json")
        about = {"options": list(variant.options), "size": self.size}
        if path.exists() and log.exists():
            known = json.loads(log.read_text())
            if {name: known[name] for name in about} == about:
                return path, known["seconds"]
        content, style = (
            str(next((self.pictures / folder).glob(f"{name}.*")))
            for folder, name in zip(("contents", "styles"), PAIRS[pair], strict=True)
        )
        command = [sys.executable, "-m", "style_transfer", content, style, *self.words, *variant.options, "-o", str(path)]
        python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        start = time.perf_counter()
        subprocess.run(
            [*command, "--overwrite", "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": python_path},
        )
        seconds = time.perf_counter() - start
        log.write_text(json.dumps(about | {"seconds": seconds}))
        return path, seconds

    def measure(self, pair: str, variants: Sequence[Variant], seconds: float | None) -> Iterator[Painted]:
        """Paint a pair with all variants, and yield the measured pictures."""
        content, style = (self.load(*where) for where in zip(("contents", "styles"), PAIRS[pair], strict=True))
        judge = None
        for variant in variants:
            path, taken = self.paint(pair, variant)
            if seconds is not None and abs(taken / seconds - 1) > 0.1:
                path, taken = self.paint(pair, variant.with_steps(seconds / taken))
            picture = from_pixels(images.load(path).pixels)
            size = picture.shape[2], picture.shape[3]
            if judge is None:
                photograph, painting = resize(content, size, antialias=True).clamp(0, 1), reduced(style, self.size)
                judge = Judge(self.judge, photograph, painting)
                self.references = {"content": artefacts(photograph), "style": artefacts(painting)}
                save(photograph, self.out / f"{pair}.content.png")
                save(painting, self.out / f"{pair}.style.png")
            yield Painted(pair, variant, path, taken, judge.measure(picture))


def save(picture: Tensor, path: Path) -> None:
    """Write a picture (1, 3, H, W)."""
    images.save(path, picture[0].permute(1, 2, 0).contiguous().numpy())


def medians(found: Sequence[Painted], first: str) -> Iterator[dict[str, object]]:
    """Yield for each variant the medians of its measures, and of their ratios to those of the variant `first`."""
    base = {each.pair: each.measures for each in found if each.variant.name == first}
    for name in dict.fromkeys(each.variant.name for each in found):
        chosen = [each for each in found if each.variant.name == name]
        row: dict[str, object] = {"variant": name, "pairs": len(chosen)}
        row |= {key: statistics.median(each.measures[key] for each in chosen) for key in chosen[0].measures}
        for key in ("gram", "wasserstein", "features", "gradients", "similarity"):
            row[f"{key}_ratio"] = statistics.median(each.measures[key] / base[each.pair][key] for each in chosen)
        row["gradients_worst_ratio"] = min(each.measures["gradients"] / base[each.pair]["gradients"] for each in chosen)
        row["gram_worst_ratio"] = max(each.measures["gram"] / base[each.pair]["gram"] for each in chosen)
        row["seconds"] = statistics.median(each.seconds for each in chosen)
        yield row


def main() -> None:
    """Paint, measure, and write the page and the data file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder with contents/ and styles/")
    parser.add_argument("--variants", nargs="+", type=Variant.of, default=[Variant("default", ())], metavar="NAME=OPTIONS")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="PAIR", help=", ".join(PAIRS))
    parser.add_argument("--size", type=int, default=256, help="long side of the pictures in pixels")
    parser.add_argument("--network", choices=("compact", "vgg19"), default="compact", help="the network that paints")
    parser.add_argument("--weights", type=Path, help="VGG-19's weights")
    parser.add_argument("--seconds", type=float, help="scale the numbers of iterations so that each picture takes this long")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "quality", help="folder for pictures and page")
    parser.add_argument("--record", type=Path, help="the data file, by default in benchmarks/results")
    args = parser.parse_args()
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.pictures, args.out, args.size, args.weights, args.network)
    judge = "VGG-19" if args.network == "compact" and args.weights else "built-in network"
    time_or_steps = f"{args.seconds:g} s each" if args.seconds else "steps of each variant"
    record = Record(
        "quality", f"{args.network} at {args.size} px, judged by the {judge}; {time_or_steps}", f"variant {args.variants[0].name}"
    )
    found: list[Painted] = []
    for pair in args.pairs:
        content, style = PAIRS[pair]
        for painted in bench.measure(pair, args.variants, args.seconds):
            found.append(painted)
            record.add("pictures", None, content=content, style=style, variant=painted.variant.name,
                options=shlex.join(painted.variant.options), seconds=painted.seconds, **painted.measures)  # fmt: skip
        for role, measures in bench.references.items():
            record.add("references", None, pair=pair, role=role, **measures)
    for row in medians(found, args.variants[0].name):
        record.add("medians", None, **row)
    write_page(args.out / "index.html", [(x.pair, x.variant.name, x.path.name, x.measures) for x in found])
    record.write(args.record or RESULTS / f"quality_{args.network}_{args.size}.json")


if __name__ == "__main__":
    main()
