"""`--doctor`: what is whole is said to be, what is wrong is found, with the way to mend it and an exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from style_transfer import cli
from style_transfer.cli import doctor
from style_transfer.compute import devices
from style_transfer.networks import weights
from style_transfer.pictures import images


@pytest.fixture
def consult(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """Return a caller of the command line that gives the exit code and what was printed; torch's cache is an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))

    def ask() -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["--doctor"])
        assert isinstance(caught.value.code, int)
        return caught.value.code, capsys.readouterr().out

    return ask


def test_a_good_installation_is_called_that(consult: Callable[[], tuple[int, str]]) -> None:
    code, out = consult()
    assert code == 0
    assert "wrong" not in out.replace("wrong gradients", "")
    for words in (
        f"torch {torch.__version__.split('+')[0]}",
        "device cpu: gradients right (errors: fp32",
        "built-in network: whole, sha256:",
        "note   VGG-19's weights: not here yet",
        "download https://",
        ".tif .tiff .png .jpg .jpeg .webp",
    ):
        assert words in out


def test_a_device_that_computes_wrong_gradients_is_found(
    consult: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 71: an operator that is off by a factor of two."""
    monkeypatch.setattr(devices, "gradient_error", lambda *_: 1.0)
    code, out = consult()
    assert code == 8
    assert "wrong  device cpu: computes wrong gradients (relative error 1.0e+00); it is not used; update its driver" in out


def test_a_device_that_fails_is_found(consult: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(devices, "gradient_error", broken)
    code, out = consult()
    assert code == 8 and "cannot be used (no kernel image is available)" in out


def test_damaged_weights_are_found(
    consult: Callable[[], tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, _ = weights.cached("vgg19")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    code, out = consult()
    assert code == 4 and "is damaged (SHA-256" in out and "delete it; the next run fetches it again" in out
    path.unlink()
    (tmp_path / "net.safetensors").write_bytes(weights.BUILT_IN.read_bytes()[:-9])
    monkeypatch.setattr(weights, "BUILT_IN", tmp_path / "net.safetensors")
    code, out = consult()
    assert code == 4 and "wrong  built-in network" in out


def test_a_cache_that_cannot_be_written_is_found(consult: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 93."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    code, out = consult()
    assert code == 4 and "set TORCH_HOME to a folder that can be written" in out


def test_a_codec_that_changes_pixels_is_found(consult: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    load = images.load

    def darker(path: Path) -> images.Picture:
        found = load(path)
        return images.Picture(found.pixels * 0.99) if path.suffix == ".tif" else found

    monkeypatch.setattr(images, "load", darker)
    code, out = consult()
    assert code == 1 and "wrong  codecs: .tif comes back wrong, by 0.01" in out and ".png .jpg" in out


def test_a_torch_without_cuda_beside_a_gpu_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(devices, "available", lambda: ("cpu",))
    first, *_ = doctor._devices()
    assert first.error is None and first.advice is not None and "built for CUDA" in first.advice
