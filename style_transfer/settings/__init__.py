"""What a user may choose: options with their defaults, help and checks; presets; TOML files and the environment."""

from __future__ import annotations

from .settings import INITS, Option, Resolved, Settings, flag_name, option, options_of, validate_fields

__all__ = ["INITS", "Option", "Resolved", "Settings", "flag_name", "option", "options_of", "validate_fields"]
