"""The upstream HTTP client: HTTP/1.1 over asyncio with httptools, no redirects, no proxies.

`UpstreamTransport` is an httpx transport, so that anything written for httpx can use it. The
backends use its `send`, which skips httpx's objects: a request is one prebuilt head plus a body.
Errors are httpx's, translated to the backends' own in `backends.dialects`.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Iterable
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec

from backends.transport.connection import Disconnected, Limits, TooLarge, UpstreamResponse
from backends.transport.pool import Origin, OriginPool

__all__ = [
    "Disconnected",
    "Endpoint",
    "Limits",
    "Origin",
    "PoolStats",
    "ResentInVain",
    "TooLarge",
    "UpstreamResponse",
    "UpstreamTransport",
    "make_endpoint",
]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = frozenset(b"\r\n\0")
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"expect"))

Headers = Iterable[tuple[bytes, bytes]]


class ResentInVain(httpx.ReadError):
    """A kept-alive connection proved dead, and so did the fresh one that took its place: the
    request went out twice."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a request goes, with its request line and fixed headers already written."""

    origin: Origin
    head: bytes


class PoolStats(msgspec.Struct, frozen=True):
    """Connections to one origin."""

    origin: str
    connections: int
    idle: int


def make_endpoint(url: str, headers: Headers = (), *, method: str = "POST") -> Endpoint:
    """Raises ValueError for a URL that is not http(s), or for a header that would break out of
    its line. `content-length` and `connection` are the transport's own and not allowed."""
    parts = urlsplit(url)
    origin = _origin(parts)
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    host = parts.netloc.rpartition("@")[2]
    return Endpoint(
        origin, _head(method, path.encode("ascii"), [(b"host", host.encode()), *headers])
    )


def _origin(parts: SplitResult) -> Origin:
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("an upstream URL must be http:// or https:// with a host")
    return Origin(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])


def _head(method: str, target: bytes, headers: Headers) -> bytes:
    if method == "HEAD" or not method.isalpha():
        raise ValueError(f"method not supported: {method!r}")
    if any(byte <= 32 or byte == 127 for byte in target):
        raise ValueError("the path holds a space or a control character")
    return b"%b %b HTTP/1.1\r\n%b" % (method.encode(), target, _lines(headers))


def _lines(headers: Headers) -> bytes:
    lines = []
    for name, value in headers:
        if name.lower() in _FRAMING:
            raise ValueError(f"header {name!r} is set by the transport")
        if not name or not _FORBIDDEN.isdisjoint(name + value) or b":" in name or b" " in name:
            raise ValueError(f"header {name!r} is not valid")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Connections to upstreams, reused between requests.

    One object belongs to one event loop. `ssl_context` defaults to certifi's roots with
    verification on; it is made at the first https request.
    """

    def __init__(
        self, limits: Limits | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._context = ssl_context
        self._pools: dict[Origin, OriginPool] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self,
        endpoint: Endpoint,
        body: bytes,
        *,
        connect: float = 5.0,
        deadline: float = math.inf,
        headers: Headers = (),
    ) -> UpstreamResponse:
        """Send a request and wait for status and headers.

        `connect` in seconds bounds the wait for a connection; `deadline`, on the event loop's
        clock, the wait for the headers, and stays the response's deadline until it is moved.
        A reused connection that dies before its first byte is replaced by a new one, once.
        Raises httpx.ConnectError, ConnectTimeout, PoolTimeout, and as UpstreamResponse.receive.
        The caller must read the response to its end or close it.
        """
        extra = _lines(headers) if headers else b""
        message = b"%bcontent-length: %d\r\n%b\r\n%b" % (endpoint.head, len(body), extra, body)
        loop = asyncio.get_running_loop()
        pool = self._pool(endpoint.origin)
        connection = pool.reuse(loop.time()) or await pool.connect(connect)
        for last in (False, True):
            response = connection.start(message, deadline, loop)
            try:
                await response.wait_head()
                return response
            except (Disconnected, httpx.ReadError) as exc:
                if last:
                    raise ResentInVain(str(exc)) from exc
                if response.wire_bytes or not connection.reused:
                    raise
            except BaseException:
                # A cancelled or late request must not leave the upstream working for nobody.
                response.close()
                raise
            connection = await pool.connect(connect)
        raise AssertionError("unreachable")

    def _pool(self, origin: Origin) -> OriginPool:
        pool = self._pools.get(origin)
        if pool is None:
            if self._closed:
                raise RuntimeError("the transport is closed")
            if origin.scheme == "https" and self._context is None:
                self._context = httpx.create_ssl_context()
            pool = self._pools[origin] = OriginPool(origin, self._limits, self._context)
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._limits.keepalive, self._sweep)
        return pool

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for pool in self._pools.values():
            pool.expire(now)
        self._sweeper = None
        if any(pool.size for pool in self._pools.values()):
            self._sweeper = loop.call_later(self._limits.keepalive, self._sweep)

    def stats(self) -> list[PoolStats]:
        return [
            PoolStats(f"{origin.scheme}://{origin.host}:{origin.port}", pool.size, pool.idle)
            for origin, pool in self._pools.items()
        ]

    # httpx's seam

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        timeout = request.extensions.get("timeout", {})
        read = timeout.get("read")
        url = request.url
        origin = Origin(url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme, 0))
        if not origin.port:
            raise httpx.UnsupportedProtocol(f"scheme {url.scheme!r} is not supported")
        headers = [pair for pair in request.headers.raw if pair[0].lower() not in _FRAMING]
        try:
            endpoint = Endpoint(origin, _head(request.method, url.raw_path, headers))
        except ValueError as exc:
            raise httpx.LocalProtocolError(str(exc)) from exc
        response = await self.send(
            endpoint,
            body,
            connect=_least(timeout.get("connect"), timeout.get("pool")),
            deadline=_deadline(read),
        )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_HttpxStream(response, read),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for pool in self._pools.values():
            pool.close()
        # Let the event loop tell the connections that they are gone.
        await asyncio.sleep(0)


class _HttpxStream(httpx.AsyncByteStream):
    def __init__(self, response: UpstreamResponse, read_timeout: float | None) -> None:
        self._response = response
        self._read_timeout = read_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        response = self._response
        while True:
            response.deadline = _deadline(self._read_timeout)
            data = await response.receive()
            if not data:
                return
            yield data

    async def aclose(self) -> None:
        self._response.close()


def _deadline(seconds: float | None) -> float:
    return math.inf if seconds is None else asyncio.get_running_loop().time() + seconds


def _least(*seconds: float | None) -> float:
    return min((value for value in seconds if value is not None), default=math.inf)
