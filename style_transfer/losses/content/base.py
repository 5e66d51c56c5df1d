"""The base class of content losses, and the features of the content picture that they compare with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, ClassVar, Self

from torch import Tensor

from ...geometry.tiles import Window
from ...settings import Resolved
from ..loss import Loss
from ..sampling import PointSampler
from ..statistics import inside


@dataclass(frozen=True, eq=False)
class ContentTarget:
    """The features of the content picture at a layer, (1, C, H, W).

    In a group of processes they are this process's band of the rows, which begins at row `first`.
    """

    features: Tensor
    first: int = 0

    def store(self, features: Tensor, window: Window) -> None:
        """Set the target at a window's cells to `features` (1, C, h, w)."""
        self.features[self._place(window)] = inside(features, window).to(self.features)

    def at(self, window: Window | None) -> Tensor:
        """Return the features of a window's cells, or of all cells."""
        return self.features if window is None else self.features[self._place(window)]

    def _place(self, window: Window) -> tuple[EllipsisType, slice, slice]:
        return window.place.higher(self.first).index


class ContentLoss(Loss):
    """A loss of features against those of the content picture.

    A subclass registers itself by `@CONTENT_LOSSES.register(name)`.
    """

    help: ClassVar[str]
    """What is compared, as a phrase for `--help`."""

    @staticmethod
    def default_layers(network: Any) -> tuple[str, ...]:
        """Return the layers to compare in a network, an entry of the registry, where the user does not choose them."""
        layers: tuple[str, ...] = network.content_layers
        return layers

    @classmethod
    @abstractmethod
    def prepare(cls, settings: Resolved, targets: Mapping[str, ContentTarget], sampler: PointSampler) -> dict[str, Self]:
        """Return the loss at each content layer, or one loss of all under another name, from targets that are filled later.

        `sampler` draws points of the whole picture.
        """
