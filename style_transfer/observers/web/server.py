"""The server of the live page: an aiohttp application in a thread of its own. The run never waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from ...errors import SettingsError
from .guard import HEADERS, Guard
from .pictures import Pictures
from .routes import Routes
from .state import SharedState

IDLE: Final = 10.0
"""Seconds after which a connection without a request is closed."""
LINGER: Final = 3.0
"""Seconds that viewers have to get the last picture when the program ends."""
MAX_CONNECTIONS: Final = 64
"""The most connections at a time. With too many, the run could open no more files."""
PORTS_TRIED: Final = 20
"""The ports that are tried after the one asked for."""


class _Refusal(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Server:
    """Serves a live page from `start` to `stop`, at `host` and `port` or the next free port.

    Raises `SettingsError` for an invalid token in the environment.
    """

    def __init__(self, host: str, port: int) -> None:
        self.guard = Guard(host, port)
        self.state = SharedState()
        self.pictures = Pictures(self.state.show)
        self.routes = Routes(self.state, self.pictures)
        self._failure: OSError | UnicodeError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="live page", daemon=True)

    def start(self) -> None:
        """Start to serve the page. Raises `SettingsError` if the address is not available."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            reason = getattr(self._failure, "strerror", None) or self._failure
            raise SettingsError(f"--host {self.guard.host} --port {self.guard.port}: {reason}; choose another address")

    def stop(self) -> None:
        """Stop the server after viewers have got the last picture, or after `LINGER` seconds."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=LINGER + 5)
        self.pictures.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(middlewares=[self._check])
        app.on_response_prepare.append(_add_headers)
        app.add_routes(self.routes.table())
        silent = logging.getLogger("style_transfer.live_page")
        silent.disabled = True  # errors are reported to the client
        runner = web.AppRunner(
            app, access_log=None, logger=silent, handle_signals=False, shutdown_timeout=0.5, keepalive_timeout=IDLE
        )
        await runner.setup()
        assert runner.server is not None
        try:
            listener = await self._listen(runner.server)
        except (OSError, UnicodeError) as error:  # UnicodeError: the host is not a valid name
            self._failure = error
        self._started.set()
        if self._failure is None:
            await self._stop.wait()
            if self.routes.streams and self.state.now.ended:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.routes.delivered.wait(), LINGER)
            self.routes.ending.set()
            for listening in listener.sockets:  # asyncio would lose sockets that it accepts while the listener closes
                with contextlib.suppress(NotImplementedError):
                    self._loop.remove_reader(listening.fileno())
            await asyncio.sleep(0.1)
            listener.close()
        transports = [connection.transport for connection in runner.server.connections]
        await runner.cleanup()
        for transport in transports:
            if transport is not None:
                transport.abort()  # its client may never read the rest of a response
        await asyncio.sleep(0)

    async def _listen(self, server: web.Server) -> asyncio.Server:
        """Listen on the first free port. Raises `OSError` and `UnicodeError`."""
        loop, guard = asyncio.get_running_loop(), self.guard

        def connect() -> asyncio.BaseProtocol:
            return server() if len(server.connections) < MAX_CONNECTIONS else _Refusal()

        port = guard.port
        while True:
            try:
                listener = await loop.create_server(connect, guard.host, port)
            except OSError:
                if not port or port >= min(guard.port + PORTS_TRIED, 65535):
                    raise
                port += 1
            else:
                guard.port = listener.sockets[0].getsockname()[1]
                return listener

    @web.middleware
    async def _check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer a request if the guard does not refuse it."""
        refusal = self.guard.refusal(request)
        if refusal is not None:
            refusal.force_close()
            return refusal
        if request.path == "/" and "token" in request.query:
            return self.guard.welcome(request)
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            return web.Response(status=500, text=f"{type(error).__name__}: {error}\n")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
