"""Output profiles: CMYK against LittleCMS in double precision and against the profile's table, limits of ink, written files."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import close, noise, put
from support.profiles import ADOBE_TO_D50, SRGB_TO_D50, Array, cmyk_profile, icc, lab_of, rgb_profile

from style_transfer import pictures
from style_transfer.errors import SettingsError
from style_transfer.pictures.encode import tiff as tiff_encoder
from style_transfer.pictures.icc import BLACK_POINT, srgb_profile
from style_transfer.pictures.press import INTENTS, Press, limited, read_press, read_profile

STEP = 1 / 65535
PRESS = cmyk_profile(0.1)


def colours(height: int = 40, width: int = 30) -> Array:
    """Random colours, a third of them dark, and the corners of the cube."""
    values = np.random.default_rng(0).random((height, width, 3))
    values[::3] **= 4
    values[0, :8] = np.indices((2, 2, 2)).reshape(3, -1).T
    return values.astype(np.float32)


@pytest.mark.parametrize("black_point", [True, False])
@pytest.mark.parametrize("intent", INTENTS)
@pytest.mark.parametrize("kind", ["cmyk", "rgb"])
def test_conversion_equals_littlecms_in_double_precision(kind: str, intent: str, black_point: bool) -> None:
    profile = PRESS if kind == "cmyk" else rgb_profile(ADOBE_TO_D50, 2.2)
    found = Press(profile, kind, "test", INTENTS[intent], black_point).convert(colours())
    about = {"colorspace": "rgb", "outcolorspace": kind, "outdtype": np.float64, "intent": INTENTS[intent]}
    flags = BLACK_POINT if black_point else 0
    exact = imagecodecs.cms_transform(colours().astype(np.float64), srgb_profile(), profile, flags=flags, **about)
    assert found.dtype == np.float32 and found.shape == (40, 30, 4 if kind == "cmyk" else 3)
    close(found, np.clip(exact / (100 if kind == "cmyk" else 1), 0, 1), 0.02 * STEP if kind == "cmyk" else 0.5 * STEP)


def trilinear(table: Array, places: Array) -> Array:
    """Interpolate a table (n, n, n, values) at places (m, 3) in [0, n - 1]; LittleCMS does it so where tables are of Lab."""
    base = np.minimum(places.astype(int), table.shape[0] - 2)
    result = np.zeros((len(places), table.shape[3]))
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.where(corner, places - base, 1 - (places - base)).prod(axis=1)
        result += weight[:, None] * table[tuple((base + corner).T)]
    return result


def test_conversion_equals_the_table_of_the_profile() -> None:
    """The whole way in float64: sRGB, XYZ, Lab, and the 17 points of the profile's table."""
    values = colours().reshape(-1, 3).astype(np.float64)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    lab = lab_of(linear @ SRGB_TO_D50.T)
    places = np.column_stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256]) / 65535 * 16
    at = PRESS.index(b"mft2\0\0\0\0\3\4\x11") + 48 + 4 + 2 * 2 * 3
    table = np.frombuffer(PRESS, ">u2", 17**3 * 4, at).reshape(17, 17, 17, 4) / 65535
    expected = trilinear(table, np.clip(places, 0, 16))
    found = Press(PRESS, "cmyk", "test", black_point=False).convert(colours()).reshape(-1, 4)
    close(found, expected, 12 * STEP)  # LittleCMS rounds sRGB's matrix, and Lab to 16 bits before the table


def test_a_limit_of_ink_keeps_black() -> None:
    ink = np.random.default_rng(1).random((50, 60, 4)).astype(np.float32)
    ink[0, :4] = [[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 0], [0.2, 0.1, 0, 0.3]]
    for limit in (1.0, 2.4, 4.0):
        found = limited(ink, limit)
        for given, made in zip(ink.reshape(-1, 4).tolist(), found.reshape(-1, 4).tolist(), strict=True):
            *colour, black = given
            factor = min(1.0, (limit - black) / max(sum(colour), 1e-30))
            np.testing.assert_allclose(made, [*(factor * c for c in colour), black], atol=1e-6)
        assert found.sum(-1).max() <= limit + 1e-6 and found.dtype == np.float32
    np.testing.assert_array_equal(limited(np.array([[0, 0, 0, 1]], np.float32), 0.5), [[0, 0, 0, 1]])
    press = Press(PRESS, "cmyk", "test", ink_limit=1.5)
    assert press.convert(colours()).sum(-1).max() <= 1.5 + 1e-6 < Press(PRESS, "cmyk", "test").convert(colours()).sum(-1).max()


def test_a_cmyk_tiff_holds_what_was_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, press, path = colours(150, 37), Press(PRESS, "cmyk", "test"), tmp_path / "a.tif"
    whole = np.rint(press.convert(pixels).astype(np.float64) / STEP)
    for rows in (64, 7):
        monkeypatch.setattr(tiff_encoder, "STRIP_ROWS", rows)
        pictures.save(path, pixels, dpi=300, press=press, metadata={"Software": "test"})
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            assert page.photometric == tifffile.PHOTOMETRIC.SEPARATED and page.extrasamples == () and page.dtype == np.uint16
            assert page.tags["XResolution"].value == (300, 1) and page.iccprofile == PRESS
            np.testing.assert_array_equal(page.asarray(), whole)
    back = pictures.load(path)
    assert back.reading is not None and back.reading.colour == "profile test" and back.notes == ()
    assert np.abs(back.pixels - pixels)[50:100].mean() < 0.1  # what the press can show
    assert pictures.read_metadata(path) == {"Software": "test"}


def test_rgb_profiles_in_every_format(tmp_path: Path) -> None:
    press = Press(rgb_profile(ADOBE_TO_D50, 2.2), "rgb", "test")
    ramp = np.linspace(0.3, 0.7, 40, dtype=np.float32)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.float32(0.5)), -1)
    for suffix, tolerance in ((".tif", 2 * STEP), (".png", 2 * STEP), (".jpg", 0.02), (".webp", 0.03)):
        pictures.save(tmp_path / f"a{suffix}", pixels, press=press)
        back = pictures.load(tmp_path / f"a{suffix}")
        assert back.reading is not None and back.reading.colour == "profile test"
        close(back.pixels, pixels, tolerance)
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert image.info["icc_profile"] == press.icc
    alpha = np.concatenate([pixels, pixels[..., :1]], axis=2)
    pictures.save(tmp_path / "b.png", alpha, press=press)
    stored = imagecodecs.png_decode((tmp_path / "b.png").read_bytes())
    np.testing.assert_array_equal(stored[..., 3], np.rint(alpha[..., 3] * 65535.0))
    np.testing.assert_array_equal(stored[..., :3], np.rint(press.convert(pixels) * 65535.0))


def test_a_conversion_takes_no_memory_in_proportion(tmp_path: Path) -> None:
    pixels = np.zeros((6000, 64, 3), np.float32)
    tracemalloc.start()
    pictures.save(tmp_path / "a.tif", pixels, press=Press(PRESS, "cmyk", "test"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 64 * 8 / 2


def test_what_cannot_be_saved_with_a_press(tmp_path: Path) -> None:
    press = Press(PRESS, "cmyk", "test")
    for suffix in (".png", ".jpg", ".webp"):
        with pytest.raises(SettingsError, match="is not for CMYK; use ."):
            pictures.save(tmp_path / f"a{suffix}", colours(), press=press)
    with pytest.raises(SettingsError, match="CMYK is written without alpha"):
        pictures.save(tmp_path / "a.tif", noise(3, 3, 4) / 65535, press=press)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "is not an ICC profile"),
        (PRESS[:3000], "is truncated: 3000 of"),
        (icc(b"CMYK", {}, kind=b"link"), "is a profile of a device link"),
        (icc(b"RGB ", {}, kind=b"scnr"), "is a profile of an input device"),
        (icc(b"6CLR", {}, kind=b"prtr"), "is a profile for 6CLR; give one for CMYK or RGB"),
        (icc(b"GRAY", {}), "is a profile for GRAY; give one for CMYK or RGB"),
        (icc(b"CMYK", {}, kind=b"prtr"), "is broken or cannot convert"),
    ],
)
def test_profiles_that_cannot_be_used(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.icc"
    if content is not None:
        put(path, content)
    with pytest.raises(SettingsError, match=words) as caught:
        read_press("--output-profile", path, "relative")
    assert str(caught.value).startswith("--output-profile ") and "\n" not in str(caught.value)


def test_a_limit_of_ink_is_for_ink(tmp_path: Path) -> None:
    path = put(tmp_path / "p.icc", rgb_profile(ADOBE_TO_D50, 2.2))
    assert read_profile("--x", path, ("rgb",))[1] == "rgb"
    with pytest.raises(SettingsError, match="--ink-limit goes with a CMYK --output-profile"):
        read_press("--output-profile", path, "relative", ink_limit=300)
    press = read_press("--x", put(tmp_path / "q.icc", PRESS), "absolute", black_point=False, ink_limit=300)
    assert (press.space, press.name, press.intent, press.black_point, press.ink_limit) == ("cmyk", "test", 3, False, 3)
    assert press.icc == PRESS
