"""A folder with pictures and tiny weights, and commands that use them."""

from __future__ import annotations

SMALL = ["-ms", "32", "-s", "46", "-ii", "4", "-i", "3"]


def command(*more: str) -> list[str]:
    return ["c.png", "s.png", "--weights", "w.safetensors", *SMALL, *more]
