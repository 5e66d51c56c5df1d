"""Weights of networks: torchvision's download, or a local file, checked before any use."""

from __future__ import annotations

import hashlib
import http.client
import queue
import socket
import threading
import urllib.request
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError
from ..files.atomic import shown
from ..networks import caffemodel
from .spec import Conv, NetworkSpec

State = dict[str, Tensor]

MAX_FILE_BYTES = 4 * 2**30
CLASSIFIERS = ("classifier.", "fc", "loss", "prob")
"""How the names begin of what no network here has: what comes after the features."""
START_SECONDS = 5
STALL_SECONDS = 30
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
    """Return the tensors of a `.safetensors`, `.pth`, `.pt`, `.npz` or `.caffemodel` file, on the CPU.

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
    if suffix == ".npz":
        return _read_npz(path)
    if suffix == ".caffemodel":
        try:
            return {key: torch.from_numpy(value) for key, value in caffemodel.read(path, CLASSIFIERS).items()}
        except caffemodel.FormatError as error:
            raise WeightsError(f"--weights {name} is damaged, or no caffemodel: {error}") from error
    raise WeightsError(
        f"--weights {name}: the name must end in .safetensors, .pth, .npz or .caffemodel, so that its format is known"
    )


def _read_safetensors(path: Path) -> State:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"--weights {shown(path)} is damaged: {_first_line(error)}") from error


def _check_unpacked(path: Path) -> None:
    """Raise `WeightsError` if a zip archive unpacks to too much."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_FILE_BYTES:
            raise WeightsError(f"--weights {shown(path)} unpacks to more than any network this program knows")


def _read_npz(path: Path) -> State:
    try:
        _check_unpacked(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        return {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in arrays.items()}
    except WeightsError:
        raise
    except Exception as error:  # damaged archives raise whatever they like
        raise WeightsError(f"--weights {shown(path)} is damaged, or holds more than numbers: {_first_line(error)}") from error


def _read_pickle(path: Path) -> State:
    try:
        if zipfile.is_zipfile(path):
            _check_unpacked(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickle protocols, no concern of the user's
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (WeightsError, MemoryError):
        raise
    except Exception as error:  # unpickling raises whatever it likes on damaged files
        raise WeightsError(
            f"--weights {shown(path)} is damaged, or holds more than tensors, which is refused; "
            "take a file that holds a state dictionary only"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"--weights {shown(path)} does not hold a state dictionary of tensors")
    return state


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def check(state: State, spec: NetworkSpec, source: str) -> State:
    """Return the float32 weights `spec` needs from `state`, the classifier's left out, by torchvision's keys.

    Files may have the layers' names instead of these keys, as Caffe has. Raises `WeightsError` naming the first key that is
    missing, not expected, of the wrong shape or kind, or not finite.
    """
    found = {k: v for k, v in state.items() if not k.startswith(CLASSIFIERS)}
    wanted_state: State = {}
    used = set()
    for step in spec.steps:
        if not isinstance(step, Conv):
            continue
        stem = step.key if f"{step.key}.weight" in found or f"{step.name}.weight" not in found else step.name
        shapes = {"weight": (step.outputs, step.inputs // step.groups, step.kernel, step.kernel), "bias": (step.outputs,)}
        for part, shape in shapes.items():
            key = f"{stem}.{part}"
            used.add(key)
            if key not in found:
                raise WeightsError(f"{source} has no {key}: it is not {spec.name}, or its keys are not torchvision's or Caffe's")
            wanted_state[f"{step.key}.{part}"] = _numbers(found[key], key, shape, spec, source)
    for key in found:
        if key not in used:
            raise WeightsError(f"{source} has {key}, which {spec.name} does not: it belongs to another network")
    return wanted_state


def _numbers(tensor: Tensor, key: str, shape: tuple[int, ...], spec: NetworkSpec, source: str) -> Tensor:
    """Return a tensor in float32, or raise `WeightsError` saying what is wrong with it."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise WeightsError(f"{source}: {key} is not an ordinary tensor with its numbers in the file")
    found = tuple(tensor.shape)
    if found != shape and tuple(n for n in found if n > 1) == tuple(n for n in shape if n > 1):
        tensor = tensor.reshape(shape)  # old Caffe files give everything four dimensions
    elif found != shape:
        raise WeightsError(f"{source}: {key} is {found}, but {spec.name} needs {shape}")
    if not tensor.is_floating_point():
        raise WeightsError(f"{source}: {key} is {tensor.dtype}, not floating-point numbers")
    numbers = tensor.to(torch.float32)
    if not torch.isfinite(numbers).all():
        raise WeightsError(f"{source}: {key} holds numbers that are not finite in single precision")
    return numbers


class UnreachableError(WeightsError):
    """Weights are not on this machine and cannot be fetched."""


BUILT_IN = Path(__file__).with_name("compact.safetensors")
"""The compact network's weights, part of the package."""


def built_in() -> tuple[State, str]:
    """Return the weights of the built-in compact network and where they come from. Raises `WeightsError`."""
    if not BUILT_IN.is_file():
        raise WeightsError(f"the installation is not whole: {BUILT_IN} is missing; install style_transfer again")
    return _read_safetensors(BUILT_IN), f"built-in sha256:{digest(BUILT_IN)}"


TORCHVISION = {
    "vgg19": ("VGG19_Weights", "VGG-19", "548 MB"),
    "vgg16": ("VGG16_Weights", "VGG-16", "528 MB"),
    "alexnet": ("AlexNet_Weights", "AlexNet", "233 MB"),
    "squeezenet": ("SqueezeNet1_1_Weights", "SqueezeNet", "5 MB"),
}
"""What torchvision calls the weights of a network, what people call the network, and how large the file is."""


def cached(network: str) -> tuple[str, Path, str]:
    """Return the URL of torchvision's weights of a network, where torch's cache has them, and how their SHA-256 begins."""
    import torchvision.models

    url = getattr(torchvision.models, TORCHVISION[network][0]).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    return url, path, path.stem.rsplit("-", 1)[1]


def download(network: str = "vgg19", *, progress: bool = True) -> tuple[State, str]:
    """Return torchvision's weights of a network and their URL, fetched once into torch's cache, the hash checked every time.

    Raises `UnreachableError` within seconds if they are not there and cannot be fetched, else `WeightsError`.
    """
    _, title, size = TORCHVISION[network]
    url, path, prefix = cached(network)
    if not path.is_file():
        try:
            _fetch(url, path, prefix, progress=progress)
        except (OSError, RuntimeError, EOFError) as error:
            raise UnreachableError(
                f"{title}'s weights could not be fetched ({_first_line(error)}): to have them, put {url} ({size}, "
                f"SHA-256 {prefix}...) at {path}, or give a local file with --weights"
            ) from error
    try:
        found = digest(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if not found.startswith(prefix):
        raise WeightsError(f"{path} is damaged (SHA-256 {found[:8]}..., not {prefix}...): delete it and start again")
    return _read_pickle(path), url


def _fetch(url: str, path: Path, prefix: str, *, progress: bool) -> None:
    """Download a file. Gives up if the first byte does not come in `START_SECONDS`, or later in `STALL_SECONDS`."""
    _knock(url)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torch.hub sets none of its own
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=progress)
    finally:
        socket.setdefaulttimeout(before)


def _knock(url: str) -> None:
    """Raise `OSError` unless `url` answers in time. The wait is in a thread, since looking up a name has no time limit."""
    answer: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=START_SECONDS) as response:
                response.read(1)
            answer.put(None)
        except (OSError, http.client.HTTPException) as error:
            answer.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=ask, daemon=True).start()
    try:
        problem = answer.get(timeout=START_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer in {START_SECONDS} seconds") from None
    if problem is not None:
        raise problem
