"""Options from a finished picture: its recipe is in its metadata, and beside it as OUTPUT.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import ImageError, SettingsError
from ..files import shown
from ..pictures import read_metadata
from ..settings import INITS, Option, Settings
from ..settings.sources import from_file

RESULTS: Final = (".json", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp")
"""Endings of files whose recipe --config reads; any other file is taken for TOML."""
OF_THE_MACHINE: Final = ("weights",)
"""Settings that a recipe has and that are not taken from it, as those of the topic `devices`."""
SET_BY_PRINT: Final = {
    "print_size": ("end_scale", "scales"),
    "style_print_size": ("style_size", "style_scale", "style_scale_fac"),
}
"""Settings that follow from an option of prints, by its name."""


def options_in(known: Mapping[str, Option], path: str) -> dict[str, Any]:
    """Return the options in a file that --config names: a TOML file, a finished picture or its OUTPUT.json.

    Raises `SettingsError` if it cannot be read or used.
    """
    if Path(path).suffix.lower() not in RESULTS:
        return from_file(known, path)
    name, recipe = f"--config {shown(path)}", read_recipe(path)
    found = recipe["settings"] | recipe.get("print", {})
    if isinstance(space := recipe.get("output_space"), str):
        found["output_space"] = space
    values = {}
    for option in [each for choice, set_by_it in SET_BY_PRINT.items() if choice in found for each in set_by_it]:
        del found[option]
    for option, value in found.items():
        if option not in known:
            raise SettingsError(f"{name}: {option}: there is no such option; the picture was made by {recipe['program']}")
        local = known[option].topic == "devices" or option in OF_THE_MACHINE or (option == "init" and value not in INITS)
        if value is not None and not local:
            values[option] = known[option].validate(f"{name}: {option}", tuple(value) if isinstance(value, list) else value)
    return without_consequences(values)


def read_recipe(path: str) -> dict[str, Any]:
    """Return the recipe of a finished picture, or of its OUTPUT.json. Raises `SettingsError` if there is none."""
    try:
        is_json = Path(path).suffix.lower() == ".json"
        text = Path(path).read_text("utf-8") if is_json else read_metadata(path).get("Recipe", "null")
        recipe = json.loads(text)
    except ImageError as error:
        raise SettingsError(f"--config {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"--config {shown(path)}: cannot be read: {reason}") from None
    if not (isinstance(recipe, dict) and isinstance(recipe.get("settings"), dict) and isinstance(recipe.get("program"), str)):
        raise SettingsError(f"--config {shown(path)}: has no recipe of this program; give a picture that it made, or a TOML file")
    return recipe


def without_consequences(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those settings that follow from the others, so that an option beside them changes what it should."""
    settings = {name: value for name, value in values.items() if name in Settings.__dataclass_fields__}
    wanted = Settings(**settings).resolve()
    for name in list(settings):
        fewer = {other: value for other, value in settings.items() if other != name}
        if Settings(**fewer).resolve() == wanted:
            settings = fewer
    return {name: value for name, value in values.items() if name in settings or name not in Settings.__dataclass_fields__}
