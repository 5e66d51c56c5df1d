"""The routes of the live page: its files, state and events, pictures, and buttons. No address is the path of a file."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import json
import math
import mimetypes
import os
import tempfile
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import IO, Any, Final

from aiohttp import web

from ...compute.distributed import Request
from ...pictures import encode_png
from .guard import HEADERS
from .pictures import INTERVAL, Pictures
from .pyramid import Pyramid
from .state import SharedState

PING: Final = 5.0
"""Seconds without a change after which a stream of events gets a ping."""
AWAY = 15.0
"""Seconds after the last viewer has disconnected for which the page still counts as watched."""
WRITE_TIME: Final = 30.0
"""Seconds that a client has to read a piece of data."""
ANSWER_TIME = 2.0
"""Seconds for which the response to a button waits for the answer of the run. A later answer comes with the events."""
CHUNK: Final = 1 << 18
"""The bytes of a file that are sent at a time."""
FILES: Final = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/viewer.js": ("viewer.js", "text/javascript"),
    "/curves.js": ("curves.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""The files of the page, with their types, by address."""
REQUESTS: Final = {"finish-scale": Request.FINISH_SCALE, "finish": Request.FINISH}
BUTTONS: Final = ("pause", "resume", *REQUESTS, "close")


class Routes:
    """Answers requests from the shared state, and counts the viewers."""

    def __init__(self, state: SharedState, pictures: Pictures) -> None:
        self._state, self._pictures = state, pictures
        self.streams = 0
        """The number of viewers connected now."""
        self._left: float | None = None
        self._export = asyncio.Lock()
        self.close_requested = False
        self.curves_wanted = False
        """Whether a client without a stream of events waits for the losses."""
        self.delivered = asyncio.Event()
        """Set when a viewer has got a part of the last picture."""
        self.ending = asyncio.Event()
        """Set when the server is about to stop."""

    @property
    def watched(self) -> bool:
        """Whether there are viewers, or were less than `AWAY` seconds ago."""
        return self.streams > 0 or (self._left is not None and time.monotonic() - self._left < AWAY)

    def table(self) -> list[web.RouteDef]:
        """Return all routes."""
        get: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            **dict.fromkeys(FILES, self._file),
            "/image": self._jpeg,
            "/image.png": self._png,
            "/result": self._result,
            "/events": self._events,
            "/state.json": self._json,
            "/curves.json": self._curves,
            r"/tile/{layer:content|\d{1,4}}/{level:\d{1,2}}/{column:\d{1,6}}/{row:\d{1,6}}": self._tile,
        }
        return [
            *(web.get(path, handler, allow_head=False) for path, handler in get.items()),
            *(web.post(f"/{name}", self._button) for name in BUTTONS),
        ]

    # ---------------------------------------------------------------------------------------- files and pictures

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name, kind = FILES[request.path]
        text = importlib.resources.files(__package__).joinpath("page", name).read_text("utf-8")
        return web.Response(text=text, content_type=kind)

    async def _newest(self) -> Pyramid:
        """Return the newest picture. Without viewers, first request one from the run, and wait up to two seconds for it."""
        before = self._state.now
        if not self.streams and before.phase == "running":
            self._pictures.wanted = True
            await _wait(lambda: self._state.now.frame != before.frame)
        newest = self._state.now.newest
        if newest is None:
            raise web.HTTPServiceUnavailable(text="no picture exists yet\n")
        return newest

    async def _encoded(self, work: Callable[[], bytes]) -> bytes:
        encoded = await asyncio.wrap_future(self._pictures.encode(work))
        if self._state.now.ended:
            self.delivered.set()
        return encoded

    async def _jpeg(self, request: web.Request) -> web.StreamResponse:
        encoded = await self._encoded((await self._newest()).jpeg)
        return await self._send(request, BytesIO(encoded), "image/jpeg", ".jpg")

    async def _png(self, request: web.Request) -> web.StreamResponse:
        picture = await self._newest()
        with tempfile.TemporaryFile() as stream:
            async with self._export:  # one at a time, and not in the thread that encodes tiles, which would have to wait
                await asyncio.to_thread(encode_png, stream, picture.pixels)
            return await self._send(request, stream, "image/png", ".png")

    async def _tile(self, request: web.Request) -> web.StreamResponse:
        now, layer = self._state.now, request.match_info["layer"]
        shown = now.layers.get(int(layer)) if layer != "content" else None
        picture = now.content if layer == "content" else shown.picture if shown is not None else None
        level, column, row = (int(request.match_info[name]) for name in ("level", "column", "row"))
        if picture is None or not picture.has(level, column, row):
            raise web.HTTPNotFound
        return web.Response(body=await self._encoded(lambda: picture.tile(level, column, row)), content_type="image/jpeg")

    async def _result(self, request: web.Request) -> web.StreamResponse:
        path = self._state.now.result
        if path is None:
            raise web.HTTPNotFound
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        with path.open("rb") as stream:
            return await self._send(request, stream, kind, path.suffix)

    async def _send(self, request: web.Request, stream: IO[bytes], kind: str, suffix: str) -> web.StreamResponse:
        """Send a file in pieces."""
        name = urllib.parse.quote(self._state.now.name(suffix), safe="", errors="replace")
        headers = HEADERS | {"Content-Type": kind, "Content-Disposition": f"inline; filename*=UTF-8''{name}"}
        response = web.StreamResponse(headers=headers)
        response.content_length = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        await response.prepare(request)
        while data := await asyncio.to_thread(stream.read, CHUNK):
            await _write(request, response, data)
        return response

    # ------------------------------------------------------------------------------------------ state and events

    async def _json(self, request: web.Request) -> web.StreamResponse:
        now = self._state.now
        return web.json_response(now.changing() | {"about": now.constant()}, dumps=dumps)

    async def _curves(self, request: web.Request) -> web.StreamResponse:
        """Send all losses. Without viewers, first let the run read the newest, and wait up to two seconds for it."""
        if not self.streams and self._state.now.phase == "running":
            self.curves_wanted = True
            await _wait(lambda: not self.curves_wanted)
        return web.json_response(self._state.now.history.since(-1, 0), dumps=dumps)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream the state after each change, at most once per `INTERVAL`. A slow reader gets fewer and longer messages."""
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
        await response.prepare(request)
        run, sent = "", (-1, False)
        generation, known = -1, 0
        wrote = time.monotonic()
        self.streams += 1
        try:
            while not (request.transport is None or request.transport.is_closing()):
                ending, now, text = self.ending.is_set(), self._state.now, ""
                current = now.version, now.paused
                if current != sent:
                    state = now.changing()
                    if now.run != run:
                        generation = -1
                        state["about"] = now.constant()
                    curves = now.history.since(generation, known)
                    run, sent, generation, known = now.run, current, curves["generation"], curves["from"] + len(curves["rows"])
                    text = f"data: {dumps(state | {'curves': curves})}\n\n"
                elif time.monotonic() - wrote >= PING:
                    text = "event: ping\ndata:\n\n"
                text += "event: bye\ndata:\n\n" if ending else ""
                if text:
                    await _write(request, response, text.encode())
                    wrote = time.monotonic()
                if ending:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.ending.wait(), INTERVAL)
        finally:
            self.streams -= 1
            self._left = time.monotonic()
        return response

    # --------------------------------------------------------------------------------------------------- buttons

    async def _button(self, request: web.Request) -> web.StreamResponse:
        """Pass a pressed button to the run, and return its answer, or null if it takes too long, as an iteration may."""
        button, now = request.path[1:], self._state.now
        ended = now.ended or now.phase == "failed"
        if button == "close":
            self.close_requested |= ended
            return _answer("The program ends.") if ended else _answer("The run has not ended yet.", 409)
        if ended or now.control is None:
            return _answer("The run has ended already.", 409)
        paused = now.control.paused or "pause" in now.asked
        if button == "pause" and paused:
            return _answer("The run is paused already.", 409)
        if button == "resume":
            if not paused:
                return _answer("The run is not paused.", 409)
            self._state.answer("pause", "The run continues.")
            now.control.resume()
            return _answer("The run continues.")
        # A run pauses at the end of a step, with its newest picture on the page. When a paused run finishes its scale, it pauses
        # again at the next one.
        self._state.ask(button, *(["pause"] if button == "finish-scale" and now.control.paused else []))
        if button in REQUESTS:
            now.control.request(REQUESTS[button])
        waited = 0.0
        while len(self._state.now.answers) == len(now.answers) and waited < ANSWER_TIME:
            await asyncio.sleep(0.05)
            waited += 0.05
        return _answer(next(iter(self._state.now.answers[len(now.answers) :]), None))


def _answer(text: str | None, status: int = 200) -> web.Response:
    return web.json_response({"answer": text}, status=status)


async def _wait(met: Callable[[], bool]) -> None:
    """Wait until a condition is met, at most two seconds."""
    for _ in range(40):
        if met():
            break
        await asyncio.sleep(INTERVAL / 10)


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write to a client, and disconnect it if it does not read. Raises `ConnectionError`."""
    try:
        await asyncio.wait_for(response.write(data), WRITE_TIME)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not read") from None


def dumps(value: object) -> str:
    """Return JSON in which numbers that are not finite are null."""
    return json.dumps(_clean(value), allow_nan=False, separators=(",", ":"))


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value
