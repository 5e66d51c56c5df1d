"""What a run works on, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compute.resampling import size_of
from ..errors import ImageError, SettingsError
from ..geometry import Size, Stage
from ..losses.guidance import Region
from ..networks import NetworkSpec
from ..networks.forward import Network
from ..settings import INITS, Resolved
from .schedule import plan_stages
from .state import digest


def check_picture(what: str, picture: Tensor) -> Tensor:
    """Return `picture`; raise `ImageError` unless it is (1, 3, H, W), not empty, float32 or float64, finite and in [0, 1]."""
    if not isinstance(picture, Tensor):
        raise ImageError(f"{what} must be a tensor (1, 3, height, width), not {type(picture).__name__}")
    shape = tuple(picture.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape:
        raise ImageError(f"{what} must be a tensor (1, 3, height, width), not {shape}")
    if picture.dtype not in (torch.float32, torch.float64):
        raise ImageError(f"{what} must be float32 or float64 in [0, 1], not {picture.dtype}")
    low, high = picture.aminmax()
    if not (low >= 0 and high <= 1):
        raise ImageError(f"{what} must lie in [0, 1], not {float(low):g} to {float(high):g}")
    return picture


@dataclass(frozen=True)
class Job:
    """Checked pictures and settings, and the stages that follow from them.

    Pictures are (1, 3, H, W), float, sRGB in [0, 1]. `init` is the picture to start from in place of `settings.init`. With
    `regions`, each part of the picture has a style, or a part of one, of its own.
    """

    content: Tensor
    styles: tuple[Tensor, ...]
    settings: Resolved
    stages: tuple[Stage, ...]
    init: Tensor | None = None
    regions: tuple[Region, ...] = ()

    @classmethod
    def create(
        cls, content: Tensor, styles: Sequence[Tensor], settings: Resolved, *, init: Tensor | None = None,
        regions: Sequence[Region] = (), shape: Size | None = None,
    ) -> Job:  # fmt: skip
        """Return a checked job. The result has the shape of `shape`, by default that of the content, which is stretched to it.

        Raises `SettingsError` or `ImageError`.
        """
        check_picture("the content picture", content)
        for number, style in enumerate(styles, 1):
            check_picture(f"style picture {number}", style)
        settings.blend(len(settings.expanded(len(styles))))
        if init is not None:
            check_picture("the initial picture", init)
        elif settings.init not in INITS:
            raise SettingsError(f"init {settings.init!r} is not one of {', '.join(INITS)}; pass a picture as the argument init")
        with torch.inference_mode(False):  # tensors of inference mode cannot be differentiated
            content, styles = _ordinary(content), [_ordinary(style) for style in styles]
            init = None if init is None else _ordinary(init)
        stages = plan_stages(shape or size_of(content), [size_of(style) for style in styles], settings)
        return cls(content, tuple(styles), settings, stages, init, tuple(regions))

    def check_network(self, spec: NetworkSpec) -> None:
        """Raise `SettingsError` or `ImageError` unless a network has the layers, and the pictures are large enough for them."""
        spec.check_layers(self.settings)
        spec.check_split(self.settings)
        spec.check_stages(self.stages, self.settings)

    @property
    def origins(self) -> list[int]:
        """For each style at each of its sizes, which of `styles` it is."""
        return [index for index, _ in self.settings.expanded(len(self.styles))]

    def identity(self, network: Network) -> dict[str, Any]:
        """Return what the result depends on: settings, and hashes of pictures, masks and weights. JSON can hold it."""
        regions = [[digest(x.content), x.style, None if x.mask is None else digest(x.mask)] for x in self.regions]
        return {
            "settings": self.settings.as_dict(),
            "content": digest(self.content),
            "styles": [digest(style) for style in self.styles],
            "init": None if self.init is None else digest(self.init),
            "regions": regions,
            "network": network.spec.name,
            "weights": network.digest,
        }


def _ordinary(x: Tensor) -> Tensor:
    return x.clone() if x.is_inference() else x
