"""Colour modes, in isolation and through the command line and the Python API."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support import reference_color
from support.colours import LIGHT_SPACES, random_colours
from support.settings import resolved
from support.tiny import tiny_weights, use_tiny_vgg19

from style_transfer import StyleTransfer, cli, pictures
from style_transfer.cli import outputs
from style_transfer.errors import SettingsError
from style_transfer.observers.web import pictures as page_pictures
from style_transfer.observers.web import pyramid
from style_transfer.observers.web.pictures import Pictures
from style_transfer.observers.web.pyramid import Pyramid
from style_transfer.pictures.color import spaces
from style_transfer.pictures.color.coloring import Coloring, chrominance, combine, fill_hidden
from style_transfer.pictures.color.matching import moments
from style_transfer.pictures.color.spaces import to_space
from style_transfer.settings import Settings

SMALL = "-ms 32 -s 46 -ii 3 -i 2 --quiet --save-every 1".split()


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_combined_pictures_have_the_ones_lightness_and_the_others_colours(space: str) -> None:
    painted, content = random_colours(1, 33, 41, 0.4, 0.6), random_colours(2, 33, 41, 0.45, 0.55)
    found = combine(painted, chrominance(content, space), space)
    slow = reference_color.SPACES[space]
    for y, x in product(range(0, 33, 4), range(0, 41, 4)):
        mine, light, hue = (slow(tuple(map(float, p[y, x]))) for p in (found, painted, content))
        assert mine == pytest.approx((light[0], *hue[1:]), abs=1e-4)


def test_work_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    painted, content = random_colours(1), random_colours(2)
    whole = combine(painted, chrominance(content, "oklab"), "oklab")
    stats = moments(content, "oklab")
    monkeypatch.setattr(spaces, "BLOCK_PIXELS", 100)
    assert np.abs(combine(painted, chrominance(content, "oklab"), "oklab") - whole).max() < 1e-6
    assert moments(content, "oklab").covariance == pytest.approx(stats.covariance, abs=1e-9)


def test_each_mode_gives_the_engine_what_it_should() -> None:
    content, styles = random_colours(1), [random_colours(2), random_colours(3)]

    def made(**settings: Any) -> Coloring:
        return Coloring(resolved(**settings), content, styles)

    for mode in ("style", "content"):
        coloring = made(color=mode)
        assert coloring.content is content and all(a is b for a, b in zip(coloring.styles, styles, strict=True))
    gray = made(color="luminance")
    assert all(np.abs(p - p[..., :1]).max() < 1e-3 for p in (gray.content, *gray.styles))
    for match in ("covariance", "histogram"):
        near = made(color="match-style", color_match=match)
        assert near.content is content
        for style in near.styles:
            assert style.mean((0, 1)) == pytest.approx(content.mean((0, 1)), abs=0.02)
        far = made(color="match-content", color_match=match, style_weights=(3, 1))
        assert far.styles[0] is styles[0]
        mean = 0.75 * styles[0].mean((0, 1)) + 0.25 * styles[1].mean((0, 1))
        assert far.content.mean((0, 1)) == pytest.approx(mean, abs=0.02)
        assert far.finish(content) is content


def test_colours_of_another_size_are_resized_as_the_engine_resizes() -> None:

    content = random_colours(1, 40, 60)
    coloring = Coloring(resolved(color="content", color_space="yuv"), content, [random_colours(2)])
    gray = np.full((20, 30, 3), 0.5, np.float32)
    found = coloring.finish(gray)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(content.transpose(2, 0, 1))[None], (20, 30), mode="bicubic", antialias=True
    )[0].numpy().transpose(1, 2, 0)  # fmt: skip
    expected = to_space(small, "yuv")[..., 1:]
    assert np.abs(to_space(found, "yuv")[..., 1:] - expected).max() < 1e-4
    assert np.abs(coloring.finish(gray) - found).max() == 0


def test_a_space_without_lightness_is_refused_where_one_is_needed() -> None:
    with pytest.raises(SettingsError, match="take --color-space oklab, lab, luv or yuv, not rgb"):
        Settings(color="content", color_space="rgb")
    with pytest.raises(SettingsError, match="did you mean 'match-style'"):
        Settings(color="match_style")


def test_a_style_of_several_sizes_counts_as_much_as_all_of_them() -> None:
    rng = np.random.default_rng(3)
    content, *styles = (rng.random((12, 10, 3), dtype=np.float32) * scale for scale in (1.0, 0.4, 0.7))
    about: dict[str, Any] = {"color": "match-content", "style_scale": (1, 2)}
    weights = tuple(3.0 if style == 0 else 1.0 for style, _ in resolved(**about).expanded(2))
    several = Coloring(resolved(**about, style_weights=weights), content, styles)
    single = Coloring(resolved(color="match-content", style_weights=(3, 1)), content, styles)
    equal = Coloring(resolved(**about), content, styles)
    assert np.allclose(several.content, single.content) and not np.allclose(several.content, equal.content)


def test_hidden_colours_come_from_the_visible_ones_around() -> None:
    pixels = np.zeros((64, 64, 3), np.float32)
    alpha = np.zeros((64, 64), np.float32)
    pixels[20:40, 20:40] = [0.2, 0.6, 0.9]
    alpha[20:40, 20:40] = 1
    filled = fill_hidden(pixels, alpha)
    assert np.abs(filled - np.float32([0.2, 0.6, 0.9])).max() < 1e-4
    pixels[20:40, 30:40] = [0.9, 0.1, 0.1]
    filled = fill_hidden(pixels, alpha)
    assert np.array_equal(filled[20:40, 20:40], pixels[20:40, 20:40])
    assert filled[30, 15, 2] > filled[30, 15, 0] and filled[30, 45, 0] > filled[30, 45, 2]
    assert fill_hidden(pixels, np.zeros_like(alpha)) is pixels


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a gray content, a colourful one, one with alpha, a style, and tiny weights."""
    monkeypatch.chdir(tmp_path)
    use_tiny_vgg19(monkeypatch)
    pictures.save("gray.png", np.repeat(random_colours(1, 48, 60)[..., :1], 3, axis=2))
    pictures.save("content.png", random_colours(2, 48, 60))
    pictures.save("style.png", random_colours(3, 48, 60))
    alpha = np.linspace(0, 1, 60, dtype=np.float32)[None].repeat(48, 0)
    pictures.save("alpha.png", np.dstack([random_colours(2, 48, 60), alpha]))
    save_file({k: v.float() for k, v in tiny_weights().items()}, "w.safetensors")
    return tmp_path


@pytest.mark.parametrize("mode", ["content", "luminance"])
def test_every_picture_that_is_saved_or_shown_has_the_contents_colours(
    mode: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    take, encode, save = Pictures.take, pictures.encode_jpeg, pictures.save

    def take_every(self: Pictures, index: int, picture: Callable[[], np.ndarray], finish: Any) -> None:
        take(self, index, picture, finish)
        self.wanted = True

    class Viewed(Pyramid):
        """A picture of the run that a viewer has requested."""

        def __init__(self, pixels: np.ndarray, finish: Any = None) -> None:
            super().__init__(pixels, finish)
            if finish is not None:
                self.tile(0, 0, 0)

    def show(pixels: np.ndarray, *more: int) -> bytes:
        seen.append(np.asarray(pixels, np.float32) / (255 if pixels.dtype == np.uint8 else 1))
        return encode(pixels, *more)

    def spy(path: Path, pixels: np.ndarray, **more: object) -> None:
        seen.append(pixels)
        save(path, pixels, **more)

    monkeypatch.setattr(Pictures, "take", take_every)
    monkeypatch.setattr(page_pictures, "Pyramid", Viewed)
    monkeypatch.setattr(pyramid, "encode_jpeg", show)
    monkeypatch.setattr(outputs, "save", spy)
    argv = ["gray.png", "style.png", "--weights", "w.safetensors", *SMALL, "--web", "--port", "0"]
    assert cli.main([*argv, "--color", mode]) == 0
    assert len(seen) == 5 + 1 + 5 and {p.shape[:2] for p in seen} == {(26, 33), (37, 46)}
    assert max(np.abs(p - p[..., :1]).max() for p in seen) <= 1 / 255 + 1e-6  # some are shown with 8 bits
    seen.clear()
    assert cli.main(argv) == 0
    assert min(np.abs(p - p[..., :1]).max() for p in seen) > 0.01


def test_the_python_api_colours_too(place: Path) -> None:
    st = StyleTransfer(weights="w.safetensors")
    about = {"min_scale": 32, "end_scale": 46, "initial_iterations": 2, "iterations": 2}
    content, style = Image.open("gray.png"), Image.open("style.png")
    plain = np.asarray(st.stylize(content, style, **about)).astype(int)
    assert np.ptp(plain, axis=2).max() > 3
    kept = np.asarray(st.stylize(content, style, color="content", **about)).astype(int)
    assert np.ptp(kept, axis=2).max() <= 1
    assert float((st.get_image_tensor().amax(0) - st.get_image_tensor().amin(0)).max()) < 1e-3


@pytest.mark.parametrize("name", ["o.png", "o.tif", "o.webp"])
def test_alpha_is_carried_to_the_result(name: str, place: Path) -> None:
    argv = ["alpha.png", "style.png", "--weights", "w.safetensors", *SMALL, "-o", name]
    assert cli.main([*argv, "--alpha", "keep"]) == 0
    result = pictures.load(name, alpha=True)
    assert result.alpha is not None and result.pixels.shape == (37, 46, 3)
    expected = np.linspace(0, 1, 46)[None].repeat(37, 0)
    assert np.abs(result.alpha - expected).max() < 0.02
    assert cli.main(argv) == 0
    assert pictures.load(name, alpha=True).alpha is None


def test_alpha_is_refused_before_the_work_where_it_cannot_be_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["style.png", "--weights", "w.safetensors", *SMALL, "-o", "o.jpg", "--alpha", "keep"]
    assert cli.main(["alpha.png", *argv]) == 2
    assert "o.jpg: JPEG does not store alpha; use .png, .tif, .tiff, .webp" in capsys.readouterr().err
    assert not Path("o.jpg").exists()
    assert cli.main(["content.png", *argv]) == 0  # nothing to keep


def test_alpha_through_the_python_api(place: Path) -> None:
    st = StyleTransfer(weights="w.safetensors")
    about = {"min_scale": 32, "end_scale": 32, "initial_iterations": 2}
    made = st.stylize(Image.open("alpha.png"), Image.open("style.png"), alpha="keep", **about)
    assert made.mode == "RGBA" and st.get_image("np_uint16").shape == (26, 32, 4)
    with pytest.warns(UserWarning, match="alpha channel ignored"):
        assert st.stylize(Image.open("alpha.png"), Image.open("style.png"), **about).mode == "RGB"
