"""Registries of implementations by name: style and content losses, networks, optimizers, picture formats and observers.

Each implementation registers itself in its own module. A registry imports all modules of its package at the first lookup, so a
new implementation is one new file in that package, or a call of `register` anywhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
Registered = TypeVar("Registered")


class Registry(Mapping[str, T], Generic[T]):
    """Implementations of one kind by name, in the order of their registration.

    `kind` names what is registered in messages, such as "style loss". `package` is the package whose modules register the
    built-in implementations.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._loaded = False
        self._lock = threading.RLock()

    def register(self, *names: str) -> Callable[[Registered], Registered]:
        """Return a decorator, or a function to call, that registers an implementation under `names`.

        Raises ValueError for a name that is taken.
        """

        def add(entry: Registered) -> Registered:
            for name in names:
                if name in self._entries:
                    raise ValueError(f"{self.kind} {name!r} is registered already")
                self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    def unregister(self, name: str) -> None:
        """Remove an implementation. Raises KeyError for an unknown name."""
        del self._entries[name]

    def _load(self) -> Mapping[str, T]:
        with self._lock:  # other threads wait until all modules are imported
            if not self._loaded:
                self._loaded = True
                package = importlib.import_module(self.package)
                for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
                    importlib.import_module(f"{self.package}.{module}")
        return self._entries

    def __getitem__(self, name: str) -> T:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


STYLE_LOSSES: Final[Registry[Any]] = Registry("style loss", "style_transfer.losses.style")
"""`losses.StyleLoss` classes by the name that `--style-loss` and `--extra-loss` have for them."""
CONTENT_LOSSES: Final[Registry[Any]] = Registry("content loss", "style_transfer.losses.content")
"""`losses.ContentLoss` classes by the name that `--content-loss` has for them."""
NETWORKS: Final[Registry[Any]] = Registry("network", "style_transfer.networks.families")
"""`networks.NetworkEntry` objects by the name that `--network` has for them."""
OPTIMIZERS: Final[Registry[Any]] = Registry("optimizer", "style_transfer.engine.optimizers")
"""`engine.optimizers.Optimizer` classes by the name that `--optimizer` has for them."""
INPUT_FORMATS: Final[Registry[Any]] = Registry("input format", "style_transfer.pictures.decode")
"""`pictures.decode.loading.InputFormat` objects by name, such as "TIFF"."""
OUTPUT_FORMATS: Final[Registry[Any]] = Registry("output format", "style_transfer.pictures.encode")
"""`pictures.OutputFormat` objects by the file name's suffix, such as ".tif"."""
OBSERVERS: Final[Registry[Any]] = Registry("observer", "style_transfer.observers")
"""`observers.Observer` classes; the ones whose `create` returns an observer follow the run."""
