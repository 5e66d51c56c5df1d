"""The live page: the picture so far and where the run is, in a browser.

An aiohttp server in a thread of its own. The run leaves its latest state in one slot and never waits: pixels are copied only
while somebody watches, at most twice a second, and encoded on the server's side. Only this machine can reach the page unless
another host is given. Every request's Host and Origin are checked, since a page of another site can send requests to
loopback addresses too, and the printed address holds a token that becomes a cookie.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.resources
import ipaddress
import json
import secrets
import threading
import time
import webbrowser
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError

if TYPE_CHECKING:
    from aiohttp import web

    Pixels = Any
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

INTERVAL = 0.5
LINGER = 3.0
MAX_REQUESTS = 16
PORTS_TRIED = 20
COOKIE = "style_transfer_token"
WILDCARDS = ("0.0.0.0", "::")


class WebObserver:
    """Serves the live page from `start` to `close`.

    `browser` is None for none, "" for the usual one, or a name that the `webbrowser` module knows. `encode` turns what
    `update` was given as the picture, pixels in whatever form, into a JPEG, in a thread of the server's.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 8080, browser: str | None = None, encode: Callable[[Pixels], bytes]
    ) -> None:
        self.host = host
        self.port = port
        self.browser = browser
        self.token = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(12)
        self._encode = encode
        self._state: dict[str, object] = {}
        self._pixels: Pixels | None = None
        self._taken = 0.0
        self._requests = 0
        self._image: tuple[Pixels, bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started: threading.Event = threading.Event()
        self._failure: OSError | UnicodeError | None = None
        self._streams = 0
        self._delivered: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="live page", daemon=True)

    def start(self) -> str:
        """Start serving and return the address to open. A port that is taken gives way to the next free one.

        Raises `SettingsError` if the host cannot be bound.
        """
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            reason = getattr(self._failure, "strerror", None) or self._failure
            raise SettingsError(f"--host {self.host} --port {self.port}: {reason}; try another")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        address = f"http://{host}:{self.port}/?token={self.token}"
        if self.browser is not None:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.get(self.browser or None).open(address)
        return address

    def update(self, state: dict[str, object], picture: Callable[[], Pixels]) -> None:
        """Take the state of the run, JSON-able, and, while somebody watches, the pixels that `picture()` returns.

        The last state of a run has "done": True; its pixels are always taken.
        """
        self._state = state
        now = time.monotonic()
        if state.get("done") or (self._requests and now - self._taken >= INTERVAL):
            self._pixels, self._taken = picture(), now

    def close(self) -> None:
        """Stop serving, once those who watch have the last picture (a few seconds at most)."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=LINGER + 5)

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        from aiohttp import web

        self._loop, self._stop, self._delivered = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        app = web.Application(middlewares=[self._guard()], client_max_size=1024)
        app.add_routes(
            [
                web.get("/", self._page, allow_head=False),
                web.get("/image", self._jpeg, allow_head=False),
                web.get("/events", self._events, allow_head=False),
                web.get("/state.json", self._json, allow_head=False),
            ]
        )
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await self._bind(runner)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
            self._failure = error
        self._started.set()
        if self._failure is None:
            await self._stop.wait()
            if self._streams and self._state.get("done"):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._delivered.wait(), LINGER)
        await runner.cleanup()

    async def _bind(self, runner: web.AppRunner) -> None:
        from aiohttp import web

        for attempt in range(PORTS_TRIED + 1):
            site = web.TCPSite(runner, self.host, self.port and self.port + attempt)
            try:
                await site.start()
                self.port = runner.addresses[0][1]
                return
            except OSError:
                await site.stop()
                if attempt == PORTS_TRIED or not self.port or self.port + attempt >= 65535:
                    raise

    def _hosts(self) -> Iterator[str]:
        """Yield the names this page may be asked for under."""
        yield from ("127.0.0.1", "localhost", "::1")
        if self.host not in WILDCARDS:
            yield self.host

    def _host_is_ours(self, header: str) -> bool:
        name, _, port = header.rpartition(":") if not header.endswith("]") else (header, "", "")
        if not name:
            name, port = header, ""
        if port and port != str(self.port):
            return False
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in self._hosts():
            return True
        if self.host not in WILDCARDS:
            return False
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False

    def _guard(self) -> Any:
        """Return the middleware every request goes through."""
        from aiohttp import web

        def refuse(status: int, text: str) -> web.Response:
            return web.Response(status=status, text=text + "\n")

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            given = request.headers.get("Origin")
            token = request.query.get("token") or request.cookies.get(COOKIE, "")
            if not self._host_is_ours(request.headers.get("Host", "")):
                response: web.StreamResponse = refuse(403, "this page has another name")
            elif given is not None and given != f"http://{request.headers['Host']}":
                response = refuse(403, "requests of other sites are refused")
            elif not hmac.compare_digest(token.encode(), self.token.encode()):
                response = refuse(401, "open the address that style_transfer printed")
            elif "token" in request.query:
                response = web.Response(status=303, headers={"Location": "/"})
                response.set_cookie(COOKIE, self.token, httponly=True, samesite="Strict", path="/")
            elif self._requests >= MAX_REQUESTS:
                response = refuse(503, "too many viewers")
            else:
                self._requests += 1
                try:
                    response = await handler(request)
                except web.HTTPException as error:
                    response = refuse(error.status, error.reason)
                finally:
                    self._requests -= 1
            if not response.prepared:
                response.headers.update(self._headers)
            return response

        return guard

    @property
    def _headers(self) -> dict[str, str]:
        ours = f"'nonce-{self.nonce}'"
        policy = f"default-src 'none'; img-src 'self'; connect-src 'self'; script-src {ours}; style-src {ours}"
        return {
            "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def _page(self, request: web.Request) -> web.Response:
        from aiohttp import web

        text = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
        return web.Response(text=text.replace("@NONCE@", self.nonce), content_type="text/html")

    async def _jpeg(self, request: web.Request) -> web.Response:
        from aiohttp import web

        for _ in range(40):  # the run hands over pixels only now that somebody asks
            if self._pixels is not None:
                break
            await asyncio.sleep(INTERVAL / 10)
        pixels = self._pixels
        if pixels is None:
            return web.Response(status=503, text="there is no picture yet\n")
        if self._image is None or self._image[0] is not pixels:
            self._image = pixels, await asyncio.to_thread(self._encode, pixels)
        response = web.Response(body=self._image[1], content_type="image/jpeg")
        if self._state.get("done") and self._delivered is not None:
            await response.prepare(request)
            await response.write_eof()
            self._delivered.set()
        return response

    async def _json(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response(self._state)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        assert self._stop is not None
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **self._headers})
        await response.prepare(request)
        last: dict[str, object] = {}
        self._streams += 1
        try:
            while True:
                stopping, state = self._stop.is_set(), self._state
                if state and state is not last:
                    last = state
                    with contextlib.suppress(ConnectionError):
                        await asyncio.wait_for(response.write(f"data: {json.dumps(state)}\n\n".encode()), 30)
                if stopping or state.get("done") or request.transport is None or request.transport.is_closing():
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), INTERVAL)
            if state.get("done") and self._delivered is not None:
                with contextlib.suppress(TimeoutError):  # the viewer fetches the last picture now
                    await asyncio.wait_for(self._delivered.wait(), LINGER)
        finally:
            self._streams -= 1
        return response
