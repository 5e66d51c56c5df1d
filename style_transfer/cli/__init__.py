"""The command line: parsing, one picture or several, messages and exit codes."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
