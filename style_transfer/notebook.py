"""A progress bar and the picture so far in a Jupyter notebook, as a callback of `StyleTransfer.stylize`."""

from __future__ import annotations

import time
from typing import Any

from IPython.display import display
from PIL import Image
from tqdm.auto import tqdm

from .api import StyleTransfer
from .engine import Iterate
from .observers.console import TimeLeft, clock

LONGEST = 640
"""The long side of the picture shown, in pixels."""


class NotebookDisplay:
    """Shows the progress of `painter`, and its picture in its final colours, each time that it is called with an iterate.

        st = StyleTransfer()
        st.stylize(content, styles, callback=NotebookDisplay(st))

    The picture is renewed every `interval` seconds, at the end of each scale, and at the end. It needs IPython; the bar is a
    widget where ipywidgets is installed (`pip install style_transfer[notebook]`), and text elsewhere. One object shows one run.
    """

    def __init__(self, painter: StyleTransfer, interval: float = 2.0) -> None:
        self.painter, self.interval = painter, interval
        self._bar: Any = None
        self._left: TimeLeft | None = None
        self._picture: Any = None
        self._shown = 0.0

    def __call__(self, iterate: Iterate) -> None:
        """Show a step."""
        if self._bar is None or self._left is None:
            self._bar = tqdm(total=sum(stage.steps for stage in iterate.stages), bar_format="{l_bar}{bar}| {postfix}")
            self._left = TimeLeft(iterate.stages)
        seconds = self._left.update(iterate.index, iterate.step, iterate.seconds)
        self._bar.set_description(f"{iterate.w} x {iterate.h}, step {iterate.step} of {iterate.steps}", refresh=False)
        self._bar.set_postfix_str(f"{clock(iterate.seconds)}, {clock(seconds)} left", refresh=False)
        self._bar.update()
        if iterate.ends_scale or time.monotonic() - self._shown >= self.interval:
            self._show(self.painter.get_image())
        if iterate.ends_run:
            self._bar.close()

    def _show(self, picture: Image.Image) -> None:
        picture.thumbnail((LONGEST, LONGEST))
        if self._picture is None:
            self._picture = display(picture, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._picture.update(picture)
        self._shown = time.monotonic()
