"""The program in several processes: under torchrun, and as forks of one process, of which none has to import torch again.

python -m support.ranks SIZE PROGRAM [ARGUMENTS]     run a program in SIZE forks with torchrun's variables and store
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import torch.distributed as dist

import style_transfer.api  # noqa: F401 - forks then need not import it
from support.tiny import ENVIRONMENT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
FORKS = [sys.executable, "-m", "support.ranks"]

PROGRAM = """
import functools, os, signal, sys
from support import tiny
from style_transfer import cli, engine
from style_transfer.compute import distributed
tiny.use_tiny_vgg19()
original = engine.run
def watched(*args, **more):
    for iterate in original(*args, **more):
        yield iterate
        if os.environ.get("DIES") == f"{os.environ.get('RANK')} {iterate.index} {iterate.step}":
            os.kill(os.getpid(), int(os.environ.get("SIGNAL", signal.SIGKILL)))
engine.run = watched
if "SILENCE" in os.environ:
    distributed.SILENCE_SECONDS = int(os.environ["SILENCE"])
    distributed.Heartbeat = functools.partial(distributed.Heartbeat, silence=distributed.SILENCE_SECONDS)
sys.exit(cli.main(sys.argv[1:]))
"""
"""The command line as a program. DIES="RANK INDEX STEP" sends SIGNAL, or SIGKILL, to a rank after a step of a scale."""


def launch(
    size: int, *program: str, folder: Path, start: list[str] = FORKS, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in several processes and wait for them."""
    argv = [*start, str(size), *program]
    return subprocess.run(argv, cwd=folder, env=ENVIRONMENT | variables, capture_output=True, text=True, timeout=300)


def work_in_fork(rank: int, size: int, port: int) -> None:
    """Run the program of the command line as one of the ranks and exit."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    sys.argv = sys.argv[2:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


def main() -> None:
    """Fork the ranks and wait for them; when rank 0 fails, the others are killed, since one may be stopped."""
    size = int(sys.argv[1])
    reader, writer = os.pipe()
    ranks: dict[int, int] = {}
    for rank in range(size):
        process = os.fork()
        if process == 0:
            work_in_fork(rank, size, int(os.read(reader, 5)))
        ranks[process] = rank
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # after the forks: it starts a thread
    os.write(writer, f"{store.port:5}".encode() * size)
    failed = 0
    while ranks:
        process, status = os.wait()
        rank, code = ranks.pop(process), os.waitstatus_to_exitcode(status)
        failed = failed or code
        if rank == 0 and code:
            for other in ranks:
                os.kill(other, signal.SIGKILL)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
