"""Perceptual networks: their layout (`spec`), their weights (`weights`) and how they run (`graph`)."""

from __future__ import annotations

import functools
import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..settings.catalog import about
from .spec import COMPACT, PREPROCESSING, SPECS, VGG19, NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from ..settings.settings import Settings
    from .graph import Network

__all__ = ["COMPACT", "SPECS", "VGG19", "NetworkSpec", "Weights", "fetch", "layout", "load", "place"]

LOG = logging.getLogger("style_transfer")


def layout(settings: Settings) -> NetworkSpec:
    """Return the layout of the network that `settings` ask for; for `auto` VGG-19's."""
    return fitted(SPECS["vgg19" if settings.network == "auto" else settings.network], settings)


def fitted(spec: NetworkSpec, settings: Settings) -> NetworkSpec:
    """Return a network's layout with the preprocessing and the normalisation that `settings` ask for."""
    if settings.preprocessing != "auto":
        spec = spec.prepared(PREPROCESSING[settings.preprocessing])
    return spec if settings.lrn == "on" else spec.without_norms()


@dataclass(frozen=True)
class Weights:
    """A network's layout and tensors, where they come from, and what the user should know of them."""

    spec: NetworkSpec
    state: dict[str, Tensor]
    source: str
    note: str | None = None

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the tensors, in hex; wherever they come from, the same weights have the same."""
        found = hashlib.sha256()
        for name in sorted(self.state):
            found.update(f"{name} {tuple(self.state[name].shape)}".encode())
            found.update(memoryview(self.state[name].contiguous().numpy()).cast("B"))  # type: ignore[arg-type]
        return found.hexdigest()


def fetch(settings: Settings, *, progress: bool = False, say: Callable[[str], object] = LOG.warning) -> Weights:
    """Return the weights of the network that `settings` ask for.

    Downloads torchvision's weights into torch's cache if that is needed, with a bar on standard error if `progress`.
    With `network="auto"` and no way to get VGG-19's, the built-in network stands in; `say` is told why, and so is the
    note. Raises `WeightsError`.
    """
    from pathlib import Path

    from ..networks import weights

    network, note = "vgg19" if settings.network == "auto" else settings.network, None
    if settings.weights is not None:
        state = weights.read(settings.weights)
        name = f"--weights {settings.weights}"
        source = f"{Path(settings.weights).name} sha256:{weights.digest(Path(settings.weights))}"
    elif about(network).download:
        try:
            state, source = weights.download(network, progress=progress)
        except weights.UnreachableError as error:
            if settings.network != "auto":
                raise
            network, note = "compact", f"working with the built-in compact network: {error}"
            say(note)
            state, source = weights.built_in()
        name = source
    elif network == "compact":
        state, source = weights.built_in()
        name = source
    else:
        files = "; or ".join(about(network).files)
        raise WeightsError(f"--network {network} needs a file of yours: give it with --weights. What fits: {files}")
    spec = SPECS[network]
    return Weights(fitted(spec, settings), weights.check(state, spec, name), source, note)


def place(weights: Weights, settings: Settings, devices: Sequence[torch.device]) -> tuple[Network, ...]:
    """Return the network, ready to run, on each of `devices`, or once over all of them with `sharding="layers"`.

    On CPUs without fast bfloat16 it takes Winograd's convolutions unless memory is limited.
    Raises `DeviceError` if one of them cannot work in `settings.precision`.
    """
    from ..compute.devices import choose_precision
    from .graph import Network

    precision = choose_precision(settings.precision, devices, large=settings.large_gradients)
    groups = [devices] if settings.sharding == "layers" else [[device] for device in devices]
    return tuple(
        Network(
            weights.spec, weights.state, pooling=settings.pooling, devices=group, split=settings.split_layers,
            features=precision.dtype, tf32=precision.tf32, winograd=settings.memory is None, source=weights.source,
            digest=weights.digest, note=weights.note,
        )
        for group in groups
    )  # fmt: skip


def made_from(settings: Settings) -> tuple[object, ...]:
    """Return what `fetch` and `place` read in settings: where it is the same, so are the networks on the same devices."""
    about = settings.network, settings.weights, settings.preprocessing, settings.lrn, settings.pooling
    split = settings.sharding, settings.split_layers
    return *about, *split, settings.precision, settings.large_gradients, settings.memory is None


def load(settings: Settings, devices: Sequence[torch.device], *, progress: bool = False) -> tuple[Network, ...]:
    """Return the network that `settings` ask for on `devices`: `fetch`, then `place`."""
    return place(fetch(settings, progress=progress), settings, devices)
