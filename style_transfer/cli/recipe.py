"""The recipe of a picture: all that is needed to make it again."""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

from .. import __version__
from ..engine.state import NOT_COMPARED
from ..files import Task, file_digest
from ..geometry import Stage
from ..networks.forward import Network
from ..pictures import Reading
from ..settings import INITS, Resolved, options_of
from ..settings.command import RGB_SPACES, CommandOptions
from .printing import PrintPlan

LIBRARIES: Final = ("torch", "numpy", "pillow", "tifffile", "imagecodecs")
"""Libraries whose versions can change a picture."""


def make_recipe(
    argv: Sequence[str], task: Task, settings: Resolved, options: CommandOptions, network: Network, devices: Sequence[str],
    stages: Sequence[Stage], readings: Sequence[tuple[str, Reading]], plan: PrintPlan | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the recipe of a picture, as JSON can hold it."""
    recipe = {
        "program": f"style_transfer {__version__}",
        "command": shlex.join(["style_transfer", *argv]),
        "settings": settings.as_dict(),
        "dpi": options.resolution,
        "content": _described(task.content),
        "styles": [_described(path) for path in task.styles],
        "network": {"name": network.spec.name, "weights": network.source, "note": network.note},
        "precision": network.precision,
        "devices": list(devices),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
        "scales": [{"width": s.size[1], "height": s.size[0], "steps": s.steps} for s in stages],
        "read_as": [{"name": Path(path).name} | dataclasses.asdict(reading) for path, reading in readings],
    }
    for name, masks in (("content_masks", options.content_mask), ("style_masks", options.style_mask)):
        if masks:
            recipe[name] = [_described(path) for path in masks]
    if plan is not None:
        recipe["sheet"] = plan.recorded()
    if chosen := print_options(options):
        recipe["print"] = chosen
    if settings.init not in INITS:
        recipe["init"] = _described(settings.init)
    if options.output_space != "srgb":
        named = options.output_space in RGB_SPACES
        recipe["output_space"] = options.output_space if named else _described(options.output_space)
    for name, path in (
        ("proof", options.proof),
        ("output_profile", options.output_profile),
        ("proof_output", options.proof_output),
    ):
        if path:
            recipe[name] = _described(path)
    return recipe


def print_options(options: CommandOptions) -> dict[str, Any]:
    """Return the options for prints that were chosen, by name, without those that name files."""
    about = {name: each for name, each in options_of(CommandOptions).items() if each.topic == "print" and each.metavar != "FILE"}
    return {name: value for name, each in about.items() if (value := getattr(options, name)) != each.default}


def _described(path: str) -> dict[str, str]:
    return {"name": Path(path).name, "sha256": file_digest(Path(path))}


def identity_of(recipe: Mapping[str, Any]) -> str:
    """Return a text that is equal for two runs that make the same picture, wherever they do it."""
    settings = {name: value for name, value in recipe["settings"].items() if name not in NOT_COMPARED}
    inputs = ("content", "styles", "content_masks", "style_masks", "init", "sheet", "output_space")
    return json.dumps([settings, *(recipe.get(name) for name in inputs)], sort_keys=True)


def embedded(recipe: Mapping[str, Any]) -> str:
    """Return the recipe as it is embedded in pictures: without the command and without the folders of this machine."""
    inside = {name: value for name, value in recipe.items() if name != "command"}
    inside["network"] = {name: value for name, value in recipe["network"].items() if name != "note"}  # which has paths
    names = {name: Path(path).name for name in ("weights", "init") if (path := recipe["settings"][name])}
    inside["settings"] = recipe["settings"] | names
    return json.dumps(inside)
