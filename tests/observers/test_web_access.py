"""Access to the live page over real connections on loopback: who gets an answer, and what a client cannot do."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from support.live_page import Page, Stream, ask

from style_transfer.engine.control import Request
from style_transfer.errors import SettingsError
from style_transfer.geometry.scales import Stage
from style_transfer.observers.web import guard, server
from style_transfer.observers.web.pyramid import Pyramid


def test_the_token_becomes_a_cookie(page: Page) -> None:
    token = page.server.guard.token
    status, headers, _ = ask(page.server, f"/?token={token}", cookie=False)
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=Strict" in headers["set-cookie"]
    assert ask(page.server, "/", cookie=False)[0] == 401
    assert ask(page.server, "/?token=wrong", cookie=False)[0] == 401
    assert ask(page.server, "/?token=w%C3%B6rng", cookie=False)[0] == 401
    assert ask(page.server, f"/state.json?token={token}", cookie=False)[0] == 200
    assert ask(page.server, "/state.json", cookie=False, Authorization=f"Bearer {token}")[0] == 200
    assert ask(page.server, "/", cookie=False, Cookie=f"style_transfer_{page.port}=wrong")[0] == 401


def test_a_link_on_another_site_leads_to_the_page(page: Page) -> None:
    token = page.server.guard.token
    about = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    status, headers, body = ask(page.server, f"/?token={token}", cookie=False, **about)
    assert status == 200 and b"refresh" in body and token in headers["set-cookie"]
    assert token.encode() not in body
    assert ask(page.server, "/state.json", **about)[0] == 403
    assert ask(page.server, "/state.json", Sec_Fetch_Site="same-site")[0] == 403
    assert ask(page.server, "/state.json", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize(("host", "status"), [("evil.com", 403), ("localhost.evil.com", 403), ("", 400), ("evil.com:1", 403),
                                              ("127.0.0.1:1", 200),
                                              ("localhost:9000", 200),
                                              ("localhost", 200), ("[::1]", 200), ("127.0.0.1", 200)])  # fmt: skip
def test_only_names_of_this_machine_are_answered(host: str, status: int, page: Page) -> None:
    assert ask(page.server, "/state.json", Host=host)[0] == status


@pytest.mark.parametrize(("method", "path"), [("GET", "/state.json"), ("GET", "/events"), ("POST", "/finish")])
def test_other_origins_are_refused(method: str, path: str, page: Page) -> None:
    status, headers, _ = ask(page.server, path, method=method, Origin="https://evil.com")
    assert status == 403 and page.run.control.requested == Request(0)
    assert not any(name.startswith("access-control") for name in headers)
    assert ask(page.server, "/state.json", Origin=f"http://127.0.0.1:{page.port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../../etc/passwd", "/%2e%2e%2fetc/passwd", "//etc", "/..\\etc", "/app.js%00", "/%00", "/page/app.js"],
)
def test_no_other_path_exists(path: str, page: Page) -> None:
    assert ask(page.server, path)[0] in (400, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "TRACE", "DELETE"])
def test_other_methods_are_refused(method: str, page: Page) -> None:
    assert ask(page.server, "/", method=method)[0] == 405
    assert ask(page.server, "/pause")[0] == 405


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/icon.svg", "/state.json", "/nothing", "/tile/content/0/0/0"])
def test_every_response_has_the_security_headers(path: str, page: Page) -> None:
    _, headers, _ = ask(page.server, path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert (headers["referrer-policy"], headers["cache-control"]) == ("no-referrer", "no-store")
    refused = ask(page.server, path, cookie=False)
    assert refused[0] == 401 and refused[1]["content-security-policy"] == policy


@pytest.mark.parametrize(("path", "kind"), [("/", "text/html"), ("/app.js", "text/javascript"), ("/viewer.js", "text/javascript"),
                                            ("/curves.js", "text/javascript"), ("/style.css", "text/css"),
                                            ("/icon.svg", "image/svg")])  # fmt: skip
def test_the_page_names_no_other_address(path: str, kind: str, page: Page) -> None:
    status, headers, body = ask(page.server, path)
    assert status == 200 and headers["content-type"].startswith(kind)
    text = body.decode().replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in text and "https:" not in text


def test_file_names_are_data(page: Page) -> None:
    assert b"onerror" not in ask(page.server, "/")[2]
    assert page.state["about"]["content"] == "<img onerror=alert(1)>.png"


@pytest.mark.parametrize("path", ["/tile/0/0/-1/0", "/tile/0/0/1000000000/0", "/tile/0/0/1/0", "/tile/0/99/0/0", "/tile/9/0/0/0",
                                  "/tile/../0/0/0", "/tile/0/0/0/999999"])  # fmt: skip
def test_tiles_that_do_not_exist_are_not_encoded(path: str, page: Page) -> None:
    page.show(1)
    assert ask(page.server, "/tile/0/0/0/0")[0] == 200
    before = page.server.pictures._encoding
    assert ask(page.server, path)[0] == 404
    assert page.server.pictures._encoding == before


def test_connections_are_limited_and_the_page_works_after_greedy_clients(page: Page) -> None:
    page.show(1)
    with contextlib.ExitStack() as clients:
        streams = [clients.enter_context(Stream(page.server)) for _ in range(server.MAX_CONNECTIONS)]
        assert {stream.answer.status for stream in streams} == {200}
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as refused:
            assert refused.recv(100) == b""
        page.show(2)
    while page.server.routes.streams:
        page.show(2)
    assert page.state["step"] == 2


def test_a_failing_handler_is_reported_to_its_client_only(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.show(1)
    monkeypatch.setattr(Pyramid, "jpeg", lambda self: 1 // 0)
    status, _, body = ask(page.server, "/image")
    assert status == 500 and b"ZeroDivisionError" in body
    page.show(2)
    assert page.state["step"] == 2


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)])
def test_an_address_for_other_machines_is_known_as_such(host: str, exposed: bool) -> None:
    assert guard.Guard(host, 1).exposed is exposed


def test_a_page_for_other_machines_is_announced_with_a_note() -> None:
    observer = Page(host="0.0.0.0").open()
    try:
        assert "http://127.0.0.1:" in observer.reports[0] and "other machines" in observer.reports[1]
        assert ask(observer.server, "/state.json", cookie=False)[0] == 401
        assert ask(observer.server, "/state.json", Host="evil.com")[0] == 403
        assert ask(observer.server, "/state.json", Host="192.0.2.7")[0] == 200
    finally:
        observer.close()


def test_a_token_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guard.TOKEN, "0123456789abcdef&")
    assert Page().address.endswith("?token=0123456789abcdef%26")
    monkeypatch.setenv(guard.TOKEN, "short")
    with pytest.raises(SettingsError, match="at least 16"):
        Page()


def test_a_taken_port_is_replaced_by_the_next_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        observer = Page(port=port).open()
        try:
            assert port < observer.port <= port + 20
            assert f":{observer.port}/?token=" in observer.reports[0]
        finally:
            observer.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "x" * 70])
def test_a_host_of_another_machine_is_refused(host: str) -> None:
    observer = Page(host=host)
    with pytest.raises(SettingsError, match="--host"):
        observer.open()
    observer.close()


def test_clients_that_do_not_read_are_disconnected_at_the_end() -> None:
    stage = Stage(scale=1500, size=(1500, 1500), style_sizes=(), steps=10)
    observer = Page().open(stages=(stage,), content=torch.zeros(1, 3, 8, 8))
    noise = np.random.default_rng(0).random((1500, 1500, 3), np.float32)
    observer.show(1, picture=lambda: noise)
    clients = [socket.create_connection(("127.0.0.1", observer.port)) for _ in range(2)]
    cookie = f"{observer.server.guard.cookie}={observer.server.guard.token}"
    clients[0].sendall(f"GET /image.png HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
    assert clients[0].recv(15) == b"HTTP/1.1 200 OK"  # the rest is larger than the buffers of a socket
    observer.close()
    ports = {client.getsockname()[1] for client in clients}
    left = [c for c in psutil.Process().net_connections() if c.raddr and c.raddr.port in ports and c.laddr.port == observer.port]
    for client in clients:
        client.close()
    assert not left


def test_an_unread_body_does_not_keep_a_button_from_working(page: Page) -> None:
    page.show(1)
    page.finish(Path("x.png"))
    status, _, body = ask(page.server, "/pause", method="POST", Content_Length=str(1 << 30))
    assert status == 409 and json.loads(body)["answer"]


def test_connections_that_arrive_while_the_server_stops_are_closed() -> None:
    def connect(port: int, over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()

    for _ in range(5):
        observer, over = Page().open(), threading.Event()
        clients = [threading.Thread(target=connect, args=(observer.port, over)) for _ in range(2)]
        for client in clients:
            client.start()
        observer.close()
        over.set()
        for client in clients:
            client.join()
        del observer
        gc.collect()  # warns of sockets that were not closed, which is an error here
