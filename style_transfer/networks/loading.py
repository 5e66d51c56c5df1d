"""Loading of the network that settings request: weights from a file, a download or the package, and copies on devices."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..compute.devices import choose_precision
from ..errors import WeightsError
from ..files import file_digest
from ..registry import NETWORKS
from ..settings import Resolved, network_entry
from . import weights
from .download import DownloadError, download
from .forward import Network
from .spec import NetworkEntry, NetworkSpec

LOG = logging.getLogger("style_transfer")


@dataclass(frozen=True)
class Weights:
    """A network's specification and tensors, where the tensors come from, and a remark for the user."""

    spec: NetworkSpec
    state: dict[str, Tensor]
    source: str
    note: str | None = None

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the tensors, in hex; equal weights have equal digests whatever file they come from."""
        sha256 = hashlib.sha256()
        for name in sorted(self.state):
            sha256.update(f"{name} {tuple(self.state[name].shape)}".encode())
            sha256.update(memoryview(self.state[name].contiguous().numpy()).cast("B"))  # type: ignore[arg-type]
        return sha256.hexdigest()


def load_weights(settings: Resolved, *, progress: bool = False, warn: Callable[[str], object] = LOG.warning) -> Weights:
    """Return the weights of the network that `settings` request.

    Downloads weights from torchvision into torch's cache if necessary, with a progress bar on standard error if `progress`. If
    `network` is "auto" and VGG-19's weights cannot be downloaded, the built-in network replaces VGG-19, and `warn` gets the
    reason. Raises `WeightsError`.
    """
    network, note = "vgg19" if settings.network == "auto" else settings.network, None
    entry: NetworkEntry = network_entry(network)
    try:
        if settings.weights is not None:
            state = weights.read(settings.weights)
            source = f"{Path(settings.weights).name} sha256:{file_digest(Path(settings.weights))}"
        elif entry.download is not None:
            state, source = download(network, progress=progress)
        elif entry.built_in:
            state, source = weights.built_in()
        else:
            files = "; or ".join(entry.files)
            raise WeightsError(f"--network {network} needs a file with its weights; give one with --weights: {files}")
    except DownloadError as error:
        if settings.network != "auto":
            if not entry.namesake:
                raise
            raise DownloadError(f"{error}; or is it {entry.namesake}?") from error
        entry, note = NETWORKS["compact"], f"using the built-in compact network: {error}"
        warn(note)
        state, source = weights.built_in()
    name = source if settings.weights is None else f"--weights {settings.weights}"
    return Weights(entry.spec.configured(settings), weights.check(state, entry.spec, name), source, note)


def build_networks(weights: Weights, settings: Resolved, devices: Sequence[torch.device]) -> tuple[Network, ...]:
    """Return one network on each of `devices`, or a single one that spans them with `sharding="layers"`.

    CPUs without fast bfloat16 use Winograd convolution unless memory is limited. Raises `DeviceError` if a device cannot compute
    in `settings.precision`.
    """
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


def load_networks(settings: Resolved, devices: Sequence[torch.device], *, progress: bool = False) -> tuple[Network, ...]:
    """Return the network that `settings` request on `devices`: `load_weights`, then `build_networks`."""
    return build_networks(load_weights(settings, progress=progress), settings, devices)


def network_settings(settings: Resolved) -> tuple[object, ...]:
    """Return the values that `load_networks` depends on: settings with equal values have equal networks on the same devices."""
    network = settings.network, settings.weights, settings.padding, settings.preprocessing, settings.lrn, settings.pooling
    placement = settings.sharding, settings.split_layers
    return *network, settings.layers, *placement, settings.precision, settings.large_gradients, settings.memory is None
