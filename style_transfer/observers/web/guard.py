"""Access control of the live page.

Other machines can reach the page only with a suitable `--host`. Since a page of another site can also send requests to loopback
addresses (DNS rebinding), the Host, Origin and Sec-Fetch-Site headers of every request are checked. Every request must have the
token: it is part of the printed address, and the browser then keeps it as a cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import urllib.parse
from typing import Final

from aiohttp import web

from ...errors import SettingsError

TOKEN: Final = "STYLE_TRANSFER_TOKEN"
"""The environment variable with a token that replaces the random one, so that an address stays valid."""
MIN_TOKEN: Final = 16
WILDCARDS: Final = ("0.0.0.0", "::")
POLICY: Final = (
    "default-src 'none'; img-src 'self' blob:; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every response."""


class Guard:
    """Checks the requests to a page at `host` and `port`; the server sets `port` to the one that it uses.

    Raises `SettingsError` for a token in the environment that is too short or not printable ASCII.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
        if len(self.token) < MIN_TOKEN or not self.token.isascii() or not self.token.isprintable():
            raise SettingsError(f"{TOKEN} must have at least {MIN_TOKEN} printable ASCII characters, not {len(self.token)}")

    @property
    def address(self) -> str:
        """The address to open in a browser, with the token."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}/?token={urllib.parse.quote(self.token, safe='')}"

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the page."""
        return self.host != "localhost" and not (_is_address(self.host) and ipaddress.ip_address(self.host).is_loopback)

    @property
    def cookie(self) -> str:
        """The name of the cookie. It contains the port, because all ports of a host share their cookies."""
        return f"style_transfer_{self.port}"

    def _is_own_host(self, header: str) -> bool:
        """Return whether a Host header is that of this page; names of this machine may have any port, that of a tunnel."""
        name, _, port = header.rpartition(":") if not header.endswith("]") else (header, "", "")
        if not name:
            name, port = header, ""
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in ("127.0.0.1", "localhost", "::1"):
            return True
        if port and port != str(self.port):
            return False
        if self.host not in WILDCARDS:
            return name == self.host.lower()
        return _is_address(name)  # a name could be that of a site that uses DNS rebinding

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the response that refuses a request, or None if the request is allowed."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
        opening = request.method == "GET" and request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        if not self._is_own_host(request.headers.get("Host", "")):
            return web.Response(status=403, text="this page has another host name\n")
        foreign = origin is not None and origin != f"http://{request.headers['Host']}"
        if foreign or (site not in ("none", "same-origin") and not opening):
            return web.Response(status=403, text="requests from other sites are refused\n")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = request.query.get("token") or bearer or request.cookies.get(self.cookie, "")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            return web.Response(status=401, text="open the address that style_transfer printed\n")
        return None

    def welcome(self, request: web.Request) -> web.Response:
        """Return the response to the printed address, which sets the cookie and leads to the address without the token.

        It is a redirect, but a page for a browser that follows a link on another site: that would not send the new cookie along a
        redirect.
        """
        response = web.Response(status=303, headers={"Location": "/"})
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            response = web.Response(
                text='<!doctype html><html lang="en"><title>style_transfer</title><meta http-equiv="refresh" content="0;url=/">',
                content_type="text/html",
            )
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict", path="/")
        return response


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
