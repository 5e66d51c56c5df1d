"""Masks: guided statistics, tiles, pairing of masks, parts outside of all regions, mask files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import reference
from support.settings import resolved
from support.tiny import picture, tiny_weights
from torch import Tensor

from style_transfer import cli
from style_transfer import pictures as images
from style_transfer.compute.distributed import LOCAL
from style_transfer.engine.iterate import picture_of
from style_transfer.engine.loop import stylize
from style_transfer.engine.state import State
from style_transfer.errors import CheckpointError, ImageError, SettingsError
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits
from style_transfer.losses.guidance import Region, StageRegion, as_mask, colours, coverage, guide, regions_of
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

SIZE = (96, 80)
MakeNetwork = Callable[..., Network]


def soft(height: int, width: int, *, flip: bool = False) -> Tensor:
    """Return a mask that falls from 1 at the left to 0 at the right, or rises with `flip`."""
    ramp = (1.5 - 2 * torch.linspace(0, 1, width, dtype=torch.float64)).clamp(0, 1).expand(1, 1, height, width)
    return 1 - ramp if flip else ramp


def evaluate(network: Network, regions: list[StageRegion], limits: Limits, workers: int, **about: object) -> tuple[float, Tensor]:
    settings = resolved(**about)
    styles = [picture(2, 64, 70), picture(4, 80, 48)]
    image = picture(3, *SIZE)
    objective = Objective([network] * workers, picture(1, *SIZE), styles, settings, limits, regions=regions)
    loss = float(objective.evaluate(image).loss)
    assert image.grad is not None
    return loss, image.grad


def two() -> list[StageRegion]:
    return [StageRegion(soft(*SIZE), {0: soft(64, 70)}), StageRegion(soft(*SIZE, flip=True), {1: None})]


def test_guided_gram_matrices_by_their_formula(make_network: MakeNetwork) -> None:
    network, regions = make_network(dtype=torch.float64), two()
    found, _ = evaluate(network, regions, UNLIMITED, 1, content_weight=0.0, tv_weight=0.0, style_layers=("relu3_1",))

    def grams(x: Tensor, mask: Tensor | None) -> Tensor:
        f = reference.features(x, tiny_weights(), "average", ["relu3_1"])["relu3_1"]
        t = torch.ones_like(f[:, :1])
        if mask is not None:
            t = mask[..., : f.shape[2] * 4, : f.shape[3] * 4].reshape(1, 1, f.shape[2], 4, f.shape[3], 4).mean((3, 5))
        return torch.einsum("iahw,ibhw,ichw->ab", f, f, t) / t.sum()

    image, expected = picture(3, *SIZE), 0.0
    for region, style in zip(regions, (picture(2, 64, 70), picture(4, 80, 48)), strict=True):
        (mask,) = region.masks.values()
        d = grams(image, region.content) - grams(style, mask)
        expected += float(region.content.mean() * d.square().sum() / (d.abs().sum() + 1e-8))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("about", [{}, {"style_loss": "wasserstein"}, {"style_loss": "covariance", "extra_weight": 1.0},
    {"extra_loss": "histogram", "extra_weight": 9.0}, {"style_loss": "sliced-wasserstein"}], ids=str)  # fmt: skip
def test_tiles_give_the_same_loss_and_gradient(about: dict[str, object], make_network: MakeNetwork) -> None:
    network = make_network(dtype=torch.float64)
    loss, gradient = evaluate(network, two(), UNLIMITED, 1, **about)
    tiled_loss, tiled = evaluate(network, two(), Limits(False, (60 * 70, 24 * 24), (0, 0)), 2, **about)
    assert tiled_loss == pytest.approx(loss, rel=1e-10)
    assert float((tiled - gradient).norm() / gradient.norm()) < 1e-10


@pytest.mark.parametrize("kind", ["gram", "histogram", "sliced-wasserstein"])
def test_masks_that_cover_everything_change_nothing(kind: str, make_network: MakeNetwork) -> None:
    network, whole = make_network(dtype=torch.float64), torch.ones(1, 1, *SIZE, dtype=torch.float64)
    plain = evaluate(network, [], UNLIMITED, 1, style_loss=kind)
    masked = evaluate(network, [StageRegion(whole, {0: None, 1: None})], UNLIMITED, 1, style_loss=kind)
    assert masked[0] == pytest.approx(plain[0], rel=1e-10) and torch.allclose(masked[1], plain[1], rtol=1e-8, atol=1e-15)


def test_a_style_pulls_on_its_own_region_alone(make_network: MakeNetwork) -> None:
    left = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    left[..., :40] = 1
    for kind in ("gram", "histogram", "sliced-wasserstein"):
        _, gradient = evaluate(make_network(dtype=torch.float64), [StageRegion(left, {0: None})], UNLIMITED, 1,
            content_weight=0.0, tv_weight=0.0, style_layers=("relu1_1", "relu2_1"), style_loss=kind)  # fmt: skip
        assert gradient[..., :40].abs().mean() > 0 and not gradient[..., 46:].any()


def test_guides_have_the_size_of_their_layer() -> None:
    mask = soft(37, 53)
    for stride, size in ((1, (37, 53)), (2, (18, 26)), (4, (10, 14)), (8, (5, 7)), (4, (7, 11))):
        found = guide(mask, stride, size)
        assert tuple(found.shape[2:]) == size
        assert float(found[0, 0, 1, 1]) == pytest.approx(float(mask[..., stride : 2 * stride, stride : 2 * stride].mean()))


@pytest.mark.parametrize(("height", "width"), [(99, 83), (40, 47), (17, 31)])
@pytest.mark.parametrize("stride", [1, 2, 8, 16])
def test_the_last_cells_of_a_guide_reach_the_edge(stride: int, height: int, width: int) -> None:
    mask = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size = height // stride, width // stride
    found = guide(mask, stride, size)
    ends = [[*range(stride, stride * cells, stride), length] for cells, length in zip(size, (height, width), strict=True)]
    for row, bottom in enumerate(ends[0]):
        for column, right in enumerate(ends[1]):
            cell = mask[0, 0, stride * row : bottom, stride * column : right]
            assert float(found[0, 0, row, column]) == pytest.approx(float(cell.mean()), rel=1e-12)


@pytest.mark.parametrize(
    "edge", [(..., slice(93, None), slice(None)), (..., slice(None), slice(77, None))], ids=["rows", "columns"]
)
@pytest.mark.parametrize("about", [{}, {"style_loss": "wasserstein"}, {"style_loss": "histogram"}], ids=str)
def test_a_style_mask_of_the_last_rows_or_columns_selects_the_last_cells(
    edge: tuple[object, ...], about: dict[str, str], make_network: MakeNetwork
) -> None:
    """At stride 16 pictures of 95 x 79 pixels have 5 x 4 cells, which cover 80 x 64 pixels."""
    network, style, whole = make_network(dtype=torch.float64), picture(2, 95, 79), torch.ones(1, 1, 95, 79, dtype=torch.float64)
    thin, last = torch.zeros_like(whole), torch.zeros_like(whole)
    thin[edge] = 1  # type: ignore[index]
    rows = edge[1] != slice(None)
    last[(..., slice(64, None), slice(None)) if rows else (..., slice(None), slice(48, None))] = 1
    settings = resolved(content_weight=0.0, tv_weight=0.0, style_layers=("relu5_1",), **about)
    losses = []
    for mask in (thin, last):
        objective = Objective([network], picture(1, 95, 79), [style], settings, regions=[StageRegion(whole, {0: mask})])
        losses.append(float(objective.evaluate(picture(3, 95, 79)).loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_what_no_region_covers_stays_as_the_photograph_is(make_network: MakeNetwork) -> None:
    network = make_network()
    content, style = picture(1, 60, 80, torch.float32), picture(2, 50, 70, torch.float32)
    mask = torch.zeros(1, 1, 60, 80)
    mask[:, :, 10:40, 20:60] = 1
    for optimizer in ("adam", "lbfgs"):
        settings = Settings(min_scale=40, end_scale="80", initial_iterations=4, iterations=4, init="gray", optimizer=optimizer)
        *_, last = stylize(content, [style], settings, networks=[network], regions=[Region(mask, 0)])
        image = last.image()
        assert torch.equal(image[..., 50:, :], content[..., 50:, :]) and torch.equal(image[..., 70:], content[..., 70:])
        assert not torch.allclose(image[:, :, 15:35, 25:55], content[:, :, 15:35, 25:55], atol=0.02)
    assert torch.equal(coverage([Region(mask, 0).at((60, 80), [(50, 70)], [0])]), mask)


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_resumed_run_ends_in_the_same_bits(stop: int, make_network: MakeNetwork) -> None:
    """Soft masks: a pixel that is half covered is half the content, and is not blended twice."""
    content, style = picture(1, 60, 80, torch.float32), picture(2, 50, 70, torch.float32)
    regions = [Region(0.7 * soft(60, 80).float(), 0), Region(0.5 * soft(60, 80, flip=True).float(), 0, soft(50, 70).float())]
    settings = Settings(min_scale=57, end_scale="80", initial_iterations=4, iterations=4, init="gray")

    def paint(regions: list[Region], state: State | None = None) -> list[tuple[float, Tensor, State]]:
        found = []
        for iterate in stylize(content, [style], settings, networks=[make_network()], regions=regions, resume=state):
            found.append((float(iterate.loss), iterate.image(), iterate.state().whole(LOCAL)))
        return found

    straight = paint(regions)
    state = straight[stop - 1][2]
    for (loss, image, _), (other, expected, _) in zip(paint(regions, state), straight[stop:], strict=True):
        assert loss == other and torch.equal(image, expected)
    assert torch.equal(picture_of(state, content, regions), straight[stop - 1][1])
    with pytest.raises(CheckpointError, match="the masks differ"):
        paint(regions[:1], state)


def gray(height: int, width: int, value: float = 1.0) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((height, width, 3), value, np.float32)


def test_masks_are_paired_by_their_order() -> None:
    sizes = [(40, 60), (30, 30), (20, 50)]
    one = regions_of([gray(20, 30), gray(40, 60)], [gray(15, 15), gray(30, 30)], 1, sizes[:2])
    assert [(region.style, region.mask is None) for region in one] == [(0, False), (0, False)]
    both = regions_of([gray(20, 30), gray(40, 60)], [], 2, sizes)
    assert [(region.style, region.mask) for region in both] == [(0, None), (1, None)]


def test_colours_are_paired_wherever_they_are() -> None:
    content, style = gray(40, 60, 0.0), gray(30, 30, 0.0)
    content[:, 30:] = (1, 0, 0)
    content[:10] = (0, 1, 0)
    content[20, 20] = (0.5, 0.3, 0.1)  # a blurred edge
    style[:, :10] = (0.98, 0, 0.02)
    found = regions_of([content], [style], 1, [(40, 60), (30, 30)])
    assert len(found) == 2  # black and red; green is in no style and stays as it is
    shares = sorted(float(region.content.mean()) for region in found)
    assert shares == pytest.approx([0.375, 0.375], abs=0.001)
    assert sorted(float(region.mask.mean()) for region in found if region.mask is not None) == pytest.approx([1 / 3, 2 / 3])
    assert len(colours(content, "x")) == 3


@pytest.mark.parametrize("quality", [75, 90, 95])
@pytest.mark.parametrize(
    "flat",
    [((128, 0, 0), (0, 128, 0), (0, 0, 128)), ((128, 128, 128), (255, 0, 0), (0, 0, 0)), ((255, 0, 0), (0, 255, 0), (0, 0, 255))],
)
def test_a_jpeg_of_flat_colours_has_no_more_of_them(flat: tuple[tuple[int, ...], ...], quality: int, tmp_path: Path) -> None:
    mask = np.zeros((120, 160, 3), np.uint8)
    for index, colour in enumerate(flat):
        mask[:, 55 * index : 55 * (index + 1)] = colour
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=quality)
    found = colours(images.load(tmp_path / "m.jpg").pixels, "x")
    assert len(found) == 3
    for colour, part in found.items():
        near = np.abs(mask / 255 - np.array(colour)).max(2) < 0.15
        assert np.mean((part[0, 0].numpy() > 0) == near) > 0.99


def test_shades_are_no_colours() -> None:
    shaded = np.zeros((60, 200, 3), np.float32)
    shaded[..., 0] = np.linspace(0, 1, 200)
    with pytest.raises(ImageError, match="x has gradual transitions between colours; a mask in colours has up to 12"):
        colours(shaded, "x")


def test_large_colour_masks_take_little_memory() -> None:
    mask = np.zeros((1500, 2000, 3), np.float32)
    mask[:, 500:, 0] = mask[:, 1000:, 1] = mask[:, 1500:, 2] = 1
    tracemalloc.start()
    found = colours(mask, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [float(part.mean()) for part in found.values()] == [0.25] * 4
    assert peak < 40 * mask[..., 0].size  # the four parts are 16 bytes a pixel


@pytest.mark.parametrize(
    ("content", "style", "styles", "error", "words"),
    [
        ([], [gray(30, 30)], 1, SettingsError, "--style-mask goes with --content-mask"),
        ([gray(40, 60)] * 3, [], 2, SettingsError, "--content-mask: masks given: 3, styles: 2"),
        ([gray(40, 60)] * 2, [gray(30, 30)], 1, SettingsError, "--style-mask: masks given: 1, content masks: 2"),
        ([gray(60, 40)], [], 1, ImageError, "content mask 1 is 40x60, but its picture is 60x40"),
        ([gray(40, 60, 0.0)], [], 1, ImageError, "content mask 1 is black all over"),
        ([gray(40, 60)], [gray(30, 20)], 1, ImageError, "style mask 1 is 20x30"),
    ],
)
def test_masks_that_make_no_sense_are_refused(content, style, styles, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        regions_of(content, style, styles, [(40, 60), (30, 30), (30, 30)])


def test_masks_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("c.png", "s.png", "t.png"):
        Image.fromarray(rng.integers(0, 255, (48, 60, 3), dtype=np.uint8)).save(name)
    left = np.zeros((48, 60), np.uint8)
    left[:, :30] = 255
    Image.fromarray(left).save("left.png")
    Image.fromarray(255 - left).save("right.png")
    common = ["c.png", "s.png", "t.png", "--network", "compact", "-ms", "60", "-s", "60", "-ii", "2"]
    Image.merge("LA", (Image.fromarray(left), Image.fromarray(left))).save("alpha.png")
    assert cli.main([*common, "--content-mask", "alpha.png", "right.png"]) == 0
    assert "alpha.png: alpha" in capsys.readouterr().err
    common.append("--quiet")
    assert cli.main([*common, "--content-mask", "left.png", "right.png"]) == 0
    assert '"content_masks": [' in Path("out.png.json").read_text()
    assert cli.main([*common, "--content-mask", "left.png"]) == 2
    assert cli.main([*common, "--content-mask", "left.png", "right.png", "--style-loss", "histogram"]) == 0
    assert cli.main([*common, "--content-mask", "left.png", "right.png", "-o", "left.png"]) == 2


def test_masks_of_other_programs() -> None:
    """Labels of 0 and 1 in 8 or 16 bits, and the shape in the alpha of a white or black picture."""
    shape = np.zeros((6, 7, 3), np.float32)
    shape[2:4, 1:5] = 1
    for white in (255, 65535):
        np.testing.assert_array_equal(as_mask(shape / np.float32(white)), shape)
    for colour in (0.0, 1.0):
        flat = np.full((6, 7, 3), colour, np.float32)
        np.testing.assert_array_equal(as_mask(flat, shape[..., 0]), shape)
    assert as_mask(shape) is shape
    assert as_mask(shape, np.full((6, 7), 0.5, np.float32)) is shape  # a mask in gray with an alpha of its own
    black = np.zeros((6, 7, 3), np.float32)
    assert as_mask(black) is black
