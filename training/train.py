"""Training of the built-in compact network to predict the features of VGG-19.

    python -m training.train --out DIR [--teacher FILE] [--steps N] [--minutes M] [--device cuda]
    python -m training.train --out DIR --short      one minute on two cores, a test of the whole procedure

Started again with the same --out, training resumes from the checkpoint there. Initial weights are a least-squares fit
(`training.start`), the rest is feature distillation as in FitNets (Romero et al. 2014, https://arxiv.org/abs/1412.6550): in each
layer a linear read-out predicts the teacher's features from the student's; read-outs are discarded after training. Besides the
features themselves, the loss compares what style transfer uses of them:

- Gram matrices of the predictions;
- the student's features with a prediction of them by a second read-out from the teacher's, channel by channel: what the teacher
  cannot predict is noise, which would appear in pictures optimised with the student;
- the direction of the gradient of a Gram loss at one layer with respect to the picture (Czarnecki et al. 2017, "Sobolev
  training", https://arxiv.org/abs/1706.04859).

Pictures are drawn by `training.pictures`. A third of each batch are pictures that are being stylised with the student: patterns
that it does not detect accumulate in them, and these it must learn to detect (the idea of DAgger, Ross et al. 2011,
https://arxiv.org/abs/1011.0686). Each step draws the kind of pooling of both networks at random and uses the same
read-outs, so that the student can be used with every kind.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from style_transfer.engine.optimizers.adam import Adam
from style_transfer.losses.loss import scaled_squared_error
from style_transfer.networks import COMPACT, VGG19, weights
from style_transfer.networks.download import download
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings
from training import pictures
from training.start import fitted_student

LAYERS = {"relu1_1": 1.0, "relu2_1": 1.0, "relu3_1": 1.0, "relu4_1": 1.0, "relu4_2": 1.0, "relu5_1": 1.0}
"""The weight of each layer in the loss."""
NOISE = {"relu1_1": 0.3, "relu2_1": 0.3, "relu3_1": 0.1}
"""The weight of the noise term by layer. Deep layers have none, since features of low rank minimise it there: with 0.3 in all
layers, relu4_1 had an effective rank of 8 and relu5_1 of 1.6 after 1800 steps; VGG-19 has 68 and 122."""
STYLE = Settings().resolve().layer_weights
"""The weight of each style layer, the default of the program."""
POOLINGS = {"max": 0.5, "average": 0.35, "l2": 0.15}
"""The probability of each kind of pooling in a step."""
READOUT_RATE = 1.0
"""Learning rate of read-outs relative to that of the student."""
HELD_OUT_SEED = 2**31
DECAY = 0.999
"""Decay of the exponential average of the weights."""
COOLDOWN = 0.25
"""The share of the steps at the end over which the learning rate falls to zero."""


@dataclass
class Stylization:
    """Pictures (B, 3, H, W) that are being stylised with the student, their styles, and the optimizer's state."""

    images: Tensor
    styles: Tensor
    optimizer: Adam = field(default_factory=lambda: Adam(step_size=0.02, betas=(0.9, 0.99)))


@dataclass
class State:
    """The state of training that a checkpoint holds."""

    student: dict[str, Tensor]
    readouts: dict[str, Tensor]
    optimizer: torch.optim.Adam
    average: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def new_state(teacher: dict[str, Tensor], images: Tensor, lr: float) -> State:
    """Return the student that `training.start` fits on pictures (B, 3, H, W), with read-outs of all layers in both directions."""
    student = {key: on_device(value, images.device).requires_grad_() for key, value in fitted_student(teacher, images).items()}
    readouts = {}
    with torch.no_grad():
        large = Network(VGG19, teacher, pooling="max", devices=(images.device,)).forward(images, LAYERS)
        small = Network(COMPACT, student, pooling="max", devices=(images.device,)).forward(images, LAYERS)
        for layer in LAYERS:
            s, t = (x[layer].transpose(0, 1).flatten(1) for x in (small, large))
            for name, x, y in ((layer, s, t), (f"{layer} back", t, s)):
                ridge = 0.01 * x.square().sum(1).mean() * torch.eye(len(x), device=x.device)
                readouts[name] = torch.linalg.solve(x @ x.mT + ridge, x @ y.mT).mT.contiguous().requires_grad_()
    optimizer = torch.optim.Adam(
        [{"params": list(student.values()), "lr": lr}, {"params": list(readouts.values()), "lr": lr}], betas=(0.9, 0.99)
    )
    return State(student, readouts, optimizer, {k: v.detach().clone() for k, v in (student | readouts).items()})


def on_device(x: Tensor, device: torch.device) -> Tensor:
    """Return `x` on a device, channels last if it has four dimensions."""
    x = x.to(device)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def grams(x: Tensor) -> Tensor:
    """Return the Gram matrices of (B, C, H, W), divided by H x W: (B, C, C)."""
    x = x.flatten(2)
    return x @ x.mT / x.shape[2]


def relative(error: Tensor, energy: Tensor) -> Tensor:
    """Return the mean over pictures of the root of error over energy; pictures of low energy have a smaller weight."""
    return ((error / (energy + 0.1 * energy.mean())).clamp_min(1e-12)).sqrt().mean()


def distillation(student: Tensor, teacher: Tensor, readout: Tensor, back: Tensor) -> dict[str, Tensor]:
    """Return the three losses at one layer from features (B, C, H, W) of student and teacher, each from 0 to about 1.

    `readout` predicts the teacher's channels from the student's, `back` the student's from the teacher's.
    """
    s, t = student.flatten(2), teacher.flatten(2)
    centred = (t - t.mean((0, 2), keepdim=True)).square().sum((1, 2))
    features = relative((readout @ s - t).square().sum((1, 2)), centred)
    predicted, target = readout @ grams(student) @ readout.mT, grams(teacher)
    gram = relative((predicted - target).square().sum((1, 2)), target.square().sum((1, 2)))
    spread = (s - s.mean((0, 2), keepdim=True)).square().sum((0, 2)) + 1e-4 * s.square().sum() / s.shape[1]
    noise = ((back @ t - s).square().sum((0, 2)) / spread).mean().clamp_min(1e-12).sqrt()
    return {"features": features, "gram": gram, "noise": noise}


def style_gradient(network: Network, images: Tensor, styles: Tensor, layer: str, *, create_graph: bool) -> Tensor:
    """Return the gradient of the scaled squared error of Gram matrices at one layer with respect to `images`."""
    with torch.set_grad_enabled(create_graph):
        target = grams(network.forward(styles, [layer])[layer].float())
    images = images.detach().requires_grad_()
    d = grams(network.forward(images, [layer])[layer].float()) - target
    loss = scaled_squared_error(d.square().sum((1, 2)), d.abs().sum((1, 2))).sum()
    (gradient,) = torch.autograd.grad(loss, images, create_graph=create_graph)
    return gradient


def stylize(network: Network, run: Stylization, steps: int) -> None:
    """Take `steps` of Adam on the student's style loss and total variation, as the program does."""
    with torch.no_grad():
        targets = {k: grams(v) for k, v in network.forward(run.styles, STYLE).items()}
    for _ in range(steps):
        image = run.images.requires_grad_()
        loss = 2 * (image.diff(dim=2).square().mean() + image.diff(dim=3).square().mean()) * len(image)
        for layer, features in network.forward(image, STYLE).items():
            d = grams(features) - targets[layer]
            loss = loss + STYLE[layer] * scaled_squared_error(d.square().sum((1, 2)), d.abs().sum((1, 2))).sum()
        (image.grad,) = torch.autograd.grad(loss, image)
        run.optimizer.step(image)


class PatchSampler:
    """A pool of drawn pictures, which is renewed bit by bit, and random patches of them: rotated, mirrored and scaled."""

    def __init__(self, seed: int, count: int, size: int = 256) -> None:
        self.random = np.random.default_rng(seed)
        self.size = size
        self.drawn = [pictures.draw(self.random, size) for _ in range(count)]
        self.next = 0

    def refresh(self) -> None:
        """Replace the oldest picture by a new one."""
        self.drawn[self.next] = pictures.draw(self.random, self.size)
        self.next = (self.next + 1) % len(self.drawn)

    def patches(self, count: int, size: int, device: torch.device) -> Tensor:
        """Return random patches (count, 3, size, size) in [0, 1]."""
        patches = []
        for _ in range(count):
            picture = self.drawn[int(self.random.integers(len(self.drawn)))]
            side = int(min(self.size, size * math.exp(abs(self.random.normal(0, 0.4)))))
            top, left = self.random.integers(0, self.size - side + 1, 2)
            patch = np.rot90(picture[top : top + side, left : left + side], int(self.random.integers(4)))
            if self.random.random() < 0.5:
                patch = patch[:, ::-1]
            x = torch.from_numpy(np.ascontiguousarray(patch[..., self.random.permutation(3)])).permute(2, 0, 1)[None]
            if side != size:
                x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
            patches.append(x)
        return on_device(torch.cat(patches), device)


class Training:
    """The training loop. `lr` is the learning rate; it rises in the first 100 of `steps` and falls in the last quarter."""

    def __init__(self, teacher: dict[str, Tensor], out: Path, *, steps: int, batch: int = 4, size: int = 96, lr: float = 7e-4,
                 seed: int = 0, pool: int = 300, fit: int = 48, device: str = "cpu") -> None:  # fmt: skip
        self.out, self.steps, self.batch, self.size, self.lr, self.device = out, steps, batch, size, lr, torch.device(device)
        self.sampler = PatchSampler(seed, pool)
        teacher = {k: on_device(v, self.device) for k, v in teacher.items()}
        self.state = new_state(teacher, self.sampler.patches(fit, size, self.device), lr)
        if self.checkpoint.exists():
            self.load()
            self.sampler = PatchSampler(seed + self.state.step, pool)
        self.teachers = {
            p: Network(VGG19, teacher, pooling=p, devices=(self.device,),
                       features=torch.bfloat16 if self.device.type == "cuda" else None)
            for p in POOLINGS
        }  # fmt: skip
        self.random = np.random.default_rng(seed + self.state.step)
        self.stylizations: list[Stylization] = []
        self.recent: dict[str, list[float]] = {}
        self.held_out = PatchSampler(HELD_OUT_SEED, 8).patches(8, size, self.device)
        if not self.state.curve:
            self.state.curve.append({"step": 0, "seconds": 0.0, **self.errors()})

    @property
    def checkpoint(self) -> Path:
        """The file that training resumes from."""
        return self.out / "state.pt"

    def save(self) -> None:
        """Write the checkpoint and the loss curve."""
        s = self.state
        self.out.mkdir(parents=True, exist_ok=True)
        new = self.checkpoint.with_suffix(".new")
        torch.save({"student": s.student, "readouts": s.readouts, "optimizer": s.optimizer.state_dict(), "average": s.average,
                    "step": s.step, "seconds": s.seconds, "curve": s.curve}, new)  # fmt: skip
        new.replace(self.checkpoint)
        (self.out / "curve.json").write_text(json.dumps(s.curve, indent=0))

    def load(self) -> None:
        """Restore the state from the checkpoint."""
        s, saved = self.state, torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        with torch.no_grad():
            for name in ("student", "readouts", "average"):
                for key, value in saved[name].items():
                    getattr(s, name)[key].copy_(value)
        s.optimizer.load_state_dict(saved["optimizer"])
        s.step, s.seconds, s.curve = saved["step"], saved["seconds"], saved["curve"]

    def _network(self, pooling: str) -> Network:
        return Network(COMPACT, self.state.student, pooling=pooling, devices=(self.device,))

    def _stylized(self, network: Network, count: int) -> Tensor:
        """Return `count` pictures that are being stylised with the student, every third time after five more steps."""
        if len(self.stylizations) < 4 or self.random.random() < 0.03:
            new = self.sampler.patches(2 * count, self.size, self.device)
            self.stylizations = [*self.stylizations[-3:], Stylization(new[:count].contiguous(), new[count:])]
        run = self.stylizations[int(self.random.integers(len(self.stylizations)))]
        if self.state.step % 3 == 0:
            stylize(network, run, 5)
        return run.images.detach()

    def losses(self) -> dict[str, Tensor]:
        """Return the weighted losses of one step by name."""
        s = self.state
        pooling = str(self.random.choice(list(POOLINGS), p=list(POOLINGS.values())))
        network, teacher = self._network(pooling), self.teachers[pooling]
        stylized = max(1, self.batch // 3)
        drawn = self.sampler.patches(self.batch - stylized, self.size, self.device)
        images = torch.cat([drawn, self._stylized(network, stylized)])
        with torch.no_grad():
            targets = teacher.forward(images, LAYERS)
        features = network.forward(images, LAYERS)
        losses = {}
        for layer, weight in LAYERS.items():
            parts = distillation(features[layer], targets[layer].float(), s.readouts[layer], s.readouts[f"{layer} back"])
            for part, share in (("features", 1.0), ("gram", 0.5), ("noise", NOISE.get(layer, 0.0))):
                losses[f"{part} {layer}"] = weight * share * parts[part]
        if s.step % 4 == 0:
            layer = str(self.random.choice(list(STYLE)))
            contents, styles = images[-2:], images[:2]
            target = style_gradient(teacher, contents, styles, layer, create_graph=False)
            gradient = style_gradient(network, contents, styles, layer, create_graph=True)
            losses[f"gradient {layer}"] = 1 - F.cosine_similarity(gradient.flatten(1), target.flatten(1)).mean()
        return losses

    def errors(self, pooling: str = "max") -> dict[str, float]:
        """Return the errors of features and Gram matrices by name, and their sum, on held-out pictures."""
        with torch.no_grad():
            average = self.state.average
            student = Network(COMPACT, average, pooling=pooling, devices=(self.device,))
            features, targets = (n.forward(self.held_out, LAYERS) for n in (student, self.teachers[pooling]))
            total = 0.0
            result = {}
            for layer in LAYERS:
                parts = distillation(features[layer], targets[layer].float(), average[layer], average[f"{layer} back"])
                for part in ("features", "gram"):
                    result[f"held out {part} {layer}"] = float(parts[part])
                    total += float(parts[part])
        return {**result, "held out": total}

    def step(self) -> dict[str, float]:
        """Take one step and return the weighted losses by name."""
        s = self.state
        rate = self.lr * min(1, (s.step + 1) / 100, max(0.01, (self.steps - s.step) / (COOLDOWN * self.steps)))
        for group, factor in zip(s.optimizer.param_groups, (1.0, READOUT_RATE), strict=True):
            group["lr"] = rate * factor
        losses = self.losses()
        s.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(list(s.student.values()), 5.0)
        s.optimizer.step()
        s.step += 1
        decay = min(DECAY, 1 - 1 / s.step)
        with torch.no_grad():
            for key, value in (s.student | s.readouts).items():
                s.average[key].lerp_(value, 1 - decay)
        if s.step % 5 == 0:
            self.sampler.refresh()
        return {name: float(value.detach()) for name, value in losses.items()}

    def run(self, *, minutes: float = math.inf, every: int = 50, report: Callable[[str], object] = print) -> None:
        """Train until the last step or for `minutes`; save and report every `every` steps."""
        start, before = time.perf_counter(), self.state.seconds
        while self.state.step < self.steps and time.perf_counter() - start < 60 * minutes:
            for name, value in self.step().items():
                self.recent.setdefault(name, []).append(value)
            self.state.seconds = before + time.perf_counter() - start
            if self.state.step % every == 0:
                means = {name: sum(values) / len(values) for name, values in sorted(self.recent.items())}
                self.recent.clear()
                means.update(self.errors())
                self.state.curve.append({"step": self.state.step, "seconds": self.state.seconds, **means})
                report(f"{self.state.step} {self.state.seconds:.0f}s " + " ".join(f"{k} {v:.3f}" for k, v in means.items()))
                self.save()
        self.save()


def load_teacher(path: str | None) -> dict[str, Tensor]:
    """Return VGG-19's weights from a file, or those of torchvision."""
    state = weights.read(path) if path else download("vgg19")[0]
    return weights.check(state, VGG19, path or "torchvision")


def main() -> None:
    """Run the training that the command line requests."""
    parser = argparse.ArgumentParser(description="Train the built-in compact network.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the loss curve")
    parser.add_argument("--teacher", help="file with VGG-19's weights (default: download those of torchvision)")
    parser.add_argument("--steps", type=int, help="number of steps (default: 20000, with --short 60)")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="number of CPU threads")
    parser.add_argument("--short", action="store_true", help="use small pictures and few steps")
    args = parser.parse_args()
    if args.short:
        args.size, args.lr = 64, 3e-4
    if args.threads:
        torch.set_num_threads(args.threads)
    steps = args.steps or (60 if args.short else 20000)
    training = Training(load_teacher(args.teacher), args.out, steps=steps, batch=args.batch, size=args.size, lr=args.lr,
                        pool=20 if args.short else 300, fit=8 if args.short else 48, device=args.device)  # fmt: skip
    training.run(minutes=args.minutes, every=10 if args.short else 50)


if __name__ == "__main__":
    main()
