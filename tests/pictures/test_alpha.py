"""Alpha channels of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import close, noise, pil_bytes, png, put

from style_transfer import pictures


@pytest.mark.parametrize("kind", ["png16", "png8", "la16", "tif", "webp", "gif", "palette"])
def test_alpha_is_ignored_with_a_note(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a." + {"tif": "tif", "webp": "webp", "gif": "gif"}.get(kind, "png"))
    small = noise(4, 5, 4, np.uint8)
    small[..., 3] = [[0, 255, 3, 9, 100]] * 4
    expected = small[..., :3] / 255
    if kind == "png16":
        samples = noise(4, 5, 4)
        path.write_bytes(png(samples))
        expected = samples[..., :3] / 65535
    elif kind == "la16":
        samples = noise(4, 5, 2)
        path.write_bytes(png(samples))
        expected = np.repeat(samples[..., :1] / 65535, 3, 2)
    elif kind == "png8":
        path.write_bytes(png(small))
    elif kind == "tif":
        tifffile.imwrite(path, small, photometric="rgb", extrasamples=["unassalpha"])
    elif kind == "webp":
        path.write_bytes(pil_bytes(Image.fromarray(small), "WEBP", lossless=True, exact=True))
    else:
        image = Image.fromarray(small[..., :3]).quantize(8)
        expected = np.asarray(image.convert("RGB")) / 255
        path.write_bytes(pil_bytes(image, "GIF" if kind == "gif" else "PNG", transparency=2))
    picture = pictures.load(path)
    close(picture.pixels, expected, 1e-6)
    assert any("alpha" in note for note in picture.notes)


def test_an_opaque_alpha_needs_no_note(tmp_path: Path) -> None:
    samples = noise(4, 5, 4)
    samples[..., 3] = 65535
    assert pictures.load(put(tmp_path / "a.png", png(samples))).notes == ()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_alpha_comes_back_as_it_was_saved(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 1, (70, 33, 4)).astype(np.float32)
    pixels[:5, :, 3] = 0
    pictures.save(tmp_path / name, pixels)
    found = pictures.load(tmp_path / name, alpha=True)
    assert found.alpha is not None and not found.notes
    assert np.abs(found.alpha - pixels[..., 3]).max() < (1 / 255 if name == "a.webp" else 1e-5)
    if name != "a.webp":
        assert np.abs(found.pixels - pixels[..., :3]).max() < 1e-5
    ignored = pictures.load(tmp_path / name)
    assert ignored.alpha is None and "alpha channel ignored" in ignored.notes[0]


def test_colours_stored_times_alpha_are_divided_by_it(tmp_path: Path) -> None:
    alpha = np.array([[65535, 32768, 13107, 0]], np.uint16)
    straight = np.array([60000, 30000, 10000])
    stored = np.dstack([*(np.rint(c * (alpha / 65535)).astype(np.uint16) for c in straight), alpha])
    tifffile.imwrite(tmp_path / "p.tif", stored, photometric="rgb", extrasamples=["ASSOCALPHA"])
    found = pictures.load(tmp_path / "p.tif", alpha=True)
    assert found.pixels[0, :3] == pytest.approx(np.tile(straight / 65535, (3, 1)), abs=1e-4)
    assert (found.pixels[0, 3] == 0).all()
    assert found.alpha == pytest.approx(alpha / 65535, abs=1e-6)
    assert pictures.load(tmp_path / "p.tif").pixels[0, 1] == pytest.approx(stored[0, 1, :3] / 65535, abs=1e-4)


def test_alpha_is_turned_upright_with_its_picture(tmp_path: Path) -> None:
    image = Image.fromarray(np.dstack([np.full((4, 6, 3), 200, np.uint8), np.arange(24, dtype=np.uint8).reshape(4, 6)]))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "t.png", exif=exif)
    found = pictures.load(tmp_path / "t.png", alpha=True)
    expected = np.rot90(np.arange(24).reshape(4, 6), -1)
    assert found.alpha is not None and np.array_equal(np.rint(found.alpha * 255), expected)


def test_a_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    pixels = np.full((4, 5, 3), 100, np.uint8)
    pixels[1:3, 1:3] = [255, 0, 255]
    image = Image.fromarray(pixels)
    image.save(tmp_path / "k.png", transparency=(255, 0, 255))
    wanted = np.ones((4, 5))
    wanted[1:3, 1:3] = 0
    for found in (pictures.load(tmp_path / "k.png", alpha=True), pictures.from_pil(Image.open(tmp_path / "k.png"), alpha=True)):
        assert found.alpha is not None and np.array_equal(found.alpha, wanted)
    palette = image.quantize(4)
    index = int(np.asarray(palette)[1, 1])
    palette.save(tmp_path / "k.gif", transparency=index)
    gif = pictures.load(tmp_path / "k.gif", alpha=True)
    assert gif.alpha is not None and np.array_equal(gif.alpha, wanted)


def test_an_opaque_picture_has_no_alpha(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 5), (1, 2, 3, 255)).save(tmp_path / "o.png")
    assert pictures.load(tmp_path / "o.png", alpha=True).alpha is None
