"""--doctor: checks of what the program depends on, with advice on what is wrong."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import torch

from .. import __version__
from .. import pictures as images
from ..compute import devices, memory
from ..errors import EXIT_CODES, DeviceError, StyleTransferError, WeightsError
from ..files import file_digest, reason, shown
from ..networks import COMPACT, download, weights
from ..networks.loading import load_weights
from ..observers.stdout import print_out
from ..registry import OUTPUT_FORMATS
from .parser import parse

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "tifffile", "imagecodecs", "safetensors", "aiohttp", "psutil")


@dataclass(frozen=True)
class Finding:
    """The result of one check. `error` is what a run would raise because of it; `advice` says how to correct or improve it."""

    topic: str
    text: str
    error: type[StyleTransferError] | None = None
    advice: str | None = None


def examine(argv: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield the findings of all checks, one after the other; `argv` are the options of a run, of which some are checked too."""
    yield Finding("program", f"style_transfer {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for check in (_libraries, _host, _devices, _built_in, _vgg19, _codecs, _folder):
        yield from check()
    yield from _options(argv)


def _libraries() -> Iterator[Finding]:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("libraries", ", ".join(found))
    if missing:
        what = ", ".join(missing)
        yield Finding("libraries", f"{what} not found", StyleTransferError, "install style_transfer again with pip install")


def _host() -> Iterator[Finding]:
    total, free = psutil.virtual_memory().total, memory.free_host_bytes()
    threads = torch.get_num_threads()
    text = f"{os.cpu_count()} cores, torch uses {threads}; {memory.show_bytes(free)} of {memory.show_bytes(total)} memory free"
    yield Finding("host", text)


def _devices() -> Iterator[Finding]:
    names = devices.available()
    if names == ("cpu",) and shutil.which("nvidia-smi") and torch.version.cuda is None:
        advice = "install a torch built for CUDA, see https://pytorch.org/get-started/locally"
        yield Finding("devices", "nvidia-smi is installed, but this torch is built for CPUs only", advice=advice)
    for name in names:
        yield _device(torch.device(name))


def _device(device: torch.device) -> Finding:
    """Describe a device and the errors of its gradients in each precision, against the CPU in float64."""
    topic = f"device {device}"
    try:
        about = _described(device)
        problem = devices.problem(device)
    except (RuntimeError, AssertionError) as error:
        about, problem = "", f"cannot be used ({reason(error)})"
    if problem is not None:
        advice = "it is not used; update its driver and torch, or use --devices cpu"
        return Finding(topic, f"{about}{problem}", DeviceError, advice)
    errors = [f"fp32 {devices.gradient_error(device):.0e}"]
    for reduced in (devices.PRECISIONS["bf16"], devices.PRECISIONS["fp16"]):
        try:
            errors.append(f"{reduced.name} {devices.gradient_error(device, reduced.dtype):.0e}")
        except (RuntimeError, NotImplementedError):
            errors.append(f"{reduced.name} not available")
    chosen = devices.choose_precision("auto", [device]).name
    return Finding(topic, f"{about}gradients correct (errors: {', '.join(errors)}); --precision auto is {chosen}")


def _described(device: torch.device) -> str:
    if device.type == "cpu":
        return ""
    free = ""
    if device.type in ("cuda", "xpu"):
        left, total = torch.accelerator.get_memory_info(device)
        free = f", {memory.show_bytes(left)} of {memory.show_bytes(total)} free"
    if device.type != "cuda":
        return f"{device.type.upper()}{free}; "
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}{free}; "


def _built_in() -> Iterator[Finding]:
    try:
        state, source = weights.built_in()
        weights.check(state, COMPACT, source)
    except WeightsError as error:
        yield Finding("built-in network", str(error), WeightsError, "install style_transfer again with pip install")
        return
    yield Finding("built-in network", f"undamaged, {source.removeprefix('built-in ')}")


def _vgg19() -> Iterator[Finding]:
    url, path, prefix = download.cache_location("vgg19")
    if not path.is_file():
        folder = next(parent for parent in path.parents if parent.exists())
        where = f"download {url} to {shown(path)}, or pass a local file with --weights"
        if os.access(folder, os.W_OK):
            advice = f"the first run fetches them (548 MB); without a connection, {where}"
            yield Finding("VGG-19's weights", "not downloaded yet", advice=advice)
        else:
            text = f"not downloaded, and {shown(folder)} is not writable"
            yield Finding("VGG-19's weights", text, WeightsError, f"set TORCH_HOME to a writable folder; or {where}")
        return
    try:
        found = file_digest(path)
    except OSError as error:
        yield Finding("VGG-19's weights", f"{shown(path)}: {reason(error)}", WeightsError, "correct its permissions")
        return
    if found.startswith(prefix):
        yield Finding("VGG-19's weights", f"undamaged, {shown(path)}, sha256:{found}")
    else:
        text = f"{shown(path)} is damaged (SHA-256 {found[:8]}..., not {prefix}...)"
        yield Finding("VGG-19's weights", text, WeightsError, "delete it; the next run downloads it again")


def _options(argv: Sequence[str]) -> Iterator[Finding]:
    """Check the options of a run, from the command, the environment or a file, and the weights and devices that they name."""
    try:
        settings = parse(argv, without_pictures=True).settings.resolve()
        if settings.devices is not None:
            devices.resolve(settings.devices)
        if settings.weights is not None:
            loaded = load_weights(settings)
            yield Finding("--weights", f"undamaged, and they fit {loaded.spec.name}, {shown(loaded.source)}")
    except StyleTransferError as error:
        yield Finding("options", str(error), type(error))


def _codecs() -> Iterator[Finding]:
    """Write a picture in every format and read it back."""
    pixels = np.linspace(0, 1, 3 * 64 * 48, dtype=np.float32).reshape(48, 64, 3)
    good = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, output_format in OUTPUT_FORMATS.items():
            path = Path(folder) / f"x{suffix}"
            try:
                images.save(path, pixels)
                if not output_format.readable:
                    good.append(suffix)
                    continue
                error = float(np.abs(images.load(path).pixels - pixels).max())
            except StyleTransferError as problem:
                yield Finding("codecs", str(problem), type(problem), "install pillow, tifffile and imagecodecs again")
                continue
            if error > (1e-5 if output_format.bits == 16 else 0.1):
                advice = "install pillow, tifffile and imagecodecs again"
                yield Finding("codecs", f"{suffix} is read back with an error of {error:.2g}", StyleTransferError, advice)
            else:
                good.append(suffix)
    yield Finding("codecs", f"written and read back correctly: {' '.join(good)}")


def _folder() -> Iterator[Finding]:
    here = Path.cwd()
    free = memory.show_bytes(shutil.disk_usage(here).free)
    if os.access(here, os.W_OK):
        yield Finding("this folder", f"{shown(here)} can be written, {free} free")
    else:
        yield Finding("this folder", f"{shown(here)} cannot be written", advice="give a path with --output")


def print_findings(argv: Sequence[str] = ()) -> int:
    """Print what `examine` finds, and return the exit code of the first error."""
    code = 0
    for finding in examine(argv):
        mark = "wrong" if finding.error else "note " if finding.advice else "ok   "
        print_out(shown(f"{mark}  {finding.topic}: {finding.text}" + (f"; {finding.advice}" if finding.advice else "")))
        code = code or (0 if finding.error is None else EXIT_CODES.get(finding.error, 1))
    return code
