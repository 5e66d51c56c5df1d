"""What a run works on, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compute.resampling import ImagePyramid
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


def _checked(what: str, picture: Tensor | ImagePyramid) -> ImagePyramid:
    """Return a picture whose levels are ordinary tensors and pass `check_picture`; those of inference mode are copied."""
    pyramid = picture if isinstance(picture, ImagePyramid) else ImagePyramid.whole(check_picture(what, picture))
    levels = [check_picture(what, level) for level in pyramid.levels]
    return ImagePyramid(pyramid.size, tuple(level.clone() if level.is_inference() else level for level in levels))


@dataclass(frozen=True)
class Job:
    """Checked pictures and settings, and the stages that follow from them.

    Pictures are (1, 3, H, W), float, sRGB in [0, 1], whole or reduced to the sizes of the stages. `init` is the picture to start
    from in place of `settings.init`. With `regions`, each part of the picture has a style, or a part of one, of its own.
    """

    content: ImagePyramid
    styles: tuple[ImagePyramid, ...]
    settings: Resolved
    stages: tuple[Stage, ...]
    init: ImagePyramid | None = None
    regions: tuple[Region, ...] = ()

    @classmethod
    def create(
        cls, content: Tensor | ImagePyramid, styles: Sequence[Tensor | ImagePyramid], settings: Resolved, *,
        init: Tensor | ImagePyramid | None = None, regions: Sequence[Region] = (), shape: Size | None = None,
    ) -> Job:  # fmt: skip
        """Return a checked job. The result has the shape of `shape`, by default that of the content, which is stretched to it.

        Raises `SettingsError` or `ImageError`.
        """
        with torch.inference_mode(False):  # tensors of inference mode cannot be differentiated
            photograph = _checked("the content picture", content)
            paintings = tuple(_checked(f"style picture {number}", style) for number, style in enumerate(styles, 1))
            settings.blend(len(settings.expanded(len(styles))))
            start = None if init is None else _checked("the initial picture", init)
        if init is None and settings.init not in INITS:
            raise SettingsError(f"init {settings.init!r} is not one of {', '.join(INITS)}; pass a picture as the argument init")
        stages = plan_stages(shape or photograph.size, [style.size for style in paintings], settings)
        return cls(photograph, paintings, settings, stages, start, tuple(regions))

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
            "content": digest(*self.content.levels),
            "styles": [digest(*style.levels) for style in self.styles],
            "init": None if self.init is None else digest(*self.init.levels),
            "regions": regions,
            "network": network.spec.name,
            "weights": network.digest,
        }
