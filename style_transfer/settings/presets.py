"""Presets: the looks of other programs as settings, nothing but data. Flags of one's own come after them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """What a preset is after, the settings it stands for, and what is different from that program all the same."""

    program: str
    settings: dict[str, Any]
    differences: tuple[str, ...] = field(default=())


ONE_SCALE = 1_000_000
"""A least scale above any end scale: there is one scale then, the last."""

_SINGLE = {"min_scale": ONE_SCALE, "avg_decay": 0.0, "tv_loss": "inner"}
_EQUAL = (1.0, 1.0, 1.0, 1.0, 1.0)
_MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e")
_RESIZE = "pictures are resized by a bicubic filter, and styles never enlarged"
_TV = "total variation counts in the loss that is shown, not only in the gradient"

PRESETS: dict[str, Preset] = {
    "style-transfer-pytorch": Preset(
        "crowsonkb/style-transfer-pytorch as of 2021: Gram matrices, gradient-normalising squared errors, coarse to fine",
        {"network": "vgg19", "pooling": "max"},
        ("the average of a scale begins with its first step, and styles and content are resized by a bicubic filter",),
    ),
    "style-transfer-pytorch-2023": Preset(
        "crowsonkb/style-transfer-pytorch as of 2023: Wasserstein-2 distances, mean squared content error, nine-point smoothing",
        {"network": "vgg19", "pooling": "max", "style_loss": "wasserstein"},
        ("matrix roots are exact instead of twelve Newton-Schulz steps", "the average of a scale begins with its first step"),
    ),
    "neural-style": Preset(
        "jcjohnson/neural-style: Caffe's VGG-19, L-BFGS of a thousand steps from a flat gray, one scale",
        _SINGLE
        | {
            "network": "vgg19-caffe", "preprocessing": "neural-style", "pooling": "max", "style_layer_weights": _EQUAL,
            "content_weight": 5.0, "style_factor": 500.0, "tv_weight": 1e-3, "content_error": "mean", "style_error": "mean",
            "gram_norm": "elements", "optimizer": "lbfgs", "lbfgs_history": 100, "optimizer_range": 256.0, "init": "network_mean",
            "end_scale": "512", "initial_iterations": 1000, "iterations": 500,
        },
        (_RESIZE, _TV),
    ),
    "neuralart": Preset(
        "kaishengtai/neuralart: normalised VGG-19 with mean pooling, L-BFGS of 500 times three steps from the photograph",
        _SINGLE
        | {
            "network": "vgg19-normalized", "preprocessing": "neuralart", "pooling": "mean", "style_layer_weights": _EQUAL,
            "content_weight": 1.0, "style_factor": 2e9, "style_gradient": 0.5, "tv_weight": 0.0, "content_error": "sum",
            "style_error": "sum", "gram_norm": "raw", "optimizer": "lbfgs", "lbfgs_history": 100, "optimizer_range": 255.0,
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
            "optimizer": "lbfgs", "lbfgs_history": 100, "optimizer_range": 255.0,
            "end_scale": "500", "initial_iterations": 1500, "iterations": 500,
        },
        (_RESIZE, _TV, "pools round sizes up as in Caffe, where Torch drops an incomplete last window"),
    ),
    "fzliu": Preset(
        "fzliu/style-transfer: Caffe's VGG-16 with mean pooling, bounded L-BFGS of 512 iterations from the photograph",
        _SINGLE
        | {
            "network": "vgg16-caffe", "preprocessing": "fzliu", "pooling": "mean", "style_layer_weights": _EQUAL,
            "content_weight": 0.5, "style_factor": 2500.0, "tv_weight": 0.0, "content_error": "sum", "style_error": "sum",
            "gram_norm": "raw", "optimizer": "lbfgs", "line_search": "strong-wolfe", "bounds": "on", "lbfgs_history": 8,
            "optimizer_range": 255.0, "style_scale_fac": 1.2, "end_scale": "512", "initial_iterations": 512, "iterations": 512,
        },
        (
            _RESIZE,
            "a step is one evaluation, where that program's iterations have one or more",
            "the weights stand for a style-to-content ratio R of 1e4: content_weight 1/2, style_factor R/4",
        ),
    ),
}  # fmt: skip
"""Presets by the name `Settings.preset` has for them."""


def describe_presets() -> str:
    """Return the text of `--help-presets`."""
    blocks = []
    for name, preset in PRESETS.items():
        lines = [preset.program]
        for key, value in preset.settings.items():
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
            lines.append(f"--{key.replace('_', '-')} {shown}")
        lines += [f"different: {text}" for text in preset.differences]
        body = "\n".join(textwrap.fill(line, 110, initial_indent="    ", subsequent_indent="      ") for line in lines)
        blocks.append(f"{name}\n{body}")
    return "\n".join(blocks)
