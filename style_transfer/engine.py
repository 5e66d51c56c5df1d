"""The coarse-to-fine loop, as a generator: no prints, no files.

After Gatys et al. (2016) and style-transfer-pytorch: each scale starts from the average of the last one's iterates, with
Adam's moments resized.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import INITS, Settings
from .devices import resolve
from .errors import ImageError, SettingsError
from .networks import load
from .networks.graph import Network
from .objective import FAMILIES, Objective
from .optimizers import LBFGS, Adam, Average, Optimizer, resize
from .schedule import Size, Stage, plan


@dataclass(frozen=True)
class Iterate:
    """One iteration that is done.

    `loss` and its weighted `parts` are scalar tensors of the picture before the step; reading one waits for the
    device. `seconds` count from the start of the run; `memory` is the peak so far in bytes, the device's if it is
    an accelerator, else the process's (0 on Windows). `image()` is the averaged picture, valid until the generator goes on.
    """

    stage: Stage
    index: int
    stages: tuple[Stage, ...]
    step: int
    loss: Tensor
    parts: dict[str, Tensor]
    seconds: float
    memory: int
    average: Average

    @property
    def scale(self) -> int:
        """The long side of the picture, in pixels."""
        return self.stage.scale

    @property
    def size(self) -> Size:
        """(height, width) of the picture, in pixels."""
        return self.stage.size

    @property
    def steps(self) -> int:
        """How many steps this scale has."""
        return self.stage.steps

    @property
    def ends_scale(self) -> bool:
        """Whether this is the last step of its scale."""
        return self.step == self.stage.steps

    @property
    def ends_run(self) -> bool:
        """Whether this is the last step of all."""
        return self.ends_scale and self.index == len(self.stages) - 1

    @property
    def done(self) -> int:
        """Work done so far, in pixels times steps; `sum(stage.work for stage in stages)` is all of it."""
        before = sum(stage.work for stage in self.stages[: self.index])
        return before + self.stage.work // self.stage.steps * self.step

    def image(self) -> Tensor:
        """Return the average of this scale's iterates: (1, 3, H, W), [0, 1], on the CPU."""
        return self.average.value().clamp(0, 1).cpu()


def check_picture(what: str, picture: Tensor) -> Tensor:
    """Return `picture`; raise `ImageError` unless it is (1, 3, H, W), not empty, floating-point, finite and in [0, 1]."""
    shape = tuple(picture.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape:
        raise ImageError(f"{what} must be a tensor (1, 3, height, width), not {shape}")
    if not picture.is_floating_point():
        raise ImageError(f"{what} must hold floating-point numbers in [0, 1], not {picture.dtype}")
    low, high = picture.aminmax()
    if not (low >= 0 and high <= 1):
        raise ImageError(f"{what} must lie in [0, 1], not {float(low):g} to {float(high):g}")
    return picture


def first_picture(content: Tensor, styles: Sequence[Tensor], size: Size, settings: Settings) -> Tensor:
    """Return the picture to start from, (1, 3, *size) in [0, 1], by `settings.init`.

    content: the content picture. gray: 0.5 with noise of one 8-bit step, since a perfectly flat picture stays flat. uniform:
    uniform noise. normal: truncated normal noise, mean 0.5, deviation 0.25. style_mean: the styles' mean colour, with the
    noise of gray. style_stats: truncated normal noise with the mean and deviation of each channel of the styles.
    Numbers come from `settings.random_seed`, on the CPU, so they are the same for every device.
    """
    random = torch.Generator().manual_seed(settings.random_seed)
    shape = (1, 3, *size)
    if settings.init == "content":
        return resize(content, size, antialias=True).clamp(0, 1)
    if settings.init == "uniform":
        return torch.rand(shape, generator=random, dtype=content.dtype)
    dither = (torch.rand(shape, generator=random, dtype=content.dtype) - 0.5) / 255
    if settings.init == "gray":
        return 0.5 + dither
    if settings.init == "normal":
        mean, std = (torch.full((1, 3, 1, 1), x, dtype=content.dtype) for x in (0.5, 0.25))
        return _truncated_normal(mean, std, size, random)
    mix = settings.blend(len(styles))
    mean = sum((w * s.mean((2, 3), keepdim=True) for w, s in zip(mix, styles, strict=True)), torch.zeros(()))
    if settings.init == "style_mean":
        return (mean + dither).clamp(0, 1)
    squares = sum((w * s.square().mean((2, 3), keepdim=True) for w, s in zip(mix, styles, strict=True)), torch.zeros(()))
    return _truncated_normal(mean, (squares - mean.square()).clamp_min(0).sqrt(), size, random)


def _truncated_normal(mean: Tensor, std: Tensor, size: Size, random: torch.Generator) -> Tensor:
    """Return normal noise cut to [0, 1] by the inverse of its distribution, (1, 3, *size)."""
    std = std.to(torch.float64).clamp_min(1e-6)
    mean = mean.to(torch.float64)
    low, high = (torch.special.ndtr((edge - mean) / std) for edge in (0.0, 1.0))
    u = torch.rand((1, 3, *size), generator=random, dtype=torch.float64)
    noise: Tensor = mean + std * torch.special.ndtri(low + (high - low) * u)
    return noise.clamp(0, 1).to(torch.float32)


def make_optimizer(settings: Settings) -> Optimizer:
    """Return the optimizer that `settings` ask for, before its first step."""
    if settings.optimizer == "lbfgs":
        return LBFGS()
    return Adam(step_size=settings.step_size, betas=FAMILIES[settings.style_loss].betas)


def stylize(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: Settings | None = None,
    *,
    network: Network | None = None,
    init: Tensor | None = None,
) -> Iterator[Iterate]:
    """Paint `content` in the manner of `styles`, coarse to fine, and yield an `Iterate` after each step.

    Pictures are (1, 3, H, W), float, sRGB in [0, 1], of any size; content is enlarged where a scale asks for it, styles
    never are. `init` is the picture to start from, of any size, in place of `settings.init`. `network` is one that
    `networks.load` made; left out, it is loaded as `settings` say. Everything is checked before the first step:
    raises `SettingsError`, `ImageError`, `WeightsError` or `DeviceError`.
    """
    settings = settings or Settings()
    check_picture("the content picture", content)
    for number, style in enumerate(styles, 1):
        check_picture(f"style picture {number}", style)
    settings.blend(len(styles))
    if init is not None:
        check_picture("the initial picture", init)
    elif settings.init not in INITS:
        raise SettingsError(f"init {settings.init!r} is not one of {', '.join(INITS)}; give a picture as the argument init")
    if network is None:
        network = load(settings, resolve(settings.devices)[0])
    network.spec.check_layers(settings)
    stages = plan(_size(content), [_size(style) for style in styles], settings)
    network.spec.check_stages(stages, settings)
    return _run(content, styles, settings, network, init, stages)


def _size(picture: Tensor) -> Size:
    height, width = picture.shape[2:]
    return height, width


def _run(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: Settings,
    network: Network,
    init: Tensor | None,
    stages: tuple[Stage, ...],
) -> Iterator[Iterate]:
    start = time.perf_counter()
    device = network.devices[0]

    def ready(picture: Tensor, size: Size) -> Tensor:
        resized = resize(picture.to(device="cpu", dtype=network.dtype), size, antialias=True).clamp(0, 1)
        return resized.to(device)

    optimizer = make_optimizer(settings)
    average: Average | None = None
    for index, stage in enumerate(stages):
        if average is not None:
            image = resize(average.value(), stage.size).clamp(0, 1)
            optimizer = optimizer.moved_to(stage.size)
        elif init is not None:
            image = ready(init, stage.size)
        else:
            image = first_picture(content, styles, stage.size, settings).to(device, network.dtype)
        image = image.detach().clone().requires_grad_()
        resized = [ready(style, size) for style, size in zip(styles, stage.style_sizes, strict=True)]
        objective = Objective(network, ready(content, stage.size), resized, settings)
        del resized
        average = Average(settings.avg_decay)
        for step in range(1, stage.steps + 1):
            evaluation = objective.evaluate(image)
            optimizer.step(image)
            average.update(image)
            yield Iterate(
                stage=stage,
                index=index,
                stages=stages,
                step=step,
                loss=evaluation.loss,
                parts=evaluation.parts,
                seconds=time.perf_counter() - start,
                memory=peak_memory(network.devices),
                average=average,
            )


def peak_memory(devices: Sequence[torch.device]) -> int:
    """Return the peak memory so far in bytes: the accelerators' largest, or the process's if all work is on the CPU."""
    used = [torch.accelerator.max_memory_allocated(d) for d in devices if d.type in ("cuda", "xpu")]
    if used:
        return max(used)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
