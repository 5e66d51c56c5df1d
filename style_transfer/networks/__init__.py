"""Perceptual networks: their layout (`spec`), their weights (`weights`) and how they run (`graph`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .spec import COMPACT, VGG19, NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ..config import Settings
    from .graph import Network

__all__ = ["COMPACT", "SPECS", "VGG19", "NetworkSpec", "layout", "load"]

SPECS = {"vgg19": VGG19, "compact": COMPACT}
"""Networks by the name `Settings.network` has for them."""

LOG = logging.getLogger("style_transfer")


def layout(settings: Settings) -> NetworkSpec:
    """Return the layout of the network that `settings` ask for; for `auto` VGG-19's."""
    return SPECS["vgg19" if settings.network == "auto" else settings.network]


def load(
    settings: Settings,
    devices: Sequence[torch.device],
    *,
    progress: bool = False,
    say: Callable[[str], object] = LOG.warning,
) -> tuple[Network, ...]:
    """Return the network that `settings` ask for: once on each of `devices`, or over all of them with `sharding="layers"`.

    Downloads torchvision's VGG-19 into torch's cache if that is needed, with a bar on standard error if `progress`.
    With `network="auto"` and no way to get it, the built-in network stands in; `say` is told why, and so is
    `Network.note`. Raises `WeightsError`.
    """
    from pathlib import Path

    from . import weights
    from .graph import Network

    spec, note = layout(settings), None
    if settings.weights is not None:
        state = weights.read(settings.weights)
        name = f"--weights {settings.weights}"
        source = f"{Path(settings.weights).name} sha256:{weights.digest(Path(settings.weights))}"
    elif spec is SPECS["vgg19"]:
        try:
            state, source = weights.download(progress=progress)
        except weights.UnreachableError as error:
            if settings.network != "auto":
                raise
            spec, note = SPECS["compact"], f"working with the built-in compact network: {error}"
            say(note)
            state, source = weights.built_in()
        name = source
    else:
        state, source = weights.built_in()
        name = source
    state = weights.check(state, spec, name)
    groups = [devices] if settings.sharding == "layers" else [[device] for device in devices]
    return tuple(
        Network(spec, state, pooling=settings.pooling, devices=group, split=settings.split_layers, source=source, note=note)
        for group in groups
    )
