"""Checks of every request, before anything else, and headers of every response.

A page of another site can send requests to this computer from the user's browser. Its scripts must not read
the user's photos, and its forms must not start work. A site can also let its own name point to 127.0.0.1;
its requests then have this name as Host.
"""

import ipaddress
import re
import socket
from functools import cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: only the files of this server, and no code in the page itself."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.IGNORECASE)

READING = ("GET", "HEAD")


class Guard:
    """Application that refuses requests of other sites and passes on all other requests.

    Args:
        app: the application.
        host: the address that the server listens at.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request: refuse it, or add the headers to the response of the application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the page has no {scope['type']}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = refusal(scope["method"], Headers(scope=scope), self._host)
        app = self._app if reason is None else JSONResponse({"error": reason}, status_code=403)
        await app(scope, receive, send_with_headers)


def refusal(method: str, headers: Headers, bound: str) -> str | None:
    """Return why a request is refused, or None if it is not.

    Args:
        method: method of the request.
        headers: headers of the request.
        bound: the address that the server listens at.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not is_own_host(hosts[0], bound):
        return "this server has another name: open it by the address that it printed"
    # Browsers send the origin with all requests but reading ones.
    origins = headers.getlist("origin")
    if (origins or method not in READING) and origins != [f"http://{hosts[0]}"]:
        return "the request comes from another page"
    opens_page = method in READING and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not opens_page:
        return "the request comes from another page"
    return None


def is_own_host(header: str, bound: str) -> bool:
    """Return True if a Host header names this server. The port is not compared: a tunnel changes it.

    A server for this computer only has the names localhost, 127.0.0.1 and [::1]. A server for others also
    has its name in the network and any address. An address cannot be the name of another site.

    Args:
        header: value of the header.
        bound: the address that the server listens at.
    """
    match = HOST.fullmatch(header)
    if match is None:
        return False
    name = match["name"].lower().strip("[]")
    if name in ("localhost", "127.0.0.1", "::1", bound.lower()):
        return True
    if is_loopback(bound):
        return False
    return is_address(name) or name in own_names()


@cache
def own_names() -> frozenset[str]:
    """Return the names of this computer in its network, in lower case."""
    own = socket.gethostname().lower()
    return frozenset({own, f"{own}.local", socket.getfqdn().lower()})


def is_loopback(host: str) -> bool:
    """Return True if only this computer reaches a server at this address."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(name: str) -> bool:
    """Return True for an address of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
