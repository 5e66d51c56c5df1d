"""A live page under test, and the runs and steps to show on it."""

from __future__ import annotations

import dataclasses
import http.client
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch

from style_transfer.compute.distributed import LOCAL
from style_transfer.engine.control import Control
from style_transfer.files import Task
from style_transfer.geometry.scales import Stage
from style_transfer.observers.history import History
from style_transfer.observers.observer import Progress, Result, RunInfo
from style_transfer.observers.web import WebObserver, WebOptions
from style_transfer.observers.web.server import Server

STAGES = tuple(Stage(scale=w, size=(h, w), style_sizes=(), steps=10) for h, w in ((8, 9), (16, 18)))
RECIPE = {
    "program": "style_transfer", "network": {"name": "vgg19"}, "devices": ["cpu"], "precision": "float32",
    "settings": {"content_weight": 0.015},
}  # fmt: skip


def pixels(size: tuple[int, int] = (8, 9), value: float = 0.25) -> np.ndarray:
    return np.full((*size, 3), value, np.float32)


def run_info(*, stages: tuple[Stage, ...] = STAGES, content: torch.Tensor | None = None, **changes: Any) -> RunInfo:
    """Return a run; its content picture is gray unless given."""
    run = RunInfo(
        task=Task("<img onerror=alert(1)>.png", ("style.png",), Path("night.png")),
        content=torch.full((1, 3, 8, 9), 0.25) if content is None else content,
        start=None, stages=stages, finish=lambda pixels: pixels, recipe=RECIPE, identity="", inputs=(), max_pixels=1 << 30,
        checkpoint=None, resumed=None, seconds=0.0, history=History(), control=Control(), group=LOCAL, report=lambda text: None,
    )  # fmt: skip
    return dataclasses.replace(run, **changes)


def iterate(step: int = 1, index: int = 0, stages: tuple[Stage, ...] = STAGES) -> Any:
    """Return the attributes of an iterate that observers use."""
    stage = stages[index]
    done = sum(s.work for s in stages[:index]) + stage.work // stage.steps * step
    ends = step == stage.steps
    return SimpleNamespace(
        stage=stage, index=index, stages=stages, step=step, steps=stage.steps, size=stage.size, tiles=(1,),
        loss=torch.tensor(3.0 / step), parts={"tv": torch.tensor(1.0 / step), "content relu4_2": torch.tensor(float("nan"))},
        seconds=float(step), memory=1 << 20, done=done, ends_scale=ends, ends_run=ends and index == len(stages) - 1,
    )  # fmt: skip


def progress(now: Any, picture: Callable[[], np.ndarray] | None = None, paused: float = 0.0) -> Progress:
    """Return the progress at an iterate; its picture is gray unless given."""
    return Progress(
        iterate=now, seconds_left=60.0, scale_seconds_left=30.0, seconds_per_step=1.0, paused=paused,
        picture=picture or (lambda: pixels(now.size)),
    )  # fmt: skip


class Page(WebObserver):
    """A live page with shorter ways to show steps on it."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, browser: str | None = None) -> None:
        super().__init__(WebOptions(web=True, host=host, port=port, browser=browser))
        self.reports: list[str] = []
        self.run = run_info()

    def open(self, **changes: Any) -> Self:
        """Begin a run."""
        self.run = run_info(**{"report": self.reports.append} | changes)
        self.begin(self.run)
        return self

    def show(self, step: int, index: int = 0, picture: Callable[[], np.ndarray] | None = None, paused: float = 0.0) -> None:
        """Show a step of the run."""
        self.step(progress(iterate(step, index, tuple(self.run.stages)), picture, paused))

    def finish(
        self,
        path: Path,
        step: int = 10,
        index: int = 1,
        picture: Callable[[], np.ndarray] | None = None,
        status: str = "finished",
    ) -> None:
        """End the run after a step."""
        last = progress(iterate(step, index, tuple(self.run.stages)), picture)
        self.end(Result(path=path, status=status, size=last.iterate.size, progress=last, resumable=False))

    @property
    def port(self) -> int:
        return self.server.guard.port

    @property
    def address(self) -> str:
        return self.server.guard.address

    @property
    def state(self) -> dict[str, Any]:
        """The state of the run as the page's server sends it."""
        return dict(json.loads(ask(self.server, "/state.json")[2]))

    def press(self, name: str) -> tuple[int, str | None]:
        """Press a button; return the status and the answer."""
        status, _, body = ask(self.server, f"/{name}", method="POST", Origin=f"http://127.0.0.1:{self.port}")
        return status, json.loads(body)["answer"]


def ask(
    server: Server, path: str, *, method: str = "GET", cookie: bool = True, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one request; in names of headers _ stands for -."""
    guard = server.guard
    connection = http.client.HTTPConnection("127.0.0.1", guard.port, timeout=15)
    sent = {"Host": f"127.0.0.1:{guard.port}"} | ({"Cookie": f"{guard.cookie}={guard.token}"} if cookie else {})
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in (sent | headers).items():
        if value:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    result = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return result


class Stream:
    """A viewer who reads the events of a page, as a context manager."""

    def __init__(self, server: Server) -> None:
        guard = server.guard
        self._connection = http.client.HTTPConnection("127.0.0.1", guard.port, timeout=15)
        self._connection.request("GET", "/events", headers={"Cookie": f"{guard.cookie}={guard.token}"})
        self.answer = self._connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.answer.close()  # it holds the socket
        self._connection.close()

    def next(self) -> dict[str, Any]:
        """Return the next state."""
        while not (line := self.answer.readline()).startswith(b"data: {"):
            assert line
        return dict(json.loads(line[6:]))

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the next state that is as wanted."""
        while not holds(state := self.next()):
            pass
        return state
