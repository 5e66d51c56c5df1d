"""Tab completion in the shells themselves; a shell that is not installed is skipped."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.command_line import fails

from style_transfer import cli
from style_transfer.cli.completion import SHELLS, completion_script

pytest.importorskip("shtab")

CASES = [
    ("style_transfer c.png --style-loss was", {"wasserstein"}),
    ("style_transfer --pooling a", {"average"}),
    ("style_transfer --end-sc", {"--end-scale"}),
    ("style_transfer --no-gri", {"--no-grid"}),
    ("style_transfer --network ", {"auto", "vgg19", "compact"}),
    ("style_transfer --preset neuralart-", {"neuralart-inception"}),
    ("style_transfer --help opt", {"optimizer"}),
    ("style_transfer a_pict", {"a_picture.png"}),
    ("style_transfer c.png --init-", {"--init-blend"}),
]
"""Beginnings of commands, and words that complete them."""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the script of each shell, a picture, and a program style_transfer."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (folder / shell).write_text(completion_script(shell))
    (folder / "a_picture.png").touch()
    (folder / "style_transfer").write_text("#!/bin/sh\n")
    (folder / "style_transfer").chmod(0o755)
    return folder


def installed(shell: str) -> str:
    """Return the path of a shell; skip the test where there is none."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


@pytest.mark.parametrize(("line", "words"), CASES)
def test_bash_completes(line: str, words: set[str], scripts: Path) -> None:
    code = (
        'source ./bash; read -ra COMP_WORDS <<<"$1"; [[ $1 == *" " ]] && COMP_WORDS+=("")\n'
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE=$1; COMP_POINT=${#1}\n"
        '$(complete -p style_transfer | sed "s/.*-F \\([^ ]*\\).*/\\1/") style_transfer "${COMP_WORDS[COMP_CWORD]}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([installed("bash"), "-c", code, "bash", line], cwd=scripts, capture_output=True, text=True)
    assert done.stderr == ""
    found = {word.strip() for word in done.stdout.splitlines()}
    assert (words <= found and not any(word.startswith("-") for word in found)) or line.split()[-1].startswith("-")


@pytest.mark.parametrize(("line", "words"), CASES)
def test_fish_completes(line: str, words: set[str], scripts: Path) -> None:
    code = "source ./fish; complete -C $argv[1]"
    environment = os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}", "HOME": str(scripts)}
    done = subprocess.run(
        [installed("fish"), "--no-config", "-c", code, line], cwd=scripts, capture_output=True, text=True, env=environment
    )
    assert words <= {found.split("\t")[0] for found in done.stdout.splitlines()}, (done.stdout, done.stderr)


@contextmanager
def terminal(argv: list[str], folder: Path) -> Iterator[int]:
    """Run a program in a terminal and give the terminal's file descriptor."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ["TERM"] = "dumb"
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        os.execv(argv[0], argv)
    try:
        yield terminal
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def wait_for(terminal: int, text: str) -> str:
    """Return what a terminal shows once it shows `text`, or all that it shows in a minute."""
    shown, deadline = "", time.monotonic() + 60
    while text not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def test_zsh_completes(scripts: Path) -> None:
    with terminal([installed("zsh"), "-f", "-i"], scripts) as zsh:
        os.write(
            zsh, b"PS1=; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; eval \"$(<zsh)\"; echo re''ady\n"
        )
        assert "ready" in wait_for(zsh, "ready\r\n")
        for line, words in CASES:
            if len(words) > 1:
                continue
            os.write(zsh, f"{line}\t".encode())
            (word,) = words
            assert word in wait_for(zsh, word), line
            os.write(zsh, b"\x15")  # clear the line
        os.write(zsh, b"\x15exit\n")


def test_an_unknown_shell_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    fails(["--print-completion", "bsh"], 2, capsys, "did you mean 'bash'")
    fails(["--print-completion"], 2, capsys, "needs a shell")


def test_the_script_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--print-completion", "bash"]) == 0
    assert capsys.readouterr().out == completion_script("bash") + "\n"
