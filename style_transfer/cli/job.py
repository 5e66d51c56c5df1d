"""Reading and checking everything that one picture needs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from .. import engine
from ..compute.resampling import ImagePyramid, resize
from ..engine.schedule import plan_stages
from ..errors import SettingsError, near_miss
from ..files import Task, exists, similar_name
from ..geometry import Size
from ..geometry.sheet import INCH
from ..losses.guidance import Region, as_mask, coverage_at, regions_of
from ..networks import network_spec
from ..networks.loading import Weights, load_weights
from ..pictures import DecodedPicture, Picture, Pixels, Reading, format_of, open_picture
from ..pictures.color import Coloring, KeptColours
from ..pictures.color.sharpening import sharpen
from ..pictures.tensors import from_pixels, pyramid_of, to_pixels
from ..settings import INITS, Resolved
from ..settings.command import SCREEN_DPI, CommandOptions
from ..settings.paper import parse_length
from .outputs import OutputFiles
from .printing import PrintPlan, style_notes

REDUCIBLE_COLORS: Final = frozenset(["style", "content"])
"""Colour modes that need the pictures at the sizes of the scales only."""
WHOLE_STYLE_INITS: Final = frozenset(["style", "style_mean", "style_stats"])
"""Initial pictures that are made from the styles at their own sizes."""


def content_sizes(size: Size, styles: int, settings: Resolved) -> list[Size]:
    """Return the sizes that a content picture of `size` has at the scales."""
    return [stage.size for stage in plan_stages(size, [size] * styles, settings)]


def framed_for(plan: PrintPlan, picture: ImagePyramid, alpha: Pixels | None) -> tuple[ImagePyramid, Pixels | None]:
    """Return a whole picture and its alpha framed for a print."""
    framed = plan.picture(Picture(to_pixels(picture.largest), alpha=alpha))
    return ImagePyramid.whole(from_pixels(framed.pixels)), framed.alpha


def coloring(
    settings: Resolved, content: ImagePyramid, styles: list[ImagePyramid], alpha: Pixels | None, regions: Sequence[Region]
) -> tuple[tuple[ImagePyramid, list[ImagePyramid]], Callable[[Pixels], Pixels]]:
    """Return content and styles for the engine, and what gives painted pixels their final colours."""
    if alpha is None and settings.color == "style":
        return (content, styles), unchanged
    if alpha is None and settings.color == "content":
        kept = KeptColours(lambda size: resize(content.nearest(size), size, antialias=True), settings.color_space)
        return (content, styles), kept.finish
    painted = coverage_at(regions, content.size)[0, 0].numpy() if regions else None
    changing = Coloring(settings, to_pixels(content.largest), [to_pixels(style.largest) for style in styles], alpha, painted)
    changed = [ImagePyramid.whole(from_pixels(style)) for style in changing.styles]
    return (ImagePyramid.whole(from_pixels(changing.content)), changed), changing.finish


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
        keeps_alpha, reducible = settings.alpha == "keep", settings.color in REDUCIBLE_COLORS and self.options.paper is None

        def sizes(size: Size) -> list[Size]:
            return content_sizes(size, len(task.styles), settings) if reducible else [size]

        content, alpha = self._load(task.content, files, sizes, alpha=keeps_alpha)
        if files.credits is not None:
            self._report(f"{task.content}: metadata kept: {', '.join(files.credits.found) or 'none found'}")
        plan = PrintPlan.of(self.options, content.size)
        if plan is not None:
            settings = plan.settings(settings, self.options)
        shape = content.size if plan is None else plan.sheet.size
        whole = alpha is not None or settings.color not in REDUCIBLE_COLORS or settings.init in WHOLE_STYLE_INITS
        styles = self._styles(task, files, None if whole else shape, settings)
        start = None if init in INITS else self._load(init, files, lambda size: sizes(content.size) if reducible else [size])[0]
        regions = self._regions([content.size, *(style.size for style in styles)])
        if plan is not None:
            self._report_print(plan, settings, content.size, task, styles)
            if start is not None and not plan.is_framed(start.size):
                start = framed_for(plan, start, None)[0]
            content, alpha = framed_for(plan, content, alpha)
            regions = plan.regions(regions)
        colored, finish = coloring(settings, content, styles, alpha, regions)
        run = engine.Job.create(
            *colored,
            settings if start is None else dataclasses.replace(settings, init="content"),
            init=start,
            regions=regions,
            shape=None if plan is None else plan.sheet.size,
        )
        run.check_network(network_spec(settings))
        files.check_space(run.stages, alpha=alpha is not None)
        display = unchanged if files.space is None else files.space.to_srgb
        fetched = load_weights(settings, progress=not self.options.quiet, warn=self.note) if weights else None
        finish = self._sharpened(finish, max(run.stages[-1].size))
        return Job(run, fetched, finish, tuple(self._readings.items()), plan, display)

    def _styles(self, task: Task, files: OutputFiles, shape: Size | None, settings: Resolved) -> list[ImagePyramid]:
        """Read the styles, reduced to their sizes at the scales of a result of `shape`, or whole without one."""
        count = len(task.styles)
        origins = [origin for origin, _ in settings.expanded(count)]

        def sizes(number: int, size: Size) -> list[Size]:
            if shape is None:
                return [size]
            stages = plan_stages(shape, [size] * count, settings)
            return [stage.style_sizes[at] for stage in stages for at, origin in enumerate(origins) if origin == number]

        return [self._load(path, files, functools.partial(sizes, number))[0] for number, path in enumerate(task.styles)]

    def _sharpened(self, finish: Callable[[Pixels], Pixels], long_side: int) -> Callable[[Pixels], Pixels]:
        """Return what also sharpens, if the command asks for that; `long_side` is that of the result."""
        options = self.options
        if not options.sharpen:
            return finish
        radius = parse_length("--sharpen-radius", options.sharpen_radius) / INCH * options.resolution / long_side
        return lambda pixels: sharpen(finish(pixels), options.sharpen, radius * max(pixels.shape[:2]))

    def _load(
        self, path: str, files: OutputFiles, sizes: Callable[[Size], Sequence[Size]], *, alpha: bool = False
    ) -> tuple[ImagePyramid, Pixels | None]:
        """Read a content, style or initial picture, and its alpha.

        It is in the working space, soft-proofed if the command asks for that, and reduced to the `sizes` that one of its size has
        in the run, unless it has alpha.
        """
        options = self.options
        picture = open_picture(path, max_pixels=options.max_pixels, alpha=alpha, proof=options.proof, space=files.space)
        opacity = picture.alpha()
        pyramid = pyramid_of(picture, sizes(picture.size) if opacity is None else [picture.size])
        self._describe(path, picture)
        return pyramid, opacity

    def _describe(self, path: str, picture: DecodedPicture) -> None:
        """Keep how a picture was read, and report the remarks of its reader, which are complete when it has been converted."""
        self._readings[path] = picture.reading
        about = [f"read as {picture.reading}"] if self.options.verbose else []
        for note in (*about, *picture.notes):
            self._report(f"{path}: {note}")

    def _load_mask(self, path: str) -> Pixels:
        """Load a mask, which may be in the alpha of a picture."""
        opened = open_picture(path, max_pixels=self.options.max_pixels, alpha=True)
        picture = opened.picture()
        self._describe(path, opened)
        mask = as_mask(picture.pixels, picture.alpha)
        if picture.alpha is not None and mask is picture.pixels:
            self._report(f"{path}: alpha channel ignored; the mask is in the colours")
        return mask

    def _report(self, text: str) -> None:
        """Report a remark once, however many pictures of the command have the same style."""
        if text not in self._reported:
            self._reported.add(text)
            self.note(text)

    def _report_print(self, plan: PrintPlan, settings: Resolved, size: Size, task: Task, styles: Sequence[ImagePyramid]) -> None:
        """Report how the photograph is framed for a print, and styles that are too small for their size in it."""
        for note in plan.notes(size):
            self._report(f"{task.content}: {note}")
        sizes = [(path, style.size) for path, style in zip(task.styles, styles, strict=True)]
        for note in style_notes(settings, self.options, sizes):
            self._report(note)

    def _report_halved_colour(self, path: Path) -> None:
        """Report a format that is not for print if the resolution asked for is that of a print."""
        output_format = format_of(path)
        if output_format.halves_colour and not self.options.lossless and self.options.resolution > SCREEN_DPI:
            self._report(
                f"{path}: {output_format.name} stores colour at half the resolution (4:2:0), which is not for print; "
                "--lossless, .tif or .png keep it"
            )

    def _regions(self, sizes: Sequence[Size]) -> tuple[Region, ...]:
        """Return the regions that the masks describe; `sizes` are those of the content and of each style."""
        paths = self.options.content_mask or (), self.options.style_mask or ()
        if not any(paths):
            return ()
        content_masks, style_masks = ([self._load_mask(path) for path in group] for group in paths)
        return regions_of(content_masks, style_masks, len(sizes) - 1, sizes)
