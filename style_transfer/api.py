"""The Python API of style-transfer-pytorch: PIL pictures in and out."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .compute import devices as device_choice
from .engine import Iterate, stylize
from .errors import SettingsError
from .networks.loading import build_networks, load_weights, network_settings
from .pictures import Picture, Pixels, from_pil, quantize, to_pil
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
        weights: str | os.PathLike[str] | None = None,
        sharding: str = "tiles",
        split: str | None = None,
    ) -> None:
        chosen = devices if isinstance(devices, Iterable) and not isinstance(devices, str) else (devices,)
        names = None if devices is None else tuple(map(str, chosen))
        path = os.fspath(weights) if isinstance(weights, os.PathLike) else weights
        values = {"preset": preset, "devices": names, "pooling": pooling, "network": network, "weights": path,
            "sharding": sharding, "split": split}  # fmt: skip
        self._chosen = {name: value for name, value in values.items() if value is not None}
        self.settings = Settings.from_dict(self._chosen)
        self._networks: Sequence[Network] = ()
        self._made: tuple[object, ...] | None = None
        self._picture: Callable[[], Pixels] | None = None
        """Returns the last picture with its final colours."""

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
        depth; the tensors of a run are freed at its end. What is worth knowing about the pictures, such as that alpha is ignored,
        is given by `warnings.warn`. Raises `SettingsError`, `ImageError`, `WeightsError`, `DeviceError` or `MemoryLimitError`.
        """
        if callback is not None and not callable(callback):
            raise SettingsError(f"callback must be a function of an iterate, not {callback!r}")
        start, notes = None, list[str]()
        if isinstance(init, str):
            if init not in INITS:
                raise SettingsError(f"init {init!r} is not one of {', '.join(INITS)}; or pass a PIL picture")
            settings["init"] = init
        elif init is not None:
            start = to_tensor(_read("the initial picture", init, notes))
        for name in ("preset", "devices", "pooling", "network", "sharding", "split", "weights"):
            if name in settings:
                raise SettingsError(f"{name} is an argument of StyleTransfer(...), not of stylize(...)")
        merged = Settings.from_dict(self._chosen | settings).resolve()
        content = _read("the content", content_image, notes, alpha=merged.alpha == "keep")
        given = (
            [style_images] if isinstance(style_images, Image.Image) or not isinstance(style_images, Iterable) else style_images
        )
        styles = [_read(f"style {number}", style, notes).pixels for number, style in enumerate(given, 1)]
        coloring = Coloring(merged, content.pixels, styles, content.alpha)
        pictures = [from_pixels(style) for style in coloring.styles]
        made = network_settings(merged)
        if made != self._made:
            self._networks, self._made = (), None  # two networks may not fit into memory, and loading may fail
            with torch.inference_mode(False):  # weights of inference mode cannot be differentiated through
                chosen, remarks = device_choice.resolve(merged.devices)
                notes += remarks
                self._networks = build_networks(load_weights(merged, progress=True, warn=notes.append), merged, chosen)
            self._made = made
        for note in notes:
            warnings.warn(note, stacklevel=2)
        iterates = stylize(from_pixels(coloring.content), pictures, merged, networks=self._networks, init=start)
        return to_pil(self._paint(iterates, coloring, callback))

    def _paint(self, iterates: Iterator[Iterate], coloring: Coloring, callback: Callable[[Iterate], object] | None) -> Pixels:
        """Do all steps and return the result, which replaces the iterates: these hold the tensors of the run."""
        begun = False
        try:
            for iterate in iterates:
                self._picture, begun = functools.partial(_finished, iterate, coloring), True
                if callback is not None:
                    callback(iterate)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # of a device that failed
                if begun:
                    self._keep_pixels()
            raise
        return self._keep_pixels()

    def _keep_pixels(self) -> Pixels:
        pixels = self._pixels()
        self._picture = lambda: pixels
        return pixels

    def get_image_tensor(self) -> Tensor:
        """Return the averaged picture so far: float32 (3, H, W) in [0, 1], (4, H, W) with alpha.

        Raises `SettingsError` before any step.
        """
        return torch.from_numpy(self._pixels().transpose(2, 0, 1).copy())

    def _pixels(self) -> Pixels:
        if self._picture is None:
            raise SettingsError("no picture has been painted yet: call stylize first")
        return self._picture()

    def get_image(self, image_type: str = "pil") -> Any:
        """Return the averaged picture so far: "pil" for an 8-bit PIL picture, "np_uint16" for a uint16 array (H, W, 3 or 4)."""
        kinds: dict[str, Callable[[Pixels], Any]] = {"pil": to_pil, "np_uint16": functools.partial(quantize, dtype=np.uint16)}
        kind = str(image_type).lower()
        if kind not in kinds:
            raise SettingsError(f"image_type {image_type!r} is not one of {', '.join(kinds)}")
        return kinds[kind](self._pixels())


def _read(what: str, image: Image.Image, notes: list[str], *, alpha: bool = False) -> Picture:
    """Return a PIL picture as the program reads it, and add its remarks to `notes`. Raises `ImageError`."""
    picture = from_pil(image, alpha=alpha)
    notes += [f"{what}: {note}" for note in picture.notes]
    return picture


def _finished(iterate: Iterate, coloring: Coloring) -> Pixels:
    """Return the picture of an iterate with its final colours."""
    return coloring.finish(to_pixels(iterate.image()))
