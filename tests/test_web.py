"""The live page over real connections on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from style_transfer import images
from style_transfer.errors import SettingsError
from style_transfer.observers.web import COOKIE, WebObserver


def pixels() -> np.ndarray:
    return np.full((8, 9, 3), 0.25, np.float32)


@pytest.fixture
def page() -> Iterator[WebObserver]:
    observer = WebObserver(port=0, encode=images.encode_jpeg)
    observer.start()
    yield observer
    observer.close()
    assert not observer._thread.is_alive()


def ask(
    page: WebObserver, path: str, *, method: str = "GET", cookie: bool = True, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    sent = {"Host": f"127.0.0.1:{page.port}"} | ({"Cookie": f"{COOKIE}={page.token}"} if cookie else {}) | headers
    connection.putrequest(method, path, skip_host=True)
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    result = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return result


def test_the_token_becomes_a_cookie(page: WebObserver) -> None:
    status, headers, _ = ask(page, f"/?token={page.token}", cookie=False)
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=Strict" in headers["set-cookie"]
    assert ask(page, "/", cookie=False)[0] == 401
    assert ask(page, "/?token=wrong", cookie=False)[0] == 401
    status, headers, body = ask(page, "/")
    assert status == 200 and b"<!doctype html>" in body
    nonce = headers["content-security-policy"].split("script-src 'nonce-")[1].split("'")[0]
    assert f'nonce="{nonce}"'.encode() in body and b"@NONCE@" not in body


@pytest.mark.parametrize(("host", "status"), [("evil.com", 403), ("localhost.evil.com", 403), ("", 403), ("127.0.0.1:1", 403),
                                              ("localhost", 200), ("[::1]", 200), ("127.0.0.1", 200)])  # fmt: skip
def test_only_names_of_this_machine_are_answered(host: str, status: int, page: WebObserver) -> None:
    assert ask(page, "/state.json", Host=host)[0] == status


def test_other_origins_are_refused(page: WebObserver) -> None:
    status, headers, _ = ask(page, "/state.json", Origin="https://evil.com")
    assert status == 403
    assert not any(name.startswith("access-control") for name in headers)
    assert ask(page, "/state.json", Origin=f"http://127.0.0.1:{page.port}")[0] == 200


@pytest.mark.parametrize("path", ["/nothing", "/../../etc/passwd", "/%2e%2e%2fetc/passwd", "//etc", "/page.html"])
def test_there_are_no_other_paths(path: str, page: WebObserver) -> None:
    assert ask(page, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "TRACE", "DELETE"])
def test_nothing_can_be_sent(method: str, page: WebObserver) -> None:
    assert ask(page, "/", method=method)[0] == 405


def test_the_picture_comes_while_somebody_watches(page: WebObserver) -> None:
    assert ask(page, "/image")[0] == 503
    page.update({"step": 1}, lambda: pytest.fail("nobody watches"))
    page.update({"step": 2, "done": True}, pixels)
    status, headers, body = ask(page, "/image")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert json.loads(ask(page, "/state.json")[2]) == {"step": 2, "done": True}


def test_a_request_makes_the_run_hand_over_pixels(page: WebObserver) -> None:
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(ask(page, "/image")[0]))
    thread.start()
    deadline = time.monotonic() + 10
    while thread.is_alive() and time.monotonic() < deadline:
        page.update({"step": 1}, pixels)
        time.sleep(0.01)
    thread.join()
    assert got == [200]


def test_updates_without_viewers_cost_microseconds(page: WebObserver) -> None:
    start = time.perf_counter()
    for step in range(1000):
        page.update({"step": step}, lambda: pytest.fail("nobody watches"))
    assert time.perf_counter() - start < 0.1


def test_events_give_the_latest_state(page: WebObserver) -> None:
    page.update({"step": 3}, pixels)
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request("GET", "/events", headers={"Cookie": f"{COOKIE}={page.token}"})
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    assert answer.readline() == b'data: {"step": 3}\n'
    for step in range(4, 9):
        page.update({"step": step, "done": step == 8}, pixels)
    assert b'data: {"step": 8, "done": true}\n' in answer.read()
    connection.close()


def test_a_taken_port_gives_way_to_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        observer = WebObserver(port=port, encode=images.encode_jpeg)
        address = observer.start()
        try:
            assert port < observer.port <= port + 20
            assert f":{observer.port}/?token=" in address
        finally:
            observer.close()


def test_a_host_that_is_not_ours_is_refused() -> None:
    observer = WebObserver(host="192.0.2.1", encode=images.encode_jpeg)
    with pytest.raises(SettingsError, match=r"--host 192\.0\.2\.1"):
        observer.start()


def test_a_browser_is_opened_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str | None, str]] = []

    class Browser:
        def __init__(self, name: str | None) -> None:
            self.open: Callable[[str], None] = lambda url: opened.append((name, url))

    monkeypatch.setattr("webbrowser.get", Browser)
    for browser in (None, "", "firefox"):
        observer = WebObserver(port=0, browser=browser, encode=images.encode_jpeg)
        observer.start()
        observer.close()
    assert [name for name, _ in opened] == [None, "firefox"]


def test_importing_it_does_not_import_aiohttp() -> None:
    code = "import sys, style_transfer.observers.web; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_name_that_cannot_be_one_is_refused(host: str) -> None:
    observer = WebObserver(host=host, encode=images.encode_jpeg)
    with pytest.raises(SettingsError, match="--host"):
        observer.start()


def test_a_viewer_gets_the_end_and_the_last_picture() -> None:
    observer = WebObserver(port=0, encode=images.encode_jpeg)
    observer.start()
    observer.update({"step": 1}, pixels)
    connection = http.client.HTTPConnection("127.0.0.1", observer.port, timeout=10)
    connection.request("GET", "/events", headers={"Cookie": f"{COOKIE}={observer.token}"})
    answer = connection.getresponse()
    assert answer.readline() == b'data: {"step": 1}\n'
    observer.update({"step": 2, "done": True}, pixels)
    closing = threading.Thread(target=observer.close)
    closing.start()
    answer.readline()
    assert answer.readline() == b'data: {"step": 2, "done": true}\n'
    assert ask(observer, "/image")[0] == 200
    start = time.monotonic()
    closing.join()
    assert time.monotonic() - start < 2.5
    connection.close()
