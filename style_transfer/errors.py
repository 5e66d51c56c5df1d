"""The exceptions that leave the library.

    StyleTransferError
    ├── SettingsError      a setting or an argument is wrong (also a ValueError)
    ├── CheckpointError    a checkpoint is damaged, or belongs to another run
    ├── ImageError         an input picture cannot be read or used
    ├── WeightsError       network weights are missing, damaged or do not fit
    ├── DeviceError        a device computes wrongly or cannot be used
    ├── DistributedError   another process of the run was lost
    ├── MemoryLimitError   even the smallest tiles do not fit into memory
    ├── NumericError       loss or picture did not stay finite, smaller steps or not
    └── OutputError        the result cannot be written

Every message is one line that names the setting or file, the offending value and the way out.
The command line turns each class into an exit code (`EXIT_CODES`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final


class StyleTransferError(Exception):
    """Base class of every error this package raises on purpose."""


class SettingsError(StyleTransferError, ValueError):
    """A setting or argument has a value that cannot be used."""


class CheckpointError(StyleTransferError):
    """A checkpoint is missing, damaged, of another version, or belongs to another run."""


class NumericError(StyleTransferError):
    """Loss or picture did not stay finite, though the step size was halved a few times."""


class ImageError(StyleTransferError):
    """An input picture is missing, unreadable, damaged, too large or too small."""


class WeightsError(StyleTransferError):
    """Network weights are missing, damaged, or belong to another network."""


class DeviceError(StyleTransferError):
    """A device cannot be used, or computes wrong gradients."""


class DistributedError(StyleTransferError):
    """Another process of the run was lost, or could not be reached."""


class MemoryLimitError(StyleTransferError):
    """Even the smallest tiles do not fit into memory."""


class OutputError(StyleTransferError):
    """The result cannot be written where it should go."""


EXIT_CODES: Final[dict[type[BaseException], int]] = {
    SettingsError: 2,
    CheckpointError: 2,
    ImageError: 3,
    WeightsError: 4,
    MemoryLimitError: 5,
    OutputError: 6,
    NumericError: 7,
    DeviceError: 8,
    DistributedError: 9,
    KeyboardInterrupt: 130,
}
"""The exit code of the command line for each class of error. 0 is success, 1 a bug."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error of ours, or of Ctrl-C."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the `known` name that begins with `word` or is closest, or an empty string.

    Upper and lower case are not distinguished, and the dashes of flags do not count.
    """
    word, names = word.casefold().lstrip("-"), {name.casefold().lstrip("-"): name for name in known}
    close = [name for name in names if len(word) > 3 and name.startswith(word)] or difflib.get_close_matches(word, names, n=1)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""
