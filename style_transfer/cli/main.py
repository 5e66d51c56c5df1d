"""The entry point: quick answers, the run of a command, one line for each error, and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..errors import DeviceError, DistributedError, MemoryLimitError, StyleTransferError, exit_code
from ..files import shown
from ..observers.stdout import print_out
from .information import answer

if TYPE_CHECKING:
    from .run import CommandRun

SPIN: Final = "GOMP_SPINCOUNT", "10000"
"""How long idle OpenMP threads spin before they sleep, about half a millisecond. The variable is read when torch is loaded.

The default of ten milliseconds keeps cores from `compute.threads` and from other programs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SPIN)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    argv = sys.argv[1:] if argv is None else list(argv)
    run: CommandRun | None = None
    try:
        if argv[:1] == ["translate"]:
            from .translate import requested  # quick answers do not wait for the tables of other programs

            found = requested(argv[1:])
            if isinstance(found, str):
                print_out(found)
                return 0
            argv = found
        code = answer(argv)
        if code is not None:
            return code
        from .translate import check_own

        check_own(argv)
        from .from_result import options_in  # these load torch, for which quick answers do not wait
        from .parser import parse
        from .run import CommandRun

        command = parse(argv, read=options_in)
        if command.options.dump_config:
            print(command.dump().rstrip("\n"))
            return 0
        run = CommandRun(command)
        return run()
    except (StyleTransferError, KeyboardInterrupt, MemoryError, RuntimeError) as error:
        return _fail(error, run)


def _fail(error: BaseException, run: CommandRun | None) -> int:
    """Print one line about an error and return the exit code. Raises `error` if it is a bug."""
    problem = error
    if not isinstance(error, StyleTransferError | KeyboardInterrupt):
        found = _translated(error)
        if found is None:
            raise error
        problem = found
    interrupted = isinstance(problem, KeyboardInterrupt)
    text = "stopped" if interrupted else str(problem)
    saved = None if run is None or run.painter is None else run.painter.saved
    if saved is not None:
        path, (height, width) = saved
        text += f"; {path} has the picture at {width}x{height}"
    elif interrupted and not (run is not None and run.several):
        text += "; nothing was written"
    if os.environ.get("RANK", "0") == "0" or isinstance(problem, DeviceError | DistributedError):
        with contextlib.suppress(OSError, ValueError):
            print(f"style_transfer: {shown(text)}", file=sys.stderr, flush=True)
    if interrupted and run is not None:
        return run.interrupt.exit_code
    return exit_code(problem)


def _translated(error: BaseException) -> StyleTransferError | None:
    """Return the error of ours for a lack of memory or a failure of an accelerator, None for other errors."""
    out_of_memory = MemoryLimitError("out of memory; use smaller pictures or a smaller --end-scale, or free some memory")
    if isinstance(error, MemoryError):
        return out_of_memory
    import torch  # loaded by then, unless torch itself failed to load

    from ..compute import devices, memory

    if memory.ran_out(error):
        return out_of_memory
    return devices.lost(error) if isinstance(error, torch.AcceleratorError) else None
