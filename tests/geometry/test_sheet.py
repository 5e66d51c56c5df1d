"""Prints: pixels from millimetres, and the framing of photographs, against the geometry of the print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from style_transfer.errors import SettingsError
from style_transfer.geometry import Framing, Sheet, frame

SIDES = st.floats(20, 2000)
PIXELS = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("sheet", "size"),
    [
        (Sheet(600, 400, 0, 300), (4724, 7087)),
        (Sheet(420, 594, 3, 300), (7087, 5031)),
        (Sheet(609.6, 406.4, 3.175, 200), (3250, 4850)),
        (Sheet(1, 1, 0, 0.1), (1, 1)),
    ],
)
def test_pixels_of_prints(sheet: Sheet, size: tuple[int, int]) -> None:
    assert sheet.size == size


@given(height=PIXELS, width=PIXELS, sides=st.tuples(SIDES, SIDES), bleed=st.floats(0, 19), fit=st.sampled_from(["crop", "pad"]))
def test_the_framed_photograph_has_the_shape_of_the_print(
    height: int, width: int, sides: tuple[float, float], bleed: float, fit: str
) -> None:
    """Photograph and print have the same centre, so that one scale (pixels per millimetre) tells all."""
    sheet = Sheet(*sides, bleed, 300)
    for source in ("mirror", "crop"):
        framing = frame((height, width), sheet, fit, source)
        tall, wide = height * (1 + 2 * framing.vertical), width * (1 + 2 * framing.horizontal)
        scale = tall / (sheet.height + 2 * bleed)
        assert wide / (sheet.width + 2 * bleed) == pytest.approx(scale)
        inner = (sheet.height, sheet.width) if source == "mirror" else (sheet.height + 2 * bleed, sheet.width + 2 * bleed)
        covered = height / (scale * inner[0]), width / (scale * inner[1])  # of the print, or of print and bleed
        touching = min(covered) if fit == "crop" else max(covered)
        assert touching == pytest.approx(1)


@given(framing=st.builds(Framing, st.floats(-0.4999, 2), st.floats(-0.4999, 2)), height=PIXELS, width=PIXELS)
def test_edges_leave_something(framing: Framing, height: int, width: int) -> None:
    rows, columns = framing.edges((height, width))
    assert height + 2 * rows >= 1 and width + 2 * columns >= 1
    assert abs(rows - framing.vertical * height) <= 1 and abs(columns - framing.horizontal * width) <= 1


def test_a_worked_example() -> None:
    """A 3:2 photograph for 60 x 40 cm: nothing is cut off, and the bleed is 3 mm of 600, so 30 of 6000 pixels."""
    assert frame((4000, 6000), Sheet(600, 400, 3, 300), "exact", "mirror").edges((4000, 6000)) == (30, 30)
    assert frame((4000, 6000), Sheet(400, 400, 3, 300), "crop", "mirror").edges((4000, 6000)) == (30, -970)
    assert frame((4000, 6000), Sheet(400, 400, 0, 300), "pad", "mirror").edges((4000, 6000)) == (1000, 0)


def test_exact_refuses_another_shape() -> None:
    sheet = Sheet(600, 400, 0, 300)
    for size in ((4000, 6000), (4001, 6000), (667, 1000)):
        frame(size, sheet, "exact", "mirror")
    for size in ((4003, 6000), (6000, 4000)):
        with pytest.raises(SettingsError, match=f"the photograph is {size[1]}x{size[0]} pixels, .* --print-fit crop or pad"):
            frame(size, sheet, "exact", "mirror")
