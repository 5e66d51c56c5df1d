"""Large pictures: which of them are reduced while they are read, and that runs give the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.command_line import command, pixels
from support.engine_runs import CONTENT, SHORT, STYLE
from support.settings import resolved

from style_transfer import cli, engine
from style_transfer.compute.resampling import ImagePyramid, resize, size_of
from style_transfer.networks.forward import Network
from style_transfer.pictures import tensors

SIZES = [(26, 33), (37, 46)]


@pytest.fixture
def jobs(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[engine.Job]:
    """Return a list of the jobs that are made; all pictures count as large."""
    made: list[engine.Job] = []
    create = engine.Job.create

    def kept(*pictures: Any, **about: Any) -> engine.Job:
        made.append(create(*pictures, **about))
        return made[-1]

    monkeypatch.setattr(engine.Job, "create", kept)
    monkeypatch.setattr(tensors, "WHOLE_PIXELS", 0)
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 256, (96, 120, 3), dtype=np.uint8)).resize((240, 192)).save("c.png")
    Image.fromarray(noise.integers(0, 256, (80, 90, 3), dtype=np.uint8)).resize((180, 160)).save("s.png")
    Image.fromarray(noise.integers(0, 256, (80, 90, 4), dtype=np.uint8)).resize((180, 160)).save("alpha.png")
    return made


def sizes(picture: ImagePyramid | None) -> list[tuple[int, int]]:
    assert picture is not None
    return [size_of(level) for level in picture.levels]


def test_pictures_are_reduced_to_the_sizes_of_the_scales(jobs: list[engine.Job]) -> None:
    assert cli.main(command("--style-scale", "1", "0.8", "--init", "s.png")) == 0
    job = jobs[-1]
    assert sizes(job.content) == sizes(job.init) == [stage.size for stage in job.stages] == SIZES
    assert sizes(job.styles[0]) == sorted({each for stage in job.stages for each in stage.style_sizes})
    assert job.content.size == (192, 240) and job.styles[0].size == (160, 180)


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        (("--init", "style_stats"), [False, True]),
        (("--color", "content"), [False, False]),
        (("--color", "luminance"), [True, True]),
        (("--color", "match-style"), [True, True]),
        (("--alpha", "keep"), [False, False]),
        (("--alpha", "keep", "alpha.png"), [True, True]),
        (("--end-scale", "240"), [True, True]),
    ],
)
def test_pictures_stay_whole_where_more_is_needed(options: tuple[str, ...], whole: list[bool], jobs: list[engine.Job]) -> None:
    content = options[-1] if options[-1].endswith(".png") else "c.png"
    assert cli.main(command(*(option for option in options if option != content), content=content)) == 0
    job = jobs[-1]
    assert [sizes(picture) == [picture.size] for picture in (job.content, *job.styles)] == whole


@pytest.mark.parametrize("color", ["style", "content"])
def test_the_result_is_that_of_whole_pictures(color: str, jobs: list[engine.Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam divides gradients by their size, so that differences of rounding show where gradients are near zero."""
    assert cli.main(command("--color", color, "-o", "reduced.png")) == 0
    monkeypatch.setattr(tensors, "WHOLE_PIXELS", 1 << 23)
    assert cli.main(command("--color", color, "-o", "whole.png")) == 0
    assert sizes(jobs[0].content) == SIZES and sizes(jobs[1].content) == [(192, 240)]
    for reduced, size in zip(jobs[0].content.levels, SIZES, strict=True):
        assert torch.allclose(reduced, resize(jobs[1].content.largest, size, antialias=True).clamp(0, 1), rtol=0, atol=2e-6)
    difference = np.abs(pixels("reduced.png") - pixels("whole.png"))
    assert difference.mean() < 1e-4 and pixels("whole.png").std() > 0.05


def test_a_run_from_levels_is_one_from_the_picture_to_the_bit(make_network: Any) -> None:
    settings = resolved(**SHORT)
    network: Network = make_network()
    whole = engine.Job.create(CONTENT, [STYLE], settings)
    content = ImagePyramid(
        size_of(CONTENT), tuple(resize(CONTENT, stage.size, antialias=True).clamp(0, 1) for stage in whole.stages)
    )
    style_sizes = dict.fromkeys(size for stage in whole.stages for size in stage.style_sizes)
    style = ImagePyramid(size_of(STYLE), tuple(resize(STYLE, size, antialias=True).clamp(0, 1) for size in style_sizes))
    reduced = engine.Job.create(content, [style], settings)
    assert reduced.stages == whole.stages
    for a, b in zip(engine.run(reduced, [network]), engine.run(whole, [network]), strict=True):
        assert float(a.loss) == float(b.loss) and torch.equal(a.image(), b.image())
