"""The print that a command asks for: the settings that follow from its size, and the framing of the photograph."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ImageError, SettingsError
from ..geometry import Framing, Sheet, Size, frame
from ..losses.guidance import EMPTY, Region
from ..pictures import Picture
from ..pictures.framing import framed, framed_picture
from ..pictures.tensors import from_pixels, to_pixels
from ..settings import Resolved, Settings, flag_name
from ..settings.checks import MAX_SCALE
from ..settings.command import CommandOptions
from ..settings.paper import parse_length, show_length

SAME_SHAPE = 0.02
"""The relative difference up to which an initial picture has the shape of the photograph, as masks have it."""
NOTED = 0.002
"""The share of a side that has to be cut off or added for a note."""


def check_print(settings: Settings, options: CommandOptions) -> None:
    """Raise `SettingsError` for settings that do not go with those that follow from the size of a print."""
    if options.print_size is None:
        return
    for name in ("end_scale", "scales"):
        if getattr(settings, name) is not None:
            raise SettingsError(f"--print-size sets the long side; leave out {flag_name(name)}, and take --dpi for fewer pixels")
    for name in ("style_size", "style_scale", "style_scale_fac"):
        if options.style_print_size is not None and getattr(settings, name) is not None:
            raise SettingsError(f"--style-print-size sets the size of the styles; leave out {flag_name(name)}")


@dataclass(frozen=True)
class PrintPlan:
    """The print of a photograph, and how the photograph is framed for it."""

    sheet: Sheet
    framing: Framing
    fit: str
    bleed_from: str

    @staticmethod
    def of(options: CommandOptions, size: Size) -> PrintPlan | None:
        """Return the plan for a photograph of `size`; None if the command asks for no print. Raises `SettingsError`."""
        if options.paper is None:
            return None
        paper = options.paper.beside(*size)
        sheet = Sheet(paper.width, paper.height, options.bleed_length, options.resolution)
        if max(sheet.size) > MAX_SCALE:
            raise SettingsError(
                f"--print-size {options.print_size} at {options.resolution:g} dpi is {max(sheet.size)} pixels long, above the "
                f"limit of {MAX_SCALE}; take fewer --dpi"
            )
        framing = frame(size, sheet, options.print_fit, options.bleed_from)
        return PrintPlan(sheet, framing, options.print_fit, options.bleed_from)

    def settings(self, settings: Resolved, options: CommandOptions) -> Resolved:
        """Return settings with the long side of the print, and with the size that --style-print-size gives the styles."""
        settings = dataclasses.replace(settings, scales=None, end_scale=str(max(self.sheet.size)))
        if options.style_print_size is None:
            return settings
        whole = max(self.sheet.width, self.sheet.height) + 2 * self.sheet.bleed
        factor = parse_length("--style-print-size", options.style_print_size) / whole
        return dataclasses.replace(settings, style_size=None, style_scale=None, style_scale_fac=factor)

    def notes(self, size: Size) -> Iterator[str]:
        """Yield what framing does to the photograph of `size`, without its name."""
        sheet, names = self.sheet, ("height", "width")
        print_shown = f"{show_length(sheet.width)} x {show_length(sheet.height)} cm"
        painted = dataclasses.replace(sheet, bleed=0.0) if self.bleed_from == "mirror" else sheet
        fitted = frame(size, painted, self.fit, "crop")
        for share, name in zip((2 * fitted.vertical, 2 * fitted.horizontal), names, strict=True):
            if share <= -NOTED:
                yield f"{-share:.1%} of its {name} is cut off for the print of {print_shown}; --print-fit pad keeps it"
            elif share >= NOTED:
                yield f"its mirror image adds {share:.1%} to its {name} for the print of {print_shown}"
        if sheet.bleed:
            edges = (self.framing.vertical, "top, bottom"), (self.framing.horizontal, "left, right")
            mirrored = ", ".join(names for share, names in edges if share > 0 and self.bleed_from == "mirror")
            where = f", and its mirror image at {mirrored}" if mirrored else ""
            yield f"{sheet.bleed:g} mm of bleed at each side show the photograph{where}"

    def picture(self, picture: Picture) -> Picture:
        """Return a picture of the photograph's shape, framed for the print."""
        return framed_picture(picture, self.framing.edges(picture.size))

    def regions(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        """Return regions of the photograph, framed as it is. Raises `ImageError` for one that is cut off."""
        result = []
        for region in regions:
            mask = to_pixels(region.content)
            mask = framed(mask, self.framing.edges((mask.shape[0], mask.shape[1])))
            if float(mask.mean()) < EMPTY:
                raise ImageError("a region of --content-mask is cut off for the print; leave it out, or choose --print-fit pad")
            result.append(dataclasses.replace(region, content=from_pixels(mask)))
        return tuple(result)

    def is_framed(self, size: Size) -> bool:
        """Return whether a picture of `size`, such as an earlier result, has the shape of the print."""
        height, width = self.sheet.size
        return abs(size[0] * width - size[1] * height) <= SAME_SHAPE * size[0] * width

    def recorded(self) -> dict[str, Any]:
        """Return the print as OUTPUT.json holds it."""
        sheet, (vertical, horizontal) = self.sheet, (self.framing.vertical, self.framing.horizontal)
        lengths = {"width_mm": sheet.width, "height_mm": sheet.height, "bleed_mm": sheet.bleed}
        return lengths | {"dpi": sheet.dpi, "added_at_top_and_bottom": vertical, "added_at_left_and_right": horizontal}

    def describe(self) -> str:
        """Return the size of the print in centimetres and pixels."""
        sheet, (height, width) = self.sheet, self.sheet.size
        bleed = f" and {sheet.bleed:g} mm of bleed" if sheet.bleed else ""
        shown = f"{show_length(sheet.width)} x {show_length(sheet.height)} cm{bleed}"
        return f"{shown} at {sheet.dpi:g} dpi: {width}x{height} pixels"


def style_notes(settings: Resolved, options: CommandOptions, styles: Sequence[tuple[str, Size]]) -> Iterator[str]:
    """Yield a note for each style with fewer pixels than --style-print-size needs."""
    if options.style_print_size is None or settings.style_enlarge:
        return
    needed = round(int(settings.end_scale) * settings.style_scale_fac)
    for path, size in styles:
        if max(size) < needed:
            yield (
                f"{path}: {max(size)} pixels, and --style-print-size {options.style_print_size} takes {needed}: strokes become "
                f"smaller by {max(size) / needed:.2f}; --style-enlarge enlarges it"
            )
