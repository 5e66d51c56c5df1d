"""The live page's server over real connections on loopback."""

from __future__ import annotations

import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from support.live_page import STAGES, Page, iterate, pixels

from style_transfer.errors import SettingsError
from style_transfer.geometry.scales import Stage
from style_transfer.observers import web
from style_transfer.observers.console import TimeLeft
from style_transfer.observers.history import History
from style_transfer.observers.pyramid import TILE, Pyramid
from style_transfer.observers.web import WebObserver
from style_transfer.pictures import images


@pytest.fixture
def page() -> Iterator[Page]:
    observer = Page(port=0, about={"output": "night.png", "content": "<img onerror=alert(1)>.png"}, content=pixels())
    observer.start()
    yield observer
    observer.close()
    assert not observer._thread.is_alive()


def ask(
    page: WebObserver, path: str, *, method: str = "GET", cookie: bool = True, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one request; in names of headers _ stands for -."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=15)
    sent = {"Host": f"127.0.0.1:{page.port}"} | ({"Cookie": f"{page.cookie}={page.token}"} if cookie else {})
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in (sent | headers).items():
        if value:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    result = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return result


def stream(page: WebObserver) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=15)
    connection.request("GET", "/events", headers={"Cookie": f"{page.cookie}={page.token}"})
    return connection, connection.getresponse()


def hang_up(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
    """Close a stream; the answer holds the socket."""
    answer.close()
    connection.close()


def message(answer: http.client.HTTPResponse) -> dict[str, Any]:
    """Return the next state that a stream sends."""
    while not (line := answer.readline()).startswith(b"data: {"):
        assert line
    return json.loads(line[6:])


# ------------------------------------------------------------------------------------------------------ safety


def test_the_token_becomes_a_cookie(page: Page) -> None:
    status, headers, _ = ask(page, f"/?token={page.token}", cookie=False)
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=Strict" in headers["set-cookie"]
    assert ask(page, "/", cookie=False)[0] == 401
    assert ask(page, "/?token=wrong", cookie=False)[0] == 401
    assert ask(page, "/?token=w%C3%B6rng", cookie=False)[0] == 401
    assert ask(page, f"/state.json?token={page.token}", cookie=False)[0] == 200
    assert ask(page, "/state.json", cookie=False, Authorization=f"Bearer {page.token}")[0] == 200
    assert ask(page, "/", cookie=False, Cookie=f"style_transfer_{page.port}=wrong")[0] == 401


def test_a_link_on_another_page_leads_here_too(page: Page) -> None:
    about = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    status, headers, body = ask(page, f"/?token={page.token}", cookie=False, **about)
    assert status == 200 and b"refresh" in body and page.token in headers["set-cookie"]
    assert page.token.encode() not in body
    assert ask(page, "/state.json", **about)[0] == 403
    assert ask(page, "/state.json", Sec_Fetch_Site="same-site")[0] == 403
    assert ask(page, "/state.json", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize(("host", "status"), [("evil.com", 403), ("localhost.evil.com", 403), ("", 400), ("127.0.0.1:1", 403),
                                              ("localhost", 200), ("[::1]", 200), ("127.0.0.1", 200)])  # fmt: skip
def test_only_names_of_this_machine_are_answered(host: str, status: int, page: Page) -> None:
    assert ask(page, "/state.json", Host=host)[0] == status


@pytest.mark.parametrize(("method", "path"), [("GET", "/state.json"), ("GET", "/events"), ("POST", "/finish")])
def test_other_origins_are_refused(method: str, path: str, page: Page) -> None:
    status, headers, _ = ask(page, path, method=method, Origin="https://evil.com")
    assert status == 403 and not page.finishing
    assert not any(name.startswith("access-control") for name in headers)
    assert ask(page, "/state.json", Origin=f"http://127.0.0.1:{page.port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../../etc/passwd", "/%2e%2e%2fetc/passwd", "//etc", "/..\\etc", "/app.js%00", "/%00", "/page/app.js"],
)
def test_there_are_no_other_paths(path: str, page: Page) -> None:
    assert ask(page, path)[0] in (400, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "TRACE", "DELETE"])
def test_nothing_else_can_be_sent(method: str, page: Page) -> None:
    assert ask(page, "/", method=method)[0] == 405
    assert ask(page, "/pause")[0] == 405


def test_a_long_body_is_not_read(page: Page) -> None:
    assert ask(page, "/pause", method="POST", Content_Length=str(1 << 30))[0] == 413
    assert not page.paused


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/icon.svg", "/state.json", "/nothing", "/tile/content/0/0/0"])
def test_every_answer_has_the_headers_of_safety(path: str, page: Page) -> None:
    _, headers, _ = ask(page, path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert (headers["referrer-policy"], headers["cache-control"]) == ("no-referrer", "no-store")


def test_the_page_names_no_other_address(page: Page) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/icon.svg", "image/svg"),
    ):
        status, headers, body = ask(page, path)
        assert status == 200 and headers["content-type"].startswith(kind)
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text


def test_file_names_are_data(page: Page) -> None:
    assert b"onerror" not in ask(page, "/")[2]
    assert json.loads(ask(page, "/state.json")[2])["about"]["content"] == "<img onerror=alert(1)>.png"


@pytest.mark.parametrize("path", ["/tile/0/0/-1/0", "/tile/0/0/1000000000/0", "/tile/0/0/1/0", "/tile/0/99/0/0", "/tile/9/0/0/0",
                                  "/tile/../0/0/0", "/tile/0/0/0/999999"])  # fmt: skip
def test_tiles_that_do_not_exist_cost_nothing(path: str, page: Page) -> None:
    page.tell(1)
    assert ask(page, "/tile/0/0/0/0")[0] == 200
    before = page._encoding
    assert ask(page, path)[0] == 404
    assert page._encoding == before


def test_slow_requests_are_cut_off(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "IDLE", 2.0)
    with socket.create_connection(("127.0.0.1", page.port), timeout=15) as client:
        start = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        assert client.recv(100) == b""
        assert time.monotonic() - start < 10


def test_there_is_a_limit_on_requests_and_connections(page: Page) -> None:
    page.tell(1)
    streams = [stream(page) for _ in range(web.MAX_REQUESTS)]
    assert {answer.status for _, answer in streams} == {200}
    assert ask(page, "/state.json")[0] == 503
    clients = []
    try:
        for _ in range(web.MAX_CONNECTIONS + 5):
            clients.append(socket.create_connection(("127.0.0.1", page.port), timeout=5))
        assert clients[-1].recv(100).startswith(b"HTTP/1.1 503")
    finally:
        for client in clients:
            client.close()
        for pair in streams:
            hang_up(*pair)
    deadline = time.monotonic() + 15
    while ask(page, "/state.json")[0] != 200:
        assert time.monotonic() < deadline
        page.tell(2)
        time.sleep(0.2)


def test_a_handler_that_fails_is_told_and_harms_nobody(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.tell(1)
    monkeypatch.setattr(Pyramid, "jpeg", lambda self: 1 // 0)
    status, _, body = ask(page, "/image")
    assert status == 500 and b"ZeroDivisionError" in body
    page.tell(2)
    assert ask(page, "/state.json")[0] == 200


def test_a_picture_that_cannot_be_copied_is_no_error(page: Page) -> None:
    def full() -> np.ndarray:
        raise MemoryError

    page.tell(1, picture=full)
    assert ask(page, "/tile/0/0/0/0")[0] == 404


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)])
def test_other_machines_are_let_in_only_when_asked_for(host: str, exposed: bool) -> None:
    assert WebObserver(host=host).exposed is exposed


def test_a_page_for_all_machines_needs_the_token_and_a_number(page: Page) -> None:
    page.host = "0.0.0.0"
    assert ask(page, "/state.json", cookie=False)[0] == 401
    assert ask(page, "/state.json", Host="evil.com")[0] == 403
    assert ask(page, "/state.json", Host="192.0.2.7")[0] == 200


def test_a_token_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(web.TOKEN, "0123456789abcdef&")
    assert WebObserver().address.endswith("?token=0123456789abcdef%26")
    monkeypatch.setenv(web.TOKEN, "short")
    with pytest.raises(SettingsError, match="at least 16"):
        WebObserver()


# --------------------------------------------------------------------------------------------------- the picture


def test_pixels_are_taken_while_somebody_watches(page: Page) -> None:
    assert ask(page, "/image")[0] == 503
    page.tell(1)
    page.tell(2, picture=lambda: pytest.fail("nobody watches"))
    status, headers, body = ask(page, "/tile/0/0/0/0")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")


def test_a_request_makes_the_run_hand_over_pixels(page: Page) -> None:
    got: list[int] = []
    page.tell(1)
    thread = threading.Thread(target=lambda: got.append(ask(page, "/image")[0]))
    thread.start()
    taken = []
    deadline = time.monotonic() + 10
    while thread.is_alive() and time.monotonic() < deadline:
        page.tell(2, picture=lambda: taken.append(1) or pixels())  # type: ignore[func-returns-value]
        time.sleep(0.01)
    thread.join()
    assert (got, taken) == ([200], [1])


def test_the_png_has_16_bits(page: Page, tmp_path: Path) -> None:
    page.tell(1, picture=lambda: np.full((8, 9, 3), 0.30001, np.float32))
    page.hold(lambda: False)
    page.end(iterate(10, 1), lambda: np.full((16, 18, 3), 0.30001, np.float32), tmp_path / "x.png", finished=True)
    status, headers, body = ask(page, "/image.png")
    assert status == 200 and "night.png" in headers["content-disposition"]
    (tmp_path / "a.png").write_bytes(body)
    assert abs(images.load(tmp_path / "a.png").pixels - 0.30001).max() < 1 / 65535


def test_the_result_can_be_fetched(page: Page, tmp_path: Path) -> None:
    assert ask(page, "/result")[0] == 404
    page.tell(1)
    result = tmp_path / "r.tif"
    result.write_bytes(b"x" * 600_000)
    page.end(iterate(10, 1), lambda: pixels((16, 18)), result, finished=True)
    status, headers, body = ask(page, "/result")
    assert (status, body, headers["content-type"]) == (200, b"x" * 600_000, "image/tiff")
    assert "night.tif" in headers["content-disposition"]


def test_tiles_make_the_picture_again_at_every_level() -> None:
    rng = np.random.default_rng(0)
    small = rng.random((11, 13, 3))
    whole = np.repeat(np.repeat(small, 120, 0), 120, 1).astype(np.float32)  # 1320 x 1560
    pyramid = Pyramid(whole)
    assert pyramid.levels == 3
    for level in range(3):
        factor = 1 << level
        height, width = -(-1320 // factor), -(-1560 // factor)
        rows, columns = -(-height // TILE), -(-width // TILE)
        assert not pyramid.has(level, columns, 0) and not pyramid.has(level, 0, rows)
        found = np.zeros((height, width, 3))
        for row in range(rows):
            for column in range(columns):
                part = np.asarray(Image.open(io.BytesIO(pyramid.tile(level, column, row)))) / 255
                found[row * TILE : row * TILE + part.shape[0], column * TILE : column * TILE + part.shape[1]] = part
        middle = np.arange(60, 1320, 120) // factor, np.arange(60, 1560, 120) // factor
        assert abs(found[np.ix_(*middle)] - small).max() < 0.03
    assert (np.asarray(Image.open(io.BytesIO(pyramid.settled().tile(2, 0, 0)))).shape) == (330, 390, 3)
    with pytest.raises(KeyError):
        pyramid.tile(3, 0, 0)


def test_of_a_huge_picture_only_what_is_asked_for_is_touched() -> None:
    huge = np.broadcast_to(np.float32(0.5), (60000, 80000, 3))  # would take 58 GB
    start = time.process_time()
    assert Image.open(io.BytesIO(Pyramid(huge).tile(0, 100, 60))).size == (512, 512)
    assert time.process_time() - start < 1


# ----------------------------------------------------------------------------------------------- state and events


def test_updates_without_viewers_cost_microseconds(page: Page) -> None:
    page.tell(1)
    clock, now = TimeLeft(STAGES), iterate(2)
    clock.update(0, 2, 1.0)
    start = time.process_time()
    for _ in range(200):
        page.update(now, clock, 1.0, lambda: pytest.fail("nobody watches"))
    assert time.process_time() - start < 0.1


def test_frames_are_paced_by_what_they_cost(page: Page) -> None:
    connection, answer = stream(page)
    page.tell(1)
    message(answer)
    slow = []
    page._due = 0.0
    page.tell(2, picture=lambda: slow.append(time.sleep(0.05)) or pixels())  # type: ignore[func-returns-value]
    assert slow and page._due - time.monotonic() > 4
    page.tell(3, picture=lambda: pytest.fail("too early"))
    hang_up(connection, answer)


def test_events_bring_the_state_and_the_curves(page: Page) -> None:
    connection, answer = stream(page)
    assert answer.getheader("Content-Type") == "text/event-stream"
    first = message(answer)
    assert first["phase"] == "preparing" and first["about"]["output"] == "night.png"
    page.tell(1)
    page._read = 0.0
    page.tell(2)
    second = message(answer)
    while second["step"] < 2:
        second = message(answer)
    assert (second["phase"], second["step"], second["steps"], second["width"]) == ("painting", 2, 10, 9)
    assert [stage["frame"] for stage in second["stages"]] == [1, 0]
    page._read = 0.0
    page.tell(3)
    rows = second["curves"]["rows"]
    while len(rows) < 3:
        curves = message(answer)["curves"]
        assert curves["names"] == ["tv", "content relu4_2"] and curves["generation"] == 0
        rows = rows[: curves["from"]] + curves["rows"]
    assert rows == [[1, 3.0, 1.0, None], [2, 1.5, 0.5, None], [3, 1.0, pytest.approx(1 / 3), None]]
    assert json.loads(ask(page, "/curves.json")[2])["rows"] == rows
    hang_up(connection, answer)


def test_a_client_that_does_not_read_costs_nothing(page: Page) -> None:
    page._about = {"much": "x" * 10_000_000}
    unread = [stream(page), stream(page)]
    start = time.process_time()
    for step in range(1, 10):
        page.tell(step)
        time.sleep(0.1)
    assert ask(page, "/state.json", Host=f"localhost:{page.port}")[0] == 200
    assert time.process_time() - start < 2
    for pair in unread:
        hang_up(*pair)


def test_curves_stay_within_memory() -> None:
    history = History(limit=100)
    for step in range(1, 2001):
        now = iterate(1)
        now.loss = torch.tensor(float(step))
        history.add(now)
    history.read()
    assert len(history.rows) <= 101
    assert history.rows[0][:2] == [1, 1.0]
    steps = [int(row[0] or 0) for row in history.rows]
    assert steps == sorted(steps) and steps[-1] > 1900
    assert all(row[0] == row[1] for row in history.rows)
    first = history.since(-1, 0)
    assert first["rows"] == history.rows
    assert history.since(history.generation, 10)["rows"] == history.rows[10:]
    assert history.since(history.generation - 1, 10)["from"] == 0


def test_ports_that_are_taken_give_way_to_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        observer = WebObserver(port=port)
        address = observer.start()
        try:
            assert port < observer.port <= port + 20
            assert f":{observer.port}/?token=" in address
        finally:
            observer.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "x" * 70])
def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="--host"):
        WebObserver(host=host).start()


def test_a_browser_is_opened_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str | None, str]] = []

    class Browser:
        def __init__(self, name: str | None) -> None:
            self.open: Callable[[str], None] = lambda url: opened.append((name, url))

    monkeypatch.setattr("webbrowser.get", Browser)
    for browser in (None, "", "firefox"):
        observer = WebObserver(port=0, browser=browser)
        observer.start()
        observer.close()
    assert [name for name, _ in opened] == [None, "firefox"]


def test_importing_it_does_not_import_aiohttp() -> None:
    code = "import sys, style_transfer.observers.web; print('aiohttp' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


# -------------------------------------------------------------------------------------------------------- buttons


def post(page: Page, name: str) -> tuple[int, str | None]:
    status, _, body = ask(page, f"/{name}", method="POST", Origin=f"http://127.0.0.1:{page.port}")
    return status, json.loads(body)["answer"]


def test_a_paused_run_waits(page: Page) -> None:
    page.tell(3)
    assert page.hold(lambda: False) == 0
    page.paused = True
    held: list[float] = []
    thread = threading.Thread(target=lambda: held.append(page.hold(lambda: False)))
    thread.start()
    time.sleep(0.3)
    assert json.loads(ask(page, "/state.json")[2])["phase"] == "paused"
    assert post(page, "pause") == (409, "It is paused already.")
    assert post(page, "resume") == (200, "The run goes on.")
    thread.join(5)
    assert held[0] > 0.2
    assert post(page, "resume") == (409, "It is not paused.")
    page.paused = True
    page.hold(lambda: True)  # Ctrl-C


def test_wishes_are_answered_by_the_run(page: Page) -> None:
    page.tell(3)
    said: list[tuple[int, str | None]] = []
    thread = threading.Thread(target=lambda: said.append(post(page, "finish-scale")))
    thread.start()
    while not page.skipping:
        time.sleep(0.01)
    page.skipped(last=False)
    thread.join()
    assert said == [(200, "Finished this scale after iteration 3 of 10 at 9x8. The next one begins.")]
    page.skipping = True
    page.missed()
    assert not page.skipping and "had just ended" in page._answers[-1]
    assert post(page, "close")[0] == 409


def test_a_run_that_is_long_at_an_iteration_answers_later(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(web, "ANSWER_TIME", 0.1)
    page.tell(3)
    assert post(page, "finish") == (200, None)
    assert page.finishing
    page.end(iterate(3), pixels, tmp_path / "x.png", finished=True)
    assert "is saved" in json.loads(ask(page, "/state.json")[2])["answer"]["text"]
    assert post(page, "finish-scale") == (409, "The run has ended already.")
    assert post(page, "close") == (200, "The program ends.")
    page.stay(lambda: False)


def test_the_page_stays_while_somebody_watches(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(web, "AWAY", 0.5)
    page.tell(1)
    assert not page.watched
    page.stay(lambda: False)
    connection, answer = stream(page)
    message(answer)
    page.end(iterate(10, 1), lambda: pixels((16, 18)), tmp_path / "x.png", finished=True)
    thread = threading.Thread(target=page.stay, args=(lambda: False,))
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    hang_up(connection, answer)
    page.answer("wakes the stream")
    thread.join(10)
    assert not thread.is_alive()


def test_a_viewer_gets_the_end_and_the_last_picture(tmp_path: Path) -> None:
    observer = Page(port=0)
    observer.start()
    observer.tell(1)
    connection, answer = stream(observer)
    message(answer)
    observer.end(iterate(10, 1), lambda: pixels((16, 18)), tmp_path / "x.png", finished=False)
    closing = threading.Thread(target=observer.close)
    closing.start()
    assert message(answer)["phase"] == "stopped"
    assert ask(observer, "/tile/1/0/0/0")[0] == 200
    start = time.monotonic()
    closing.join()
    assert time.monotonic() - start < 2.5
    assert b"event: bye" in answer.read()
    hang_up(connection, answer)


def test_an_error_is_shown(page: Page) -> None:
    page.tell(1)
    page.fail("no memory")
    state = json.loads(ask(page, "/state.json")[2])
    assert (state["phase"], state["error"]) == ("failed", "no memory")


def test_connections_that_do_not_read_are_closed_at_the_end() -> None:
    noise = np.random.default_rng(0).random((1500, 1500, 3), np.float32)
    observer = Page(port=0, content=pixels())
    observer.start()
    stage = Stage(scale=1500, size=(1500, 1500), style_sizes=(), steps=10)
    now = SimpleNamespace(**vars(iterate(1)) | {"stage": stage, "size": stage.size})
    clock = TimeLeft(STAGES)
    observer.update(now, clock, clock.update(0, 1, 1.0), lambda: noise)
    assert ask(observer, "/image.png")[0] == 200  # it is there, larger than what a socket holds
    deaf = [socket.create_connection(("127.0.0.1", observer.port)) for _ in range(3)]
    headers = f"Host: 127.0.0.1:{observer.port}\r\nCookie: {observer.cookie}={observer.token}"
    for client in deaf[:2]:
        client.sendall(f"GET /image.png HTTP/1.1\r\n{headers}\r\n\r\n".encode())
    deadline = time.monotonic() + 20
    while observer._busy and time.monotonic() < deadline:
        time.sleep(0.05)
    observer.close()
    ours = {client.getsockname()[1] for client in deaf}
    left = [c for c in psutil.Process().net_connections() if c.raddr and c.raddr.port in ours and c.laddr.port == observer.port]
    for client in deaf:
        client.close()
    assert not left


def test_rows_go_by_the_names_of_terms_when_some_come_or_go() -> None:
    history = History()
    for parts in ({"a": 1.0, "tv": 2.0}, {"a": 1.0, "b": 3.0, "tv": 2.0}, {"tv": 5.0}):
        values = {name: torch.tensor(value) for name, value in parts.items()}
        history.add(SimpleNamespace(loss=torch.tensor(9.0), parts=values))  # type: ignore[arg-type]
        history.read()
    assert history.names == ("a", "tv", "b")
    assert history.rows == [[1, 9, 1, 2, None], [2, 9, 1, 2, 3], [3, 9, None, 5, None]]
