"""Presets: the settings with which this program computes what another one does."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..registry import NETWORKS
from .option import flag_name


@dataclass(frozen=True)
class Preset:
    """A program with its version and method, the settings that reproduce it, and the differences that remain."""

    help: str
    settings: Mapping[str, Any]
    differences: tuple[str, ...]


ONE_SCALE = 1_000_000
"""A first scale above any last one, so that the last scale is the only one."""

_SINGLE = {"min_scale": ONE_SCALE, "avg_decay": 0.0, "tv_loss": "inner", "band_weight": 0.0, "padding": "network",
    "content_layers": ("relu4_2",)}  # fmt: skip
_CLASSIC = {"network": "vgg19", "pooling": "max", "padding": "network", "content_layers": ("relu4_2",), "content_weight": 0.015,
    "tv_weight": 2.0, "band_weight": 0.0, "initial_iterations": 1000, "iterations": 500}  # fmt: skip
_EQUAL = (1.0, 1.0, 1.0, 1.0, 1.0)
_BLOCKS = ((1, 2), (2, 2), (3, 4), (4, 4))
_MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e")
_RESIZE = "pictures are resized by a bicubic filter, and styles are never enlarged"
_TV = "the loss that is shown includes the total variation"

PRESETS: dict[str, Preset] = {
    "style-transfer-pytorch": Preset(
        "crowsonkb/style-transfer-pytorch as of 2021: Gram matrices, gradient-normalising squared errors, coarse to fine",
        _CLASSIC,
        ("the average of each scale begins at its first step", "styles and content are resized by a bicubic filter"),
    ),
    "style-transfer-pytorch-2023": Preset(
        "crowsonkb/style-transfer-pytorch as of 2023: Wasserstein-2 distances, mean squared content error, nine-point smoothing",
        _CLASSIC | {"style_loss": "wasserstein"},
        ("matrix square roots are exact, not twelve Newton-Schulz steps", "the average of each scale begins at its first step"),
    ),
    "neural-style": Preset(
        "jcjohnson/neural-style: Caffe's VGG-19, 1000 steps of L-BFGS from a flat gray, one scale",
        _SINGLE
        | {
            "network": "vgg19-caffe", "preprocessing": "neural-style", "pooling": "max", "style_layer_weights": _EQUAL,
            "content_weight": 5.0, "style_factor": 500.0, "tv_weight": 1e-3, "content_error": "mean", "style_error": "mean",
            "gram_norm": "elements", "optimizer": "lbfgs", "lbfgs_history": (100,), "optimizer_range": 256.0,
            "init": "network_mean", "end_scale": "512", "initial_iterations": 1000, "iterations": 500,
        },
        (_RESIZE, _TV),
    ),
    "neuralart": Preset(
        "kaishengtai/neuralart: normalized VGG-19, mean pooling, 1500 steps of L-BFGS from the content",
        _SINGLE
        | {
            "network": "vgg19-normalized", "preprocessing": "neuralart", "pooling": "mean", "style_layer_weights": _EQUAL,
            "content_weight": 1.0, "style_factor": 2e9, "style_gradient": 0.5, "tv_weight": 0.0, "content_error": "sum",
            "style_error": "sum", "gram_norm": "raw", "optimizer": "lbfgs", "lbfgs_history": (100,), "optimizer_range": 255.0,
            "end_scale": "500", "initial_iterations": 1500, "iterations": 500,
        },
        (_RESIZE, _TV),
    ),
    "neuralart-inception": Preset(
        "kaishengtai/neuralart --model inception: GoogLeNet, nine style layers, errors divided by their mean gradient",
        _SINGLE
        | {
            "network": "googlenet", "preprocessing": "neuralart", "pooling": "mean",
            "content_layers": ("inception_3a/output", "inception_4a/output"),
            "style_layers": ("conv1/relu_7x7", "conv2/relu_3x3", *(f"inception_{m}/output" for m in _MODULES)),
            "style_layer_weights": (1.0,) * 9, "content_weight": 1.0, "style_factor": 2e9, "style_gradient": 0.5,
            "tv_weight": 0.0, "content_error": "relative", "style_error": "relative", "gram_norm": "raw-squared",
            "optimizer": "lbfgs", "lbfgs_history": (100,), "optimizer_range": 255.0,
            "end_scale": "500", "initial_iterations": 1500, "iterations": 500,
        },
        (_RESIZE, _TV, "pooling rounds sizes up as Caffe does; Torch drops an incomplete last window"),
    ),
    "fzliu": Preset(
        "fzliu/style-transfer: Caffe's VGG-16, mean pooling, 512 iterations of bounded L-BFGS from the content",
        _SINGLE
        | {
            "network": "vgg16-caffe", "preprocessing": "fzliu", "pooling": "mean", "style_layer_weights": _EQUAL,
            "content_weight": 0.5, "style_factor": 2500.0, "tv_weight": 0.0, "content_error": "sum", "style_error": "sum",
            "gram_norm": "raw", "optimizer": "lbfgs", "line_search": "strong-wolfe", "bounds": "on", "lbfgs_history": (8,),
            "optimizer_range": 255.0, "style_scale_fac": 1.2, "end_scale": "512", "initial_iterations": 512, "iterations": 512,
        },
        (
            _RESIZE,
            "a step is one evaluation; an iteration of that program is one or more",
            "the weights are those of a style-to-content ratio R of 1e4: content_weight 1/2, style_factor R/4",
        ),
    ),
    "sliced": Preset(
        "Heitz et al. 2021: texture of the style by sliced Wasserstein distances at twelve layers, 64 times 64 steps of L-BFGS",
        {
            "network": "vgg19-normalized", "preprocessing": "caffe", "pooling": "mean", "style_loss": "sliced-wasserstein",
            "style_layers": tuple(f"relu{b}_{n}" for b, count in _BLOCKS for n in range(1, count + 1)),
            "style_layer_weights": (1.0,) * 12, "style_factor": 12.0, "content_weight": 0.0, "tv_weight": 0.0, "band_weight": 0.0,
            "optimizer": "lbfgs", "lbfgs_history": (100,), "init": "style_mean", "avg_decay": 0.0, "min_scale": ONE_SCALE,
            "end_scale": "256", "initial_iterations": 4096, "iterations": 4096,
        },
        (
            "values are counted in bins, not sorted; directions are orthogonal, an evaluation has a quarter of a basis",
            "the picture is mirrored at its edges, not the features at each layer; noise at the start is fainter",
            "the content picture gives the shape of the result alone; styles have its long side",
        ),
    ),
}  # fmt: skip
"""Presets by the name that `Settings.preset` has for them."""


def network_entry(name: str) -> Any:
    """Return what the registry has under the name of a network; for `auto` the entry of vgg19."""
    return NETWORKS["vgg19" if name == "auto" else name]


def preset_settings(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a preset for a user who chose other settings as well.

    Another network than the preset's keeps its own preprocessing and, where its layers have other names, its own layers. Squares
    of activations are then weighted against fourth powers of other magnitudes, so that the factor of the style changes too.
    """
    values = dict(PRESETS[name].settings)
    usual, network = (network_entry(found) for found in (values["network"], chosen.get("network", values["network"])))
    if network is not usual:
        values.pop("preprocessing", None)
        if values.get("style_error") in ("mean", "sum"):
            values["style_factor"] *= (usual.magnitude / network.magnitude) ** 2
    if not {*values.get("content_layers", ()), *values.get("style_layers", ())} <= network.spec.strides.keys():
        values.pop("content_layers", None)
        values.pop("style_layers", None)
    if "style_layer_weights" in values:  # presets weight all layers equally
        layers = chosen.get("style_layers") or values.get("style_layers") or network.style_layers
        values["style_layer_weights"] = (1.0,) * len(layers)
    return values


def describe_presets() -> str:
    """Return the settings of each preset, and its differences from the program."""
    blocks = []
    for name, preset in PRESETS.items():
        lines = []
        for key, value in preset.settings.items():
            values = value if isinstance(value, tuple) else (value,)
            words = " ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)
            lines.append(f"{flag_name(key)} {words}")
        lines += [f"different: {text}" for text in preset.differences]
        body = "\n".join(
            textwrap.fill(line, 100, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False) for line in lines
        )
        blocks.append(f"{name}\n{body}")
    return "\n".join(blocks)
