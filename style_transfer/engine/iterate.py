"""Iterates: what the engine yields after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compute.distributed import Group, Rows
from ..compute.resampling import resize
from ..geometry.scales import Size, Stage
from ..losses.guidance import Region, coverage_at
from .optimizers import Average
from .state import State


@dataclass(frozen=True)
class BlendMask:
    """The painted share of each pixel of a band, (1, 1, H, W) in [0, 1], and the content shown elsewhere, (1, 3, H, W)."""

    share: Tensor
    content: Tensor

    def composite(self, image: Tensor) -> Tensor:
        """Return a picture with the content where nothing is painted."""
        return torch.lerp(self.content, image, self.share)


def picture_of(state: State, content: Tensor, regions: Sequence[Region] = ()) -> Tensor:
    """Return the averaged picture of a whole state, (1, 3, H, W) in [0, 1], as `Iterate.image` returns it.

    `content` and `regions` are the arguments of `stylize`.
    """
    picture = state.picture()
    if not regions:
        return picture
    share = coverage_at(regions, state.size)
    shown = resize(content.to(picture), state.size, antialias=True).clamp(0, 1)
    return BlendMask(share.to(picture), shown).composite(picture)


@dataclass(frozen=True, repr=False)
class Iterate:
    """A completed step.

    `index` is the scale, from 0. `loss` and its weighted `parts` are scalar tensors of the picture before the step; reading one
    waits for the device. `seconds` count from the start of the run. `memory` is the peak so far in bytes, of the device if it is
    an accelerator, else of the process. `tiles` is the number of tiles of each segment of the network. `halvings` counts how
    often the step size was halved.

    Until the next step, `image()` returns the averaged picture, `state()` a state from which `stylize` can resume, and `finite()`
    whether all values are finite, which waits for the device. In a group of processes all ranks must call these.
    """

    stage: Stage
    index: int
    stages: tuple[Stage, ...]
    step: int
    tiles: tuple[int, ...]
    loss: Tensor
    parts: dict[str, Tensor]
    seconds: float
    memory: int
    average: Average
    group: Group
    bands: tuple[Rows, ...]
    blend_mask: BlendMask | None
    halvings: int
    state: Callable[[], State]
    finite: Callable[[], bool]

    def __repr__(self) -> str:
        return f"<Iterate {self.w}x{self.h}, step {self.step} of {self.steps}, loss {float(self.loss):.6g}>"

    @property
    def scale(self) -> int:
        """The long side of the picture, in pixels."""
        return self.stage.scale

    @property
    def size(self) -> Size:
        """(height, width) of the picture, in pixels."""
        return self.stage.size

    @property
    def steps(self) -> int:
        """The number of steps of this scale."""
        return self.stage.steps

    @property
    def ends_scale(self) -> bool:
        """Whether this is the last step of its scale."""
        return self.step == self.stage.steps

    @property
    def ends_run(self) -> bool:
        """Whether this is the last step of the run."""
        return self.ends_scale and self.index == len(self.stages) - 1

    @property
    def done(self) -> int:
        """The work done so far, in pixels times steps, of `sum(stage.work for stage in stages)`."""
        before = sum(stage.work for stage in self.stages[: self.index])
        return before + self.stage.work // self.stage.steps * self.step

    @property
    def w(self) -> int:
        """The picture's width; this and the next five are the names in callbacks of style-transfer-pytorch."""
        return self.stage.size[1]

    @property
    def h(self) -> int:
        """The picture's height."""
        return self.stage.size[0]

    @property
    def i(self) -> int:
        """The step."""
        return self.step

    @property
    def i_max(self) -> int:
        """The number of steps of this scale."""
        return self.stage.steps

    @property
    def time(self) -> float:
        """Seconds since the start of the run."""
        return self.seconds

    @property
    def gpu_ram(self) -> int:
        """The peak memory in bytes."""
        return self.memory

    def image(self) -> Tensor:
        """Return the average of this scale's iterates, (1, 3, H, W) in [0, 1], on the CPU.

        In a group of processes all ranks must call it; rank 0 gets the picture, the others a picture without rows.
        """
        value = self.average.value().clamp_(0, 1)
        if self.blend_mask is not None:
            value = self.blend_mask.composite(value)
        return self.group.gather_rows(value, self.bands)
