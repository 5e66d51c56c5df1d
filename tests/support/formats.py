"""Writers of the files that networks' weights come in, Caffe's among them, which nothing else here can write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from style_transfer.networks.spec import Conv, NetworkSpec


def number(value: int) -> bytes:
    """Return a varint."""
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(index: int, payload: bytes) -> bytes:
    return number(index << 3 | 2) + number(len(payload)) + payload


def blob(x: Tensor, old: bool) -> bytes:
    data = field(5, x.numpy().astype("<f4").tobytes())
    if old:
        shape = [1] * (4 - x.dim()) + list(x.shape)
        return b"".join(number(i << 3) + number(n) for i, n in enumerate(shape, 1)) + data
    return field(7, field(1, b"".join(map(number, x.shape)))) + data


def net(spec: NetworkSpec, state: dict[str, Tensor], old: bool) -> bytes:
    """Return a caffemodel with a classifier and layers that have no weights, as real ones have."""
    layer_field, name_field, blob_field = (2, 4, 6) if old else (100, 1, 7)
    found = field(1, b"a net")
    for step in spec.steps:
        body = field(name_field, step.name.encode()) + field(3, b"top") + number(5 << 3) + number(4)
        if isinstance(step, Conv):
            for part in ("weight", "bias"):
                body += field(blob_field, blob(state[f"{step.key}.{part}"], old))
        found += field(layer_field, body)
    classifier = field(name_field, b"fc8") + field(blob_field, blob(torch.zeros(3, 2), old))
    return found + field(layer_field, classifier)


def write(path: Path, spec: NetworkSpec, state: dict[str, Tensor], old: bool = False) -> Path:
    if path.suffix == ".caffemodel":
        path.write_bytes(net(spec, state, old))
    elif path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in state.items()})
    elif path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    return path
