"""`--doctor`: a good installation passes, and each fault is reported with a remedy and an exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from style_transfer import cli
from style_transfer.cli import doctor
from style_transfer.compute import devices
from style_transfer.networks import download, weights
from style_transfer.pictures import Picture
from style_transfer.registry import OUTPUT_FORMATS


@pytest.fixture
def consult(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return a function that runs `--doctor` with an empty cache of torch and returns the exit code and the output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))

    def ask(*options: str) -> tuple[int, str]:
        return cli.main([*options, "--doctor"]), capsys.readouterr().out

    return ask


def test_a_good_installation_passes(consult: Callable[..., tuple[int, str]]) -> None:
    code, out = consult()
    assert code == 0
    assert "wrong" not in out.replace("wrong gradients", "")
    for words in (
        f"torch {torch.__version__.split('+')[0]}",
        "device cpu: gradients correct (errors: fp32",
        "built-in network: undamaged, sha256:",
        "note   VGG-19's weights: not downloaded yet",
        "download https://",
        f"codecs: written and read back correctly: {' '.join(OUTPUT_FORMATS)}",
    ):
        assert words in out


def test_a_device_that_computes_wrong_gradients_is_reported(
    consult: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator that is wrong by a factor of two."""
    monkeypatch.setattr(devices, "gradient_error", lambda *_: 1.0)
    code, out = consult()
    assert code == 8
    assert "wrong  device cpu: computes wrong gradients (relative error 1.0e+00); it is not used; update its driver" in out


def test_a_device_that_fails_is_reported(consult: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(devices, "gradient_error", broken)
    code, out = consult()
    assert code == 8 and "cannot be used (no kernel image is available)" in out


def test_damaged_weights_are_reported(
    consult: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, _ = download.cache_location("vgg19")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    code, out = consult()
    assert code == 4 and "is damaged (SHA-256" in out and "delete it; the next run downloads it again" in out
    path.unlink()
    (tmp_path / "net.safetensors").write_bytes(weights.BUILT_IN.read_bytes()[:-9])
    monkeypatch.setattr(weights, "BUILT_IN", tmp_path / "net.safetensors")
    code, out = consult()
    assert code == 4 and "wrong  built-in network" in out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--weights", "nope"), 4, "wrong  options: --weights nope: no such file"),
        (("--weights", "broken.pth"), 4, "wrong  options: --weights broken.pth is damaged"),
        (("--weights", "other.safetensors", "--network", "vgg19"), 4, "(32, 3, 3, 3), but vgg19 needs"),
        (("--weights", "other.safetensors", "--network", "compact"), 0, "ok     --weights: undamaged, and they fit compact,"),
        (("--devices", "cuda:99"), 2, "wrong  options: --devices 'cuda:99' is not available"),
        (("--config", "nope.toml"), 2, "wrong  options: --config nope.toml: does not exist"),
    ],
    ids=str,
)
def test_the_options_of_a_run_are_checked(
    options: tuple[str, ...], code: int, words: str, consult: Callable[..., tuple[int, str]]
) -> None:
    """The pictures may be given or not."""
    Path("broken.pth").write_bytes(b"half")
    Path("other.safetensors").write_bytes(weights.BUILT_IN.read_bytes())
    for pictures in ((), ("c.png", "s.png")):
        found = consult(*pictures, *options)
        assert found[0] == code and words in found[1]


def test_a_cache_that_cannot_be_written_is_reported(
    consult: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    code, out = consult()
    assert code == 4 and "set TORCH_HOME to a writable folder" in out


def test_a_codec_that_changes_pixels_is_reported(
    consult: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = doctor.images.load

    def darker(path: Path) -> Picture:
        found = load(path)
        return Picture(found.pixels * 0.99) if path.suffix == ".tif" else found

    monkeypatch.setattr(doctor.images, "load", darker)
    code, out = consult()
    assert code == 1 and "wrong  codecs: .tif is read back with an error of 0.01" in out
    good = out.partition("read back correctly:")[2].splitlines()[0].split()
    assert {".tiff", ".webp"} <= set(good) and ".tif" not in good


def test_a_torch_without_cuda_beside_a_gpu_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(devices, "available", lambda: ("cpu",))
    first, *_ = doctor._devices()
    assert first.error is None and first.advice is not None and "built for CUDA" in first.advice
