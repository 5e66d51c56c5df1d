"""Download of torchvision's weights into torch's cache.

The functions of torch.hub are not used, since they open connections without a time limit and accept none: only the default limit
of all sockets in the process applies to them.
"""

from __future__ import annotations

import hashlib
import queue
import secrets
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import WeightsError
from ..files import file_digest, reason
from ..registry import NETWORKS
from .weights import State, read

START_SECONDS = 5
STALL_SECONDS = 30
CHUNK_BYTES = 2**20


class DownloadError(WeightsError):
    """The weights are not in torch's cache and cannot be downloaded."""


def cache_location(network: str) -> tuple[str, Path, str]:
    """Return the URL of torchvision's weights of a network, their path in torch's cache, and how their SHA-256 begins."""
    url: str = NETWORKS[network].download
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    return url, path, path.stem.rsplit("-", 1)[1]


def download(network: str, *, progress: bool = True) -> tuple[State, str]:
    """Return torchvision's weights of a network and their URL; they are downloaded once, and their hash is checked every time.

    A progress bar is shown on standard error if `progress`. Raises `DownloadError` if they are not in torch's cache and cannot be
    downloaded, `WeightsError` if the file in the cache cannot be used.
    """
    url, path, prefix = cache_location(network)
    if not path.is_file():
        try:
            _save(url, path, prefix, progress=progress)
        except (OSError, HTTPException) as error:
            raise DownloadError(
                f"the weights of {network} cannot be downloaded ({reason(error)}); save {url} (SHA-256 begins with {prefix}) as "
                f"{path}, or give a local file with --weights"
            ) from error
    try:
        sha256 = file_digest(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if not sha256.startswith(prefix):
        raise WeightsError(f"{path} is damaged (its SHA-256 begins with {sha256[:8]}, not {prefix}); delete it and start again")
    return read(path), url


def _save(url: str, path: Path, prefix: str, *, progress: bool) -> None:
    """Download a file to `path`, which is written only when complete.

    Raises OSError if the server does not answer within `START_SECONDS`, sends nothing for `STALL_SECONDS`, or sends another file.
    """
    sha256 = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with _open(url) as response, partial.open("xb") as file:
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm(total=size, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress) as bar:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    sha256.update(chunk)
                    bar.update(len(chunk))
        if not sha256.hexdigest().startswith(prefix):
            raise OSError(f"the SHA-256 of what the server sent begins with {sha256.hexdigest()[:8]}, not {prefix}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _open(url: str) -> Any:
    """Return the response of a server, or raise OSError if there is none within `START_SECONDS`.

    The connection is opened in a thread because resolving a name has no time limit.
    """
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        response = answer.get(timeout=START_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {START_SECONDS} seconds") from None
    if isinstance(response, Exception):
        raise response
    return response
