"""Weights of networks: torchvision's download, or a local file, checked before any use."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from ..images import shown
from .spec import Conv, NetworkSpec

State = dict[str, Tensor]

MAX_FILE_BYTES = 4 * 2**30
CLASSIFIER = "classifier."
_LOOKS_LIKE = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights themselves: run 'git lfs pull'"),
    (b"<!doctype", "a web page, not weights: download it again"),
    (b"<html", "a web page, not weights: download it again"),
)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: str | Path) -> State:
    """Return the tensors of a `.safetensors`, `.pth` or `.pt` file, on the CPU.

    Pickles are read with `weights_only=True` alone: nothing in them is run. Raises `WeightsError`.
    """
    path = Path(path)
    name = shown(path)
    try:
        if not path.exists():
            raise WeightsError(f"--weights {name}: no such file")
        if not path.is_file():
            raise WeightsError(f"--weights {name} is not a file")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(256).lstrip().lower()
    except OSError as error:
        raise WeightsError(f"--weights {name} cannot be read: {error.strerror}") from error
    if size == 0:
        raise WeightsError(f"--weights {name} is empty")
    if size > MAX_FILE_BYTES:
        raise WeightsError(f"--weights {name} has {size} bytes, more than any network this program knows")
    for start, what in _LOOKS_LIKE:
        if head.startswith(start):
            raise WeightsError(f"--weights {name} is {what}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix in (".pth", ".pt"):
        return _read_pickle(path)
    raise WeightsError(f"--weights {name}: the name must end in .safetensors or .pth, so that its format is known")


def _read_safetensors(path: Path) -> State:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"--weights {shown(path)} is damaged: {_first_line(error)}") from error


def _read_pickle(path: Path) -> State:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_FILE_BYTES:
                raise WeightsError(f"--weights {shown(path)} unpacks to more than any network this program knows")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickle protocols, no concern of the user's
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"--weights {shown(path)} is damaged, or holds more than tensors, which is refused; "
            "take a file that holds a state dictionary only"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"--weights {shown(path)} does not hold a state dictionary of tensors")
    return state


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def check(state: State, spec: NetworkSpec, source: str) -> State:
    """Return the float32 weights `spec` needs from `state`, the classifier's left out.

    Raises `WeightsError` naming the first key that is missing, not expected, of the wrong shape or kind, or not finite.
    """
    wanted: dict[str, tuple[int, ...]] = {}
    for step in spec.steps:
        if isinstance(step, Conv):
            wanted[f"{step.key}.weight"] = (step.outputs, step.inputs, 3, 3)
            wanted[f"{step.key}.bias"] = (step.outputs,)
    found = {k: v for k, v in state.items() if not k.startswith(CLASSIFIER)}
    for key, shape in wanted.items():
        if key not in found:
            raise WeightsError(f"{source} has no {key}: it is not {spec.name}, or its keys are not torchvision's")
        tensor = found[key]
        if tuple(tensor.shape) != shape:
            raise WeightsError(f"{source}: {key} is {tuple(tensor.shape)}, but {spec.name} needs {shape}")
        if not tensor.is_floating_point():
            raise WeightsError(f"{source}: {key} is {tensor.dtype}, not floating-point numbers")
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{source}: {key} holds numbers that are not finite")
    for key in found:
        if key not in wanted:
            raise WeightsError(f"{source} has {key}, which {spec.name} does not: it belongs to another network")
    return {key: found[key].to(torch.float32) for key in wanted}


def download(*, progress: bool = True) -> tuple[State, str]:
    """Return torchvision's VGG-19 weights and their URL, fetched once into torch's cache, the hash checked every time.

    Raises `WeightsError` with the address, the place and the way out when they cannot be had.
    """
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    prefix = cached.stem.rsplit("-", 1)[1]
    try:
        if not cached.is_file():
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=prefix, progress=progress)
        found = digest(cached)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"VGG-19's weights could not be fetched ({_first_line(error)}): put {url} (SHA-256 {prefix}...) "
            f"at {cached}, or give a local file with --weights"
        ) from error
    if not found.startswith(prefix):
        raise WeightsError(f"{cached} is damaged (SHA-256 {found[:8]}..., not {prefix}...): delete it and start again")
    return _read_pickle(cached), url
