"""The live page beside a run: steps, pictures, buttons and events, over real connections on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.live_page import Page, Stream, ask, iterate, pixels, progress, run_info

from style_transfer import pictures as images
from style_transfer.engine.control import Request
from style_transfer.errors import OutputError
from style_transfer.geometry.scales import Stage
from style_transfer.observers.observer import Result
from style_transfer.observers.web import WebObserver, WebOptions, pictures, routes
from style_transfer.registry import OBSERVERS


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Background:
    """A call in a thread, with its result."""

    def __init__(self, call: Callable[..., Any], *arguments: object) -> None:
        self.result: Any = None
        self._thread = threading.Thread(target=lambda: setattr(self, "result", call(*arguments)))
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> Any:
        """Wait for the call and return its result."""
        self._thread.join(20)
        assert not self.running
        return self.result


# ---------------------------------------------------------------------------------------------------- the observer


@pytest.mark.parametrize(("web", "rank", "created"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_rank_0_shows_the_page_when_it_is_asked_for(web: bool, rank: int, created: bool) -> None:
    command = SimpleNamespace(quiet=False, json=False, rank=rank, options=lambda kind: kind(web=web, port=0))
    assert OBSERVERS["web"] is WebObserver and WebObserver.Options is WebOptions
    observer = WebObserver.create(command)
    assert (observer is not None) is created
    if observer is not None:
        observer.close()


def test_importing_it_does_not_import_aiohttp() -> None:
    code = (
        "import sys, style_transfer.observers.web; print([m for m in ('aiohttp', 'torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_browser_is_opened_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str | None, str]] = []

    class Browser:
        def __init__(self, name: str | None) -> None:
            self.open: Callable[[str], None] = lambda url: opened.append((name, url))

    monkeypatch.setattr("webbrowser.get", Browser)
    for browser in (None, "", "firefox"):
        Page(browser=browser).open().close()
    assert [name for name, _ in opened] == [None, "firefox"]


def test_another_picture_replaces_the_run_at_the_same_address(page: Page, tmp_path: Path) -> None:
    page.show(1)
    page.show(2)
    page.finish(tmp_path / "a.png")
    before, address = page.state, page.address
    page.open(content=torch.zeros(1, 3, 20, 30))
    after = page.state
    assert (page.address, len(page.reports)) == (address, 1)
    assert after["run"] != before["run"] and (after["phase"], after["frame"], after["result"]) == ("preparing", 0, None)
    assert ask(page.server, "/tile/1/0/0/0")[0] == 404
    assert after["about"]["content_size"] == {"width": 18, "height": 16}  # no larger than the result
    assert after["about"]["settings"] == {"--content-weight": 0.015}


def test_a_complete_run_has_no_picture_but_a_result(page: Page, tmp_path: Path) -> None:
    page.end(Result(path=tmp_path / "x.png", status="finished", size=(16, 18), progress=None, resumable=False))
    assert (page.state["phase"], page.state["result"]) == ("finished", "night.png")


def test_an_error_is_shown(page: Page) -> None:
    page.show(1)
    page.fail(OutputError("no memory"), None)
    assert (page.state["phase"], page.state["error"]) == ("failed", "no memory")
    assert page.press("pause") == (409, "The run has ended already.")
    assert page.press("close") == (200, "The program ends.")


# ------------------------------------------------------------------------------------------------------ pictures


def test_pictures_are_taken_while_somebody_watches(page: Page) -> None:
    assert ask(page.server, "/image")[0] == 503
    page.show(1)
    page.show(2, picture=lambda: pytest.fail("nobody watches"))
    status, headers, body = ask(page.server, "/tile/0/0/0/0")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")


def test_a_request_makes_the_run_hand_over_a_picture(page: Page) -> None:
    page.show(1)
    request = Background(lambda: ask(page.server, "/image")[0])
    taken: list[int] = []
    while request.running:
        page.show(2, picture=lambda: taken.append(1) or pixels())  # type: ignore[func-returns-value]
        time.sleep(0.01)
    assert (request.end(), taken) == (200, [1])


def test_the_png_has_16_bits(page: Page, tmp_path: Path) -> None:
    page.show(1)
    page.finish(tmp_path / "x.png", picture=lambda: pixels((16, 18), 0.30001))
    status, headers, body = ask(page.server, "/image.png")
    assert status == 200 and "night.png" in headers["content-disposition"]
    (tmp_path / "a.png").write_bytes(body)
    assert abs(images.load(tmp_path / "a.png").pixels - 0.30001).max() < 1 / 65535


def test_the_result_can_be_downloaded(page: Page, tmp_path: Path) -> None:
    assert ask(page.server, "/result")[0] == 404
    page.show(1)
    result = tmp_path / "r.tif"
    result.write_bytes(b"x" * 600_000)
    page.finish(result)
    status, headers, body = ask(page.server, "/result")
    assert (status, body, headers["content-type"]) == (200, b"x" * 600_000, "image/tiff")
    assert "night.tif" in headers["content-disposition"]


def test_a_picture_for_which_memory_runs_out_is_left_out(page: Page) -> None:
    def full() -> np.ndarray:
        raise MemoryError

    page.show(1, picture=full)
    assert ask(page.server, "/tile/0/0/0/0")[0] == 404
    assert not page.server.pictures.due


def test_pictures_are_the_rarer_the_more_they_cost(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pictures, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0]))

    def slow() -> np.ndarray:
        now[0] += 0.05
        return pixels()

    page.server.pictures.take(0, slow, lambda pixels: pixels)
    now[0] = 105.0
    assert not page.server.pictures.due  # 0.05 s are 1 % of 5 s
    now[0] = 105.06
    assert page.server.pictures.due


def test_complete_scales_are_kept_with_8_bits(page: Page) -> None:
    for step, index in ((1, 0), (10, 0), (1, 1)):
        page.show(step, index)
    until(lambda: page.server.state.now.layers[0].picture.pixels.dtype == np.uint8)
    assert page.server.state.now.layers[1].picture.pixels.dtype == np.float32
    assert [stage["frame"] for stage in page.state["stages"]] == [2, 3]


# --------------------------------------------------------------------------------------------- state and events


def test_elapsed_time_excludes_pauses(page: Page) -> None:
    page.show(7, paused=3.0)
    assert page.state["seconds"] == 4.0


def test_a_step_without_viewers_only_replaces_the_state(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.show(1)
    monkeypatch.setattr(page.run.history, "read", lambda: pytest.fail("nobody watches"))
    for _ in range(200):
        page.show(2, picture=lambda: pytest.fail("nobody watches"))
    assert (page.state["step"], page.state["total"]) == (2, 201)


def test_events_bring_the_state_and_the_curves(page: Page) -> None:
    with Stream(page.server) as stream:
        assert stream.answer.getheader("Content-Type") == "text/event-stream"
        first = stream.next()
        assert first["phase"] == "preparing" and first["about"]["output"] == "night.png"
        page.show(1)
        page._read = 0.0
        page.show(2)
        second = stream.until(lambda state: state.get("step") == 2)
        assert (second["phase"], second["steps"], second["width"]) == ("running", 10, 9)
        assert [stage["frame"] for stage in second["stages"]] == [1, 0]
        rows = second["curves"]["rows"]
        page._read = 0.0
        page.show(3)
        while len(rows) < 3:
            curves = stream.next()["curves"]
            assert curves["names"] == ["tv", "content relu4_2"] and curves["generation"] == 0
            rows = rows[: curves["from"]] + curves["rows"]
    assert rows == [[1, 3.0, 1.0, None], [2, 1.5, 0.5, None], [3, 1.0, pytest.approx(1 / 3), None]]
    assert json.loads(ask(page.server, "/curves.json")[2])["rows"] == rows


def test_curves_without_viewers_have_the_newest_step(page: Page) -> None:
    page.show(1)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, page.server, "/curves.json")
        until(lambda: page.server.routes.curves_wanted)
        page.show(2)
        assert [row[0] for row in json.loads(answer.result()[2])["rows"]] == [1, 2]


def test_events_are_skipped_for_a_client_that_does_not_read(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.open(recipe={**run_info().recipe, "settings": {"much": "x" * 10_000_000}})
    encoded: list[int] = []
    dumps = routes.dumps
    monkeypatch.setattr(routes, "dumps", lambda value: encoded.append(1) or dumps(value))  # type: ignore[func-returns-value]
    with Stream(page.server), Stream(page.server):
        until(lambda: len(encoded) == 2)
        for step in range(1, 10):
            page.show(step)
            time.sleep(0.1)
        assert len(encoded) == 2
        assert ask(page.server, "/tile/0/0/0/0")[0] == 200


def test_the_state_is_whole_while_the_run_replaces_it(page: Page) -> None:
    torn: list[dict[str, Any]] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            now = page.server.state.now
            state = now.changing()
            if state["phase"] == "running" and (now.newest is None or not state["stages"][state["index"]]["frame"]):
                torn.append(state)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    viewer = Background(look)
    try:
        for _ in range(300):
            page.begin(page.run)
            page.show(1, 0)
            page.show(1, 1)
    finally:
        sys.setswitchinterval(interval)
        over.set()
        viewer.end()
    assert not torn


def test_a_snapshot_does_not_change(page: Page) -> None:
    page.show(1)
    before = page.server.state.now
    layers, done = dict(before.layers), dict(before.done)
    page.show(2, 1)
    page.open()
    assert (before.layers, before.done, before.newest) == (layers, done, layers[0].picture)


# ------------------------------------------------------------------------------------------------------- buttons


def test_a_run_pauses_with_its_newest_picture_and_resumes(page: Page) -> None:
    page.show(3)
    button = Background(page.press, "pause")
    until(lambda: "pause" in page.server.state.now.asked)
    assert not page.run.control.paused  # the step in progress is completed first
    page.show(4, picture=lambda: pixels(value=0.75))
    assert button.end() == (200, "Paused after iteration 4 of 10 at 9x8.")
    assert page.run.control.paused and page.state["phase"] == "paused"
    newest = page.server.state.now.newest
    assert newest is not None and newest.pixels[0, 0, 0] == 0.75
    waiting = Background(page.run.control.wait_while_paused, lambda: False)
    assert page.press("pause") == (409, "The run is paused already.")
    assert waiting.running
    assert page.press("resume") == (200, "The run continues.")
    waiting.end()
    assert page.press("resume") == (409, "The run is not paused.")
    assert page.state["phase"] == "running"


def test_a_pause_can_be_withdrawn_before_it_begins(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ANSWER_TIME", 0.1)
    page.show(3)
    assert page.press("pause") == (200, None)
    assert page.press("resume") == (200, "The run continues.")
    page.show(4)
    assert not page.run.control.paused


def test_the_last_step_does_not_pause(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(routes, "ANSWER_TIME", 0.1)
    page.show(9, 1)
    page.press("pause")
    page.show(10, 1)
    assert not page.run.control.paused
    page.finish(tmp_path / "x.png")
    assert page.state["phase"] == "finished"


def test_a_pause_by_somebody_else_is_shown(page: Page) -> None:
    page.show(3)
    with Stream(page.server) as stream:
        assert stream.next()["phase"] == "running"
        page.run.control.pause()
        assert stream.next()["phase"] == "paused"


@pytest.mark.parametrize(
    ("last", "answer"),
    [(4, "Finished this scale after iteration 4 of 10 at 9x8. The next one has begun."),
     (10, "The scale had just ended, after iteration 10 of 10 at 9x8.")],
)  # fmt: skip
def test_a_scale_is_finished_on_request(last: int, answer: str, page: Page) -> None:
    page.show(3, picture=lambda: pytest.fail("nobody watches"))
    button = Background(page.press, "finish-scale")
    until(lambda: page.run.control.requested == Request.FINISH_SCALE)
    page.show(last, picture=pixels)
    assert page.state["frame"] == 1  # the end of the scale
    page.show(1, 1)
    assert button.end() == (200, answer)
    assert [stage["done"] for stage in page.state["stages"]] == [last, 1]


def test_a_paused_run_that_finishes_a_scale_pauses_at_the_next(page: Page) -> None:
    page.show(3)
    page.run.control.pause()
    button = Background(page.press, "finish-scale")
    page.run.control.wait_while_paused(lambda: False)
    page.show(1, 1)
    assert button.end()[1].startswith("Finished this scale after iteration 3")
    assert page.run.control.paused and page.state["phase"] == "paused"


@pytest.mark.parametrize(("name", "request_"), [("finish", Request.FINISH), ("finish-scale", Request.FINISH_SCALE)])
def test_a_finished_run_answers_when_it_is_saved(
    name: str, request_: Request, page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(routes, "ANSWER_TIME", 0.1)
    page.show(3, 1)
    assert page.press("close") == (409, "The run has not ended yet.")
    assert page.press(name) == (200, None)
    assert page.run.control.requested == request_
    page.finish(tmp_path / "x.png", step=3, status="finished early")
    assert page.state["phase"] == "finished"
    assert "after iteration 3 of 10 at 18x16; the picture is saved" in page.state["answer"]["text"]
    assert page.press("finish-scale") == (409, "The run has ended already.")
    assert page.press("close") == (200, "The program ends.")
    page.stay(lambda: False)


# ------------------------------------------------------------------------------------------------------- the end


def test_the_page_stays_while_somebody_watches(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(routes, "AWAY", 0.5)
    page.show(1)
    page.stay(lambda: False)  # nobody has come
    with Stream(page.server) as stream:
        stream.next()
        page.finish(tmp_path / "x.png")
        staying = Background(page.stay, lambda: False)
        time.sleep(1)
        assert staying.running and "Ctrl-C" in page.reports[-1]
    staying.end()


def test_an_interrupt_ends_the_stay(page: Page) -> None:
    with Stream(page.server) as stream:
        stream.next()
        page.stay(lambda: True)


def test_a_viewer_gets_the_end_and_the_last_picture(tmp_path: Path) -> None:
    observer = Page().open()
    observer.show(1)
    with Stream(observer.server) as stream:
        stream.next()
        observer.finish(tmp_path / "x.png", status="stopped")
        closing = Background(observer.close)
        assert stream.until(lambda state: state["phase"] == "stopped")["stages"][1]["frame"] == 2
        assert ask(observer.server, "/tile/1/0/0/0")[0] == 200
        assert b"event: bye" in stream.answer.read()
        closing.end()


def test_the_page_of_a_large_picture_shows_its_size(page: Page) -> None:
    stages = (Stage(scale=12500, size=(8000, 12500), style_sizes=(), steps=10),)
    page.open(stages=stages)
    page.step(progress(iterate(1, 0, stages), lambda: np.broadcast_to(np.float32(0.5), (8000, 12500, 3))))
    assert page.state["stages"][0]["shown"] == [12500, 8000]
