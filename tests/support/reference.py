"""A plain, slow, float64 oracle of the whole method. It never imports the package.

Pictures are (1, 3, H, W) in [0, 1]. torch's convolution, padding, interpolation and autograd are taken as primitives;
statistics, losses, optimizer, average and schedule are written out here a second time, from the formulas alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]

CONVOLUTIONS = [(1, 1, 0), (1, 2, 2), (2, 1, 5), (2, 2, 7), (3, 1, 10), (3, 2, 12), (3, 3, 14), (3, 4, 16),
                (4, 1, 19), (4, 2, 21), (4, 3, 23), (4, 4, 25), (5, 1, 28)]  # fmt: skip
"""(block, number, index in torchvision's sequential) of every convolution up to relu5_1."""

STYLE_LAYERS = {"relu1_1": 256 / 341, "relu2_1": 64 / 341, "relu3_1": 16 / 341, "relu4_1": 4 / 341, "relu5_1": 1 / 341}
CONTENT_LAYER = "relu4_2"


def random_weights(seed: int, channels: Sequence[int] = (4, 6, 8, 8, 8)) -> dict[str, Tensor]:
    """Return He-normal weights and small biases for the convolutions up to relu5_1."""
    random = torch.Generator().manual_seed(seed)
    weights, inputs = {}, 3
    for block, _, index in CONVOLUTIONS:
        outputs = channels[block - 1]
        spread = math.sqrt(2 / (9 * inputs))
        weights[f"features.{index}.weight"] = spread * torch.randn(outputs, inputs, 3, 3, generator=random, dtype=torch.float64)
        weights[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=random, dtype=torch.float64)
        inputs = outputs
    return weights


def pool(x: Tensor, kind: str) -> Tensor:
    """Return 2x2 pooling from the four corners of each block, odd last rows and columns dropped."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = x[..., :height, :width]
    corners = torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
    if kind == "max":
        return corners.amax(0)
    if kind in ("average", "mean"):
        return corners.mean(0) * (2 if kind == "average" else 1)
    squares = corners.square().sum(0)
    zero = squares == 0
    return 0.78 * torch.where(zero, torch.zeros_like(squares), torch.where(zero, torch.ones_like(squares), squares).sqrt())


def features(image: Tensor, weights: Weights, pooling: str, layers: Iterable[str]) -> dict[str, Tensor]:
    """Return the named features of a picture."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).reshape(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).reshape(1, 3, 1, 1)
    x = (image - mean) / std
    found, last = {}, 1
    for block, number, index in CONVOLUTIONS:
        if block != last:
            x, last = pool(x, pooling), block
        mode = "replicate" if index == 0 else "constant"
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode), weights[f"features.{index}.weight"], weights[f"features.{index}.bias"])
        x = torch.where(x > 0, x, torch.zeros_like(x))
        found[f"relu{block}_{number}"] = x
    return {layer: found[layer] for layer in layers}


def gram(x: Tensor) -> Tensor:
    """Return F F^T / (h w)."""
    return torch.einsum("iahw,ibhw->ab", x, x) / (x.shape[2] * x.shape[3])


def sqrtm_psd(a: Tensor) -> Tensor:
    """Return the square root of a symmetric positive semi-definite matrix by its eigendecomposition."""
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


class _TraceRoot(torch.autograd.Function):
    """tr A^1/2, the sum of the roots of the eigenvalues; gradient A^(-1/2) / 2."""

    @staticmethod
    def forward(ctx, a):  # type: ignore[no-untyped-def]
        values, vectors = torch.linalg.eigh(a)
        values = values.clamp(min=0)
        inverse = torch.where(values > 1e-14 * values.max(), values, torch.inf).pow(-0.5)
        ctx.save_for_backward(vectors @ torch.diag(inverse / 2) @ vectors.T)
        return values.sqrt().sum()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad * ctx.saved_tensors[0]


def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the second raw moment over the pixels."""
    return x.mean((0, 2, 3)), gram(x)


def wasserstein(moments: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
    """Return mean (m - m')^2 + tr(S + S' - 2 (S'^1/2 S S'^1/2)^1/2) / C with 1e-4 on both diagonals."""
    (mean, second), (target_mean, target_second) = moments, target
    ridge = 1e-4 * torch.eye(len(mean), dtype=mean.dtype)
    s = second - mean[:, None] * mean[None, :] + ridge
    t = target_second - target_mean[:, None] * target_mean[None, :] + ridge
    root = sqrtm_psd(t)
    middle = root @ s @ root
    traces = torch.trace(s) + torch.trace(t) - 2 * _TraceRoot.apply((middle + middle.T) / 2)
    return ((mean - target_mean) ** 2).mean() + traces / len(mean)


def sliced_wasserstein(x: Tensor, style: Tensor, directions: Tensor) -> Tensor:
    """Return the mean over directions (D, C) of the squared distance between the sorted values of features (1, C, h, w)."""
    p, q = (torch.sort(directions @ f[0].flatten(1), dim=1).values for f in (x, style))
    cells = math.lcm(p.shape[1], q.shape[1])
    p, q = (torch.repeat_interleave(values, cells // values.shape[1], dim=1) for values in (p, q))
    return ((p - q) ** 2).mean()


def scaled_squared_error(x: Tensor, target: Tensor) -> Tensor:
    """Return sum d^2 / (sum |d| + 1e-8)."""
    d = x - target
    return (d**2).sum() / (d.abs().sum() + 1e-8)


def tv(x: Tensor) -> Tensor:
    """Return the mean of dx^2 + dy^2, forward differences with the edge replicated."""
    padded = F.pad(x, (0, 1, 0, 1), "replicate")
    dx = padded[..., :-1, 1:] - padded[..., :-1, :-1]
    dy = padded[..., 1:, :-1] - padded[..., :-1, :-1]
    return (dx**2 + dy**2).mean()


def nine_point_tv(x: Tensor) -> Tensor:
    """Return 2 ((mean dx^2 + mean dy^2) / 3 + (mean d1^2 + mean d2^2) / 12)."""
    p = F.pad(x, (1, 1, 1, 1), "replicate")
    dx = p[..., 1:-1, 2:] - p[..., 1:-1, 1:-1]
    dy = p[..., 2:, 1:-1] - p[..., 1:-1, 1:-1]
    d1 = p[..., 1:, 1:] - p[..., :-1, :-1]
    d2 = p[..., 1:, :-1] - p[..., :-1, 1:]
    return 2 * (((dx**2).mean() + (dy**2).mean()) / 3 + ((d1**2).mean() + (d2**2).mean()) / 12)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a picture resized as content and styles are."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def scales(low: int, end: int) -> list[int]:
    """Return round(end / 2^(i/2)) for all i that keep it at `low` or above, ascending."""
    return sorted({round(end / 2 ** (i / 2)) for i in range(80) if round(end / 2 ** (i / 2)) >= low})


def content_size(shape: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return the size whose long side is `scale`."""
    long_side = max(shape)
    return max(1, round(scale * shape[0] / long_side)), max(1, round(scale * shape[1] / long_side))


def style_size(shape: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return the size whose long side is at most `longest`."""
    return shape if max(shape) <= longest else content_size(shape, longest)


class Adam:
    """Adam with moments that can be resized."""

    def __init__(self, step_size: float, beta2: float) -> None:
        self.step_size, self.beta1, self.beta2 = step_size, 0.9, beta2
        self.m: Tensor | None = None
        self.v: Tensor | None = None
        self.t = 0

    def step(self, x: Tensor, g: Tensor) -> Tensor:
        """Return the next iterate, clamped to [0, 1]."""
        m = torch.zeros_like(x) if self.m is None else self.m
        v = torch.zeros_like(x) if self.v is None else self.v
        self.t += 1
        self.m = self.beta1 * m + (1 - self.beta1) * g
        self.v = self.beta2 * v + (1 - self.beta2) * g**2
        m_hat = self.m / (1 - self.beta1**self.t)
        v_hat = self.v / (1 - self.beta2**self.t)
        return (x - self.step_size * m_hat / (v_hat.sqrt() + 1e-8)).clamp(0, 1)

    def grow(self, size: tuple[int, int]) -> None:
        """Resize the moments."""
        if self.m is not None and self.v is not None:
            self.m = F.interpolate(self.m, size, mode="bicubic", align_corners=False)
            self.v = F.interpolate(self.v, size, mode="bilinear", align_corners=False).clamp(min=0)


@dataclass
class Run:
    """What a run went through: losses before each step, by scale; the average at the end of each scale."""

    losses: list[list[float]] = field(default_factory=list)
    averages: list[Tensor] = field(default_factory=list)

    @property
    def final(self) -> Tensor:
        """The result."""
        return self.averages[-1]


def run(
    content: Tensor, styles: Sequence[Tensor], weights: Weights, *, pooling: str, style_loss: str,
    style_weights: Sequence[float] | None = None, content_weight: float = 0.015, tv_weight: float = 2.0,
    min_scale: int, end_scale: int, iterations: int, initial_iterations: int, step_size: float = 0.02,
    avg_decay: float = 0.99, style_scale_fac: float = 1.0, init: Tensor | None = None,
) -> Run:  # fmt: skip
    """Return the losses and averages of a whole run."""
    given = list(style_weights or [1.0] * len(styles))
    mix = [w / sum(given) for w in given]
    is_gram = style_loss == "gram"
    adam = Adam(step_size, 0.999 if is_gram else 0.99)
    result = Run()
    for scale in scales(min_scale, end_scale):
        size = content_size(tuple(content.shape[2:]), scale)
        if result.averages:
            x = F.interpolate(result.final, size, mode="bicubic", align_corners=False).clamp(0, 1)
            adam.grow(size)
        else:
            x = resize(content if init is None else init, size)
        goal = features(resize(content, size), weights, pooling, [CONTENT_LAYER])[CONTENT_LAYER]
        seen = [
            features(resize(s, style_size(tuple(s.shape[2:]), round(scale * style_scale_fac))), weights, pooling, STYLE_LAYERS)
            for s in styles
        ]
        targets = {}
        for layer in STYLE_LAYERS:
            moments = [gaussian(f[layer]) for f in seen]
            targets[layer] = tuple(sum(w * m[k] for w, m in zip(mix, moments, strict=True)) for k in (0, 1))
        losses, average, count = [], torch.zeros_like(x), 0
        for _ in range(iterations if result.averages else initial_iterations):
            x = x.detach().requires_grad_()
            f = features(x, weights, pooling, [CONTENT_LAYER, *STYLE_LAYERS])
            if is_gram:
                loss = content_weight * scaled_squared_error(f[CONTENT_LAYER], goal) + tv_weight * tv(x)
                for layer, w in STYLE_LAYERS.items():
                    loss = loss + w * scaled_squared_error(gram(f[layer]), targets[layer][1])
            else:
                loss = content_weight * ((f[CONTENT_LAYER] - goal) ** 2).mean() + tv_weight * nine_point_tv(x)
                for layer, w in STYLE_LAYERS.items():
                    loss = loss + w * wasserstein(gaussian(f[layer]), targets[layer])
            (g,) = torch.autograd.grad(loss, x)
            losses.append(float(loss.detach()))
            x = adam.step(x.detach(), g)
            average, count = avg_decay * average + (1 - avg_decay) * x, count + 1
        result.losses.append(losses)
        result.averages.append(average / (1 - avg_decay**count))
    return result


def unit(x: Tensor, weights: Weights, key: str, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """Return a convolution and its ReLU, the convolution written as a product of patches, group by group."""
    weight, bias = weights[f"{key}.weight"], weights[f"{key}.bias"]
    outputs, each, size, _ = weight.shape
    height, width = ((n + 2 * padding - size) // stride + 1 for n in x.shape[2:])
    parts = []
    for group in range(groups):
        patches = F.unfold(x[:, group * each : (group + 1) * each], size, padding=padding, stride=stride)
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        parts.append(weight[rows].flatten(1) @ patches[0])
    y = torch.cat(parts) + bias[:, None]
    return torch.where(y > 0, y, torch.zeros_like(y)).reshape(1, outputs, height, width)


def caffe_pool(x: Tensor, kind: str, size: int, stride: int, padding: int = 0) -> Tensor:
    """Return Caffe's pooling: as many windows as begin within the picture; sums are divided by what is not beyond the padding."""
    height, width = x.shape[2:]
    counts = []
    for n in (height, width):
        count = -(-(n + 2 * padding - size) // stride) + 1
        counts.append(count - 1 if (count - 1) * stride >= n + padding else count)
    rows = []
    for i in range(counts[0]):
        row = []
        for j in range(counts[1]):
            top, left = i * stride - padding, j * stride - padding
            bottom, right = min(top + size, height + padding), min(left + size, width + padding)
            cells = x[..., max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
            row.append(cells.amax((2, 3)) if kind == "max" else cells.sum((2, 3)) / ((bottom - top) * (right - left)))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2)


def normalised(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """Return local response normalisation across channels."""
    half = size // 2
    sums = torch.stack([x[:, max(0, c - half) : c + half + 1].square().sum(1) for c in range(x.shape[1])], 1)
    return x / (1 + alpha / size * sums) ** beta


def caffe_input(image: Tensor, mean: Sequence[float], white: float = 255.0) -> Tensor:
    """Return a picture as Caffe's networks see it: blue first, 0 to `white`, less the mean colour, blue first too."""
    return image[:, [2, 1, 0]] * white - torch.tensor(mean, dtype=torch.float64).reshape(1, 3, 1, 1)


def caffenet(image: Tensor, weights: Weights, kind: str) -> dict[str, Tensor]:
    """Return the features of CaffeNet as fzliu/style-transfer defines it."""
    x = caffe_input(image, (104.007, 116.669, 122.679))
    found = {"relu1": unit(x, weights, "conv1", stride=4)}
    x = normalised(caffe_pool(found["relu1"], kind, 3, 2))
    found["relu2"] = unit(x, weights, "conv2", padding=2, groups=2)
    x = normalised(caffe_pool(found["relu2"], kind, 3, 2))
    for number, groups in ((3, 1), (4, 2), (5, 2)):
        x = found[f"relu{number}"] = unit(x, weights, f"conv{number}", padding=1, groups=groups)
    return found


def inception(x: Tensor, weights: Weights, name: str, kind: str) -> Tensor:
    """Return the output of one of GoogLeNet's modules."""
    three = unit(unit(x, weights, f"{name}/3x3_reduce"), weights, f"{name}/3x3", padding=1)
    five = unit(unit(x, weights, f"{name}/5x5_reduce"), weights, f"{name}/5x5", padding=2)
    pooled = unit(caffe_pool(x, kind, 3, 1, 1), weights, f"{name}/pool_proj")
    return torch.cat([unit(x, weights, f"{name}/1x1"), three, five, pooled], 1)


def googlenet(
    image: Tensor, weights: Weights, kind: str, lrn: bool, mean: Sequence[float] = (104.007, 116.669, 122.679)
) -> dict[str, Tensor]:
    """Return the features of GoogLeNet."""
    norm = normalised if lrn else (lambda x: x)
    x = caffe_input(image, mean)
    found = {"conv1/relu_7x7": unit(x, weights, "conv1/7x7_s2", stride=2, padding=3)}
    x = norm(caffe_pool(found["conv1/relu_7x7"], kind, 3, 2))
    x = found["conv2/relu_3x3"] = unit(unit(x, weights, "conv2/3x3_reduce"), weights, "conv2/3x3", padding=1)
    x = caffe_pool(norm(x), kind, 3, 2)
    for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        if module in ("4a", "5a"):
            x = caffe_pool(x, kind, 3, 2)
        x = found[f"inception_{module}/output"] = inception(x, weights, f"inception_{module}", kind)
    return found


NIN = (("conv1", 0, 4, 0, "relu0"), ("cccp1", 2, 1, 0, "relu1"), ("cccp2", 4, 1, 0, "relu2"), None,
       ("conv2", 7, 1, 2, "relu3"), ("cccp3", 9, 1, 0, "relu5"), ("cccp4", 11, 1, 0, "relu6"), None,
       ("conv3", 14, 1, 1, "relu7"), ("cccp5", 16, 1, 0, "relu8"), ("cccp6", 18, 1, 0, "relu9"), None,
       ("conv4-1024", 22, 1, 1, "relu10"), ("cccp7-1024", 24, 1, 0, "relu11"), ("cccp8-1024", 26, 1, 0, "relu12"))  # fmt: skip
"""nin_imagenet: name, number in torch's sequential, stride, padding, ReLU; None is a pool."""


def nin(image: Tensor, weights: Weights, kind: str) -> dict[str, Tensor]:
    """Return the features of Network in Network."""
    x = caffe_input(image, (103.939, 116.779, 123.68))
    found = {}
    for layer in NIN:
        if layer is None:
            x = caffe_pool(x, kind, 3, 2)
        else:
            _, index, stride, padding, relu = layer
            x = found[relu] = unit(x, weights, f"features.{index}", stride=stride, padding=padding)
    return found


def raw_gram(x: Tensor) -> Tensor:
    """Return F F^T, not divided by anything."""
    f = x.flatten(2)[0]
    return f @ f.T


def inner_tv(x: Tensor) -> Tensor:
    """Return half the sum of squares that neural-style's and neuralart's smoothing is the gradient of; `x` in Caffe's units."""
    corner = x[..., :-1, :-1]
    return ((x[..., :-1, 1:] - corner) ** 2 + (x[..., 1:, :-1] - corner) ** 2).sum() / 2


Layers = Mapping[str, Tensor]


def neural_style_loss(
    image: Layers, content: Layers, styles: Sequence[Layers], blend: Sequence[float], content_layers: Sequence[str],
    style_layers: Sequence[str], content_weight: float = 5, style_weight: float = 100,
) -> Tensor:  # fmt: skip
    """Return neural-style's loss, without smoothing: nn.MSECriterion of features, and of Gram matrices over their elements."""
    loss = torch.zeros((), dtype=torch.float64)
    for layer in content_layers:
        loss = loss + content_weight * ((image[layer] - content[layer]) ** 2).mean()
    for layer in style_layers:
        target = sum(w * raw_gram(s[layer]) / s[layer].numel() for w, s in zip(blend, styles, strict=True))
        loss = loss + style_weight * ((raw_gram(image[layer]) / image[layer].numel() - target) ** 2).mean()
    return loss


def neuralart_loss(
    image: Layers, content: Layers, style: Layers, content_layers: Sequence[str], style_layers: Sequence[str], *,
    inception: bool, style_factor: float = 2e9,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return neuralart's loss, and a number whose gradient is the gradient that it follows: half the style's."""
    loss = follow = torch.zeros((), dtype=torch.float64)
    for layer in content_layers:
        d = image[layer] - content[layer]
        part = (d**2).sum() / ((2 * d).abs().mean().detach() if inception else 1) / len(content_layers)
        loss, follow = loss + part, follow + part
    for layer in style_layers:
        d = raw_gram(image[layer]) - raw_gram(style[layer])
        norm = image[layer].numel() ** 2 * ((2 * d).abs().mean().detach() if inception else 1)
        part = style_factor * (d**2).sum() / norm / len(style_layers)
        loss, follow = loss + part, follow + part / 2
    return loss, follow


def fzliu_loss(
    image: Layers, content: Layers, style: Layers, content_weights: Mapping[str, float], style_weights: Mapping[str, float],
    ratio: float = 1e4,
) -> Tensor:  # fmt: skip
    """Return fzliu/style-transfer's loss."""
    loss = torch.zeros((), dtype=torch.float64)
    for layer, weight in content_weights.items():
        loss = loss + weight * ((image[layer] - content[layer]) ** 2).sum() / 2
    for layer, weight in style_weights.items():
        channels, cells = image[layer].shape[1], image[layer].shape[2] * image[layer].shape[3]
        d = raw_gram(image[layer]) - raw_gram(style[layer])
        loss = loss + ratio * weight * (d**2).sum() / (4 * channels**2 * cells**2)
    return loss


def vgg(image: Tensor, weights: Weights, blocks: Sequence[int], kind: str) -> dict[str, Tensor]:
    """Return the features after each ReLU of a VGG with so many convolutions a block; `image` is what the network sees."""
    x, found, index = image, {}, 0
    for block, count in enumerate(blocks, 1):
        for number in range(1, count + 1):
            x = found[f"relu{block}_{number}"] = unit(x, weights, f"features.{index}", padding=1)
            index += 2
        x = pool(x, kind)
        index += 1
    return found


def at_points(x: Tensor, points: Sequence[tuple[int, int]], stride: int) -> Tensor:
    """Return the features of the cells that contain points, (n, C); pixels after the last stride belong to the last cell."""
    height, width = x.shape[2:]
    return torch.stack([x[0, :, min(y // stride, height - 1), min(z // stride, width - 1)] for y, z in points])


def cosine_distance(u: Tensor, v: Tensor) -> Tensor:
    """Return 1 - cos of two vectors."""
    return 1 - (u @ v) / (u.square().sum().sqrt() * v.square().sum().sqrt())


def relaxed_distance(xs: Tensor, ys: Tensor, kind: str) -> Tensor:
    """Return the larger of the two means of smallest distances of vectors (n, D) and (m, D)."""

    def distance(u: Tensor, v: Tensor) -> Tensor:
        return cosine_distance(u, v) if kind == "cosine" else ((u - v).square().mean() + 1e-5).sqrt() - math.sqrt(1e-5)

    table = torch.stack([torch.stack([distance(x, y) for y in ys]) for x in xs])
    return torch.maximum(table.amin(1).mean(), table.amin(0).mean())


def weighted_columns(parts: Sequence[Tensor], like: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return layers (n, C) side by side; in `like` the mean square is 1, and layers have shares of the square length."""
    lengths = [(other**2).sum(1).mean() for other in like]
    scaled = [
        part * (weight / sum(weights) / length).sqrt() for part, weight, length in zip(parts, weights, lengths, strict=True)
    ]
    return torch.cat(scaled, 1) * math.sqrt(sum(part.shape[1] for part in parts))


def strotss_style(parts: Sequence[Tensor], bank: Sequence[Tensor], weights: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the relaxed distance, the difference of moments and that of colours; the first of the parts is the picture."""
    x, y = (weighted_columns(each[1:], bank[1:], weights) for each in (parts, bank))
    moments = (x.mean(0) - y.mean(0)).abs().mean() + (torch.cov(x.T, correction=0) - torch.cov(y.T, correction=0)).abs().mean()
    return relaxed_distance(x, y, "cosine"), moments, relaxed_distance(parts[0], bank[0], "euclidean")


def self_similarity(parts: Sequence[Tensor], content: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the mean difference of the tables of cosine distances, each column divided by its mean; smooth at 0."""
    tables = []
    for each in (parts, content):
        x = weighted_columns(each, content, weights)
        table = torch.stack([torch.stack([cosine_distance(u, v) for v in x]) for u in x])
        tables.append(table / table.mean(0, keepdim=True))
    return (((tables[0] - tables[1]) ** 2 + 1e-6).sqrt() - 1e-3).mean()
