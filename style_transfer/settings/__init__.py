"""What a user may choose: declarations of options with defaults, help and checks; presets; TOML files and the environment."""

from __future__ import annotations

from .checks import END_SCALE
from .command import CommandOptions
from .option import Option, check_not_empty, flag_name, option, option_words, options_of, parse_bytes, validate_fields
from .presets import PRESETS, describe_presets, network_entry
from .settings import INITS, Resolved, Settings

__all__ = [
    "END_SCALE", "INITS", "PRESETS", "CommandOptions", "Option", "Resolved", "Settings", "check_not_empty", "describe_presets",
    "flag_name", "network_entry", "option", "option_words", "options_of", "parse_bytes", "validate_fields",
]  # fmt: skip
