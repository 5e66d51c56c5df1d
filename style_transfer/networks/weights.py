"""Weights of networks: reading of files in several formats, and checks that the tensors fit a network."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import WeightsError
from ..files import file_digest, reason, shown, similar_name
from . import caffe
from .layers import Conv
from .spec import NetworkSpec

State = dict[str, Tensor]
"""Tensors by key, a state dictionary as torch calls it."""

BUILT_IN = Path(__file__).with_name("compact.safetensors")
"""The file with the compact network's weights, part of the package."""
MAX_FILE_BYTES = 4 * 2**30
CLASSIFIERS = ("classifier.", "fc", "loss", "prob")
"""Prefixes of the keys of layers behind the features, which no network here has."""
_OTHER_CONTENTS = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the weights: run 'git lfs pull'"),
    (b"<!doctype", "a web page instead of weights: download it again"),
    (b"<html", "a web page instead of weights: download it again"),
)
"""How files begin that are often saved instead of weights, and what they are."""


def built_in() -> tuple[State, str]:
    """Return the weights of the built-in compact network and a description of their source. Raises `WeightsError`."""
    if not BUILT_IN.is_file():
        raise WeightsError(f"the installation is incomplete: {BUILT_IN} is missing; install style_transfer again")
    return read(BUILT_IN), f"built-in sha256:{file_digest(BUILT_IN)}"


def read(path: str | Path) -> State:
    """Return the tensors of a `.safetensors`, `.pth`, `.pt`, `.npz` or `.caffemodel` file, on the CPU.

    Pickles are loaded with `weights_only=True`, so that no code in them is executed. Raises `WeightsError`.
    """
    path = Path(path)
    name = f"--weights {shown(path)}"
    try:
        if not path.exists():
            raise WeightsError(f"{name}: no such file{similar_name(path)}")
        if not path.is_file():
            raise WeightsError(f"{name} is not a file")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(256).lstrip().lower()
    except OSError as error:
        raise WeightsError(f"{name} cannot be read: {error.strerror}") from error
    if size == 0:
        raise WeightsError(f"{name} is empty")
    if size > MAX_FILE_BYTES:
        raise WeightsError(f"{name} has {size} bytes; the limit is {MAX_FILE_BYTES}")
    for start, contents in _OTHER_CONTENTS:
        if head.startswith(start):
            raise WeightsError(f"{name} is {contents}")
    if path.suffix.lower() not in _READERS:
        raise WeightsError(f"{name}: the format is not known; the name must end in .safetensors, .pth, .npz or .caffemodel")
    return _load(path, name)


def _load(path: Path, name: str) -> State:
    """Return the tensors of a file in the format of its suffix; `name` is the file's name in messages."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_FILE_BYTES:
                raise WeightsError(f"{name} unpacks to {size} bytes; the limit is {MAX_FILE_BYTES}")
        state = _READERS[path.suffix.lower()](path)
    except WeightsError:
        raise
    except Exception as error:  # readers raise many types for damaged files
        # torch explains an UnpicklingError by how to execute the code in the file
        problem = "" if isinstance(error, pickle.UnpicklingError) else f" ({reason(error)})"
        raise WeightsError(
            f"{name} is damaged, or holds more than tensors, which is refused{problem}; "
            "take a file that holds a state dictionary only"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"{name} does not hold a state dictionary of tensors")
    return state


def _load_pickle(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols, which the user cannot change
        return torch.load(path, map_location="cpu", weights_only=True)


def _load_npz(path: Path) -> State:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {key: torch.from_numpy(np.ascontiguousarray(archive[key])) for key in archive.files}


def _load_caffemodel(path: Path) -> State:
    return {key: torch.from_numpy(value) for key, value in caffe.read(path, CLASSIFIERS).items()}


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": load_file,
    ".pth": _load_pickle,
    ".pt": _load_pickle,
    ".npz": _load_npz,
    ".caffemodel": _load_caffemodel,
}
"""The reader of each file format by suffix."""


def check(state: State, spec: NetworkSpec, source: str) -> State:
    """Return the float32 weights that `spec` needs from `state` under torchvision's keys, without those of a classifier.

    Keys in `state` may also be the layers' names, as in Caffe. `source` names the file in messages. Raises `WeightsError` naming
    the first key that is missing, unexpected, or of the wrong shape or type, or that has values that are not finite.
    """
    given = {key: tensor for key, tensor in state.items() if not key.startswith(CLASSIFIERS)}
    checked: State = {}
    used = set()
    for step in spec.steps:
        if not isinstance(step, Conv):
            continue
        stem = step.key if f"{step.key}.weight" in given or f"{step.name}.weight" not in given else step.name
        shapes = {"weight": (step.outputs, step.inputs // step.groups, step.kernel, step.kernel), "bias": (step.outputs,)}
        for part, shape in shapes.items():
            key = f"{stem}.{part}"
            used.add(key)
            if key not in given:
                raise WeightsError(f"{source} has no {key}: it is not {spec.name}, or its keys are not torchvision's or Caffe's")
            checked[f"{step.key}.{part}"] = _check_tensor(given[key], key, shape, spec, source)
    for key in given:
        if key not in used:
            raise WeightsError(f"{source} has {key}, which {spec.name} does not: it belongs to another network")
    return checked


def _check_tensor(tensor: Tensor, key: str, shape: tuple[int, ...], spec: NetworkSpec, source: str) -> Tensor:
    """Return a tensor as float32, or raise `WeightsError` saying what is wrong with it."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise WeightsError(f"{source}: {key} is not a dense tensor with its values in the file")
    actual = tuple(tensor.shape)
    if actual != shape and tuple(n for n in actual if n > 1) == tuple(n for n in shape if n > 1):
        tensor = tensor.reshape(shape)  # blobs in old Caffe files always have four dimensions
    elif actual != shape:
        raise WeightsError(f"{source}: {key} is {actual}, but {spec.name} needs {shape}")
    if not tensor.is_floating_point():
        raise WeightsError(f"{source}: {key} is {tensor.dtype}, not floating point")
    tensor = tensor.detach().to(torch.float32)  # files of torch may hold parameters, which require gradients
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{source}: {key} holds values that are not finite in single precision")
    return tensor
