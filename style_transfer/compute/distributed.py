"""Groups of processes that share a picture: each owns a band of its rows, and sums are reduced over all.

They run under torchrun on torch.distributed, with NCCL between GPUs and Gloo between CPUs. `LOCAL` is the group of a single
process, whose operations return their arguments.
"""

from __future__ import annotations

import contextlib
import enum
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ..errors import EXIT_CODES, DistributedError, SettingsError
from ..files import reason
from ..geometry.tiles import share_rows

Rows = tuple[int, int]
"""First row, and the row after the last."""

START_TIMEOUT = timedelta(minutes=5)
"""How long ranks wait for each other at the start."""
STORE_TIMEOUT = timedelta(seconds=10)
"""How long the store may take to answer a heartbeat."""
WORK_TIMEOUT = timedelta(days=1)
"""How long a rank waits for another one that is alive: iterations at print sizes take minutes."""
BEAT_SECONDS = 1.5
SILENCE_SECONDS = 40
"""How many seconds a rank may be silent before it counts as lost; all other ranks detect it within a minute."""
LEFT = b"left"
"""The value in the store of a rank that has ended in order."""


def overlap(a: Rows, b: Rows) -> Rows | None:
    """Return the rows that two ranges share, or None."""
    start, stop = max(a[0], b[0]), min(a[1], b[1])
    return (start, stop) if start < stop else None


def _rows(x: Tensor, rows: Rows, first: int) -> Tensor:
    """Return `rows` of the whole tensor as a view of `x`, whose first row is row `first` of the whole."""
    return x[:, :, rows[0] - first : rows[1] - first]


class Request(enum.IntFlag):
    """What can be requested of a run in progress."""

    STOP = enum.auto()
    """End the run; it is incomplete."""
    SAVE = enum.auto()
    """Write a checkpoint."""
    FINISH_SCALE = enum.auto()
    """End the current scale."""
    FINISH = enum.auto()
    """End the run; the picture so far is the result."""


class Heartbeat:
    """Reports through torchrun's store that this rank is alive, and detects ranks that are not.

    A rank that hangs leaves the others waiting in calls that cannot be interrupted. So a thread calls `lost` with the ranks that
    have been silent for `silence` seconds, or with none if the store itself cannot be reached.
    """

    def __init__(
        self, store: Store, rank: int, size: int, lost: Callable[[list[int]], None], silence: float = SILENCE_SECONDS
    ) -> None:
        self.store = PrefixStore("style_transfer heartbeat", store)
        self.rank, self.size, self.lost, self.silence = rank, size, lost, silence
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        count = 0
        latest: dict[int, tuple[bytes, float]] = {}
        while not self._done.is_set():
            count += 1
            with contextlib.suppress(RuntimeError):
                with self._lock:
                    self.store.set(str(self.rank), str(count))
                for rank, value in self._counts().items():
                    if value != latest.get(rank, (b"", 0))[0]:
                        latest[rank] = value, time.monotonic()
            limit = time.monotonic() - self.silence
            silent = [rank for rank, (value, when) in latest.items() if when < limit and value != LEFT]
            if silent and not self._done.is_set():
                self.lost([] if self.rank in silent else sorted(silent))
                return
            self._done.wait(BEAT_SECONDS)

    def _counts(self) -> dict[int, bytes]:
        with self._lock:
            return {rank: self.store.get(str(rank)) for rank in range(self.size) if self.store.check([str(rank)])}

    def dead(self) -> list[int]:
        """Return the ranks whose heartbeat has stopped; takes a few beats."""
        try:
            before = self._counts()
            time.sleep(3 * BEAT_SECONDS)
            after = self._counts()
        except RuntimeError:  # the machine that held the store was lost
            return []
        return [rank for rank in range(self.size) if rank != self.rank and before.get(rank) == after.get(rank) != LEFT]

    def close(self) -> None:
        """Stop, and mark this rank as ended in order for the others."""
        self._done.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError), self._lock:
            self.store.set(str(self.rank), LEFT.decode())


class Group:
    """The processes that share a picture, as one of them uses the group.

    `bands` are the rows of a tensor (1, C, H, W) that each rank owns, `wanted` the rows that each rank needs; both are sequences
    over ranks. Every method but `request` must be called by all ranks in the same order.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, device: torch.device | None = None, heartbeat: Heartbeat | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cpu")
        self.heartbeat = heartbeat
        self.requested = Request(0)
        """What this rank requests with the next `all_reduce`."""
        self.agreed = Request(0)
        """What any rank requested with the last `all_reduce`, the same on all ranks."""
        self.sent = 0
        """Bytes that this rank has sent to others; for sums over all ranks, the bytes of the ring algorithm."""

    def request(self, request: Request) -> None:
        """Set what this rank requests from now on. It takes effect with the next `all_reduce`, in a single process at once."""
        self.requested = request
        if self.size == 1:
            self.agreed = request

    def bands(self, height: int, stride: int) -> tuple[Rows, ...]:
        """Return the rows of a picture that each rank owns; bands start at multiples of `stride`."""
        return share_rows(height, self.size, stride)

    def exchange_rows(self, own: Tensor, bands: Sequence[Rows], wanted: Sequence[Rows]) -> Tensor:
        """Return the rows `wanted[rank]` of a tensor, of which `own` is this rank's band."""
        if self.size == 1:
            return _rows(own, wanted[0], bands[0][0])
        band, mine = bands[self.rank], wanted[self.rank]
        result = own.new_empty(*own.shape[:2], max(0, mine[1] - mine[0]), own.shape[3])
        parts = {rank: _rows(own, piece, band[0]) for rank, rows in enumerate(wanted) if (piece := overlap(band, rows))}
        places = {rank: _rows(result, piece, mine[0]) for rank, rows in enumerate(bands) if (piece := overlap(rows, mine))}
        for rank, part in self._exchange(parts, places).items():
            places[rank].copy_(part)
        return result

    def gather_rows(self, own: Tensor, bands: Sequence[Rows]) -> Tensor:
        """Return all rows of a tensor, of which `own` is this rank's band, on the CPU; only rank 0 gets rows."""
        wanted = [(0, bands[-1][1]), *[(0, 0)] * (self.size - 1)]
        return self.exchange_rows(own, bands, wanted).cpu()

    def reduce_rows(self, read: Tensor, bands: Sequence[Rows], wanted: Sequence[Rows]) -> Tensor:
        """Return this rank's band of the sum of all ranks' tensors `read` for the rows `wanted`: `exchange_rows` transposed."""
        if self.size == 1:
            return read
        band, mine = bands[self.rank], wanted[self.rank]
        total = read.new_zeros(*read.shape[:2], band[1] - band[0], read.shape[3])
        parts = {rank: _rows(read, piece, mine[0]) for rank, rows in enumerate(bands) if (piece := overlap(rows, mine))}
        places = {rank: _rows(total, piece, band[0]) for rank, rows in enumerate(wanted) if (piece := overlap(band, rows))}
        for rank, part in sorted(self._exchange(parts, places).items()):
            places[rank].add_(part.to(total.device))
        return total

    def _exchange(self, parts: Mapping[int, Tensor], places: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Send each part to the rank that is its key; return what each rank sends to this one, in the shape of its place."""
        arrived, operations = {}, []
        for rank, part in parts.items():
            if rank == self.rank:
                arrived[rank] = part
            else:
                operations.append(dist.P2POp(dist.isend, part.contiguous().to(self.device), rank))
                self.sent += part.nbytes
        for rank, place in places.items():
            if rank != self.rank:
                arrived[rank] = torch.empty_like(place, memory_format=torch.contiguous_format, device=self.device)
                operations.append(dist.P2POp(dist.irecv, arrived[rank], rank))
        with self._named_failures():
            for work in dist.batch_isend_irecv(operations) if operations else ():
                work.wait()
        return arrived

    def all_reduce(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums over all ranks of tensors of any shapes, equal on all ranks, and update `agreed`."""
        if self.size == 1:
            return dict(tensors)
        names = sorted(tensors)
        like = tensors[names[0]]
        requests = like.new_tensor([float(request in self.requested) for request in Request])
        flat = torch.cat([*(tensors[name].reshape(-1) for name in names), requests]).to(self.device)
        with self._named_failures():
            dist.all_reduce(flat)
        self.sent += 2 * (self.size - 1) * flat.nbytes // self.size
        *parts, counts = torch.split(flat, [*(tensors[name].numel() for name in names), len(Request)])
        self.agreed = Request(sum(request for request, count in zip(Request, counts.tolist(), strict=True) if count > 0))
        return {name: part.view_as(tensors[name]).to(like.device) for name, part in zip(names, parts, strict=True)}

    def all_reduce_counts(self, values: Sequence[int]) -> list[int]:
        """Return the sums over all ranks of integers."""
        if self.size == 1:
            return list(values)
        flat = torch.tensor(values, dtype=torch.int64, device=self.device)
        with self._named_failures():
            dist.all_reduce(flat)
        return [int(value) for value in flat.tolist()]

    def broadcast(self, value: Any) -> Any:
        """Return the value that rank 0 passes, which must be picklable; other ranks pass None."""
        if self.size == 1:
            return value
        box = [value]
        with self._named_failures():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Turn a lost connection into a `DistributedError` that names the rank that died."""
        try:
            yield
        except RuntimeError as error:
            dead = self.heartbeat.dead() if self.heartbeat is not None else []
            who = f"rank {', '.join(map(str, dead))} of {self.size} died" if dead else "another rank was lost"
            raise DistributedError(f"{who}; rank {self.rank} exits; files written so far are kept ({reason(error)})") from error


LOCAL = Group()
"""The group of a single process."""


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect standard output to standard error within the block: Gloo of torch 2.10 prints its connections."""
    try:
        kept = os.dup(1)
    except OSError:  # closed by the caller
        yield
        return
    try:
        with contextlib.suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def backend_for(places: Sequence[str]) -> str:
    """Return the backend for processes at places such as "cuda:0 of HOST". Raises `SettingsError` if there is none."""
    kinds = {place.partition(" ")[0].partition(":")[0] for place in places}
    if kinds == {"cpu"}:
        return "gloo"
    if kinds == {"cuda"} and len(set(places)) == len(places):
        return "nccl"
    raise SettingsError(
        f"--devices: several processes need one CUDA device each, or all of them the CPU, not {', '.join(places)}"
    )


@contextmanager
def joined(choose: Callable[[int], torch.device]) -> Iterator[Group]:
    """Join the group of processes that torchrun started, by its environment variables; without them, a group of one.

    `choose` returns the device of a local rank. When a rank is lost, the others exit at once with one line on standard error.
    Raises `SettingsError` on all ranks if no backend connects their devices.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return

    def exit_without(silent: list[int]) -> None:
        who = f"rank {', '.join(map(str, silent))} of {size} died" if silent else "the process that started the run died"
        message = f"style_transfer: {who}, silent for {SILENCE_SECONDS} s; rank {rank} exits; files written so far are kept\n"
        sys.stderr.write(message)
        sys.stderr.flush()
        os._exit(EXIT_CODES[DistributedError])  # the main thread waits in a call that nothing interrupts

    place = choose(int(os.environ.get("LOCAL_RANK", "0")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    store, rank, size = next(rendezvous("env://", timeout=START_TIMEOUT))
    store.set(f"place {rank}", f"{place} of {platform.node()}")
    backend = backend_for([store.get(f"place {other}").decode() for other in range(size)])
    with _stdout_to_stderr():
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WORK_TIMEOUT)
    clone = store.clone()  # its own timeout applies if the machine of the store is lost
    clone.set_timeout(STORE_TIMEOUT)
    heartbeat = Heartbeat(clone, rank, size, exit_without)
    try:
        yield Group(rank, size, place, heartbeat)
    finally:
        heartbeat.close()
        dist.destroy_process_group()
