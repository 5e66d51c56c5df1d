"""The live page of a run of the command line: what it serves, its buttons, and what it shows of a failure."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import command

from style_transfer import cli
from style_transfer.cli.picture_run import PictureRun
from style_transfer.errors import OutputError
from style_transfer.observers.observer import RunInfo
from style_transfer.observers.web import WebObserver

MANY = "100000"
"""More steps than a test waits for."""


class Visit(threading.Thread):
    """A visit to the live page of the next run, in a thread; an error in it ends the run and is raised by `join`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, visit: Callable[[Visit], object]) -> None:
        super().__init__(name="visit")
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self._visit, self._error = visit, None
        self._addresses: queue.Queue[str] = queue.Queue()
        begin = WebObserver.begin

        def begun(page: WebObserver, run: RunInfo) -> None:
            begin(page, run)
            self._addresses.put(page.server.guard.address)

        monkeypatch.setattr(WebObserver, "begin", begun)
        self.start()

    def run(self) -> None:
        try:
            address = self._addresses.get(timeout=60)
            self.opener.open(address, timeout=10).close()
            self.base = address.split("?")[0]
            self._visit(self)
        except BaseException as error:
            self._error = error
            os.kill(os.getpid(), signal.SIGINT)

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self._error is not None:
            raise self._error

    def state(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a state of the page for which `holds` is true and return it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with self.opener.open(self.base + "state.json", timeout=10) as answer:
                state: dict[str, Any] = json.load(answer)
            if holds(state):
                return state
            time.sleep(0.02)
        raise TimeoutError(state)

    def press(self, name: str) -> str:
        """Press a button of the page and return the first word of the answer."""
        with self.opener.open(urllib.request.Request(self.base + name, method="POST"), timeout=10) as answer:
            return str(json.load(answer)["answer"]).split()[0]


def test_the_page_serves_the_picture_of_a_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures: list[bytes] = []

    def visit(page: Visit) -> None:
        page.state(lambda state: state.get("step", 0) >= 1)
        with page.opener.open(page.base + "image", timeout=10) as answer:
            pictures.append(answer.read())
        os.kill(os.getpid(), signal.SIGINT)

    thread = Visit(monkeypatch, visit)
    assert cli.main(command("--web", "--port", "0", "-ii", MANY)) == 130
    thread.join()
    assert pictures[0][:2] == b"\xff\xd8"
    assert "watch it at http://127.0.0.1:" in capsys.readouterr().err


def test_buttons_pause_a_run_and_end_its_scale_and_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[str] = []
    steps: list[int] = []

    def visit(page: Visit) -> None:
        page.state(lambda state: state.get("step", 0) >= 2)
        answers.append(page.press("pause"))
        for _ in range(2):
            steps.append(page.state(lambda state: state["phase"] == "paused")["step"])
            time.sleep(0.1)
        answers.append(page.press("finish-scale"))
        page.state(lambda state: state["index"] == 1 and state["phase"] == "paused")
        answers.append(page.press("resume"))
        page.state(lambda state: state["step"] >= 3)
        answers.append(page.press("finish"))

    thread = Visit(monkeypatch, visit)
    argv = command("--web", "--port", "0", "-o", "o.png", "-ii", MANY, "-i", MANY)
    assert cli.main(argv) == 0
    thread.join()
    assert answers == ["Paused", "Finished", "The", "Finished"]
    assert steps[0] == steps[1] >= 2
    recipe = json.loads((place / "o.png.json").read_text())
    assert recipe["finished"] is False and recipe["skipped"] == [{"scale": 1, "after": steps[0]}]
    assert (recipe["width"], recipe["height"]) == (46, 37) and recipe["step"] >= 3
    out, err = capsys.readouterr()
    assert out == "o.png\n" and "finished at 46x37" in err

    def end(page: Visit) -> None:
        page.state(lambda state: state.get("step", 0) > recipe["step"])
        page.press("finish")

    thread = Visit(monkeypatch, end)
    assert cli.main([*argv, "--resume"]) == 0
    thread.join()
    assert json.loads((place / "o.png.json").read_text())["skipped"] == recipe["skipped"]


def test_ending_the_last_scale_ends_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []

    def visit(page: Visit) -> None:
        page.state(lambda state: state.get("index", 0) == 1)
        answers.append(page.press("finish-scale"))

    thread = Visit(monkeypatch, visit)
    assert cli.main(command("--web", "--port", "0", "-o", "o.png", "-i", MANY)) == 0
    thread.join()
    assert answers == ["Finished"]
    assert json.loads((place / "o.png.json").read_text())["skipped"][0]["scale"] == 2


def test_a_page_for_other_machines_comes_with_a_warning(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--web", "--port", "0", "--host", "0.0.0.0")) == 0
    assert "can be reached from other machines" in capsys.readouterr().err


def test_the_page_shows_why_a_run_failed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    monkeypatch.setattr(WebObserver, "fail", lambda self, error, picture: reasons.append(str(error)))

    def full(*arguments: object, **keywords: object) -> None:
        raise OutputError("out.png: the disk is full")

    monkeypatch.setattr(PictureRun, "_write", full)
    assert cli.main(command("--web", "--port", "0")) == 6
    (reason,) = reasons
    assert reason.startswith("out.png: the disk is full; correct that and continue")
