"""Several processes, one picture: each holds a band of its rows, and they add up what they know.

Runs under torchrun on torch.distributed: NCCL between GPUs, Gloo between CPUs. There is no scheduler here. `LOCAL` is the
group of one process, which does nothing.
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
from ..geometry.tiles import share_rows

Rows = tuple[int, int]
"""First row, and the row after the last."""

BEAT_SECONDS = 1.5
SILENCE_SECONDS = 40
"""How long a rank may be silent before it counts as dead; a death is then known everywhere within a minute."""
MEETING_TIME = timedelta(minutes=5)
"""How long ranks wait for each other at the start."""
QUESTION_TIME = timedelta(seconds=10)
"""How long the store has to answer a pulse."""
WORKING_TIME = timedelta(days=1)
"""How long a rank waits for the work of another that is alive: iterations at print sizes take minutes."""


LEFT = b"left"
"""The pulse of a rank that is done."""


def overlap(a: Rows, b: Rows) -> Rows | None:
    """Return the rows that two ranges share, or None."""
    start, stop = max(a[0], b[0]), min(a[1], b[1])
    return (start, stop) if start < stop else None


def _rows(x: Tensor, rows: Rows, first: int) -> Tensor:
    """Return some rows of the whole as a view of `x`, which holds those from `first` on."""
    return x[:, :, rows[0] - first : rows[1] - first]


class Pulse:
    """Tells the other ranks every so often, through torchrun's store, that this one lives, and finds out who does not.

    A rank that hangs leaves the others waiting in calls that cannot be interrupted. So `lost` is called, in a thread, with the
    ranks that have been silent for `silence` seconds; with none if the store itself is gone.
    """

    def __init__(
        self, store: Store, rank: int, size: int, lost: Callable[[list[int]], None], silence: float = SILENCE_SECONDS
    ) -> None:
        self.store = PrefixStore("style_transfer pulse", store)
        self.rank, self.size, self.lost, self.silence = rank, size, lost, silence
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        count = 0
        heard: dict[int, tuple[bytes, float]] = {}
        while not self._done.is_set():
            count += 1
            with contextlib.suppress(RuntimeError):
                with self._lock:
                    self.store.set(str(self.rank), str(count))
                for rank, value in self._counts().items():
                    if value != heard.get(rank, (b"", 0))[0]:
                        heard[rank] = value, time.monotonic()
            latest = time.monotonic() - self.silence
            silent = [rank for rank, (value, when) in heard.items() if when < latest and value != LEFT]
            if silent and not self._done.is_set():
                self.lost([] if self.rank in silent else sorted(silent))
                return
            self._done.wait(BEAT_SECONDS)

    def _counts(self) -> dict[int, bytes]:
        with self._lock:
            return {rank: self.store.get(str(rank)) for rank in range(self.size) if self.store.check([str(rank)])}

    def dead(self) -> list[int]:
        """Return the ranks whose pulse has stopped; takes a few beats."""
        try:
            before = self._counts()
            time.sleep(3 * BEAT_SECONDS)
            after = self._counts()
        except RuntimeError:  # the store went with the machine that held it
            return []
        return [rank for rank in range(self.size) if rank != self.rank and before.get(rank) == after.get(rank) != LEFT]

    def close(self) -> None:
        """Leave: the others expect no pulse any more."""
        self._done.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError), self._lock:
            self.store.set(str(self.rank), LEFT.decode())


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


class Group:
    """The processes that share a picture, seen from one of them.

    Bands are the rows of a tensor (1, C, H, W) that each rank owns, `wanted` those that each rank needs; both are lists over
    ranks. Every method must be called by all ranks in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None, pulse: Pulse | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cpu")
        self.pulse = pulse
        self.requested = Request(0)
        """What this rank requests with the next `all_reduce`."""
        self.agreed = Request(0)
        """What any rank requested with the last `all_reduce`, the same on all ranks."""
        self.sent = 0
        """Bytes that this rank has sent to others; a sum over all ranks counts as the ring algorithm does it."""

    def request(self, request: Request) -> None:
        """Set what this rank requests from now on. It takes effect with the next `all_reduce`, in a single process at once."""
        self.requested = request
        if self.size == 1:
            self.agreed = request

    def bands(self, height: int, stride: int) -> tuple[Rows, ...]:
        """Return the rows that each rank owns of a picture, begun at multiples of `stride`."""
        return share_rows(height, self.size, stride)

    def exchange(self, own: Tensor, bands: Sequence[Rows], wanted: Sequence[Rows]) -> Tensor:
        """Return the rows `wanted[rank]` of a tensor of which `own` is the band of this rank."""
        if self.size == 1:
            return _rows(own, wanted[0], bands[0][0])
        mine = wanted[self.rank]
        found = own.new_empty(*own.shape[:2], max(0, mine[1] - mine[0]), own.shape[3])
        with self._named_failures(), self._operations() as operations:
            for other in range(self.size):
                piece = overlap(bands[self.rank], wanted[other])
                if piece is not None:
                    part = _rows(own, piece, bands[self.rank][0])
                    if other == self.rank:
                        _rows(found, piece, mine[0]).copy_(part)
                    else:
                        operations.append((dist.isend, part.contiguous().to(self.device), other, None))
                piece = overlap(bands[other], mine)
                if piece is not None and other != self.rank:
                    place = _rows(found, piece, mine[0])
                    arriving = torch.empty_like(place, memory_format=torch.contiguous_format, device=self.device)
                    operations.append((dist.irecv, arriving, other, place))
        return found

    def fold(self, read: Tensor, bands: Sequence[Rows], wanted: Sequence[Rows]) -> Tensor:
        """Return this rank's band of the sum of what all ranks have for their rows `wanted`: the transpose of `exchange`."""
        if self.size == 1:
            return read
        band, mine = bands[self.rank], wanted[self.rank]
        arrived: dict[int, tuple[Rows, Tensor]] = {}
        with self._named_failures(), self._operations() as operations:
            for other in range(self.size):
                piece = overlap(bands[other], mine)
                if piece is not None:
                    part = _rows(read, piece, mine[0]).contiguous()
                    if other == self.rank:
                        arrived[other] = piece, part
                    else:
                        operations.append((dist.isend, part.to(self.device), other, None))
                piece = overlap(band, wanted[other])
                if piece is not None and other != self.rank:
                    shape = (*read.shape[:2], piece[1] - piece[0], read.shape[3])
                    buffer = torch.empty(shape, dtype=read.dtype, device=self.device)
                    arrived[other] = piece, buffer
                    operations.append((dist.irecv, buffer, other, None))
        total = read.new_zeros(*read.shape[:2], band[1] - band[0], read.shape[3])
        for other in sorted(arrived):
            piece, part = arrived[other]
            _rows(total, piece, band[0]).add_(part.to(total.device))
        return total

    def total(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums over all ranks of tensors of any shapes, the same numbers on every rank. Spreads the wishes."""
        if self.size == 1:
            return dict(tensors)
        names = sorted(tensors)
        like = tensors[names[0]]
        requests = like.new_tensor([float(request in self.requested) for request in Request])
        flat = torch.cat([*(tensors[name].reshape(-1) for name in names), requests]).to(self.device)
        with self._named_failures():
            dist.all_reduce(flat)
        self.sent += 2 * (self.size - 1) * flat.nbytes // self.size
        found, at = {}, 0
        for name in names:
            found[name] = flat[at : at + tensors[name].numel()].view_as(tensors[name]).to(like.device)
            at += tensors[name].numel()
        self.agreed = Request(0)
        for request, count in zip(Request, flat[-len(Request) :].tolist(), strict=True):
            self.agreed |= request if count > 0 else Request(0)
        return found

    def counts(self, values: Sequence[int]) -> list[int]:
        """Return the sums over all ranks of whole numbers."""
        if self.size == 1:
            return list(values)
        flat = torch.tensor(values, dtype=torch.int64, device=self.device)
        with self._named_failures():
            dist.all_reduce(flat)
        return [int(value) for value in flat.tolist()]

    def broadcast(self, thing: Any) -> Any:
        """Return what rank 0 gave, anything that can be pickled; other ranks give None."""
        if self.size == 1:
            return thing
        box = [thing]
        with self._named_failures():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def _operations(self) -> Iterator[list[Any]]:
        """Do the sends and receives that are put into the list, all at once."""
        operations: list[Any] = []
        yield operations
        self.sent += sum(tensor.nbytes for kind, tensor, _, _ in operations if kind is dist.isend)
        if operations:
            for work in dist.batch_isend_irecv([dist.P2POp(kind, tensor, other) for kind, tensor, other, _ in operations]):
                work.wait()
            for _, tensor, _, place in operations:
                if place is not None:
                    place.copy_(tensor)

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Turn a lost connection into a `DistributedError` that names who died."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            dead = self.pulse.dead() if self.pulse is not None else []
            who = f"rank {', '.join(map(str, dead))} of {self.size} died" if dead else "another rank was lost"
            raise DistributedError(f"{who}; rank {self.rank} ends, and what was saved stays ({reason})") from error


LOCAL = Group()
"""One process alone."""


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    """Within the block, what libraries print goes to standard error: Gloo of torch 2.10 tells there of its connections."""
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
    """Return what carries tensors between processes, each "DEVICE of MACHINE". Raises `SettingsError` if nothing does."""
    kinds = {place.partition(" ")[0].partition(":")[0] for place in places}
    if kinds == {"cpu"}:
        return "gloo"
    if kinds == {"cuda"} and len(set(places)) == len(places):
        return "nccl"
    raise SettingsError(
        f"--devices: of several processes each needs a CUDA device of its own, or all the CPU; here they have {', '.join(places)}"
    )


@contextmanager
def joined(choose: Callable[[int], torch.device]) -> Iterator[Group]:
    """Join the processes that torchrun started, as its variables say; without them, be alone.

    `choose` returns the device of a local rank. When a rank falls silent, the others end at once with an exit code and one line
    on standard error. Raises `SettingsError` on all ranks if nothing carries tensors between their devices.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return

    def end(silent: list[int]) -> None:
        who = f"rank {', '.join(map(str, silent))} of {size} died" if silent else "the process that started the run was lost"
        message = f"style_transfer: {who}, silent for {SILENCE_SECONDS} s; rank {rank} ends, and what was saved stays\n"
        sys.stderr.write(message)
        sys.stderr.flush()
        os._exit(EXIT_CODES[DistributedError])  # the main thread waits in a call that nothing interrupts

    place = choose(int(os.environ.get("LOCAL_RANK", "0")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    store, rank, size = next(rendezvous("env://", timeout=MEETING_TIME))
    store.set(f"place {rank}", f"{place} of {platform.node()}")
    backend = backend_for([store.get(f"place {other}").decode() for other in range(size)])
    with _standard_output_kept():
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WORKING_TIME)
    quick = store.clone()  # a store whose machine was lost must not keep the pulse waiting
    quick.set_timeout(QUESTION_TIME)
    pulse = Pulse(quick, rank, size, end)
    try:
        yield Group(rank, size, place, pulse)
    finally:
        pulse.close()
        dist.destroy_process_group()
