"""Makes the gallery: runs every command of docs/gallery.md, puts the results on sheets in docs/gallery, and writes the page.

    python docs/gallery.py [SHEET ...] [--folder FOLDER] [--weights FILE] [--page]

The commands run one after another in FOLDER, where photographs, styles and masks are put first; what is there already is not
painted again. The photographs come with scikit-image (`pip install scikit-image`); styles are those of examples/. --weights is a
file of VGG-19, needed only where torchvision's cannot be downloaded. --page writes the page alone.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "docs" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
STYLES = ("painting", "mosaic", "woodcut", "watercolour")
PHOTOS = ("chelsea", "coffee", "rocket")
COLORS = ("style", "content", "luminance", "match-style", "match-content")
LOSSES = ("gram", "wasserstein", "sliced-wasserstein", "relaxed-emd", "neighbors", "covariance", "mean-std")
COMPACT = "--network compact -s 256"


LAKE = (
    "style_transfer landscape_lake.jpg vangogh_wheatfield.jpg --network vgg19 --content-layers relu3_1 relu4_2 -cw 0.092 -tw 2 "
    "-s 1024 --steps 150 100 100 100 100 80 100"
)
INTRODUCTION = f"""\
# Gallery

Made by `python docs/gallery.py`, which runs the commands below in a folder with these pictures and puts the results side by side.
Unless stated otherwise, pictures are small and were painted with the built-in network on a CPU, in under a minute each; larger
sizes, more steps and `--network vgg19` give better results. `-cw` keeps more of the photograph than the default.

Styles are the project's own, made by `examples/make_pictures.py` and `examples/make_styles.py`. Photographs come with
[scikit-image](https://scikit-image.org): *chelsea* by Stefan van der Walt and *coffee* by Rachel Michetti, courtesy of Pikolo
Espresso Bar, both CC0; *rocket* by SpaceX, in the public domain.

## A photograph after a painting

Lake Sherburne, by Jacob W. Frank, US National Park Service, in the public domain; after Vincent van Gogh's Wheat Field with
Cypresses (1889), The Metropolitan Museum of Art, CC0. The [whole picture](images/lake.webp) has 1024 pixels. This one is not made
by the script.

![Mountains behind a lake, painted, and a part of the picture at its own pixels](images/lake.jpg)

```sh
{LAKE}
```
"""


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet: a label, and the command's words, or the name of a file that is there."""

    label: str
    words: str = ""
    file: str = ""

    def output(self, sheet: str) -> str:
        """Return the name of the picture."""
        return self.file or f"{sheet}-{''.join(c if c.isalnum() else '-' for c in self.label)}.png"

    def command(self, sheet: str) -> str:
        """Return the command as the page shows it."""
        return f"style_transfer {self.words} -o {self.output(sheet)}"


@dataclass(frozen=True)
class Sheet:
    """Several pictures side by side with a title and a few sentences. A `grid` is one command, which makes its own sheet."""

    name: str
    title: str
    text: str
    cells: tuple[Cell, ...] = ()
    columns: int = 4
    grid: str = ""
    wide: int = 256

    @property
    def commands(self) -> tuple[str, ...]:
        """All commands of the sheet, as the page shows them."""
        if self.grid:
            return (f"style_transfer {self.grid}",)
        return tuple(cell.command(self.name) for cell in self.cells if cell.words)


def painted(label: str, pictures: str, words: str = "") -> Cell:
    """Return the cell of a picture painted with the built-in network; `pictures` are names without endings."""
    content, *styles = pictures.split()
    return Cell(label, " ".join(filter(None, (f"{content}.png", *(f"{style}.jpg" for style in styles), words, COMPACT))))


def series(pictures: str, words: str, values: Mapping[str, str]) -> tuple[Cell, ...]:
    """Return a cell for each value, by its label, that takes the place of {} in `words`; `pictures` are as in `painted`."""
    return tuple(painted(label, pictures, words.format(value)) for label, value in values.items())


def preset(name: str, words: str) -> Cell:
    """Return the cell of a preset."""
    return Cell(name, f"coffee.png painting.jpg --preset {name} --network vgg19 -s 256 {words}")


SHEETS: tuple[Sheet, ...] = (
    Sheet(
        "grid", "Photographs and styles",
        "Every photograph in every style, by one command, which also makes this sheet (`--contact-sheet`).",
        grid=f"painting.jpg woodcut.jpg watercolour.jpg --each chelsea.png coffee.png rocket.png --grid -o grid "
             f"--contact-sheet grid.png -cw 0.1 {COMPACT}",
    ),
    Sheet(
        "presets", "Presets of other programs",
        "`--preset` sets a program's network, losses, weights, optimizer and steps. Where a program works with Caffe's "
        "weights or GoogLeNet, which are not part of this one, VGG-19 of torchvision stands in here, at a small size and for "
        "few steps; the style then has the same weight as with the preset's own network. The remaining differences are those "
        "of the programs: style-transfer-pytorch works coarse to fine, with Gram matrices or Wasserstein distances. neural-style "
        "starts from flat gray at the final size, so that large shapes come from the photograph alone. neuralart, its "
        "Inception variant and fzliu start from the photograph. sliced makes a texture of the style alone.",
        (
            preset("style-transfer-pytorch", "-ii 120 -i 60"),
            preset("style-transfer-pytorch-2023", "-ii 120 -i 60"),
            preset("neural-style", "-ii 150"),
            preset("neuralart", "-ii 150"),
            preset("neuralart-inception", "-ii 150"),
            preset("fzliu", "-ii 150"),
            preset("sliced", "-ii 150"),
        ),
        3,
    ),
    Sheet(
        "color", "Colours",
        "`--color content` combines the lightness of the result with the colours of the photograph. `luminance` also paints in "
        "gray, so that colours of the style cannot become edges. `match-style` first gives the style the palette of the "
        "photograph, `match-content` the photograph that of the style, by mean and covariance or, in the last picture, by the "
        "whole histogram.",
        (
            Cell("the photograph", file="coffee.png"),
            Cell("the style", file="painting.jpg"),
            *series("coffee painting", "--color {} -cw 0.05", {name: name for name in COLORS}),
            painted("match-content, histogram", "coffee painting", "--color match-content --color-match histogram -cw 0.05"),
        ),
    ),
    Sheet(
        "masks", "Masks",
        "A mask says where a style applies: two styles in two regions; a single region, with the rest left as the photograph "
        "is; and two regions in the style of two parts of one painting, its warm and its cool colours.",
        (
            Cell("cup.png", file="cup.png"),
            painted("two styles", "coffee mosaic watercolour", "--content-mask cup.png table.png -cw 0.05"),
            painted("one region", "coffee mosaic", "--content-mask cup.png -cw 0.05"),
            painted("parts of a style", "coffee painting",
                    "--content-mask cup.png table.png --style-mask warm.png cool.png -cw 0.05"),
        ),
    ),
    Sheet(
        "scale", "The size of the style",
        "`--style-scale` makes strokes, or stones, smaller or larger, and can use a style at several sizes at once.",
        series("coffee mosaic", "--style-scale {} -cw 0.1", {"0.75": "0.75", "1.5": "1.5", "3": "3", "0.75 and 3": "0.75 3"}),
    ),
    Sheet(
        "blend", "Several styles",
        "Two styles combined by `--style-weights`.",
        series("coffee woodcut watercolour", "-sw {} -cw 0.1", {f"{a} to {b}": f"{a} {b}" for a, b in ("10", "21", "12", "01")}),
    ),
    Sheet(
        "losses", "Style losses",
        "`--style-loss`, each with its own default content weight: [which loss for which painting](losses.md). Histograms have "
        "small distances, which need a larger `--style-factor`; the last picture adds them to Gram matrices (`--extra-loss`).",
        (
            Cell("the photograph", file="chelsea.png"),
            Cell("the style", file="painting.jpg"),
            *series("chelsea painting", "--style-loss {}", {name: name for name in LOSSES}),
            painted("histogram", "chelsea painting", "--style-loss histogram --style-factor 300 -cw 0.1"),
            painted("gram and histogram", "chelsea painting", "--extra-loss histogram --extra-weight 100"),
        ),
        4,
    ),
)  # fmt: skip


# pictures


def prepare(folder: Path) -> None:
    """Put photographs, styles and masks where the commands find them."""
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    for name in STYLES:
        (folder / f"{name}.jpg").write_bytes((ROOT / "examples" / f"{name}.jpg").read_bytes())
    cup = Image.new("L", (600, 400))  # the cup, its saucer and its spoon, as they are in coffee.png
    draw = ImageDraw.Draw(cup)
    draw.ellipse((76, 62, 479, 386), fill=255)
    draw.ellipse((171, 16, 409, 200), fill=255)
    draw.polygon([(392, 68), (424, 64), (424, 84), (392, 160)], fill=255)
    cup = cup.filter(ImageFilter.GaussianBlur(3))
    cup.save(folder / "cup.png")
    ImageChops.invert(cup).save(folder / "table.png")
    painting = np.asarray(Image.open(folder / "painting.jpg")).astype(float)
    warm = Image.fromarray(np.where(painting[..., 0] > painting[..., 2], 255, 0).astype(np.uint8))
    warm = warm.filter(ImageFilter.GaussianBlur(12)).point(lambda value: 255 if value > 110 else 0)
    warm.save(folder / "warm.png")
    ImageChops.invert(warm).save(folder / "cool.png")


def run(command: str, folder: Path, weights: Path | None) -> None:
    """Run one command of the page in the folder."""
    words = shlex.split(command)[1:]
    if weights is not None and "vgg19" in words:
        words += ["--weights", str(weights.resolve())]
    print(command, flush=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    subprocess.run(
        [sys.executable, "-m", "style_transfer", *words, "--quiet"], cwd=folder, env=os.environ | {"PYTHONPATH": path}, check=True
    )


def compose(sheet: Sheet, folder: Path) -> Image.Image:
    """Return the pictures of a sheet side by side, each with its label below."""
    pictures = []
    for cell in sheet.cells:
        picture = Image.open(folder / cell.output(sheet.name)).convert("RGB")
        pictures.append(
            picture.resize((sheet.wide, round(sheet.wide * picture.height / picture.width)), Image.Resampling.LANCZOS)
        )
    gap, line = 10, 26
    font = ImageFont.load_default(16)
    rows = [pictures[i : i + sheet.columns] for i in range(0, len(pictures), sheet.columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    columns = max(map(len, rows))
    whole = Image.new("RGB", (columns * (sheet.wide + gap) + gap, sum(heights) + len(rows) * (line + gap)), "white")
    draw = ImageDraw.Draw(whole)
    top, labels = gap, iter(sheet.cells)
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            left = gap + column * (sheet.wide + gap)
            whole.paste(picture, (left, top + height - picture.height))
            text = next(labels).label
            draw.text((left + (sheet.wide - font.getlength(text)) / 2, top + height + 3), text, fill="black", font=font)
        top += height + line + gap
    return whole


def make(sheet: Sheet, folder: Path, weights: Path | None) -> None:
    """Run what is missing of a sheet, and write the sheet."""
    if sheet.grid:
        run(sheet.commands[0], folder, weights)
        whole = Image.open(folder / f"{sheet.name}.png").convert("RGB")
    else:
        for cell in sheet.cells:
            if cell.words and not (folder / cell.output(sheet.name)).exists():
                run(cell.command(sheet.name), folder, weights)
        whole = compose(sheet, folder)
    path = PLACE / f"{sheet.name}.jpg"
    for quality in range(88, 50, -3):
        whole.save(path, quality=quality, optimize=True)
        if path.stat().st_size < 390_000:
            break
    print(f"{path.relative_to(ROOT)}: {whole.width}x{whole.height}, {path.stat().st_size} bytes", flush=True)


def page() -> str:
    """Return the text of docs/gallery.md."""
    parts = [INTRODUCTION]
    for sheet in SHEETS:
        commands = "\n".join(sheet.commands)
        text = textwrap.fill(sheet.text, 130, break_on_hyphens=False)
        parts.append(f"## {sheet.title}\n\n{text}\n\n![{sheet.title}](gallery/{sheet.name}.jpg)\n\n```sh\n{commands}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Make what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheets", nargs="*", metavar="SHEET", help=f"sheets to make, of {' '.join(s.name for s in SHEETS)}")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "gallery", help="where the commands run")
    parser.add_argument("--weights", type=Path, help="VGG-19's weights")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    args = parser.parse_args()
    PAGE.write_text(page())
    if args.page:
        return
    prepare(args.folder)
    PLACE.mkdir(exist_ok=True)
    for sheet in SHEETS:
        if not args.sheets or sheet.name in args.sheets:
            make(sheet, args.folder, args.weights)


if __name__ == "__main__":
    main()
