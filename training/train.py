"""Trains the built-in compact network to see what VGG-19 sees.

    python -m training.train --out DIR [--teacher FILE] [--steps N] [--minutes M] [--device cuda]
    python -m training.train --out DIR --short      two minutes on two cores: shows that everything works

Started again with the same --out it goes on where it stopped. The start is a least-squares fit
(`training.start`), the rest feature distillation as in FitNets (Romero et al. 2014,
https://arxiv.org/abs/1412.6550): linear read-outs predict the teacher's features from the student's, layer by layer, and are
thrown away afterwards. Beside the features themselves the loss compares what style transfer uses of them:

- Gram matrices of the predictions;
- the student's features predicted from the teacher's by a second read-out, channel by channel: what in the student has no
  counterpart in the teacher is noise, and a picture painted with it would have that noise;
- the gradient of a Gram loss at one layer with respect to the picture, student's against teacher's, by its direction
  (Czarnecki et al. 2017, "Sobolev training", https://arxiv.org/abs/1706.04859).

Pictures are drawn by `training.pictures`. A third of each batch is being painted by the student itself: what it cannot see
collects in such pictures, and is what it must learn to see (the idea of DAgger, Ross et al. 2011, https://arxiv.org/abs/1011.0686).
The pooling of both networks changes from step to step while the read-outs stay, so the student is good under each.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from style_transfer.engine.optimizers import Adam
from style_transfer.losses.losses import scaled_squared_error
from style_transfer.networks import COMPACT, VGG19, weights
from style_transfer.networks.graph import Network
from style_transfer.settings.settings import Settings
from training import pictures
from training.start import fitted_student

LAYERS = {"relu1_1": 1.0, "relu2_1": 1.0, "relu3_1": 1.0, "relu4_1": 1.0, "relu4_2": 1.0, "relu5_1": 1.0}
"""The layers that are distilled, and how much each counts."""
NOISE = {"relu1_1": 0.3, "relu2_1": 0.3, "relu3_1": 0.1}
"""How much noise counts. Deep layers are left out: there the easiest way to be predictable is to have few dimensions (with 0.3
everywhere, relu4_1 fell to an effective rank of 8 and relu5_1 to 1.6 in 1800 steps; VGG-19 has 68 and 122 there)."""
STYLE = Settings().layer_weights
POOLINGS = {"max": 0.5, "average": 0.35, "l2": 0.15}
"""How often each pooling is trained with."""
READOUT_RATE = 1.0
HELD_OUT_SEED = 2**31
DECAY = 0.999
COOLDOWN = 0.25


@dataclass
class Painting:
    """Pictures (B, 3, H, W) that the student is painting, and how far it is with them."""

    images: Tensor
    styles: Tensor
    optimizer: Adam = field(default_factory=lambda: Adam(step_size=0.02, betas=(0.9, 0.99)))


@dataclass
class State:
    """All that training goes on from."""

    student: dict[str, Tensor]
    readouts: dict[str, Tensor]
    optimizer: torch.optim.Adam
    average: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def new_state(teacher: dict[str, Tensor], images: Tensor, lr: float) -> State:
    """Return the student that `training.start` fits on pictures (B, 3, H, W), and read-outs for every layer, both ways."""
    student = {key: ready(value, images.device).requires_grad_() for key, value in fitted_student(teacher, images).items()}
    readouts = {}
    with torch.no_grad():
        theirs = Network(VGG19, teacher, pooling="max", devices=(images.device,)).forward(images, LAYERS)
        mine = Network(COMPACT, student, pooling="max", devices=(images.device,)).forward(images, LAYERS)
        for layer in LAYERS:
            s, t = (x[layer].transpose(0, 1).flatten(1) for x in (mine, theirs))
            for name, x, y in ((layer, s, t), (f"{layer} back", t, s)):
                ridge = 0.01 * x.square().sum(1).mean() * torch.eye(len(x), device=x.device)
                readouts[name] = torch.linalg.solve(x @ x.mT + ridge, x @ y.mT).mT.contiguous().requires_grad_()
    optimizer = torch.optim.Adam(
        [{"params": list(student.values()), "lr": lr}, {"params": list(readouts.values()), "lr": lr}], betas=(0.9, 0.99)
    )
    return State(student, readouts, optimizer, {k: v.detach().clone() for k, v in (student | readouts).items()})


def ready(x: Tensor, device: torch.device) -> Tensor:
    """Return `x` on the device, channels last if it has four dimensions."""
    x = x.to(device)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def grams(x: Tensor) -> Tensor:
    """Return the Gram matrices of (B, C, H, W), divided by H x W: (B, C, C)."""
    x = x.flatten(2)
    return x @ x.mT / x.shape[2]


def relative(error: Tensor, energy: Tensor) -> Tensor:
    """Return the root of error over energy, picture by picture, averaged; dark and flat pictures count less."""
    return ((error / (energy + 0.1 * energy.mean())).clamp_min(1e-12)).sqrt().mean()


def distillation(mine: Tensor, theirs: Tensor, forth: Tensor, back: Tensor) -> dict[str, Tensor]:
    """Return the three losses at one layer, of features (B, C, H, W) of student and teacher, each about 0 to 1."""
    s, t = mine.flatten(2), theirs.flatten(2)
    centred = (t - t.mean((0, 2), keepdim=True)).square().sum((1, 2))
    features = relative((forth @ s - t).square().sum((1, 2)), centred)
    seen, wanted = forth @ grams(mine) @ forth.mT, grams(theirs)
    gram = relative((seen - wanted).square().sum((1, 2)), wanted.square().sum((1, 2)))
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


def paint(network: Network, painting: Painting, steps: int) -> None:
    """Take `steps` of Adam on the style loss of the student, as a run does."""
    with torch.no_grad():
        targets = {k: grams(v) for k, v in network.forward(painting.styles, STYLE).items()}
    for _ in range(steps):
        image = painting.images.requires_grad_()
        loss = 2 * (image.diff(dim=2).square().mean() + image.diff(dim=3).square().mean()) * len(image)
        for layer, found in network.forward(image, STYLE).items():
            d = grams(found) - targets[layer]
            loss = loss + STYLE[layer] * scaled_squared_error(d.square().sum((1, 2)), d.abs().sum((1, 2))).sum()
        (image.grad,) = torch.autograd.grad(loss, image)
        painting.optimizer.step(image)


class Gallery:
    """Drawn pictures, a few new ones at every step, and patches of them turned, mirrored and scaled."""

    def __init__(self, seed: int, count: int, size: int = 256) -> None:
        self.random = np.random.default_rng(seed)
        self.size = size
        self.drawn = [pictures.draw(self.random, size) for _ in range(count)]
        self.next = 0

    def refresh(self) -> None:
        """Draw one picture anew."""
        self.drawn[self.next] = pictures.draw(self.random, self.size)
        self.next = (self.next + 1) % len(self.drawn)

    def patches(self, count: int, size: int, device: torch.device) -> Tensor:
        """Return (count, 3, size, size) in [0, 1]."""
        found = []
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
            found.append(x)
        return ready(torch.cat(found), device)


class Training:
    """The loop. `lr` is the step size before the cooldown, which is the last quarter of `steps`."""

    def __init__(self, teacher: dict[str, Tensor], out: Path, *, steps: int, batch: int = 4, size: int = 96, lr: float = 7e-4,
                 seed: int = 0, gallery: int = 300, fit: int = 48, device: str = "cpu") -> None:  # fmt: skip
        self.out, self.steps, self.batch, self.size, self.lr, self.device = out, steps, batch, size, lr, torch.device(device)
        self.gallery = Gallery(seed, gallery)
        on_device = {k: ready(v, self.device) for k, v in teacher.items()}
        self.state = new_state(on_device, self.gallery.patches(fit, size, self.device), lr)
        if self.checkpoint.exists():
            self.load()
            self.gallery = Gallery(seed + self.state.step, gallery)
        self.teachers = {
            p: Network(VGG19, on_device, pooling=p, devices=(self.device,),
                       features=torch.bfloat16 if self.device.type == "cuda" else None)
            for p in POOLINGS
        }  # fmt: skip
        self.random = np.random.default_rng(seed + self.state.step)
        self.easel: list[Painting] = []
        self.recent: dict[str, list[float]] = {}
        self.held_out = Gallery(HELD_OUT_SEED, 8).patches(8, size, self.device)
        if not self.state.curve:
            self.state.curve.append({"step": 0, "seconds": 0.0, **self.errors()})

    @property
    def checkpoint(self) -> Path:
        """The file that training goes on from."""
        return self.out / "state.pt"

    def save(self) -> None:
        """Write the checkpoint and the curve."""
        s = self.state
        self.out.mkdir(parents=True, exist_ok=True)
        new = self.checkpoint.with_suffix(".new")
        torch.save({"student": s.student, "readouts": s.readouts, "optimizer": s.optimizer.state_dict(), "average": s.average,
                    "step": s.step, "seconds": s.seconds, "curve": s.curve}, new)  # fmt: skip
        new.replace(self.checkpoint)
        (self.out / "curve.json").write_text(json.dumps(s.curve, indent=0))

    def load(self) -> None:
        """Go on from the checkpoint."""
        s, saved = self.state, torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        with torch.no_grad():
            for mine, theirs in ((s.student, saved["student"]), (s.readouts, saved["readouts"]), (s.average, saved["average"])):
                for key, value in theirs.items():
                    mine[key].copy_(value)
        s.optimizer.load_state_dict(saved["optimizer"])
        s.step, s.seconds, s.curve = saved["step"], saved["seconds"], saved["curve"]

    def _network(self, pooling: str) -> Network:
        return Network(COMPACT, self.state.student, pooling=pooling, devices=(self.device,))

    def _painted(self, network: Network, count: int) -> Tensor:
        """Return `count` pictures that the student is painting, a few steps further than last time."""
        if len(self.easel) < 4 or self.random.random() < 0.03:
            fresh = self.gallery.patches(2 * count, self.size, self.device)
            self.easel = [*self.easel[-3:], Painting(fresh[:count].contiguous(), fresh[count:])]
        painting = self.easel[int(self.random.integers(len(self.easel)))]
        if self.state.step % 3 == 0:
            paint(network, painting, 5)
        return painting.images.detach()

    def losses(self) -> dict[str, Tensor]:
        """Return the weighted losses of one step by name."""
        s = self.state
        pooling = str(self.random.choice(list(POOLINGS), p=list(POOLINGS.values())))
        network, teacher = self._network(pooling), self.teachers[pooling]
        painted = max(1, self.batch // 3)
        images = torch.cat([self.gallery.patches(self.batch - painted, self.size, self.device), self._painted(network, painted)])
        with torch.no_grad():
            wanted = teacher.forward(images, LAYERS)
        found = network.forward(images, LAYERS)
        losses = {}
        for layer, weight in LAYERS.items():
            theirs = wanted[layer].float()
            parts = distillation(found[layer], theirs, s.readouts[layer], s.readouts[f"{layer} back"])
            for part, share in (("features", 1.0), ("gram", 0.5), ("noise", NOISE.get(layer, 0.0))):
                losses[f"{part} {layer}"] = weight * share * parts[part]
        if s.step % 4 == 0:
            layer = str(self.random.choice(list(STYLE)))
            few, others = images[-2:], images[:2]
            theirs = style_gradient(teacher, few, others, layer, create_graph=False)
            mine = style_gradient(network, few, others, layer, create_graph=True)
            losses[f"gradient {layer}"] = 1 - F.cosine_similarity(mine.flatten(1), theirs.flatten(1)).mean()
        return losses

    def errors(self, pooling: str = "max") -> dict[str, float]:
        """Return what is left of features and Gram matrices by name, and its sum, on pictures that are never trained on."""
        with torch.no_grad():
            average = self.state.average
            student = Network(COMPACT, average, pooling=pooling, devices=(self.device,))
            found, wanted = (n.forward(self.held_out, LAYERS) for n in (student, self.teachers[pooling]))
            total = 0.0
            result = {}
            for layer in LAYERS:
                parts = distillation(found[layer], wanted[layer].float(), average[layer], average[f"{layer} back"])
                for part in ("features", "gram"):
                    result[f"held out {part} {layer}"] = float(parts[part])
                    total += float(parts[part])
        return {**result, "held out": total}

    def step(self) -> dict[str, float]:
        """Take one step and return the losses, unweighted by layer."""
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
            self.gallery.refresh()
        return {name: float(value.detach()) for name, value in losses.items()}

    def run(self, *, minutes: float = math.inf, every: int = 50, say: Any = print) -> None:
        """Train to the end, or for so many minutes; save and report every so many steps."""
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
                say(f"{self.state.step} {self.state.seconds:.0f}s " + " ".join(f"{k} {v:.3f}" for k, v in means.items()))
                self.save()
        self.save()


def load_teacher(path: str | None) -> dict[str, Tensor]:
    """Return VGG-19's weights from a file, or torchvision's."""
    state = weights.read(path) if path else weights.download()[0]
    return weights.check(state, VGG19, path or "torchvision")


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description="Train the built-in compact network.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the curve")
    parser.add_argument("--teacher", help="file with VGG-19's weights (torchvision's, downloaded, if left out)")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="threads on the CPU")
    parser.add_argument("--short", action="store_true", help="small pictures and few steps")
    args = parser.parse_args()
    if args.short:
        args.steps, args.size, args.lr = 120, 64, 3e-4
    if args.threads:
        torch.set_num_threads(args.threads)
    training = Training(load_teacher(args.teacher), args.out, steps=args.steps, batch=args.batch, size=args.size, lr=args.lr,
                        gallery=20 if args.short else 300, fit=8 if args.short else 48, device=args.device)  # fmt: skip
    training.run(minutes=args.minutes, every=10 if args.short else 50)


if __name__ == "__main__":
    main()
