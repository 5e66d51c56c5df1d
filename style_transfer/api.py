"""The Python API of style-transfer-pytorch: PIL pictures in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .compute import devices as device_choice
from .engine import Iterate, stylize
from .errors import SettingsError
from .networks.loading import load_networks, network_settings
from .pictures import from_pil, quantize, to_pil
from .pictures.color import Coloring
from .pictures.tensors import from_pixels, to_pixels, to_tensor
from .settings import INITS, Settings

if TYPE_CHECKING:
    from .networks.forward import Network


class StyleTransfer:
    """Stylizes pictures with a network that is loaded once.

    `devices` are names such as "cuda:0"; left out, the first device that computes correctly. `pooling` is "average", "max", "l2"
    or "mean"; left out, that of the network. `network` is a name such as "vgg19" or "compact", or "auto": VGG-19 if its weights
    are available. `weights` is a local file for it. `preset` selects the settings of another program, such as "neural-style". The
    network is loaded by the first `stylize`, and again for another precision or preprocessing. Raises `SettingsError`,
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
        chosen = (devices,) if isinstance(devices, str | torch.device) else devices
        names = None if chosen is None else tuple(map(str, chosen))
        values = {"preset": preset, "devices": names, "pooling": pooling, "network": network, "weights": weights,
            "sharding": sharding, "split": split}  # fmt: skip
        self._chosen = {name: value for name, value in values.items() if value is not None}
        self.settings = Settings.from_dict(self._chosen)
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
        """Return `content_image` painted in the style of `style_images`, an 8-bit RGB picture.

        With `alpha="keep"` and a content that has alpha, the picture is RGBA.

        `settings` are fields of `Settings` by name, such as style_weights, content_weight, end_scale or style_loss. `init` is a
        name of `Settings.init` or a picture. `callback` gets an `Iterate` after each step, whose `image()` is the picture before
        its colours are finished. `get_image("np_uint16")` and `get_image_tensor()` return the result of the last step at full
        depth. Raises `SettingsError`, `ImageError`, `WeightsError`, `DeviceError` or `MemoryLimitError`.
        """
        start = None
        if isinstance(init, str):
            if init not in INITS:
                raise SettingsError(f"init {init!r} is not one of {', '.join(INITS)}; or pass a PIL picture")
            settings["init"] = init
        elif init is not None:
            start = to_tensor(from_pil(init))
        for name in ("preset", "devices", "pooling", "network", "sharding", "split", "weights"):
            if name in settings:
                raise SettingsError(f"{name} is an argument of StyleTransfer(...), not of stylize(...)")
        merged = Settings.from_dict(self._chosen | settings).resolve()
        content = from_pil(content_image, alpha=merged.alpha == "keep")
        styles = [style_images] if isinstance(style_images, Image.Image) else style_images
        coloring = Coloring(merged, content.pixels, [from_pil(style).pixels for style in styles], content.alpha)
        pictures = [from_pixels(style) for style in coloring.styles]
        made = network_settings(merged)
        if made != self._made:
            self._networks, self._made = (), None  # two networks may not fit into memory, and loading may fail
            with torch.inference_mode(False):  # weights of inference mode cannot be differentiated through
                self._networks = load_networks(merged, device_choice.resolve(merged.devices)[0], progress=True)
            self._made = made
        for iterate in stylize(from_pixels(coloring.content), pictures, merged, networks=self._networks, init=start):
            self._last, self._coloring = iterate, coloring
            if callback is not None:
                callback(iterate)
        return to_pil(coloring.finish(to_pixels(iterate.image())))

    def get_image_tensor(self) -> Tensor:
        """Return the averaged picture so far: float32 (3, H, W) in [0, 1], (4, H, W) with alpha.

        Raises `SettingsError` before any step.
        """
        return torch.from_numpy(self._pixels().transpose(2, 0, 1).copy())

    def _pixels(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        if self._last is None or self._coloring is None:
            raise SettingsError("no picture has been painted yet: call stylize first")
        return self._coloring.finish(to_pixels(self._last.image()))

    def get_image(self, image_type: str = "pil") -> Any:
        """Return the averaged picture so far: "pil" for an 8-bit PIL picture, "np_uint16" for a uint16 array (H, W, 3 or 4)."""
        pixels = self._pixels()
        if image_type.lower() == "pil":
            return to_pil(pixels)
        if image_type.lower() == "np_uint16":
            return quantize(pixels, np.uint16)
        raise SettingsError(f"image_type {image_type!r} is not one of pil, np_uint16")
