"""Alpha channels of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("kind", ["rgb", "gray", "white"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_stored_times_alpha_are_divided_by_it(kind: str, dtype: Any, tmp_path: Path) -> None:
    top = np.iinfo(dtype).max
    opacity = np.array([[1, 0.8, 0.5, 0]])
    straight = np.array([0.9, 0.6, 0.2] if kind == "rgb" else [0.3])
    stored = np.rint(np.dstack([*(c * opacity for c in straight), opacity]) * top).astype(dtype)
    photometric = {"rgb": "rgb", "gray": "minisblack", "white": "miniswhite"}[kind]
    tifffile.imwrite(tmp_path / "p.tif", stored, photometric=photometric, extrasamples=["ASSOCALPHA"])
    found, ignored = pictures.load(tmp_path / "p.tif", alpha=True), pictures.load(tmp_path / "p.tif")
    expected = np.tile(1 - straight if kind == "white" else straight, (3, 1))
    assert found.pixels[0, :3] == pytest.approx(np.broadcast_to(expected, (3, 3)), abs=2 / top)
    assert (found.pixels[0, 3] == 0).all()
    assert found.alpha == pytest.approx(opacity, abs=1 / top)
    np.testing.assert_array_equal(ignored.pixels, found.pixels)
    assert ignored.alpha is None and found.notes == () and "alpha channel ignored" in ignored.notes[0]


def test_colours_of_jpeg_2000_that_are_declared_to_be_multiplied_are_divided(tmp_path: Path) -> None:
    samples = np.full((8, 8, 4), [100, 60, 20, 128], np.uint8)
    data = pil_bytes(Image.fromarray(samples), "JPEG2000")
    at = data.index(b"cdef") + 4 + 2 + 3 * 6 + 2  # the type of the fourth channel
    assert data[at : at + 2] == b"\0\1"
    for kind, divisor in ((b"\0\1", 1), (b"\0\2", 128 / 255)):
        found = pictures.load(put(tmp_path / "a.jp2", data[:at] + kind + data[at + 2 :]), alpha=True)
        close(found.pixels, np.array([100, 60, 20]) / 255 / divisor, 1e-6)


def test_a_min_is_white_tiff_keeps_its_alpha(tmp_path: Path) -> None:
    samples = noise(4, 5, 2)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite", extrasamples=["UNASSALPHA"])
    found = pictures.load(tmp_path / "a.tif", alpha=True)
    close(found.pixels, 1 - samples[..., :1] / 65535, 1e-6)
    assert found.alpha == pytest.approx(samples[..., 1] / 65535, abs=1e-6)


@pytest.mark.parametrize("photometric", ["rgb", "palette"])
def test_alpha_is_the_extra_channel_that_is_declared_so(photometric: str, tmp_path: Path) -> None:
    samples = noise(4, 5, 5 if photometric == "rgb" else 3, np.uint8)
    options: dict[str, Any] = {"colormap": noise(3, 256, 1)[..., 0]} if photometric == "palette" else {}
    extra = ["UNSPECIFIED", "UNASSALPHA"]
    tags = [(320, 3, 768, tuple(int(v) for v in options["colormap"].flat), True)] if options else []
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb" if not options else "minisblack", planarconfig="contig",
                     extrasamples=extra, extratags=tags, metadata=None)  # fmt: skip
    colours = samples[..., :3] / 255
    if options:
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
            file.pages.first.tags[262].overwrite(3)
        colours = options["colormap"].T[samples[..., 0]] / 65535
    found = pictures.load(tmp_path / "a.tif", alpha=True)
    close(found.pixels, colours, 1e-6)
    assert found.alpha == pytest.approx(samples[..., -1] / 255, abs=1e-4)


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
