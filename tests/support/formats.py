"""Writers of weight files in every format, with an encoder of Caffe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from style_transfer.networks import Conv, NetworkSpec


def number(value: int) -> bytes:
    """Return a varint."""
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def field(index: int, payload: bytes) -> bytes:
    """Return a field of a protobuf message that holds bytes."""
    return number(index << 3 | 2) + number(len(payload)) + payload


def blob(x: Tensor, old: bool) -> bytes:
    """Return a blob of Caffe, with the shape as in its first version if `old`."""
    data = field(5, x.numpy().astype("<f4").tobytes())
    if old:
        shape = [1] * (4 - x.dim()) + list(x.shape)
        return b"".join(number(i << 3) + number(n) for i, n in enumerate(shape, 1)) + data
    return field(7, field(1, b"".join(map(number, x.shape)))) + data


def net(spec: NetworkSpec, state: dict[str, Tensor], old: bool) -> bytes:
    """Return a caffemodel with a classifier and with layers without weights, as in real files."""
    layer_field, name_field, blob_field = (2, 4, 6) if old else (100, 1, 7)
    data = field(1, b"a net")
    for step in spec.steps:
        body = field(name_field, step.name.encode()) + field(3, b"top") + number(5 << 3) + number(4)
        if isinstance(step, Conv):
            for part in ("weight", "bias"):
                body += field(blob_field, blob(state[f"{step.key}.{part}"], old))
        data += field(layer_field, body)
    classifier = field(name_field, b"fc8") + field(blob_field, blob(torch.zeros(3, 2), old))
    return data + field(layer_field, classifier)


def write(path: Path, spec: NetworkSpec, state: dict[str, Tensor], old: bool = False) -> Path:
    """Write weights in the format of the path's suffix, and return the path."""
    if path.suffix == ".caffemodel":
        path.write_bytes(net(spec, state, old))
    elif path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in state.items()})
    elif path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    return path
