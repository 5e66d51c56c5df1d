"""A textbook implementation of the method, as the baseline of the speed benchmarks: what one would otherwise write and run.

Float32, NCHW, eager mode, autograd through everything, torch's own Adam, the loss read back at every iteration. The Wasserstein
loss takes matrix square roots by twelve Newton-Schulz steps, and twelve more for the Lyapunov equation of their gradient (Lin and
Maji 2017, https://arxiv.org/abs/1707.06772). Layers, weights, losses, scales and step sizes are the defaults of the program;
only COVARIANCE_EPS is as there, so that both minimise the same loss. It shares no code with the package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYOUT = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool", 512, 512, 512, 512, "pool", 512)
"""Channels of VGG-19's convolutions up to relu5_1."""
STYLE_LAYERS = {1: 256.0, 6: 64.0, 11: 16.0, 20: 4.0, 29: 1.0}
"""Weights of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 by their place in torchvision's sequence."""
CONTENT_LAYER = 22
CONTENT_WEIGHT, TV_WEIGHT = 0.015, 2.0
COVARIANCE_EPS = 1e-4
ROOT_STEPS = 12


class _Root(torch.autograd.Function):
    """The square root of a positive semi-definite matrix, and its gradient, by Newton-Schulz steps."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
        norm = a.norm()
        y, z = a / norm, eye
        for _ in range(ROOT_STEPS):
            t = (3 * eye - z @ y) / 2
            y, z = y @ t, t @ z
        root = y * norm.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        eye = torch.eye(len(root), dtype=root.dtype, device=root.device)
        norm = root.norm()
        a, q = root / norm, grads[0] / norm
        for _ in range(ROOT_STEPS):
            b = 3 * eye - a @ a
            q = (q @ b - a.T @ (a.T @ q - q @ a)) / 2
            a = a @ b / 2
        return q / 2


class VGG(nn.Module):
    """VGG-19 up to relu5_1; returns the wanted features by their place."""

    def __init__(self, state: Mapping[str, Tensor], pooling: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in LAYOUT:
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers)
        self.load_state_dict({key: state[key].float() for key in self.state_dict()})
        self.requires_grad_(False)
        self.features[0].padding_mode = "replicate"
        self.features[0]._reversed_padding_repeated_twice = (1, 1, 1, 1)
        self.scale = 2.0 if pooling == "average" else 1.0
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Return features (1, C, h, w) of a picture (1, 3, H, W)."""
        x = (x - self.mean) / self.std
        found = {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            if isinstance(layer, nn.AvgPool2d):
                x = x * self.scale
            if place in STYLE_LAYERS or place == CONTENT_LAYER:
                found[place] = x
        return found


def gram(x: Tensor) -> Tensor:
    """Return F F^T / (h w)."""
    x = x.flatten(2)[0]
    return x @ x.T / x.shape[1]


def scaled_error(a: Tensor, b: Tensor) -> Tensor:
    """Return sum d^2 / (sum |d| + 1e-8)."""
    d = a - b
    return d.pow(2).sum() / (d.abs().sum() + 1e-8)


def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of features."""
    x = x.flatten(2)[0]
    mean = x.mean(1)
    ridge = COVARIANCE_EPS * torch.eye(len(mean), device=x.device)
    return mean, x @ x.T / x.shape[1] - torch.outer(mean, mean) + ridge


def wasserstein(x: Tensor, target: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the squared Wasserstein-2 distance of Gaussians, averaged over channels."""
    mean, covariance = gaussian(x)
    other_mean, other, root = target
    cross = _Root.apply(root @ covariance @ root)
    return (mean - other_mean).pow(2).mean() + torch.trace(covariance + other - 2 * cross) / len(mean)


def tv(x: Tensor) -> Tensor:
    """Return the mean squared difference to the right and lower neighbour, the edge replicated."""
    x = F.pad(x, (0, 1, 0, 1), "replicate")
    right, down = x[..., :-1, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, :-1]
    return (right.pow(2) + down.pow(2)).mean()


def nine_point_tv(x: Tensor) -> Tensor:
    """Return the nine-point total variation of the 2023 program."""
    x = F.pad(x, (1, 1, 1, 1), "replicate")
    right, down = x[..., 1:-1, 2:] - x[..., 1:-1, 1:-1], x[..., 2:, 1:-1] - x[..., 1:-1, 1:-1]
    falling, rising = x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:]
    axes, diagonals = right.pow(2).mean() + down.pow(2).mean(), falling.pow(2).mean() + rising.pow(2).mean()
    return 2 * (axes / 3 + diagonals / 12)


class Objective:
    """The loss at one scale."""

    def __init__(self, vgg: VGG, content: Tensor, style: Tensor, loss: str) -> None:
        self.vgg, self.loss = vgg, loss
        with torch.no_grad():
            self.content = vgg(content)[CONTENT_LAYER]
            found = vgg(style)
            self.style: dict[int, Any] = {}
            for place in STYLE_LAYERS:
                if loss == "gram":
                    self.style[place] = gram(found[place])
                else:
                    mean, covariance = gaussian(found[place])
                    self.style[place] = mean, covariance, _Root.apply(covariance)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the loss of a picture."""
        found = self.vgg(image)
        total = sum(STYLE_LAYERS.values())
        if self.loss == "gram":
            result = CONTENT_WEIGHT * scaled_error(found[CONTENT_LAYER], self.content) + TV_WEIGHT * tv(image)
            for place, weight in STYLE_LAYERS.items():
                result = result + weight / total * scaled_error(gram(found[place]), self.style[place])
        else:
            result = CONTENT_WEIGHT * F.mse_loss(found[CONTENT_LAYER], self.content) + TV_WEIGHT * nine_point_tv(image)
            for place, weight in STYLE_LAYERS.items():
                result = result + weight / total * wasserstein(found[place], self.style[place])
        return result


@dataclass
class Result:
    """A finished run: the averaged picture, each scale's losses, and the seconds since the start when each was known."""

    image: Tensor
    losses: list[list[float]]
    seconds: list[list[float]]


def resize(x: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """Return a picture at another size."""
    return F.interpolate(x, size, mode=mode, align_corners=False, antialias=x.shape[2] > size[0])


def run(vgg: VGG, content: Tensor, style: Tensor, loss: str, sizes: Sequence[tuple[int, int]], steps: Sequence[int],
        stop: Callable[[], bool] = lambda: False) -> Result:  # fmt: skip
    """Paint coarse to fine: Adam at 0.02, its moments carried over, the iterates averaged with decay 0.99."""
    start = time.perf_counter()
    state: dict[str, Any] = {}
    image = resize(content, sizes[0]).clamp(0, 1)
    result = Result(image, [], [])
    betas = (0.9, 0.999) if loss == "gram" else (0.9, 0.99)
    for size, count in zip(sizes, steps, strict=True):
        image = resize(image.detach(), size).clamp(0, 1).requires_grad_()
        factor = min(1.0, max(size) / max(style.shape[2:]))
        style_size = round(style.shape[2] * factor), round(style.shape[3] * factor)
        objective = Objective(vgg, resize(content, size).clamp(0, 1), resize(style, style_size).clamp(0, 1), loss)
        optimizer = torch.optim.Adam([image], lr=0.02, betas=betas)
        if state:
            first, second = resize(state["exp_avg"], size), resize(state["exp_avg_sq"], size, "bilinear").clamp_min(0)
            optimizer.state[image] = {"step": state["step"], "exp_avg": first, "exp_avg_sq": second}
        average, weight = torch.zeros_like(image.detach()), 0.0
        result.losses.append([])
        result.seconds.append([])
        for _ in range(count):
            optimizer.zero_grad()
            value = objective(image)
            value.backward()
            optimizer.step()
            with torch.no_grad():
                image.clamp_(0, 1)
                average = 0.99 * average + 0.01 * image
                weight = 0.99 * weight + 0.01
            result.losses[-1].append(value.item())
            result.seconds[-1].append(time.perf_counter() - start)
            if stop():
                break
        state = optimizer.state[image]
        image = average / weight
        result.image = image.detach()
    return result
