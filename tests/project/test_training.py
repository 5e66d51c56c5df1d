"""Training of the built-in network: pictures, losses, export, and a short run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.tiny import REAL_WEIGHTS, picture, random_state

from style_transfer.networks import COMPACT, VGG19
from style_transfer.networks.forward import Network
from training import export, pictures, train

ROOT = Path(__file__).parents[2]


def test_training_pictures_are_valid_reproducible_and_varied() -> None:
    drawn = [pictures.draw(np.random.default_rng(seed), 64) for seed in range(40)]
    for x in drawn:
        assert x.shape == (64, 64, 3) and x.dtype == np.float32
        assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
    assert np.array_equal(drawn[3], pictures.draw(np.random.default_rng(3), 64))
    assert np.std([x.mean() for x in drawn]) > 0.1
    assert sum(x.std() > 0.02 for x in drawn) > 30


def test_noise_has_the_requested_spectral_slope() -> None:
    random = np.random.default_rng(0)
    for slope in (0.5, 1.0, 2.0):
        power = np.mean([np.abs(np.fft.fft2(pictures.field(random, 128, slope))) ** 2 for _ in range(40)], 0)
        rows = np.arange(4, 40)
        measured = -np.polyfit(np.log(rows), np.log(power[rows, 0]), 1)[0] / 2
        assert measured == pytest.approx(slope, abs=0.15)


def test_distillation_is_zero_for_a_perfect_student() -> None:
    random = torch.Generator().manual_seed(0)
    teacher = torch.rand(2, 5, 6, 7, generator=random)
    mix = torch.randn(5, 5, generator=random)
    student = torch.einsum("ab,nbhw->nahw", mix, teacher)
    perfect = train.distillation(student, teacher, torch.linalg.inv(mix), mix)
    assert all(float(loss) < 1e-2 for loss in perfect.values())
    unrelated = train.distillation(torch.rand(2, 5, 6, 7, generator=random), teacher, torch.linalg.inv(mix), mix)
    assert all(float(unrelated[name]) > 0.3 for name in perfect)


def test_scaled_weights_scale_each_layer_and_nothing_else() -> None:
    student = random_state(COMPACT, 1)
    layer_factors = {layer: 0.5 + i for i, layer in enumerate(train.LAYERS)}
    x = picture(2, 48, 64, torch.float32)
    before = Network(COMPACT, student).forward(x, train.LAYERS)
    after = Network(COMPACT, export.scaled(student, layer_factors)).forward(x, train.LAYERS)
    for layer, factor in layer_factors.items():
        assert torch.allclose(after[layer], before[layer] * factor, rtol=1e-3, atol=1e-4 * float(after[layer].max()))


def test_factors_undo_a_known_scale() -> None:
    student = random_state(COMPACT, 1)
    pairs = torch.cat([picture(seed, 32, 48, torch.float32) for seed in range(2)])
    teacher = random_state(VGG19, 2)
    first = export.factors(student, teacher, "max", pairs)
    second = export.factors(export.scaled(student, dict.fromkeys(train.LAYERS, 2.0)), teacher, "max", pairs)
    for layer in train.LAYERS:
        assert second[layer] == pytest.approx(first[layer] / 2, rel=1e-3)


def test_short_training_stops_and_resumes(tmp_path: Path) -> None:
    """A minute of training lowers the loss on held-out pictures, also if training is interrupted and resumed."""
    teacher = REAL_WEIGHTS if REAL_WEIGHTS.exists() else tmp_path / "teacher.safetensors"
    if teacher != REAL_WEIGHTS:
        save_file(random_state(VGG19, 0), teacher)

    def run(*more: str) -> list[dict[str, float]]:
        command = [sys.executable, "-m", "training.train", "--short", "--threads", "1", "--out", str(tmp_path / "run")]
        subprocess.run([*command, "--teacher", str(teacher), *more], cwd=ROOT, check=True, capture_output=True, timeout=600)
        curve: list[dict[str, float]] = json.loads((tmp_path / "run" / "curve.json").read_text())
        return curve

    first = run("--steps", "20")
    curve = run()
    assert first[-1]["step"] == 20 and curve[: len(first)] == first
    assert [entry["step"] for entry in curve] == sorted({entry["step"] for entry in curve})
    assert curve[-1]["step"] == 60
    assert curve[-1]["held out"] < 0.98 * first[-1]["held out"]
