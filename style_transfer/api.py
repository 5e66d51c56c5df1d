"""The Python API that users of style-transfer-pytorch know: PIL pictures in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .compute import devices as device_choice
from .engine.iterate import Iterate
from .engine.loop import stylize
from .errors import SettingsError
from .networks import load, made_from
from .pictures import images
from .pictures.color import Coloring
from .settings.settings import INITS, Settings

if TYPE_CHECKING:
    from .networks.graph import Network


def to_tensor(picture: images.Picture) -> Tensor:
    """Return a loaded picture as a float32 tensor (1, 3, H, W) in [0, 1]."""
    return from_pixels(picture.pixels)


def from_pixels(pixels: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    """Return float32 pixels (H, W, 3) as a tensor (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def to_pixels(image: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a tensor (1, 3, H, W) as float32 pixels (H, W, 3)."""
    return image[0].permute(1, 2, 0).to(device="cpu", dtype=torch.float32).contiguous().numpy()


class StyleTransfer:
    """Stylizes pictures, the network loaded once.

    `devices` are names such as "cuda:0" (the first device that computes right if left out), `pooling` is "average", "max",
    "l2" or "mean" (the network's own if left out), `network` is a name such as "vgg19" or "compact", or "auto" (VGG-19 if it
    can be had), `weights` a local file for it, `preset` the look of another program, such as "neural-style". The network is
    loaded at the first `stylize`, and again at one with another precision or preprocessing. Raises `SettingsError`,
    `WeightsError` or `DeviceError`.
    """

    def __init__(
        self,
        devices: Sequence[str | torch.device] | str | torch.device | None = None,
        pooling: str | None = None,
        *,
        network: str | None = None,
        preset: str | None = None,
        weights: str | None = None,
        sharding: str = "tiles",
        split: str | None = None,
    ) -> None:
        given_devices = (devices,) if isinstance(devices, str | torch.device) else devices
        names = None if given_devices is None else tuple(map(str, given_devices))
        given = {"preset": preset, "devices": names, "pooling": pooling, "network": network, "weights": weights,
            "sharding": sharding, "split": split}  # fmt: skip
        self._given = {name: value for name, value in given.items() if value is not None}
        self.settings = Settings.from_dict(self._given)
        self._networks: Sequence[Network] = ()
        self._made: tuple[object, ...] | None = None
        self._last: Iterate | None = None
        self._coloring: Coloring | None = None

    def stylize(
        self,
        content_image: Image.Image,
        style_images: Sequence[Image.Image] | Image.Image,
        *,
        init: str | Image.Image | None = None,
        callback: Callable[[Iterate], object] | None = None,
        **settings: Any,
    ) -> Image.Image:
        """Return `content_image` painted in the manner of `style_images`, an 8-bit RGB picture.

        With `alpha="keep"` and a content that has alpha the picture is RGBA.

        `settings` are fields of `Settings` by name: style_weights, content_weight, tv_weight, optimizer, min_scale,
        end_scale, iterations, initial_iterations, step_size, avg_decay, style_scale_fac, style_size, random_seed,
        style_loss, content_layers, style_layers, style_layer_weights, color, color_space, color_match, alpha.
        `init` is a name of `Settings.init` or a picture.
        `callback` gets an `Iterate` after each step, whose `image()` is as the engine has it; `get_image` has its colours
        finished. The result at full depth is `get_image("np_uint16")` or
        `get_image_tensor()`, which are those of the run that took a step last. Raises `SettingsError` or `ImageError`.
        """
        start = None
        if isinstance(init, str):
            if init not in INITS:
                raise SettingsError(f"init {init!r} is not one of {', '.join(INITS)}; or give a PIL picture")
            settings["init"] = init
        elif init is not None:
            start = to_tensor(images.from_pil(init))
        for name in ("preset", "devices", "pooling", "network", "sharding", "split", "weights"):
            if name in settings:
                raise SettingsError(f"{name} belongs to StyleTransfer(...), not to stylize(...)")
        merged = Settings.from_dict(self._given | settings)
        content = images.from_pil(content_image, alpha=merged.alpha == "keep")
        given = [style_images] if isinstance(style_images, Image.Image) else style_images
        coloring = Coloring(merged, content.pixels, [images.from_pil(style).pixels for style in given], content.alpha)
        pictures = [from_pixels(style) for style in coloring.styles]
        made = made_from(merged)
        if made != self._made:
            self._networks, self._made = (), None  # two would need their memory twice, and loading may fail
            with torch.inference_mode(False):  # weights of that mode cannot be differentiated through
                self._networks = load(merged, device_choice.resolve(merged.devices)[0], progress=True)
            self._made = made
        for iterate in stylize(from_pixels(coloring.content), pictures, merged, networks=self._networks, init=start):
            self._last, self._coloring = iterate, coloring
            if callback is not None:
                callback(iterate)
        return images.to_pil(coloring.finish(to_pixels(iterate.image())))

    def get_image_tensor(self) -> Tensor:
        """Return the averaged picture so far: float32 (3, H, W) in [0, 1], (4, H, W) with alpha.

        Raises `SettingsError` before any step.
        """
        return torch.from_numpy(self._pixels().transpose(2, 0, 1).copy())

    def _pixels(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        if self._last is None or self._coloring is None:
            raise SettingsError("there is no picture yet: call stylize first")
        return self._coloring.finish(to_pixels(self._last.image()))

    def get_image(self, image_type: str = "pil") -> Any:
        """Return the averaged picture so far: "pil" for an 8-bit PIL picture, "np_uint16" for a uint16 array (H, W, 3 or 4)."""
        pixels = self._pixels()
        if image_type.lower() == "pil":
            return images.to_pil(pixels)
        if image_type.lower() == "np_uint16":
            return images.quantize(pixels, np.uint16)
        raise SettingsError(f"image_type {image_type!r} is not one of pil, np_uint16")
