"""Starting the program in several processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}


PROGRAM = """
import os, signal, sys
from support import tiny
from style_transfer import cli, networks
from style_transfer.engine import loop as engine
networks.SPECS["vgg19"] = tiny.TINY
original = engine.stylize
def watched(*args, **more):
    for iterate in original(*args, **more):
        yield iterate
        if os.environ.get("DIES") == f"{os.environ.get('RANK')} {iterate.index} {iterate.step}":
            os.kill(os.getpid(), int(os.environ.get("SIGNAL", signal.SIGKILL)))
engine.stylize = watched
sys.exit(cli.main(sys.argv[1:]))
"""
