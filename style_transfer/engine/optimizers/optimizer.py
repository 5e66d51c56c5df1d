"""What the engine needs of an optimizer of the picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from torch import Tensor

from ...compute.distributed import Group
from ...settings import Resolved

Resize = Callable[[Tensor, str], Tensor]
"""Resizes a tensor shaped like the picture to the size of the next scale, by the named interpolation."""

Saved = tuple[dict[str, Tensor], dict[str, float]]
"""Tensors shaped like the picture and numbers, by name: what a checkpoint holds of an optimizer."""


class Optimizer(ABC):
    """Changes a picture (1, 3, H, W) in place along `image.grad`.

    Subclasses register themselves with `registry.OPTIMIZERS`.
    """

    help: ClassVar[str]
    """One phrase for `--help`."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that follow from choosing this optimizer, unless the user sets them."""
    scheduled: ClassVar[bool] = False
    """Whether the optimizer follows a `StepSchedule`, as `--iterations auto` needs."""
    tolerates_noise: ClassVar[bool] = True
    """Whether the optimizer works with losses of random points."""
    working_pictures: ClassVar[int] = 0
    """How many more tensors of the picture's shape a step needs while it runs."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Resolved, group: Group, factor: float) -> Self:
        """Return the optimizer before its first step, with `factor` times the step size of the settings."""

    @staticmethod
    @abstractmethod
    def pictures(settings: Resolved) -> int:
        """Return how many tensors of the picture's shape are kept from step to step, at most."""

    @abstractmethod
    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` by one step. Line searches need the loss, a scalar."""

    def begin_scale(self, index: int) -> None:  # noqa: B027
        """Get ready for a scale, counted from 0, before its first step or before `restore`."""

    def set_step_size(self, size: float) -> None:  # noqa: B027
        """Set the size of the next steps, if this optimizer is `scheduled`."""

    def finish_scale(self, image: Tensor) -> None:  # noqa: B027
        """Move `image` to its final place after the last step of a scale."""

    @abstractmethod
    def resized(self, resize: Resize) -> Self:
        """Return the optimizer that continues with the picture of the next scale."""

    @abstractmethod
    def state(self, image: Tensor) -> Saved:
        """Return what the next step depends on."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Restore what `state` returned, of mappings that may hold more. Raises KeyError if something is missing."""


class CapturableOptimizer(Optimizer):
    """An optimizer whose step can be captured as a CUDA graph: it is split into work of the host and of the device."""

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors besides the picture that `apply` changes. Call `prepare` first."""

    @abstractmethod
    def prepare(self, image: Tensor) -> None:
        """Count a step and write the numbers that differ from step to step into the tensors that `apply` reads."""

    @abstractmethod
    def apply(self, image: Tensor) -> None:
        """Change `image` by the step that was prepared, by the same operations on the same tensors every time."""

    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` by one step."""
        self.prepare(image)
        self.apply(image)
