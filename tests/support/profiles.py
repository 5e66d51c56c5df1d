"""ICC profiles made by hand."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


D50 = np.array([0.9642, 1.0, 0.8249])  # as ICC.1 writes it


D65 = (0.3127, 0.3290)


def to_d50(red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float]) -> Array:
    """Linear RGB (white D65) to XYZ (white D50) from chromaticities (Lindbloom), with Bradford adaptation."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(cone) @ np.diag((cone @ D50) / (cone @ white)) @ cone
    matrix: Array = adapt @ columns @ np.diag(np.linalg.solve(columns, white))
    return matrix


SRGB_TO_D50 = to_d50((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_TO_D50 = to_d50((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3_TO_D50 = to_d50((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))


def s15(values: Any) -> bytes:
    return b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def icc(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """Assemble an ICC version 2 profile from its tags."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), **tags}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + s15(D50)
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s6H4s",
        start + len(body),
        bytes(4),
        0x02400000,
        kind,
        space,
        pcs,
        2026,
        1,
        1,
        0,
        0,
        0,
        b"acsp",
    )
    head += bytes(68 - len(head)) + s15(D50)
    return head + bytes(128 - len(head)) + table + body


def lab_of(xyz: Array) -> Array:
    t = xyz / D50
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def xyz_of(lab: Array) -> Array:
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    return np.where(f > 6 / 29, f**3, (116 * f - 16) * 27 / 24389) * D50


def lut16(inputs: int, outputs: int, grid: int, table: Array) -> bytes:
    """A lut16Type tag with straight curves; `table` is in [0, 1], shape (grid ** inputs, outputs)."""
    head = b"mft2" + bytes(4) + bytes([inputs, outputs, grid, 0]) + s15(np.eye(3).ravel()) + struct.pack(">HH", 2, 2)
    straight = struct.pack(">HH", 0, 65535)
    return head + straight * inputs + np.rint(table * 65535).astype(">u2").tobytes() + straight * outputs


def cmyk_profile(floor: float) -> bytes:
    """A press whose inks let `floor` of the light through: a four-colour LUT profile, both directions."""
    ink = np.array(list(itertools.product(np.linspace(0, 1, 6), repeat=4)))
    light = 1 - (1 - floor) * ink
    lab = lab_of(light[:, :3] * light[:, 3:] @ SRGB_TO_D50.T)
    forward = np.column_stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256]) / 65535
    axis = np.linspace(0, 65535, 17)
    grid = np.array(list(itertools.product(axis / 652.8, axis / 256 - 128, axis / 256 - 128)))
    linear = np.clip(xyz_of(grid) @ np.linalg.inv(SRGB_TO_D50).T, floor, 1)
    back = np.column_stack([(1 - linear) / (1 - floor), np.zeros(len(linear))])
    to_lab, to_ink = lut16(4, 3, 6, np.clip(forward, 0, 1)), lut16(3, 4, 17, np.clip(back, 0, 1))
    tags = {b"A2B0": to_lab, b"A2B1": to_lab, b"B2A0": to_ink, b"B2A1": to_ink}
    return icc(b"CMYK", tags, kind=b"prtr", pcs=b"Lab ")


def srgb_encode(linear: Array) -> Array:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def gamma_tag(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def rgb_profile(matrix: Array, gamma: float | bytes) -> bytes:
    """A matrix profile with one exponent, or one curve tag, for all channels."""
    curve = gamma if isinstance(gamma, bytes) else gamma_tag(gamma)
    columns = {name: b"XYZ " + bytes(4) + s15(matrix[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return icc(b"RGB ", {**columns, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def rgb_expected(values: Array, matrix: Array, gamma: float) -> Array:
    gamma = round(gamma * 256) / 256
    return srgb_encode(values**gamma @ matrix.T @ np.linalg.inv(SRGB_TO_D50).T)
