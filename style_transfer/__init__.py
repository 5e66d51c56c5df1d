"""Neural style transfer by optimisation, coarse to fine, up to print size.

`stylize` is the engine, a generator of iterates on tensors; `StyleTransfer` is the API that users of
style-transfer-pytorch know, with PIL pictures in and out. Importing the package does not import torch: each name
is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import StyleTransfer
    from .engine.iterate import Iterate
    from .engine.loop import stylize
    from .errors import (
        CheckpointError,
        DeviceError,
        DistributedError,
        ImageError,
        MemoryLimitError,
        NumericError,
        OutputError,
        SettingsError,
        StyleTransferError,
        WeightsError,
    )
    from .settings import Settings

__version__ = "0.1.0"

_HOMES = {
    "CheckpointError": "errors",
    "DeviceError": "errors",
    "DistributedError": "errors",
    "ImageError": "errors",
    "Iterate": "engine.iterate",
    "MemoryLimitError": "errors",
    "NumericError": "errors",
    "OutputError": "errors",
    "Settings": "settings",
    "SettingsError": "errors",
    "StyleTransfer": "api",
    "StyleTransferError": "errors",
    "WeightsError": "errors",
    "stylize": "engine.loop",
}

__all__ = [
    "CheckpointError",
    "DeviceError",
    "DistributedError",
    "ImageError",
    "Iterate",
    "MemoryLimitError",
    "NumericError",
    "OutputError",
    "Settings",
    "SettingsError",
    "StyleTransfer",
    "StyleTransferError",
    "WeightsError",
    "__version__",
    "stylize",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
