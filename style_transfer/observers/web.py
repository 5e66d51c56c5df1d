"""The live page: the picture so far, where the run is, and buttons that steer it, in a browser.

An aiohttp server in a thread of its own. The run leaves its latest state in one slot and never waits. It hands over pixels only
while somebody watches, at most twice a second, and so seldom that copying and encoding them takes at most `SHARE` of the
machine's time. They are encoded on the server's side, tile by tile, when a browser asks for them.

Only this machine can reach the page unless another host is given. Every request's Host and Origin are checked, since a page of
another site can send requests to loopback addresses too (DNS rebinding), and the printed address holds a token that becomes a
cookie. Routes are fixed and no address names a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.resources
import io
import ipaddress
import json
import logging
import mimetypes
import os
import secrets
import tempfile
import threading
import time
import urllib.parse
import webbrowser
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from ..errors import SettingsError
from .console import TimeLeft, finite
from .history import History
from .pyramid import Pyramid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from aiohttp import web

    from ..engine.iterate import Iterate

    Pixels = npt.NDArray[np.float32]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

T = TypeVar("T")

INTERVAL = 0.5
"""Seconds between two frames, and between two events, at the least."""
SHARE = 0.01
"""How much of the machine's time handing over and encoding pictures may take."""
PING = 5.0
"""Seconds after which a stream without news says that it is alive."""
LINGER = 3.0
"""Seconds that viewers have, when the program ends, to fetch the last picture."""
AWAY = 15.0
"""Seconds after which a viewer who has not come back counts as gone."""
IDLE = 10.0
"""Seconds that a connection may be open without a whole request."""
WRITE_TIME = 30.0
"""Seconds that a client has to read what it was sent."""
ANSWER_TIME = 2.0
"""Seconds that a button waits for the run's answer; a later answer comes with the events."""
MAX_REQUESTS = 16
MAX_CONNECTIONS = 64
MAX_BODY = 1024
PORTS_TRIED = 20
CHUNK = 1 << 18
WILDCARDS = ("0.0.0.0", "::")
TOKEN = "STYLE_TRANSFER_TOKEN"
"""Variable of the environment with a token to use in place of a new one, so that an address stays valid."""
MIN_TOKEN = 16
ASSETS = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css", "/icon.svg": "icon.svg"}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; img-src 'self' blob:; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class _Noted(asyncio.Protocol):
    """Notes a connection's transport, then leaves the connection to another protocol."""

    def __init__(self, then: asyncio.BaseProtocol, transports: WeakSet[asyncio.Transport]) -> None:
        self.then, self.transports = then, transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note, and step aside."""
        assert isinstance(transport, asyncio.Transport)
        self.transports.add(transport)
        transport.set_protocol(self.then)
        self.then.connection_made(transport)


async def _turns() -> None:
    """Let the loop do what it has been told to do, and what follows from that."""
    for _ in range(8):
        await asyncio.sleep(0)


class _Full(asyncio.Protocol):
    """Turns a connection away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer at once, whatever was asked."""
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        transport.close()


class WebObserver:
    """Serves the live page from `start` to `close`.

    `browser` is None for none, "" for the usual one, or a name that the `webbrowser` module knows. `about` is what the page
    says of the run, JSON-able; `content` is the content picture, `finish` what is done to colours before they are shown,
    `history` the loss terms, if others look at them too. `begin` goes on with another picture. The run calls `update` after
    each iteration, then `hold`, and looks at `finishing` and `skipping`, which are what a viewer wishes; it tells with `answer`
    what it did.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        browser: str | None = None,
        about: dict[str, object] | None = None,
        content: Pixels | None = None,
        finish: Callable[[Pixels], Pixels] | None = None,
        history: History | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.browser = browser
        self.token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
        if len(self.token) < MIN_TOKEN or not self.token.isascii() or not self.token.isprintable():
            raise SettingsError(f"{TOKEN} must be at least {MIN_TOKEN} printable ASCII characters, not {len(self.token)}")
        self.closing = False
        self._version = 0
        self._answers: list[str] = []
        self._encoding = 0.0
        self.begin(about, content, finish, history)
        self._requests = 0
        self._busy: set[Any] = set()
        self._streams = 0
        self._gone = -AWAY
        self._seen = False
        self._failure: OSError | UnicodeError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transports: WeakSet[asyncio.Transport] = WeakSet()
        self._stop: asyncio.Event | None = None
        self._delivered: asyncio.Event | None = None
        self._started = threading.Event()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="live page")
        self._thread = threading.Thread(target=self._main, name="live page", daemon=True)

    # ------------------------------------------------------------------------------------------ the run's side

    def begin(
        self, about: dict[str, object] | None, content: Pixels | None, finish: Callable[[Pixels], Pixels] | None = None,
        history: History | None = None,
    ) -> None:  # fmt: skip
        """Begin with a picture; what was shown of the last one goes."""
        self.finishing = self.skipping = self.paused = False
        self._about = about or {}
        self._content = Pyramid(content).settled() if content is not None else None
        self._finish = finish
        self._layers: dict[int, Pyramid] = {}
        self._frames: dict[int, int] = {}
        self._cuts: dict[int, int] = {}
        self._frame = 0
        self._history = history or History()
        self._state: dict[str, Any] = {"phase": "preparing"}
        self._result: Path | None = None
        self._latest: tuple[Iterate, Callable[[], Pixels]] | None = None
        self._wanted = False
        self._due = 0.0
        self._read = 0.0
        self._run = secrets.token_hex(8)
        self._version += 1

    def start(self) -> str:
        """Start serving and return the address to open. A port that is taken gives way to the next free one.

        Raises `SettingsError` if the host cannot be bound.
        """
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            reason = getattr(self._failure, "strerror", None) or self._failure
            raise SettingsError(f"--host {self.host} --port {self.port}: {reason}; try another")
        if self.browser is not None:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.get(self.browser or None).open(self.address)
        return self.address

    @property
    def address(self) -> str:
        """The address to open."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}/?token={urllib.parse.quote(self.token, safe='')}"

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the page."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True

    @property
    def cookie(self) -> str:
        """The cookie's name; browsers keep one jar for all ports of a host."""
        return f"style_transfer_{self.port}"

    @property
    def watched(self) -> bool:
        """Whether somebody watches, or did a moment ago."""
        return self._streams > 0 or (self._seen and time.monotonic() - self._gone < AWAY)

    def update(self, iterate: Iterate, clock: TimeLeft, left: float, picture: Callable[[], Pixels], held: float = 0.0) -> None:
        """Take note of an iteration, and of its pixels, which `picture()` returns, if it is time for a new frame.

        `left` is the time that the run still takes, `held` how long it was paused, in seconds. The first and the last picture
        of every scale are always taken.
        """
        now = time.monotonic()
        self._history.add(iterate)
        self._latest = iterate, picture
        if iterate.step == 1 or iterate.ends_scale or self._wanted or (self._streams and now >= self._due):
            self.show(iterate, picture)
        if self._streams and now - self._read >= INTERVAL:
            self._history.read()
            self._read = now
        self._cuts[iterate.index] = iterate.step
        self._state = {
            "phase": "painting",
            "index": iterate.index,
            "width": iterate.size[1],
            "height": iterate.size[0],
            "step": iterate.step,
            "steps": iterate.steps,
            "total": self._history.steps,
            "fraction": iterate.done / sum(stage.work for stage in iterate.stages),
            "seconds": iterate.seconds - held,
            "seconds_left": left,
            "scale_seconds_left": clock.scale_left,
            "seconds_per_iteration": clock.pace,
            "memory": iterate.memory,
            "tiles": list(iterate.tiles),
            "stages": [(stage.size[1], stage.size[0], stage.steps) for stage in iterate.stages],
        }
        self._version += 1

    def show(self, iterate: Iterate, picture: Callable[[], Pixels]) -> None:
        """Take an iteration's pixels as the next frame."""
        began = time.perf_counter()
        try:
            pixels = picture()
        except MemoryError:  # the run is worth more than the view
            self._due = time.monotonic() + AWAY
            return
        spent = time.perf_counter() - began + self._encoding / (os.cpu_count() or 1)
        self._encoding, self._wanted = 0.0, False
        self._due = time.monotonic() + max(INTERVAL, spent / SHARE)
        index = iterate.index
        before = self._layers.get(index - 1)
        if before is not None and index not in self._layers:
            self._encoder.submit(self._settle, index - 1, before)
        self._layers[index] = Pyramid(pixels, self._finish)
        self._frame += 1
        self._frames[index] = self._frame

    def hold(self, interrupted: Callable[[], bool]) -> float:
        """Wait while a viewer has paused the run, and return for how long, in seconds."""
        if not self.paused:
            return 0.0
        began = time.monotonic()
        if self._latest is not None:
            self.show(*self._latest)
            self._history.read()
        self._set_phase("paused")
        self.answer(f"Paused after {self._where()}.")
        while self.paused and not (self.finishing or self.skipping or interrupted()):
            time.sleep(0.05)
        if not self.paused:
            self.answer("The run goes on.")
        self._set_phase("painting")
        return time.monotonic() - began

    def answer(self, text: str) -> None:
        """Tell the viewers what a button has done."""
        self._answers.append(text)
        self._version += 1

    def skipped(self, last: bool) -> None:
        """Say that the scale has ended because a viewer wished it."""
        self.skipping = False
        self.answer(f"Finished this scale after {self._where()}." + ("" if last else " The next one begins."))

    def missed(self) -> None:
        """Say that the scale had ended by itself when the wish to finish it came."""
        if self.skipping:
            self.skipping = False
            self.answer(f"The scale had just ended, after {self._where()}.")

    def end(self, iterate: Iterate, picture: Callable[[], Pixels], output: Path, *, finished: bool) -> None:
        """Show the last picture, which has been written to `output`; `finished` unless the run was cut short."""
        self.show(iterate, picture)
        self._history.read(wait=True)
        self._result = output
        if self.finishing:
            self.answer(f"Finished after {self._where()}; the picture is saved.")
        self._set_phase("finished" if finished else "stopped", seconds_left=0.0, scale_seconds_left=0.0)

    def fail(self, reason: str) -> None:
        """Show why the run has ended."""
        self._set_phase("failed", error=reason)

    def stay(self, interrupted: Callable[[], bool]) -> None:
        """Return when nobody watches any more, a viewer has ended the program, or it was interrupted."""
        while self.watched and not self.closing and not interrupted():
            time.sleep(0.1)

    def close(self) -> None:
        """Stop serving, once those who watch have the last picture (a few seconds at most)."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=LINGER + 5)
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def _where(self) -> str:
        state = self._state
        return f"iteration {state['step']} of {state['steps']} at {state['width']}x{state['height']}"

    @property
    def _over(self) -> bool:
        """Whether the last picture is there."""
        return self._state["phase"] in ("finished", "stopped")

    def _set_phase(self, phase: str, **more: object) -> None:
        self._state = self._state | {"phase": phase} | more
        self._version += 1

    def _settle(self, index: int, pyramid: Pyramid) -> None:
        """Keep a scale that has ended in 8 bits, unless its end was shown again meanwhile."""
        settled = pyramid.settled()
        if self._layers.get(index) is pyramid:
            self._layers[index] = settled

    # --------------------------------------------------------------------------------------------- the server

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        from aiohttp import web

        self._loop, self._stop, self._delivered = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        app = web.Application(middlewares=[self._guard()], client_max_size=MAX_BODY)
        get: dict[str, Handler] = {
            **dict.fromkeys(ASSETS, self._asset),
            "/image": self._jpeg,
            "/image.png": self._png,
            "/result": self._file,
            "/events": self._events,
            "/state.json": self._json,
            "/curves.json": self._curves,
            r"/tile/{layer:content|\d{1,4}}/{level:\d{1,2}}/{column:\d{1,6}}/{row:\d{1,6}}": self._tile,
        }
        post = ("pause", "resume", "finish-scale", "finish", "close")
        app.add_routes([web.get(path, handler, allow_head=False) for path, handler in get.items()])
        app.add_routes([web.post(f"/{name}", self._command) for name in post])
        silent = logging.getLogger("style_transfer.live_page")
        silent.disabled = True  # what goes wrong here is told to the client
        runner = web.AppRunner(
            app, access_log=None, logger=silent, handle_signals=False, shutdown_timeout=0.2, keepalive_timeout=IDLE
        )
        await runner.setup()
        server: asyncio.Server | None = None
        try:
            server = await self._bind(runner)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
            self._failure = error
        self._started.set()
        if server is not None:
            sweeper = asyncio.create_task(self._sweep(runner))
            await self._stop.wait()
            if self._streams and self._over:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._delivered.wait(), LINGER)
            sweeper.cancel()
            for listening in server.sockets:  # what has been accepted becomes a connection first: asyncio loses it otherwise
                with contextlib.suppress(NotImplementedError):
                    asyncio.get_running_loop().remove_reader(listening.fileno())
            await _turns()
            server.close()
        await runner.cleanup()
        for transport in tuple(self._transports):  # those with something left to send, which a client may never read
            transport.abort()
        await _turns()

    async def _bind(self, runner: web.AppRunner) -> asyncio.Server:
        """Listen on the first port that is free."""
        loop = asyncio.get_running_loop()

        handlers = runner.server
        assert handlers is not None

        fresh: set[object] = set()  # accepted a moment ago, and not yet among the connections

        def protocol() -> asyncio.BaseProtocol:
            if len(handlers.connections) + len(fresh) >= MAX_CONNECTIONS:
                return _Full()
            ticket = object()
            fresh.add(ticket)
            loop.call_later(0.1, fresh.discard, ticket)
            return _Noted(handlers(), self._transports)

        for attempt in range(PORTS_TRIED + 1):
            port = self.port and self.port + attempt
            try:
                server = await loop.create_server(protocol, self.host, port, backlog=128)
                self.port = server.sockets[0].getsockname()[1]
                return server
            except OSError:
                if attempt == PORTS_TRIED or not self.port or port >= 65535:
                    raise
        raise AssertionError("unreachable")

    async def _sweep(self, runner: web.AppRunner) -> None:
        """Close connections that have been open for a while and have no request in work: slow or forgotten ones."""
        waiting: dict[Any, float] = {}
        assert runner.server is not None
        while True:
            now = time.monotonic()
            waiting = {c: waiting.get(c, now) for c in runner.server.connections if c not in self._busy}
            for connection, since in waiting.items():
                if now - since > IDLE - 1:
                    connection.force_close()
            await asyncio.sleep(0.5)

    def _names(self) -> Iterator[str]:
        """Yield the names this page may be asked for under."""
        yield from ("127.0.0.1", "localhost", "::1")
        if self.host not in WILDCARDS:
            yield self.host.lower()

    def _host_is_ours(self, header: str) -> bool:
        name, _, port = header.rpartition(":") if not header.endswith("]") else (header, "", "")
        if not name:
            name, port = header, ""
        if port and port != str(self.port):
            return False
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in self._names():
            return True
        if self.host not in WILDCARDS:
            return False
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False

    def _refusal(self, request: web.Request) -> tuple[int, str] | None:
        """Return status and reason if a request is not to be answered."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
        opening = request.method == "GET" and request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        if not self._host_is_ours(request.headers.get("Host", "")):
            return 403, "this page has another name"
        if origin is not None and origin != f"http://{request.headers['Host']}":
            return 403, "requests of other sites are refused"
        if site not in ("none", "same-origin") and not opening:
            return 403, "requests of other sites are refused"
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = request.query.get("token") or given or request.cookies.get(self.cookie, "")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            return 401, "open the address that style_transfer printed"
        if (request.content_length or 0) > MAX_BODY:
            return 413, "nothing that long is read here"
        if self._requests >= MAX_REQUESTS:
            return 503, "too many viewers"
        return None

    def _guard(self) -> Any:
        """Return the middleware every request goes through."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._busy.add(request.protocol)
            refusal = self._refusal(request)
            if refusal is not None:
                status, text = refusal
                response: web.StreamResponse = web.Response(status=status, text=text + "\n")
                response.force_close()
            elif request.path == "/" and "token" in request.query:
                response = self._welcome(request)
            else:
                self._requests += 1
                try:
                    response = await handler(request)
                except web.HTTPException as error:
                    response = web.Response(status=error.status, text=error.reason + "\n")
                except ConnectionError:
                    raise
                except Exception as error:
                    response = web.Response(status=500, text=f"{type(error).__name__}: {error}\n")
                finally:
                    self._requests -= 1
            try:
                if not response.prepared:
                    response.headers.update(HEADERS)
                    await response.prepare(request)
                    await asyncio.wait_for(response.write_eof(), WRITE_TIME)
            except TimeoutError:
                request.protocol.force_close()
            finally:
                self._busy.discard(request.protocol)
            if request.path.startswith(("/image", "/tile/")) and self._over and self._delivered is not None:
                self._delivered.set()
            return response

        return guard

    def _welcome(self, request: web.Request) -> web.StreamResponse:
        """Return what turns the token into a cookie and leads to the page without it.

        A browser that comes from another site's page would not send the cookie along a redirect, but does from a page of ours.
        """
        from aiohttp import web

        response = web.Response(status=303, headers={"Location": "/"})
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            response = web.Response(
                text='<!doctype html><html lang="en"><title>style_transfer</title><meta http-equiv="refresh" content="0;url=/">',
                content_type="text/html",
            )
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict", path="/")
        return response

    async def _encoded(self, work: Callable[[], T]) -> T:
        """Return `work()`, done in the encoder's thread; its time counts against the page's share."""

        def timed() -> T:
            began = time.thread_time()
            try:
                return work()
            finally:
                self._encoding += time.thread_time() - began

        return await asyncio.get_running_loop().run_in_executor(self._encoder, timed)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        name = ASSETS[request.path]
        text = importlib.resources.files(__package__).joinpath("page", name).read_text("utf-8")
        return web.Response(text=text, content_type=TYPES[Path(name).suffix])

    async def _now(self) -> Pyramid:
        """Return the newest picture; if nobody watches, one that the run hands over now, if it does so soon."""
        from aiohttp import web

        before = self._frame
        if not self._streams and self._state["phase"] == "painting":
            self._wanted = True
            for _ in range(40):
                if self._frame != before:
                    break
                await asyncio.sleep(INTERVAL / 10)
        if not self._layers:
            raise web.HTTPServiceUnavailable(reason="there is no picture yet")
        return self._layers[max(self._layers)]

    async def _jpeg(self, request: web.Request) -> web.StreamResponse:
        pyramid = await self._now()
        return await self._send(request, io.BytesIO(await self._encoded(pyramid.jpeg)), "image/jpeg", self._name(".jpg"))

    async def _tile(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        layer = request.match_info["layer"]
        pyramid = self._content if layer == "content" else self._layers.get(int(layer))
        level, column, row = (int(request.match_info[name]) for name in ("level", "column", "row"))
        if pyramid is None or not pyramid.has(level, column, row):
            raise web.HTTPNotFound
        body = await self._encoded(lambda: pyramid.tile(level, column, row))
        return web.Response(body=body, content_type="image/jpeg")

    async def _png(self, request: web.Request) -> web.StreamResponse:
        from ..pictures import images

        pyramid = await self._now()
        with tempfile.TemporaryFile() as stream:
            await asyncio.to_thread(images.encode_png, stream, pyramid.pixels)  # tiles do not wait for it
            return await self._send(request, stream, "image/png", self._name(".png"))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        if self._result is None:
            raise web.HTTPNotFound
        with self._result.open("rb") as stream:
            kind = mimetypes.guess_type(self._result.name)[0] or "application/octet-stream"
            return await self._send(request, stream, kind, self._name(self._result.suffix))

    def _name(self, suffix: str) -> str:
        """Return the name that a download gets."""
        return Path(str(self._about.get("output") or "picture")).stem + suffix

    async def _send(self, request: web.Request, stream: Any, kind: str, name: str) -> web.StreamResponse:
        """Send a file piece by piece."""
        from aiohttp import web

        quoted = urllib.parse.quote(name, safe="", errors="replace")
        headers = HEADERS | {"Content-Type": kind, "Content-Disposition": f"inline; filename*=UTF-8''{quoted}"}
        response = web.StreamResponse(headers=headers)
        response.content_length = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        await response.prepare(request)
        while data := await asyncio.to_thread(stream.read, CHUNK):
            await asyncio.wait_for(response.write(data), WRITE_TIME)
        return response

    def _snapshot(self) -> dict[str, Any]:
        """Return the state of the run as the page gets it."""
        state = self._state
        stages = state.get("stages", [])
        return state | {
            "run": self._run,
            "version": self._version,
            "stages": [
                {
                    "width": width,
                    "height": height,
                    "steps": steps,
                    "done": self._cuts.get(number, 0),
                    "frame": self._frames.get(number, 0),
                    "shown": self._layers[number].size[::-1] if number in self._layers else None,
                }
                for number, (width, height, steps) in enumerate(stages)
            ],
            "frame": self._frame,
            "answer": {"number": len(self._answers), "text": self._answers[-1] if self._answers else ""},
            "result": self._name(self._result.suffix) if self._result is not None else None,
        }

    def _static(self) -> dict[str, Any]:
        """Return what does not change during a run."""
        size = None if self._content is None else self._content.size
        return self._about | {"content_size": None if size is None else {"width": size[1], "height": size[0]}}

    async def _json(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        return web.json_response(self._snapshot() | {"about": self._static()}, dumps=_dumps)

    async def _curves(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        return web.json_response(self._history.since(-1, 0), dumps=_dumps)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream the state whenever it changes, at most twice a second; a slow reader gets fewer and longer messages."""
        from aiohttp import web

        assert self._stop is not None
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
        await response.prepare(request)
        run, version, generation, known = "", -1, -1, 0
        said = time.monotonic()
        self._streams += 1
        self._seen = True
        try:
            while not (request.transport is None or request.transport.is_closing()):
                stopping, now = self._stop.is_set(), time.monotonic()
                text = ""
                if self._version != version:
                    state = self._snapshot()
                    if state["run"] != run:
                        run, generation = state["run"], -1
                        state["about"] = self._static()
                    curves = self._history.since(generation, known)
                    version, generation = state["version"], int(str(curves["generation"]))
                    rows = curves["rows"]
                    assert isinstance(rows, list)
                    known = int(str(curves["from"])) + len(rows)
                    text = f"data: {_dumps(state | {'curves': curves})}\n\n"
                elif now - said >= PING:
                    text = "event: ping\ndata:\n\n"
                if text:
                    said = now
                    await asyncio.wait_for(response.write(text.encode()), WRITE_TIME)
                if stopping:
                    await response.write(b"event: bye\ndata:\n\n")
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), INTERVAL)
            if stopping and self._delivered is not None and self._over:
                with contextlib.suppress(TimeoutError):  # the viewer fetches the last picture now
                    await asyncio.wait_for(self._delivered.wait(), LINGER)
        except (ConnectionError, TimeoutError):
            request.protocol.force_close()
        finally:
            self._streams -= 1
            self._gone = time.monotonic()
        return response

    async def _command(self, request: web.Request) -> web.StreamResponse:
        """Ask the run for something, and return what it answers; null if it takes longer, since an iteration can."""
        from aiohttp import web

        name, over = request.path[1:], self._over or self._state["phase"] == "failed"
        if name == "close":
            if not over:
                return web.json_response({"answer": "The run is not over yet."}, status=409)
            self.closing = True
            return web.json_response({"answer": "The program ends."})
        if over:
            return web.json_response({"answer": "The run has ended already."}, status=409)
        if name in ("pause", "resume") and self.paused == (name == "pause"):
            return web.json_response({"answer": "It is paused already." if self.paused else "It is not paused."}, status=409)
        before = len(self._answers)
        if name in ("pause", "resume"):
            self.paused = name == "pause"
        elif name == "finish-scale":
            self.skipping = True
        else:
            self.finishing = True
        waited = 0.0
        while len(self._answers) == before and waited < ANSWER_TIME:
            await asyncio.sleep(0.05)
            waited += 0.05
        return web.json_response({"answer": self._answers[before] if len(self._answers) > before else None})


def _dumps(thing: object) -> str:
    """Return JSON; numbers that are not finite become null."""

    def clean(value: Any) -> Any:
        if isinstance(value, float):
            return finite(value)
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(clean(thing), allow_nan=False, separators=(",", ":"))
