"""The coarse-to-fine optimisation: optimizers, run state, checkpoints and the loop that yields iterates."""

from __future__ import annotations

from .control import Control
from .iterate import Iterate, picture_of
from .job import Job
from .loop import run, stylize
from .state import State

__all__ = ["Control", "Iterate", "Job", "State", "picture_of", "run", "stylize"]
