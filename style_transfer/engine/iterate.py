"""One iteration that is done, as the engine tells of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compute.distributed import Group, Rows
from ..compute.resampling import resize
from ..geometry.scales import Size, Stage
from ..losses.guidance import Region, coverage
from .checkpoint import State
from .optimizers import Average


@dataclass(frozen=True)
class Cover:
    """How much of each pixel of a band is painted, (1, 1, H, W) in [0, 1], and the content that shows elsewhere, (1, 3, H, W)."""

    share: Tensor
    content: Tensor

    def laid_on(self, image: Tensor) -> Tensor:
        """Return a picture with the content where nothing is painted."""
        return torch.lerp(self.content, image, self.share)


def picture_of(state: State, content: Tensor, regions: Sequence[Region] = ()) -> Tensor:
    """Return the averaged picture of a whole state, (1, 3, H, W) in [0, 1], as `Iterate.image` has it.

    `content` and `regions` are what `stylize` got.
    """
    picture = state.picture()
    if not regions:
        return picture
    share = coverage([region.at(state.size, (), ()) for region in regions])
    shown = resize(content.to(picture), state.size, antialias=True).clamp(0, 1)
    return Cover(share.to(picture), shown).laid_on(picture)


@dataclass(frozen=True, repr=False)
class Iterate:
    """One iteration that is done.

    `loss` and its weighted `parts` are scalar tensors of the picture before the step; reading one waits for the
    device. `seconds` count from the start of the run; `memory` is the peak so far in bytes, the device's if it is
    an accelerator, else the process's. `tiles` says in how many tiles
    each segment of the network works. `image()` is the averaged picture, valid until the generator goes on; so are `state()`,
    with which `stylize` can go on from here later, and `finite()`, which says whether all numbers are finite and waits for
    the device. In a group of processes all must call these. `halvings` is how often the step size was halved.
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
    cover: Cover | None
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
        """How many steps this scale has."""
        return self.stage.steps

    @property
    def ends_scale(self) -> bool:
        """Whether this is the last step of its scale."""
        return self.step == self.stage.steps

    @property
    def ends_run(self) -> bool:
        """Whether this is the last step of all."""
        return self.ends_scale and self.index == len(self.stages) - 1

    @property
    def done(self) -> int:
        """Work done so far, in pixels times steps; `sum(stage.work for stage in stages)` is all of it."""
        before = sum(stage.work for stage in self.stages[: self.index])
        return before + self.stage.work // self.stage.steps * self.step

    @property
    def w(self) -> int:
        """The picture's width; this and the next five are the names style-transfer-pytorch's callbacks know."""
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
        """How many steps this scale has."""
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
        """Return the average of this scale's iterates: (1, 3, H, W), [0, 1], on the CPU.

        In a group of processes all must call it, and only rank 0 gets the picture, the others one without rows.
        """
        wanted = [(0, self.size[0]), *[(0, 0)] * (self.group.size - 1)]
        value = self.average.value().clamp_(0, 1)
        if self.cover is not None:
            value = self.cover.laid_on(value)
        return self.group.exchange(value, self.bands, wanted).cpu()
