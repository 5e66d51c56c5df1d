"""Initial pictures of a run, and pictures resized for the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..compute.distributed import Rows
from ..compute.resampling import resize, resize_band
from ..geometry.scales import Size
from ..networks import network_spec
from ..networks.forward import Network
from ..settings import Resolved


def first_picture(content: Tensor, styles: Sequence[Tensor], size: Size, settings: Resolved) -> Tensor:
    """Return the picture to start from, (1, 3, *size) in [0, 1], by `settings.init`.

    content: the content picture. gray: 0.5 with noise of one 8-bit step, since a perfectly flat picture stays flat. uniform:
    uniform noise. normal: truncated normal noise, mean 0.5, deviation 0.25. style_mean: the styles' mean colour, with the
    noise of gray. style_stats: truncated normal noise with the mean and deviation of each channel of the styles. style: the
    average of the styles, each stretched over the picture, mixed with the content. noise: white or pink noise about mid-gray,
    mixed with the content. network_mean: the colour that the network's preprocessing maps to zero, with noise of a thousandth of
    its unit, as in neural-style.

    Random numbers are drawn on the CPU from `settings.random_seed`, so they are equal on all devices.
    """
    random = torch.Generator().manual_seed(settings.random_seed)
    content, styles = content.cpu(), [style.cpu() for style in styles]
    shape = (1, 3, *size)
    if settings.init == "content":
        return resize(content, size, antialias=True).clamp(0, 1)
    if settings.init == "uniform":
        return torch.rand(shape, generator=random, device="cpu", dtype=content.dtype)
    dither = (torch.rand(shape, generator=random, device="cpu", dtype=content.dtype) - 0.5) / 255
    if settings.init == "gray":
        return 0.5 + dither
    if settings.init == "normal":
        mean, std = (torch.full((1, 3, 1, 1), x, device="cpu", dtype=content.dtype) for x in (0.5, 0.25))
        return _truncated_normal(mean, std, size, random)
    if settings.init == "network_mean":
        how = network_spec(settings).preprocessing
        mean, std = (torch.tensor(x, device="cpu", dtype=content.dtype).view(1, 3, 1, 1) for x in (how.mean, how.std))
        return mean + 0.001 * std * torch.randn(shape, generator=random, device="cpu", dtype=content.dtype)
    if settings.init == "noise":
        noise = 0.5 + settings.noise_deviation * _noise(settings.noise, size, random).to(content.dtype)
        return torch.lerp(noise, resize(content, size, antialias=True), settings.init_blend).clamp(0, 1)
    mix = settings.blend(len(styles))
    if settings.init == "style":
        stretched = torch.zeros(shape, device="cpu", dtype=content.dtype)
        for weight, style in zip(mix, styles, strict=True):
            stretched += weight * resize(style.to(content), size, antialias=True)
        return torch.lerp(stretched, resize(content, size, antialias=True), settings.init_blend).clamp(0, 1)
    mean = torch.stack([w * s.mean((2, 3), keepdim=True) for w, s in zip(mix, styles, strict=True)]).sum(0)
    if settings.init == "style_mean":
        return (mean + dither).clamp(0, 1)
    squares = torch.stack([w * s.square().mean((2, 3), keepdim=True) for w, s in zip(mix, styles, strict=True)]).sum(0)
    return _truncated_normal(mean, (squares - mean.square()).clamp_min(0).sqrt(), size, random)


def _noise(kind: str, size: Size, random: torch.Generator) -> Tensor:
    """Return noise of mean 0 and deviation 1, (1, 3, *size): white, or pink, whose amplitudes fall with the frequency."""
    noise = torch.randn((1, 3, *size), generator=random, device="cpu", dtype=torch.float64)
    if kind == "white":
        return noise
    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None]
    frequency = (rows.square() + columns.square()).sqrt().to(torch.float64)
    frequency[0, 0] = torch.inf
    pink: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=size)
    return pink / pink.std((2, 3), keepdim=True).clamp_min(1e-12)


def _truncated_normal(mean: Tensor, std: Tensor, size: Size, random: torch.Generator) -> Tensor:
    """Return normal noise truncated to [0, 1], (1, 3, *size), by inverting its distribution function."""
    std = std.to(torch.float64).clamp_min(1e-6)
    mean = mean.to(torch.float64)
    low, high = (torch.special.ndtr((edge - mean) / std) for edge in (0.0, 1.0))
    u = torch.rand((1, 3, *size), generator=random, device="cpu", dtype=torch.float64)
    noise: Tensor = mean + std * torch.special.ndtri(low + (high - low) * u)
    return noise.clamp(0, 1).to(torch.float32)


def resized_for(
    network: Network, picture: Tensor, size: Size, rows: Rows | None = None, device: torch.device | None = None
) -> Tensor:
    """Return a picture, or some rows of it, resized (bicubic, antialiased, on the CPU) in the type of `network`.

    It is on `device`, or on the first device of the network.
    """
    picture = picture.to(device="cpu", dtype=network.dtype)
    if rows is None or rows == (0, size[0]):
        resized = resize(picture, size, antialias=True)
    else:
        resized = resize_band(picture, 0, picture.shape[2], size, rows, "bicubic", antialias=True)
    return resized.clamp(0, 1).to(device or network.devices[0])
