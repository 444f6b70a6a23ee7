"""One HTTP/1.1 connection and the answer that is being read from it."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable

import httptools
import httpx
import msgspec

__all__ = ["Connection", "Disconnected", "Limits", "TooLarge", "UpstreamResponse"]

HIGH_WATER = 64 * 1024
_DRAIN_BYTES = 64 * 1024


class Disconnected(httpx.RemoteProtocolError):
    """The upstream closed the connection before the answer was complete."""


class TooLarge(httpx.RemoteProtocolError):
    """The answer is larger than the limits allow."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`header_bytes` and `body_bytes` count bytes on the wire, chunk framing included.
    `connections` is per origin; `keepalive` is the seconds an idle connection is kept."""

    connections: int = 1024
    keepalive: float = 30.0
    header_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024


class UpstreamResponse:
    """An answer whose status and headers have arrived.

    `deadline` is an absolute time of the event loop's clock: a wait for bytes that lasts past it
    raises httpx.ReadTimeout. The reader may move it at any time. At most about 64 KiB plus one
    read of the socket are held for a slow reader; then the connection is not read any further.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_connection",
        "_draining",
        "_error",
        "_loop",
        "_timer",
        "_waiter",
        "buffered",
        "deadline",
        "head_complete",
        "headers",
        "status",
        "wire_bytes",
    )

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, deadline: float
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.deadline = deadline
        self.head_complete = False
        self.wire_bytes = 0
        self.buffered = 0
        self._chunks: list[bytes] = []
        self._complete = False
        self._draining = False
        self._error: httpx.TransportError | None = None
        self._connection = connection
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def complete(self) -> bool:
        """True once the last byte has arrived, read or not."""
        return self._complete

    def header(self, name: bytes) -> bytes | None:
        """The first header of this lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def receive(self) -> bytes:
        """All bytes that are there, at least one; b"" at the clean end of the answer.

        Raises httpx.ReadTimeout, httpx.ReadError (reset), Disconnected (ended early), TooLarge or
        httpx.RemoteProtocolError (not HTTP).
        """
        chunks = self._chunks
        while not chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        if not self._complete:
            self._connection.resume()
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        while data := await self.receive():
            yield data

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises TooLarge beyond `limit` bytes, and as `receive` does."""
        pieces: list[bytes] = []
        size = 0
        while data := await self.receive():
            size += len(data)
            if size > limit:
                self.close()
                raise TooLarge(f"the answer is larger than {limit} bytes")
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def wait_head(self) -> None:
        """Wait for status and headers."""
        while not self.head_complete:
            if self._error is not None:
                raise self._error
            await self._wait()

    def finish(self, grace: float = 1.0) -> None:
        """The reader has all it wants: give the connection `grace` seconds to reach its end, so
        that it can be used again, and close it otherwise."""
        if self._complete or self._error is not None:
            self.close()
            return
        self._chunks.clear()
        self.buffered = 0
        self._draining = True
        self._stop_timer()
        self._timer = self._loop.call_later(grace, self._connection.abort)
        self._connection.resume()

    def close(self) -> None:
        """Stop reading. Closes the connection unless the answer is complete, or was left to
        `finish`."""
        if self._draining:
            return
        self._stop_timer()
        if not self._complete:
            self._connection.abort()

    async def aclose(self) -> None:
        self.close()

    # Called by the connection.

    def put(self, data: bytes) -> None:
        if self._draining:
            self.buffered += len(data)
            if self.buffered > _DRAIN_BYTES:
                self._connection.abort()
            return
        self._chunks.append(data)
        self.buffered += len(data)

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end(self, error: httpx.TransportError | None) -> None:
        if self._complete or self._error is not None:
            return
        if error is None:
            self._complete = True
        else:
            self._error = error
        self._stop_timer()
        self.wake()

    # Timing. One timer, moved only when it fires: a stream of a thousand events arms it once.

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        if self.deadline != math.inf:
            timer = self._timer
            if timer is None or timer.when() > self.deadline:
                self._arm()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _arm(self) -> None:
        self._stop_timer()
        self._timer = self._loop.call_at(self.deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        # A loop's timers may fire up to its clock's resolution early.
        if self._loop.time() < self.deadline - 0.002:
            self._arm()
        else:
            waiter.set_exception(httpx.ReadTimeout("no bytes from the upstream in time"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Connection(asyncio.Protocol):
    """Parses answers, one after the other, into UpstreamResponse objects.

    `on_idle(self)` is called when an answer ended and the connection can carry another,
    `on_closed(self)` once, when the connection is gone.
    """

    def __init__(
        self,
        limits: Limits,
        on_idle: Callable[[Connection], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self.closed = False
        self.reused = False
        self.idle_since = 0.0
        self._limits = limits
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: UpstreamResponse | None = None
        self._paused = False
        self._eof = False
        self._reset()

    def _reset(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._finished = False
        self._surplus = False
        self._interim = False
        self._until_eof = False
        self._keep_alive = False

    # Used by the pool and by the response.

    def start(
        self, message: bytes, deadline: float, loop: asyncio.AbstractEventLoop
    ) -> UpstreamResponse:
        """Write a whole request. The connection must be idle."""
        response = UpstreamResponse(self, loop, deadline)
        if self.closed or self._transport is None:
            response.end(Disconnected("the upstream closed the connection"))
            return response
        self._reset()
        self._response = response
        self._transport.write(message)
        return response

    def abort(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._transport is not None and not self.closed:
                self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Annotated this way by asyncio; every stream transport is an asyncio.Transport.
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            # Nothing was asked: whatever this is, it must not be taken for the next answer.
            self.abort()
            return
        response.wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if isinstance(exc.__context__, TooLarge):
                self._fail(exc.__context__)
            else:
                self._fail(httpx.RemoteProtocolError(f"not a valid HTTP answer: {exc}"))
            return
        if self._finished:
            self._conclude(response)
            return
        limits = self._limits
        allowed = limits.header_bytes
        if response.head_complete:
            allowed += limits.body_bytes
        if response.wire_bytes > allowed:
            self._fail(TooLarge(f"the answer is larger than {allowed} bytes"))
            return
        if response.buffered > HIGH_WATER and not self._paused and not self.closed:
            self._paused = True
            assert self._transport is not None
            self._transport.pause_reading()
        response.wake()

    def eof_received(self) -> None:
        assert self._transport is not None
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if tls is None:
            self._eof = True
            return
        # asyncio reports an end with and without close_notify alike. TLS itself knows: after
        # close_notify a read gives b"", otherwise it still wants bytes.
        try:
            self._eof = tls.read(1) == b""
        except ssl.SSLError:
            self._eof = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        response = self._response
        self._response = None
        if response is not None:
            if exc is None and self._until_eof and self._eof and response.head_complete:
                response.end(None)
            elif exc is None:
                response.end(Disconnected("the upstream closed the connection early"))
            else:
                response.end(httpx.ReadError(f"connection lost: {exc}"))
        self._on_closed(self)

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._finished:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response = self._response
        if response is None or self._surplus:
            return
        status = self._parser.get_status_code()
        self._interim = status < 200
        headers, self._headers = self._headers, []
        if self._interim:
            return
        if sum(len(name) + len(value) for name, value in headers) > self._limits.header_bytes:
            raise TooLarge(f"the headers are larger than {self._limits.header_bytes} bytes")
        self._keep_alive = self._parser.should_keep_alive()
        self._until_eof = status not in (204, 304) and _ends_with_connection(headers)
        response.status = status
        response.headers = headers
        response.head_complete = True

    def on_body(self, data: bytes) -> None:
        response = self._response
        if response is not None and not self._surplus:
            response.put(data)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._finished = True

    def _conclude(self, response: UpstreamResponse) -> None:
        transport = self._transport
        assert transport is not None
        self._response = None
        response.end(None)
        # An answer that came before the request was fully written ends the connection too.
        if (
            self._keep_alive
            and not self._surplus
            and not self.closed
            and not transport.get_write_buffer_size()
        ):
            self.resume()
            self._on_idle(self)
        else:
            self.abort()

    def _fail(self, error: httpx.TransportError) -> None:
        response = self._response
        self._response = None
        if response is not None:
            response.end(error)
        self.abort()


def _ends_with_connection(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-length":
            return False
        if name == b"transfer-encoding" and value.lower().rstrip().endswith(b"chunked"):
            return False
    return True
