"""Colour against independent float64 formulas, and what users see of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from support import reference_color
from support.tiny import TINY, tiny_weights

from style_transfer import StyleTransfer, cli, networks
from style_transfer.engine.iterate import Iterate
from style_transfer.errors import SettingsError
from style_transfer.observers import web
from style_transfer.observers.web import WebObserver
from style_transfer.pictures import color, images
from style_transfer.settings.settings import COLOR_SPACES, Settings

LIGHT_SPACES = sorted(reference_color.SPACES)
SMALL = "-ms 32 -s 46 -ii 3 -i 2 --quiet --save-every 1".split()
LEVELS = (0.0, 0.004, 0.03, 0.2, 0.5, 0.8, 1.0)


def painting(seed: int, height: int = 40, width: int = 50, low: float = 0.2, high: float = 0.8) -> color.Pixels:
    """Return a random picture whose colours are correlated and not gray."""
    random = np.random.default_rng(seed)
    mix = random.uniform(0.1, 1, (3, 3)) * random.choice([-1, 1], (3, 3))
    x = random.normal(size=(height, width, 3)) @ mix
    x = (x - x.min()) / (x.max() - x.min())
    return (low + (high - low) * x).astype(np.float32)


def lightness(pixels: np.ndarray, space: str) -> np.ndarray:
    return color.to_space(pixels.astype(np.float64), space)[..., 0]


# spaces


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_spaces_against_the_formulas_of_their_standards(space: str) -> None:
    colours = list(product(LEVELS, repeat=3))
    expected = np.array([reference_color.SPACES[space](c) for c in colours])
    tolerance = 3e-5 if space == "yuv" else 1e-12  # that program rounds its matrix to five digits
    assert np.abs(color.to_space(np.array(colours), space) - expected).max() < tolerance


def test_published_values() -> None:
    red = np.array([1.0, 0.0, 0.0])
    assert color.to_space(red, "oklab") == pytest.approx([0.627955, 0.224863, 0.125846], abs=1e-5)
    assert color.to_space(red, "lab") == pytest.approx([0.5324, 0.8009, 0.6720], abs=5e-4)
    assert color.to_space(red, "luv") == pytest.approx([0.5324, 1.7501, 0.3776], abs=5e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("space", COLOR_SPACES)
def test_spaces_have_a_way_back(space: str, dtype: type) -> None:
    colours = np.array(list(product(LEVELS, repeat=3)), dtype)
    there = color.to_space(colours, space)
    assert there.dtype == dtype
    back = color.from_space(there, space)
    assert np.abs(back - colours).max() < (3e-5 if dtype is np.float32 else 1e-9)
    assert np.abs(color.into_gamut(there, space) - colours).max() < 3e-5


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_colours_outside_keep_lightness_and_hue_and_lose_no_more_chroma_than_they_must(space: str) -> None:
    random = np.random.default_rng(0)
    x = np.stack([random.uniform(0.02, 0.98, 500), *random.uniform(-1, 1, (2, 500))], axis=-1)
    x[:, 1:] *= 0.4 if space == "oklab" else 1.5
    outside = ((color.from_space(x, space) < 0) | (color.from_space(x, space) > 1)).any(-1)
    assert outside.sum() > 50
    rgb = color.into_gamut(x, space)
    assert rgb.min() >= 0 and rgb.max() <= 1
    found = color.to_space(rgb, space)
    assert np.abs(found[:, 0] - x[:, 0]).max() < 1e-3
    cross = found[:, 1] * x[:, 2] - found[:, 2] * x[:, 1]
    assert np.abs(cross / np.hypot(x[:, 1], x[:, 2])).max() < 1e-3
    assert np.abs(found - x)[~outside].max() < 1e-4
    more = color.from_space(found[outside] * [1, 1.03, 1.03], space)
    assert ((more < 0) | (more > 1)).any(-1).mean() > 0.97  # but for the few hues whose border bends inwards


def test_extreme_coordinates_end_inside() -> None:
    x = np.array([[0.0, 1, 1], [1, -1, 1], [2, 0, 0], [-1, 0, 0], [1e-6, 1, -1], [0.5, 50, -50]], np.float32)
    for space in COLOR_SPACES:
        rgb = color.into_gamut(x, space)
        assert np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1
        if space == "rgb":
            continue
        assert rgb[2] == pytest.approx([1, 1, 1], abs=1e-4) and rgb[3] == pytest.approx([0, 0, 0], abs=1e-4)


# matching


@pytest.mark.parametrize("space", COLOR_SPACES)
def test_matched_colours_have_the_targets_mean_and_covariance(space: str) -> None:
    source, target = painting(1), painting(2, 30, 20, 0.35, 0.65)
    found = color.match_moments(source, color.moments(target, space), space)

    def slow(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = np.array([reference_color.SPACES.get(space, tuple)(c) for c in pixels.reshape(-1, 3).astype(float).tolist()])
        return x.mean(0), np.cov(x.T, bias=True)

    for mine, theirs in zip(slow(found), slow(target), strict=True):
        assert np.abs(mine - theirs).max() < 1e-3 * np.abs(theirs).max() + 2e-6


def test_the_map_is_the_optimal_transport() -> None:
    source, target = color.moments(painting(1), "oklab"), color.moments(painting(2), "oklab")
    matrix = color.transport(source, target)
    assert np.abs(matrix - matrix.T).max() < 1e-10
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert matrix @ source.covariance @ matrix == pytest.approx(target.covariance, abs=1e-10)


def test_a_gray_picture_stays_gray_when_its_colours_are_matched() -> None:
    source = np.repeat(painting(3)[..., :1], 3, axis=2)
    source += np.random.default_rng(0).normal(0, 5e-4, source.shape).astype(np.float32)  # noise of a camera
    target = color.Moments(np.array([0.5, 0, 0]), np.diag([0.01, 0.01, 0.01]))  # colours that do not depend on the lightness
    found = color.moments(color.match_moments(source, target, "oklab"), "oklab")
    noise = color.moments(source, "oklab").covariance[1:, 1:].max() ** 0.5
    assert noise < color.MIN_DEVIATION / 10
    assert found.covariance[1, 1] ** 0.5 < 1.1 * noise * 0.1 / color.MIN_DEVIATION


def test_blended_moments_are_those_of_all_pixels_in_their_shares() -> None:
    a, b = painting(1, 10, 30), painting(2, 20, 30)
    found = color.blended_moments([a, b], [0.5, 0.5], "yuv")
    x = color.to_space(np.concatenate([a, a, b]).astype(np.float64), "yuv").reshape(-1, 3)  # half of the pixels each
    assert found.mean == pytest.approx(x.mean(0), abs=1e-6)
    assert found.covariance == pytest.approx(np.cov(x.T, bias=True), abs=1e-6)


@pytest.mark.parametrize("space", ["oklab", "rgb"])
def test_matched_histograms_agree_along_every_axis(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change of colours itself does that, before it is smoothed."""
    monkeypatch.setattr(color, "smoothed", color._mapped)
    random = np.random.default_rng(0)
    source = painting(1, 100, 100)
    two = np.where(random.uniform(size=(100, 100, 1)) < 0.3, [0.7, 0.4, 0.3], [0.3, 0.5, 0.6])
    target = (two + random.normal(0, 0.05, (100, 100, 3))).clip(0, 1).astype(np.float32)
    found = color.match_histogram(source, [target], [1.0], space)
    spread = target.reshape(-1, 3).std(0).max()
    for axis in random.normal(size=(20, 3)):
        axis /= np.linalg.norm(axis)
        mine, theirs = (np.sort(p.reshape(-1, 3) @ axis) for p in (found, target))
        assert np.abs(mine - theirs).mean() < 0.08 * spread
    moved = np.abs(np.sort(source.reshape(-1, 3), 0) - np.sort(target.reshape(-1, 3), 0)).mean()
    assert moved > 0.3 * spread


def test_matched_histograms_make_no_grain_of_noise() -> None:
    """A sky with a little noise, matched to few colours far apart, keeps its noise and takes on the colours."""
    random = np.random.default_rng(0)
    sky = np.linspace(0, 1, 160)[:, None, None] * [0.1, 0.2, 0.3] + [0.2, 0.3, 0.5]
    noisy = (sky + random.normal(0, 0.012, (160, 200, 3))).clip(0, 1).astype(np.float32)
    palette = np.array([[0.1, 0.1, 0.3], [0.9, 0.7, 0.2], [0.3, 0.5, 0.7], [0.95, 0.9, 0.8]])
    target = palette[random.integers(4, size=(90, 90))].astype(np.float32)
    found = color.match_histogram(noisy, [target], [1.0], "oklab")

    def grain(x: np.ndarray[Any, Any]) -> float:
        return float((x[1:, 1:] - x[1:, :-1] - x[:-1, 1:] + x[:-1, :-1]).std())

    assert grain(found) < 2.2 * grain(noisy)  # without smoothing it is 11 times as strong
    assert np.abs(found.mean((0, 1)) - target.mean((0, 1))).max() < 0.05
    assert found.std((0, 1)).sum() > 3 * noisy.std((0, 1)).sum()


def test_changes_of_colour_are_smoothed_alike_in_blocks_and_where_linear_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    source = painting(1, 90, 70, 0.3, 0.7)
    twice = color.smoothed(source, lambda x: 1.3 * x + 0.02, "rgb")
    assert np.abs(twice - (1.3 * source + 0.02)).mean() < 0.01
    monkeypatch.setattr(color, "COARSE", 40)
    monkeypatch.setattr(color, "RADIUS", 3)
    whole = color.smoothed(source, lambda x: x * np.abs(x), "yuv")
    monkeypatch.setattr(color, "BLOCK_PIXELS", 700)
    assert np.abs(color.smoothed(source, lambda x: x * np.abs(x), "yuv") - whole).max() < 1e-5


def test_histograms_of_several_pictures_count_by_weight() -> None:
    source = painting(1, 60, 60)
    dark, light = (np.full((8, 9, 3), v, np.float32) for v in (0.25, 0.75))
    found = color.match_histogram(source, [dark, light], [0.25, 0.75], "rgb")
    assert (found.mean(2) < 0.5).mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("colour", [(200, 30, 40), (217, 163, 130), (0, 0, 0), (255, 255, 255), (1, 2, 3)])
@pytest.mark.parametrize("shape", [(30, 40), (75, 68)])
def test_a_flat_pictures_lightness_is_matched(colour: tuple[int, ...], shape: tuple[int, int]) -> None:
    flat = np.broadcast_to(np.float32(colour) / np.float32(255), (*shape, 3)).copy()
    assert np.isfinite(color.match_lightness(flat, color.moments(painting(2), "oklab"), "oklab")).all()


def test_a_flat_picture_survives_every_match() -> None:
    flat, other = np.full((5, 6, 3), 0.4, np.float32), painting(2)
    for source, target in ((flat, other), (other, flat)):
        for found in (
            color.match_moments(source, color.moments(target, "oklab"), "oklab"),
            color.match_histogram(source, [target], [1.0], "oklab"),
            color.match_lightness(source, color.moments(target, "oklab"), "oklab"),
        ):
            assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
            assert abs(lightness(found, "oklab").mean() - lightness(target, "oklab").mean()) < 0.05


def test_rotations_are_rotations_and_differ() -> None:
    found = color.rotations(8)
    assert np.array_equal(found[0], np.eye(3))
    for a in found:
        assert a @ a.T == pytest.approx(np.eye(3), abs=1e-12) and np.linalg.det(a) == pytest.approx(1)
    assert min(np.abs(a - b).max() for a, b in pairwise(found)) > 0.1


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_matched_lightness_is_gray_with_the_targets_mean_and_deviation(space: str) -> None:
    source, target = painting(1), painting(2, 20, 30, 0.4, 0.6)
    found = color.match_lightness(source, color.moments(target, space), space)
    assert np.abs(found - found[..., :1]).max() < 2e-4
    mine, theirs = lightness(found, space), lightness(target, space)
    assert (mine.mean(), mine.std()) == pytest.approx((theirs.mean(), theirs.std()), abs=1e-4)


# keeping the content's colours


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_combined_pictures_have_the_ones_lightness_and_the_others_colours(space: str) -> None:
    painted, content = painting(1, 33, 41, 0.4, 0.6), painting(2, 33, 41, 0.45, 0.55)
    found = color.combine(painted, color.chrominance(content, space), space)
    slow = reference_color.SPACES[space]
    for y, x in product(range(0, 33, 4), range(0, 41, 4)):
        mine, light, hue = (slow(tuple(map(float, p[y, x]))) for p in (found, painted, content))
        assert mine == pytest.approx((light[0], *hue[1:]), abs=1e-4)


def test_work_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    painted, content = painting(1), painting(2)
    whole = color.combine(painted, color.chrominance(content, "oklab"), "oklab")
    stats = color.moments(content, "oklab")
    monkeypatch.setattr(color, "BLOCK_PIXELS", 100)
    assert np.abs(color.combine(painted, color.chrominance(content, "oklab"), "oklab") - whole).max() < 1e-6
    assert color.moments(content, "oklab").covariance == pytest.approx(stats.covariance, abs=1e-9)


def test_each_mode_gives_the_engine_what_it_should() -> None:
    content, styles = painting(1), [painting(2), painting(3)]

    def made(**settings: Any) -> color.Coloring:
        return color.Coloring(Settings(**settings), content, styles)

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
    import torch

    content = painting(1, 40, 60)
    coloring = color.Coloring(Settings(color="content", color_space="yuv"), content, [painting(2)])
    gray = np.full((20, 30, 3), 0.5, np.float32)
    found = coloring.finish(gray)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(content.transpose(2, 0, 1))[None], (20, 30), mode="bicubic", antialias=True
    )[0].numpy().transpose(1, 2, 0)  # fmt: skip
    expected = color.to_space(small, "yuv")[..., 1:]
    assert np.abs(color.to_space(found, "yuv")[..., 1:] - expected).max() < 1e-4
    assert np.abs(coloring.finish(gray) - found).max() == 0


def test_a_space_without_lightness_is_refused_where_one_is_needed() -> None:
    with pytest.raises(SettingsError, match="take --color-space oklab, lab, luv or yuv, not rgb"):
        Settings(color="content", color_space="rgb")
    with pytest.raises(SettingsError, match="did you mean 'match-style'"):
        Settings(color="match_style")


# alpha


def test_hidden_colours_come_from_the_visible_ones_around() -> None:
    pixels = np.zeros((64, 64, 3), np.float32)
    alpha = np.zeros((64, 64), np.float32)
    pixels[20:40, 20:40] = [0.2, 0.6, 0.9]
    alpha[20:40, 20:40] = 1
    filled = color.fill_hidden(pixels, alpha)
    assert np.abs(filled - np.float32([0.2, 0.6, 0.9])).max() < 1e-4
    pixels[20:40, 30:40] = [0.9, 0.1, 0.1]
    filled = color.fill_hidden(pixels, alpha)
    assert np.array_equal(filled[20:40, 20:40], pixels[20:40, 20:40])
    assert filled[30, 15, 2] > filled[30, 15, 0] and filled[30, 45, 0] > filled[30, 45, 2]
    assert color.fill_hidden(pixels, np.zeros_like(alpha)) is pixels


# as users meet it


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a gray content, a colourful one, one with alpha, a style, and tiny weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(networks.SPECS, "vgg19", TINY)
    images.save("gray.png", np.repeat(painting(1, 48, 60)[..., :1], 3, axis=2))
    images.save("content.png", painting(2, 48, 60))
    images.save("style.png", painting(3, 48, 60))
    alpha = np.linspace(0, 1, 60, dtype=np.float32)[None].repeat(48, 0)
    images.save("alpha.png", np.dstack([painting(2, 48, 60), alpha]))
    save_file({k: v.float() for k, v in tiny_weights().items()}, "w.safetensors")
    return tmp_path


@pytest.mark.parametrize("mode", ["content", "luminance"])
def test_every_picture_that_is_saved_or_shown_has_the_contents_colours(
    mode: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    encode, save = images.encode_jpeg, images.save

    class Page(WebObserver):
        """Each frame is fetched at once, as by a viewer."""

        def show(self, iterate: Iterate, picture: Callable[[], np.ndarray]) -> None:
            super().show(iterate, picture)
            self._layers[iterate.index].tile(0, 0, 0)
            self._wanted = True  # at every step

        @property
        def watched(self) -> bool:
            return False

    def show(pixels: np.ndarray, *more: int) -> bytes:
        seen.append(np.asarray(pixels, np.float32) / (255 if pixels.dtype == np.uint8 else 1))
        return encode(pixels, *more)

    def spy(path: Path, pixels: np.ndarray, **more: object) -> None:
        seen.append(pixels)
        save(path, pixels, **more)

    monkeypatch.setattr(web, "WebObserver", Page)
    monkeypatch.setattr(images, "encode_jpeg", show)
    monkeypatch.setattr(images, "save", spy)
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
    result = images.load(name, alpha=True)
    assert result.alpha is not None and result.pixels.shape == (37, 46, 3)
    expected = np.linspace(0, 1, 46)[None].repeat(37, 0)
    assert np.abs(result.alpha - expected).max() < 0.02
    assert cli.main(argv) == 0
    assert images.load(name, alpha=True).alpha is None


def test_alpha_is_refused_before_the_work_where_it_cannot_be_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["style.png", "--weights", "w.safetensors", *SMALL, "-o", "o.jpg", "--alpha", "keep"]
    assert cli.main(["alpha.png", *argv]) == 2
    assert "o.jpg: JPEG has no alpha to keep; use .tif, .tiff, .png, .webp" in capsys.readouterr().err
    assert not Path("o.jpg").exists()
    assert cli.main(["content.png", *argv]) == 0  # nothing to keep


def test_alpha_through_the_python_api(place: Path) -> None:
    st = StyleTransfer(weights="w.safetensors")
    about = {"min_scale": 32, "end_scale": 32, "initial_iterations": 2}
    made = st.stylize(Image.open("alpha.png"), Image.open("style.png"), alpha="keep", **about)
    assert made.mode == "RGBA" and st.get_image("np_uint16").shape == (26, 32, 4)
    assert st.stylize(Image.open("alpha.png"), Image.open("style.png"), **about).mode == "RGB"


def test_a_style_of_several_sizes_counts_as_much_as_all_of_them() -> None:
    rng = np.random.default_rng(3)
    content, *styles = (rng.random((12, 10, 3), dtype=np.float32) * scale for scale in (1.0, 0.4, 0.7))
    about: dict[str, Any] = {"color": "match-content", "style_scale": (1, 2)}
    weights = tuple(3.0 if style == 0 else 1.0 for style, _ in Settings(**about).expanded(2))
    several = color.Coloring(Settings(**about, style_weights=weights), content, styles)
    single = color.Coloring(Settings(color="match-content", style_weights=(3, 1)), content, styles)
    equal = color.Coloring(Settings(**about), content, styles)
    assert np.allclose(several.content, single.content) and not np.allclose(several.content, equal.content)
