"""Export of the package's weights from a training checkpoint.

    python -m training.export --out DIR [--teacher FILE] [--to style_transfer/networks/compact.safetensors]

The exported weights are the averaged ones of the student. Each layer is scaled such that the gradients of its losses with respect
to the picture have the same norm as with VGG-19, so that content, style and total variation have the same balance. A network of
convolutions, ReLUs and pooling is homogeneous, so the next convolution can cancel a factor on a layer and the features stay
proportional. The program prints how much the factors differ between the three kinds of pooling, and how noisy channels are.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from style_transfer.losses.content.base import ContentTarget
from style_transfer.losses.content.features import FeatureLoss
from style_transfer.losses.style.moments import GramLoss
from style_transfer.networks import COMPACT, VGG19, Conv, weights
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings
from training.train import LAYERS, POOLINGS, PatchSampler, load_teacher

SETTINGS = Settings().resolve()
CREDIT = (
    "Trained by the style_transfer project on procedurally drawn pictures, to predict the features of VGG-19 "
    "(Karen Simonyan and Andrew Zisserman, weights published under CC BY 4.0)."
)


def gradient_norm(network: Network, image: Tensor, other: Tensor, layer: str) -> float:
    """Return the norm of the gradient of the default loss at `layer` of `image` against `other`, with respect to `image`."""
    with torch.no_grad():
        target = network.forward(other, [layer])[layer]
    image = image.clone().requires_grad_()
    features = network.forward(image, [layer])[layer]
    style_loss = GramLoss(Settings().resolve(), GramLoss.statistic(target).means())
    loss = FeatureLoss(ContentTarget(target)) if layer == "relu4_2" else style_loss
    (gradient,) = torch.autograd.grad(loss.score(loss.measure(features)), image)
    return float(gradient.norm())


def factors(student: dict[str, Tensor], teacher: dict[str, Tensor], pooling: str, pairs: Tensor) -> dict[str, float]:
    """Return the factor for each layer's activations, the geometric mean over pairs of pictures."""
    networks = [Network(VGG19, teacher, pooling=pooling), Network(COMPACT, student, pooling=pooling)]
    layer_factors = {}
    for layer in LAYERS:
        logs = []
        for i in range(0, len(pairs), 2):
            large, small = (gradient_norm(network, pairs[i : i + 1], pairs[i + 1 : i + 2], layer) for network in networks)
            logs.append(math.log(large / small))
        ratio = math.exp(sum(logs) / len(logs))
        layer_factors[layer] = ratio if layer == "relu4_2" else math.sqrt(ratio)  # a Gram matrix is quadratic in the activations
    return layer_factors


def scaled(student: dict[str, Tensor], layer_factors: dict[str, float]) -> dict[str, Tensor]:
    """Return weights whose activations are multiplied by the factors at these layers, and elsewhere by that of the next one."""
    convs = [step for step in COMPACT.steps if isinstance(step, Conv)]
    known = [layer_factors.get(conv.layers[1]) for conv in convs]
    for i in reversed(range(len(known) - 1)):
        known[i] = known[i] or known[i + 1]
    result, before = {}, 1.0
    for conv, factor in zip(convs, known, strict=True):
        assert factor is not None
        result[f"{conv.key}.weight"] = student[f"{conv.key}.weight"] * (factor / before)
        result[f"{conv.key}.bias"] = student[f"{conv.key}.bias"] * factor
        before = factor
    return result


def noisy_channels(student: dict[str, Tensor], teacher: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """Return for each layer the share of each channel's variance that no linear combination of VGG-19's channels predicts."""
    small, large = Network(COMPACT, student, pooling="max"), Network(VGG19, teacher, pooling="max")
    result = {}
    with torch.no_grad():
        for layer in LAYERS:
            s = small.forward(images, [layer])[layer].transpose(0, 1).flatten(1).double()
            t = large.forward(images, [layer])[layer].transpose(0, 1).flatten(1).double()
            s, t = s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
            ridge = 1e-3 * t.square().mean() * t.shape[1] * torch.eye(len(t), dtype=t.dtype)
            back = torch.linalg.solve(t @ t.mT + ridge, t @ s.mT).mT
            result[layer] = (back @ t - s).square().mean(1) / s.square().mean(1).clamp_min(1e-12)
    return result


def main() -> None:
    """Write the weights and print statistics of them."""
    parser = argparse.ArgumentParser(description="Export the package's weights from a training checkpoint.")
    parser.add_argument("--out", type=Path, required=True, help="output folder of training.train")
    parser.add_argument("--teacher", help="file with VGG-19's weights (default: download those of torchvision)")
    parser.add_argument("--to", type=Path, default=weights.BUILT_IN)
    parser.add_argument("--pairs", type=int, default=8)
    args = parser.parse_args()
    teacher = load_teacher(args.teacher)
    saved = torch.load(args.out / "state.pt", weights_only=True)
    student = {key: saved["average"][key].detach().contiguous() for key in saved["student"]}
    pairs = PatchSampler(10**6, 24).patches(2 * args.pairs, 160, torch.device("cpu")).contiguous()
    per_pooling = {pooling: factors(student, teacher, pooling, pairs) for pooling in POOLINGS}
    mean = {layer: math.prod(f[layer] ** (1 / len(per_pooling)) for f in per_pooling.values()) for layer in LAYERS}
    for layer in LAYERS:
        relative = ", ".join(f"{pooling} {per_pooling[pooling][layer] / mean[layer]:.2f} of it" for pooling in POOLINGS)
        print(layer, f"factor {mean[layer]:.4g}; {relative}")
    for layer, noise in noisy_channels(student, teacher, pairs).items():
        print(layer, f"unexplained variance: median {noise.median():.2f}, highest {noise.max():.2f} of {len(noise)} channels")
    args.to.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.to(torch.float16).contiguous() for key, value in scaled(student, mean).items()}
    save_file(tensors, args.to, {"about": CREDIT, "steps": str(saved["step"]), "license": "MIT"})
    print(f"{args.to}: {args.to.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
