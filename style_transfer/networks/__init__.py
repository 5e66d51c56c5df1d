"""Perceptual networks: their layout (`spec`), their weights (`weights`) and how they run (`graph`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .spec import VGG19, NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..config import Settings
    from .graph import Network

__all__ = ["VGG19", "NetworkSpec", "load"]


def load(settings: Settings, devices: Sequence[torch.device], *, progress: bool = False) -> Network:
    """Return the network that `settings` ask for, on `devices`.

    Downloads torchvision's weights into torch's cache if no file is named and they are not there yet, with a bar
    on standard error if `progress`. Raises `WeightsError`.
    """
    from . import weights
    from .graph import Network

    if settings.weights is None:
        state, source = weights.download(progress=progress)
        name = source
    else:
        from pathlib import Path

        state = weights.read(settings.weights)
        name = f"--weights {settings.weights}"
        source = f"{Path(settings.weights).name} sha256:{weights.digest(Path(settings.weights))}"
    state = weights.check(state, VGG19, name)
    return Network(VGG19, state, pooling=settings.pooling, devices=devices, source=source)
