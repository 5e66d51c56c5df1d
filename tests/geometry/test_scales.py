"""Scales and sizes against hand-worked values."""

from __future__ import annotations

import pytest

from style_transfer.geometry import fit, resolve_end_scale, scales


@pytest.mark.parametrize(
    ("low", "end", "expected"),
    [
        (128, 512, (128, 181, 256, 362, 512)),
        (128, 362, (128, 181, 256, 362)),
        (128, 500, (177, 250, 354, 500)),
        (512, 512, (512,)),
        (1, 4, (1, 2, 3, 4)),
        (128, 2896, (128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896)),
    ],
)
def test_scales(low: int, end: int, expected: tuple[int, ...]) -> None:
    assert scales(low, end) == expected


def test_an_end_below_the_start_is_one_scale() -> None:
    assert scales(128, 100) == (100,)


@pytest.mark.parametrize(
    ("size", "longest", "enlarge", "expected"),
    [
        ((768, 1024), 128, True, (96, 128)),
        ((768, 1024), 181, True, (136, 181)),
        ((100, 50), 200, True, (200, 100)),
        ((100, 50), 200, False, (100, 50)),
        ((100, 50), 99, False, (99, 50)),
        ((3, 20000), 128, True, (1, 128)),
    ],
)
def test_fit(size: tuple[int, int], longest: int, enlarge: bool, expected: tuple[int, int]) -> None:
    assert fit(size, longest, enlarge=enlarge) == expected


def test_safe_end_scale_keeps_the_area() -> None:
    assert resolve_end_scale("512", (768, 1024)) == 512
    assert resolve_end_scale("512+", (768, 1024)) == 591  # int(sqrt(4/3) * 512)
    assert resolve_end_scale("512+", (1024, 768)) == 591
    assert resolve_end_scale("512+", (100, 100)) == 512
