"""What the live page shows of a run: immutable snapshots of its state, shared between threads."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..history import History

if TYPE_CHECKING:
    from ...engine.control import Control
    from ...geometry.scales import Stage
    from .pyramid import Pyramid


@dataclass(frozen=True)
class Layer:
    """The newest picture of a scale. `frame` is its number among the pictures taken from the run, from 1."""

    picture: Pyramid
    frame: int


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment.

    `run` identifies the run of one picture, and `version` grows with every change. `phase` is "preparing", "running", "finished",
    "stopped" or "failed". `about` holds the facts that do not change during a run, and `step` those about the last step, both for
    the page's JSON. `layers` has the picture of each scale and `done` its number of completed steps, by the number of the scale
    from 0. `asked` are the buttons that were pressed and not answered yet, and `answers` all answers so far.
    """

    run: str = ""
    version: int = 0
    phase: str = "preparing"
    control: Control | None = None
    history: History = field(default_factory=History)
    about: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    content: Pyramid | None = None
    step: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[int, Layer] = field(default_factory=dict)
    frame: int = 0
    done: Mapping[int, int] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    answers: tuple[str, ...] = ()
    error: str | None = None
    result: Path | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has ended without an error, so that the page has its last picture."""
        return self.phase in ("finished", "stopped")

    @property
    def paused(self) -> bool:
        """Whether the run is paused, or will be after its current step."""
        return self.phase == "running" and self.control is not None and self.control.paused

    @property
    def newest(self) -> Pyramid | None:
        """The newest picture."""
        return self.layers[max(self.layers)].picture if self.layers else None

    @property
    def place(self) -> str:
        """The last step in words."""
        return "iteration {step} of {steps} at {width}x{height}".format_map(self.step) if self.step else "iteration 0"

    def name(self, suffix: str) -> str:
        """Return the file name for a download."""
        return Path(str(self.about.get("output") or "picture")).stem + suffix

    def changing(self) -> dict[str, Any]:
        """Return what the page gets after every change, for JSON."""
        stages = [
            {
                "width": stage.size[1],
                "height": stage.size[0],
                "steps": stage.steps,
                "done": self.done.get(index, 0),
                "frame": self.layers[index].frame if index in self.layers else 0,
                "shown": self.layers[index].picture.size[::-1] if index in self.layers else None,
            }
            for index, stage in enumerate(self.stages)
        ]
        return {
            **self.step,
            "run": self.run,
            "version": self.version,
            "phase": "paused" if self.paused else self.phase,
            "stages": stages,
            "frame": self.frame,
            "answer": {"number": len(self.answers), "text": self.answers[-1] if self.answers else ""},
            "error": self.error,
            "result": self.name(self.result.suffix) if self.result is not None else None,
        }

    def constant(self) -> dict[str, Any]:
        """Return what the page gets once per run, for JSON."""
        size = None if self.content is None else {"width": self.content.size[1], "height": self.content.size[0]}
        return {**self.about, "content_size": size}


class SharedState:
    """The current snapshot, `now`, which any thread may read. A change replaces it under a lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.now = Snapshot()

    def begin(self, **fields: Any) -> None:
        """Replace the state by that of another run, of which only `fields` are known."""
        with self._lock:
            before = self.now
            self.now = Snapshot(run=secrets.token_hex(8), version=before.version + 1, answers=before.answers, **fields)

    def change(self, **fields: Any) -> None:
        """Replace some fields."""
        with self._lock:
            self.now = dataclasses.replace(self.now, version=self.now.version + 1, **fields)

    def ask(self, *buttons: str) -> None:
        """Record that buttons were pressed."""
        with self._lock:
            self.change(asked=self.now.asked | set(buttons))

    def answer(self, button: str, text: str) -> None:
        """Record the answer to a button."""
        with self._lock:
            self.change(asked=self.now.asked - {button}, answers=(*self.now.answers, text))

    def show(self, index: int, picture: Pyramid) -> Pyramid | None:
        """Replace the picture of a scale by a newer one; for the first one, return the last picture of the scale before."""
        with self._lock:
            layers, frame = self.now.layers, self.now.frame + 1
            self.change(frame=frame, layers={**layers, index: Layer(picture, frame)})
        return layers[index - 1].picture if index not in layers and index - 1 in layers else None
