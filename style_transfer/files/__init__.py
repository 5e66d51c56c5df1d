"""Atomic replacement of files, locks, leftovers of crashed runs, free space, and names of result files."""

from __future__ import annotations

from .atomic import LockedError, locked, remove_leftovers, replacing, write_text
from .naming import Task, fields_in, fill
from .paths import check_space, check_target, exists, file_digest, is_folder, reason, same_file, shown, similar_name

__all__ = [
    "LockedError",
    "Task",
    "check_space",
    "check_target",
    "exists",
    "fields_in",
    "file_digest",
    "fill",
    "is_folder",
    "locked",
    "reason",
    "remove_leftovers",
    "replacing",
    "same_file",
    "shown",
    "similar_name",
    "write_text",
]
