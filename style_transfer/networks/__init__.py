"""Perceptual networks: layouts, registered families, weights and the forward pass.

The names here need no torch. Modules that do are imported by name: `weights` and `download` read, check and fetch weights,
`loading` provides the network that settings request, and `forward` runs it.
"""

from __future__ import annotations

from .families.vgg import COMPACT, VGG19
from .layers import Concat, Conv, Norm, Pool, Segment, Step
from .spec import PREPROCESSING, NetworkEntry, NetworkSpec, Preprocessing, network_spec

__all__ = [
    "COMPACT", "PREPROCESSING", "VGG19", "Concat", "Conv", "NetworkEntry", "NetworkSpec", "Norm", "Pool", "Preprocessing",
    "Segment", "Step", "network_spec",
]  # fmt: skip
