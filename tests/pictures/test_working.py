"""Working spaces: colours beyond sRGB are kept, grays stay gray, and conversions equal formulas in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from support.picture_files import close, iccp, noise, png, put
from support.profiles import ADOBE_TO_D50, P3_TO_D50, SRGB_TO_D50, Array, cmyk_profile, gamma_tag, icc, rgb_profile

from style_transfer import pictures
from style_transfer.errors import SettingsError
from style_transfer.pictures import signals
from style_transfer.pictures.press import Press
from style_transfer.pictures.working import SIGNALS, WorkingSpace, read_space

STEP = 1 / 65535
PROPHOTO_TO_D50 = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0, 0.0, 0.8249]])
"""ROMM RGB to XYZ (ISO 22028-2, four digits)."""


def space_of(name: str) -> WorkingSpace:
    space = read_space("--output-space", name)
    assert space is not None
    return space


def decode(values: Array) -> Array:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(
    ("name", "matrix", "light", "tolerance"),
    [
        ("display-p3", P3_TO_D50, decode, 3e-5),
        ("adobe-rgb", ADOBE_TO_D50, lambda values: values ** (563 / 256), 3e-5),
        ("prophoto", PROPHOTO_TO_D50, lambda values: values ** (461 / 256), 3e-4),
    ],
)
def test_srgb_in_a_working_space(name: str, matrix: Array, light: Callable[[Array], Array], tolerance: float) -> None:
    values = np.random.default_rng(0).random((20, 30, 3))
    values[:5] **= 5
    expected = decode(values) @ (np.linalg.inv(matrix) @ SRGB_TO_D50).T
    space = space_of(name)
    found = space.from_srgb(values.astype(np.float32))
    close(light(found.clip(0, 1).astype(np.float64)), expected.clip(0, 1), tolerance)  # profiles round matrices to 1/65536
    alpha = np.full((20, 30, 1), 0.3, np.float32)
    shown = space.to_srgb(np.concatenate([found.astype(np.float32), alpha], axis=2))
    close(decode(shown[..., :3].astype(np.float64)), decode(values), 2e-5)
    assert (shown[..., 3:] == alpha).all()


@pytest.mark.parametrize("name", [name for name in SIGNALS if name != "srgb"])
@pytest.mark.parametrize("kind", ["rgb", "gray"])
def test_grays_stay_gray(name: str, kind: str, tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = put(tmp_path / "a.png", png(ramp if kind == "gray" else np.stack([ramp] * 3, -1)))
    pixels = pictures.load(path, space=space_of(name)).pixels
    codes = np.rint(pixels.astype(np.float64) * 65535)
    assert (codes == codes[..., :1]).all() and codes[0, 0, 0] == 0 and codes[-1, -1, 0] == 65535
    if name == "display-p3":  # the same curve
        np.testing.assert_array_equal(codes[..., 0], ramp)


def test_a_file_of_the_space_comes_back_exactly(tmp_path: Path) -> None:
    """Also with a profile by another hand, and with colours that sRGB does not have."""
    samples = noise(70, 20)
    samples[0, :3] = np.eye(3) * 65535
    space = space_of("display-p3")
    curve = b"para" + bytes(4) + bytes([0, 3, 0, 0]) + signals._fixed([2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
    for profile in (space.icc, space.exact, rgb_profile(P3_TO_D50, curve)):
        path = put(tmp_path / "a.png", png(samples, iccp(profile)))
        picture = pictures.load(path, space=space)
        assert picture.notes == ()
        for suffix in (".png", ".tif"):
            pictures.save(tmp_path / f"b{suffix}", picture.pixels, space=space)
            back = pictures.load(tmp_path / f"b{suffix}", space=space).pixels
            np.testing.assert_array_equal(np.rint(back * 65535.0), samples)
    stored = imagecodecs.png_decode((tmp_path / "b.png").read_bytes())
    np.testing.assert_array_equal(stored, samples)
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["icc_profile"] == space.icc
    clipped = pictures.load(tmp_path / "b.png")  # as sRGB, red is clipped
    assert clipped.pixels[0, 0].tolist() == [1, 0, 0]


def test_other_inputs_reach_the_space(tmp_path: Path) -> None:
    """Adobe RGB, CMYK, gray with a profile, and a soft proof, against the same pictures read as sRGB, which lie inside."""
    space, rng = space_of("display-p3"), np.random.default_rng(1)
    samples = (20000 + 20000 * rng.random((8, 9, 3))).astype(np.uint16)
    files = {
        "adobe": png(samples, iccp(rgb_profile(ADOBE_TO_D50, 2.2))),
        "gray": png(samples[..., 0].copy(), iccp(icc(b"GRAY", {b"kTRC": gamma_tag(1.8)}))),
        "plain": png(samples),
    }
    for name, data in files.items():
        path = put(tmp_path / f"{name}.png", data)
        found, srgb = pictures.load(path, space=space), pictures.load(path)
        close(space.to_srgb(found.pixels), srgb.pixels, 1e-4)
        assert found.notes == srgb.notes and found.reading == srgb.reading
    proof = put(tmp_path / "press.icc", cmyk_profile(0.1))
    found, srgb = pictures.load(path, space=space, proof=proof), pictures.load(path, proof=proof)
    close(space.to_srgb(found.pixels), srgb.pixels, 2e-3)  # through tables of 16 bits
    press = Press(cmyk_profile(0.1), "cmyk", "test")
    pictures.save(tmp_path / "a.tif", found.pixels, press=press, space=space)
    pictures.save(tmp_path / "b.tif", srgb.pixels, press=press)
    close(pictures.load(tmp_path / "a.tif").pixels, pictures.load(tmp_path / "b.tif").pixels, 4e-3)


def test_names_and_profiles(tmp_path: Path) -> None:
    assert read_space("--output-space", "srgb") is None
    assert read_space("--output-space", str(put(tmp_path / "s.icc", rgb_profile(SRGB_TO_D50, 2.4)))) is not None
    assert read_space("--output-space", str(put(tmp_path / "t.icc", signals.profile(SIGNALS["srgb"])))) is None
    path = put(tmp_path / "p.icc", rgb_profile(P3_TO_D50, 2.2))
    space = space_of(str(path))
    assert space.icc == space.exact == path.read_bytes() and space.name == "test"
    for name, words in (("display-p4", "no such file"), (put(tmp_path / "c.icc", cmyk_profile(0.1)), "is a profile for CMYK")):
        with pytest.raises(SettingsError, match=f"--output-space .*{words}"):
            read_space("--output-space", str(name))


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))
def test_columns_of_exact_profiles_sum_to_white(signal: signals.Signal) -> None:
    data = signals.profile(signal, formula=True)
    count = int.from_bytes(data[128:132], "big")
    tags = {data[at : at + 4]: int.from_bytes(data[at + 4 : at + 8], "big") for at in range(132, 132 + 12 * count, 12)}
    columns = [np.frombuffer(data, ">i4", 3, tags[name] + 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    np.testing.assert_array_equal(np.sum(columns, axis=0), np.rint(65536 * np.array(signals.D50)))
    close(np.transpose(columns) / 65536, signals.to_d50(signal.primaries), 2 / 65536)
