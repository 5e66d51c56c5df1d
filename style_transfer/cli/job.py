"""Reading and checking everything that one picture needs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import engine
from ..compute.resampling import ImagePyramid, resize
from ..engine.schedule import plan_stages
from ..errors import SettingsError, near_miss
from ..files import Task, exists, similar_name
from ..geometry import Size
from ..losses.guidance import Region, as_mask, coverage_at, regions_of
from ..networks import network_spec
from ..networks.loading import Weights, load_weights
from ..pictures import DecodedPicture, Pixels, Reading, format_of, open_picture
from ..pictures.color import Coloring, KeptColours
from ..pictures.tensors import from_pixels, pyramid_of, to_pixels
from ..settings import INITS, Resolved
from ..settings.command import SCREEN_DPI, CommandOptions
from .outputs import OutputFiles

REDUCIBLE_COLORS: Final = frozenset(["style", "content"])
"""Colour modes that need the pictures at the sizes of the scales only."""
WHOLE_STYLE_INITS: Final = frozenset(["style", "style_mean", "style_stats"])
"""Initial pictures that are made from the styles at their own sizes."""


def unchanged(pixels: Pixels) -> Pixels:
    """Return pixels as they are."""
    return pixels


@dataclass(frozen=True)
class Job:
    """One picture, read and checked.

    `run` is what the engine works on, `weights` those of the network, unless an earlier picture of the command loaded it.
    `finish` gives painted pixels their final colours; on ranks other than 0 it does nothing, since these write no pictures.
    """

    run: engine.Job
    weights: Weights | None
    finish: Callable[[Pixels], Pixels]
    readings: tuple[tuple[str, Reading], ...] = ()
    """The input pictures and masks in the order of reading, and how each was understood."""

    def for_other_ranks(self) -> Job:
        """Return the part of the job that other processes need."""
        return dataclasses.replace(self, finish=unchanged)


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
        content, styles, alpha = self._pictures(task)
        sizes = self._content_sizes(content.size, len(styles))
        start = None if init in INITS else self._load(init, lambda size: sizes)[0]
        regions = self._regions([content.size, *(style.size for style in styles)])
        colored, finish = self._coloring(content, styles, alpha, regions)
        run = engine.Job.create(
            *colored,
            settings if start is None else dataclasses.replace(settings, init="content"),
            init=start,
            regions=regions,
        )
        run.check_network(network_spec(settings))
        files.check_space(run.stages, alpha=alpha is not None)
        fetched = load_weights(settings, progress=not self.options.quiet, warn=self.note) if weights else None
        return Job(run, fetched, finish, tuple(self._readings.items()))

    def _pictures(self, task: Task) -> tuple[ImagePyramid, list[ImagePyramid], Pixels | None]:
        """Read content and styles, one after the other, and the alpha of the content if results have it.

        They are reduced to the sizes of the scales where nothing needs more.
        """
        settings, count = self.settings, len(task.styles)
        reducible, keeps_alpha = settings.color in REDUCIBLE_COLORS, settings.alpha == "keep"
        content, alpha = self._load(
            task.content, lambda size: self._content_sizes(size, count) if reducible else [size], alpha=keeps_alpha
        )
        reducible &= alpha is None and settings.init not in WHOLE_STYLE_INITS
        origins = [origin for origin, _ in settings.expanded(count)]

        def style_sizes(number: int, size: Size) -> list[Size]:
            stages = plan_stages(content.size, [size] * count, settings)
            return [stage.style_sizes[at] for stage in stages for at, origin in enumerate(origins) if origin == number]

        wanted = [functools.partial(style_sizes, number) if reducible else lambda size: [size] for number in range(count)]
        styles = [self._load(path, sizes)[0] for path, sizes in zip(task.styles, wanted, strict=True)]
        return content, styles, alpha

    def _content_sizes(self, size: Size, styles: int) -> list[Size]:
        """Return the sizes that a content picture of `size` has at the scales."""
        return [stage.size for stage in plan_stages(size, [size] * styles, self.settings)]

    def _coloring(
        self, content: ImagePyramid, styles: list[ImagePyramid], alpha: Pixels | None, regions: Sequence[Region]
    ) -> tuple[tuple[ImagePyramid, list[ImagePyramid]], Callable[[Pixels], Pixels]]:
        """Return the pictures for the engine, and what gives painted pixels their final colours."""
        settings = self.settings
        if alpha is None and settings.color == "style":
            return (content, styles), unchanged
        if alpha is None and settings.color == "content":
            kept = KeptColours(lambda size: resize(content.nearest(size), size, antialias=True), settings.color_space)
            return (content, styles), kept.finish
        painted = coverage_at(regions, content.size)[0, 0].numpy() if regions else None
        coloring = Coloring(settings, to_pixels(content.largest), [to_pixels(style.largest) for style in styles], alpha, painted)
        changed = [ImagePyramid.whole(from_pixels(style)) for style in coloring.styles]
        return (ImagePyramid.whole(from_pixels(coloring.content)), changed), coloring.finish

    def _load(
        self, path: str, sizes: Callable[[Size], Sequence[Size]], *, alpha: bool = False
    ) -> tuple[ImagePyramid, Pixels | None]:
        """Read a picture, reduced to the `sizes` that one of its size has in the run unless it has alpha, and its alpha."""
        picture = open_picture(path, max_pixels=self.options.max_pixels, alpha=alpha, proof=self.options.proof)
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

    def _report_halved_colour(self, path: Path) -> None:
        """Report a format that is not for print if the resolution asked for is that of a print."""
        output_format = format_of(path)
        if output_format.halves_colour and not self.options.lossless and self.options.dpi > SCREEN_DPI:
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
