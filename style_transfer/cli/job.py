"""Reading and checking everything that one picture needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import engine
from ..errors import SettingsError, near_miss
from ..files import Task, exists, similar_name
from ..geometry import Size
from ..geometry.sheet import INCH
from ..losses.guidance import Region, as_mask, coverage_at, regions_of
from ..networks import network_spec
from ..networks.loading import Weights, load_weights
from ..pictures import Picture, Pixels, Reading, format_of, load
from ..pictures.color import Coloring
from ..pictures.color.sharpening import sharpen
from ..pictures.tensors import from_pixels, to_pixels, to_tensor
from ..settings import INITS, Resolved
from ..settings.command import SCREEN_DPI, CommandOptions
from ..settings.paper import parse_length
from .outputs import OutputFiles
from .printing import PrintPlan, style_notes


def unchanged(pixels: Pixels) -> Pixels:
    """Return pixels as they are."""
    return pixels


@dataclass(frozen=True)
class Job:
    """One picture, read and checked.

    `run` is what the engine works on, `weights` those of the network, unless an earlier picture of the command loaded it.
    `finish` gives painted pixels their final colours, and `display` makes those sRGB, to be shown; on ranks other than 0 both do
    nothing, since these write no pictures.
    """

    run: engine.Job
    weights: Weights | None
    finish: Callable[[Pixels], Pixels]
    readings: tuple[tuple[str, Reading], ...] = ()
    """The input pictures and masks in the order of reading, and how each was understood."""
    plan: PrintPlan | None = None
    """The print, if the command asks for one."""
    display: Callable[[Pixels], Pixels] = unchanged

    def for_other_ranks(self) -> Job:
        """Return the part of the job that other processes need."""
        return dataclasses.replace(self, finish=unchanged, display=unchanged)

    def shown(self, picture: Tensor) -> Tensor:
        """Return a picture of the run, (1, 3, H, W), as it is shown."""
        return picture if self.display is unchanged else from_pixels(self.display(to_pixels(picture)))


class JobReader:
    """Reads the pictures, masks and weights of a command; `note` reports remarks of the readers."""

    def __init__(self, settings: Resolved, options: CommandOptions, note: Callable[[str], None]) -> None:
        self.settings, self.options, self.note = settings, options, note
        self._readings: dict[str, Reading] = {}
        self._reported: set[str] = set()

    def read(self, files: OutputFiles, *, weights: bool) -> Job:
        """Return the job of one picture, with `weights` if the network has not been loaded.

        Raises `StyleTransferError`; what is quick to check is checked first.
        """
        settings, task = self.settings, files.task
        self._readings = {}
        self._report_halved_colour(files.path)
        init = settings.init
        if init not in INITS and not exists(init):
            similar = similar_name(init) if Path(init).suffix else near_miss(init, INITS)
            raise SettingsError(f"--init {init!r} is neither one of {', '.join(INITS)} nor a picture file{similar}")
        content = self._load_picture(task.content, files, alpha=settings.alpha == "keep")
        styles = [self._load_picture(path, files) for path in task.styles]
        start = None if init in INITS else self._load_picture(init, files)
        regions = self._regions(content, styles)
        if files.credits is not None:
            self._report(f"{task.content}: metadata kept: {', '.join(files.credits.found) or 'none found'}")
        plan = PrintPlan.of(self.options, content.size)
        if plan is not None:
            self._report_print(plan, content.size, task, styles)
            settings = plan.settings(settings, self.options)
            start = start if start is None or plan.is_framed(start.size) else plan.picture(start)
            content, regions = plan.picture(content), plan.regions(regions)
        painted = coverage_at(regions, content.size)[0, 0].numpy() if regions else None
        coloring = Coloring(settings, content.pixels, [style.pixels for style in styles], content.alpha, painted)
        run = engine.Job.create(
            from_pixels(coloring.content),
            [from_pixels(style) for style in coloring.styles],
            settings if start is None else dataclasses.replace(settings, init="content"),
            init=None if start is None else to_tensor(start),
            regions=regions,
            shape=None if plan is None else plan.sheet.size,
        )
        run.check_network(network_spec(settings))
        files.check_space(run.stages, alpha=content.alpha is not None)
        display = unchanged if files.space is None else files.space.to_srgb
        fetched = load_weights(settings, progress=not self.options.quiet, warn=self.note) if weights else None
        finish = self._finish(coloring, max(run.stages[-1].size))
        return Job(run, fetched, finish, tuple(self._readings.items()), plan, display)

    def _finish(self, coloring: Coloring, long_side: int) -> Callable[[Pixels], Pixels]:
        """Return what gives painted pixels their final colours and sharpness; `long_side` is that of the result."""
        options = self.options
        if not options.sharpen:
            return coloring.finish
        radius = parse_length("--sharpen-radius", options.sharpen_radius) / INCH * options.resolution / long_side
        return lambda pixels: sharpen(coloring.finish(pixels), options.sharpen, radius * max(pixels.shape[:2]))

    def _load_picture(self, path: str, files: OutputFiles, *, alpha: bool = False) -> Picture:
        """Load a content, style or initial picture, in the working space and soft-proofed if the command asks for that."""
        return self._load(path, alpha=alpha, proof=self.options.proof, space=files.space)

    def _load(self, path: str, *, alpha: bool = False, **about: Any) -> Picture:
        """Load a picture, and report the remarks of its reader; `about` are further arguments of `load`."""
        picture = load(path, max_pixels=self.options.max_pixels, alpha=alpha, **about)
        if picture.reading is not None:
            self._readings[path] = picture.reading
        read = [f"read as {picture.reading}"] if self.options.verbose else []
        for note in (*read, *picture.notes):
            self._report(f"{path}: {note}")
        return picture

    def _load_mask(self, path: str) -> Pixels:
        """Load a mask, which may be in the alpha of a picture."""
        picture = self._load(path, alpha=True)
        mask = as_mask(picture.pixels, picture.alpha)
        if picture.alpha is not None and mask is picture.pixels:
            self._report(f"{path}: alpha channel ignored; the mask is in the colours")
        return mask

    def _report(self, text: str) -> None:
        """Report a remark once, however many pictures of the command have the same style."""
        if text not in self._reported:
            self._reported.add(text)
            self.note(text)

    def _report_print(self, plan: PrintPlan, size: Size, task: Task, styles: Sequence[Picture]) -> None:
        """Report how the photograph is framed for a print, and styles that are too small for their size in it."""
        for note in plan.notes(size):
            self._report(f"{task.content}: {note}")
        sizes = [(path, style.size) for path, style in zip(task.styles, styles, strict=True)]
        for note in style_notes(plan.settings(self.settings, self.options), self.options, sizes):
            self._report(note)

    def _report_halved_colour(self, path: Path) -> None:
        """Report a format that is not for print if the resolution asked for is that of a print."""
        output_format = format_of(path)
        if output_format.halves_colour and not self.options.lossless and self.options.resolution > SCREEN_DPI:
            self._report(
                f"{path}: {output_format.name} stores colour at half the resolution (4:2:0), which is not for print; "
                "--lossless, .tif or .png keep it"
            )

    def _regions(self, content: Picture, styles: Sequence[Picture]) -> tuple[Region, ...]:
        """Return the regions that the masks describe."""
        paths = self.options.content_mask or (), self.options.style_mask or ()
        if not any(paths):
            return ()
        content_masks, style_masks = ([self._load_mask(path) for path in group] for group in paths)
        return regions_of(content_masks, style_masks, len(styles), [picture.size for picture in (content, *styles)])
