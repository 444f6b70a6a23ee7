"""One HTTP exchange with an upstream under a call's timeouts, in the backends' own errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

import httpx
import msgspec

from backends.base import Call, Timeouts
from backends.dialects.refusals import Refusal, error_for, parse_error
from backends.errors import (
    BackendError,
    ConnectFailed,
    FirstTokenTimeout,
    Overloaded,
    StreamBroken,
    StreamIdle,
    StreamTruncated,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from backends.http import (
    Disconnected,
    Endpoint,
    ResentInVain,
    TooLarge,
    UpstreamResponse,
    UpstreamTransport,
)

__all__ = ["Exchange", "Incoming", "Outgoing", "check_headers", "header_pairs", "open_exchange"]

ERROR_BYTES = 64 * 1024
_ERROR_SECONDS = 5.0
_STREAM_TYPE = b"text/event-stream"


class Outgoing(msgspec.Struct, frozen=True):
    """A request that is ready to be sent. `secrets` are kept out of every error's message."""

    endpoint: Endpoint
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    secrets: tuple[str, ...] = ()


class Incoming(Protocol):
    """What a reply reads from: an Exchange, or the scripted backend's stand-in for one."""

    @property
    def stream(self) -> bool: ...

    @property
    def semantic(self) -> bool: ...

    def progress(self, semantic: bool) -> None: ...

    async def receive(self) -> bytes: ...

    async def read(self, limit: int) -> bytes: ...

    def check_type(self, kind: Literal["json", "stream"]) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class Exchange:
    """An answer with a 2xx status. Deadlines: until the first semantic event `first_token` (for
    streams), then `idle` from one event to the next, and `total` always.

    The reader calls `progress` after every event. The idle time starts with the reader's next wait
    and is not moved by bytes that complete no event; a reader that is itself slow is not timed.
    """

    __slots__ = ("_eventful", "_idle", "_loop", "_response", "_total_at", "semantic", "stream")

    def __init__(
        self, response: UpstreamResponse, timeouts: Timeouts, total_at: float, stream: bool
    ) -> None:
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._idle = timeouts.idle
        self._total_at = total_at
        self._eventful = False
        self.stream = stream
        self.semantic = False

    def progress(self, semantic: bool) -> None:
        """An event is complete; `semantic` as in Event."""
        if semantic:
            self.semantic = True
        self._eventful = self.semantic

    async def receive(self) -> bytes:
        """The next bytes; b"" at the clean end. Raises a BackendError."""
        response = self._response
        if self._eventful:
            self._eventful = False
            response.deadline = min(self._loop.time() + self._idle, self._total_at)
        try:
            return await response.receive()
        except httpx.TransportError as exc:
            raise self._translate(exc) from exc

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes. Raises a BackendError."""
        try:
            return await self._response.read(limit)
        except httpx.TransportError as exc:
            raise self._translate(exc) from exc

    def check_type(self, kind: Literal["json", "stream"]) -> None:
        """Raises UpstreamProtocolError when the answer says that it is something else."""
        check_headers(self._response.headers, kind)

    def finish(self) -> None:
        """All that matters was read: the connection may be used again."""
        self._response.finish()

    def close(self) -> None:
        """Stop the upstream, unless it is done."""
        self._response.close()

    def _translate(self, exc: httpx.TransportError) -> BackendError:
        if isinstance(exc, httpx.ReadTimeout):
            if self._loop.time() >= self._total_at - 0.005:
                return UpstreamTimeout("the upstream did not finish in time")
            if self.stream and not self.semantic:
                return FirstTokenTimeout("the upstream gave no content in time")
            return StreamIdle("the upstream fell silent")
        if isinstance(exc, TooLarge):
            return UpstreamProtocolError("the upstream's answer is too large")
        if isinstance(exc, Disconnected):
            return StreamTruncated("the upstream's answer ended early")
        if isinstance(exc, httpx.RemoteProtocolError):
            return UpstreamProtocolError("the upstream's answer is not valid HTTP")
        return StreamBroken("the connection to the upstream broke")


def check_headers(headers: Iterable[tuple[bytes, bytes]], kind: Literal["json", "stream"]) -> None:
    """Raises UpstreamProtocolError for a body that is not of this kind, or compressed."""
    found = dict(headers)
    content_type = found.get(b"content-type", b"").lower()
    right = content_type.startswith(_STREAM_TYPE) if kind == "stream" else b"json" in content_type
    plain = found.get(b"content-encoding", b"identity").lower() == b"identity"
    if (content_type and not right) or not plain:
        expected = "an event stream" if kind == "stream" else "JSON"
        raise UpstreamProtocolError(f"the upstream's answer is not {expected}")


async def open_exchange(
    transport: UpstreamTransport, call: Call, outgoing: Outgoing, clock: Callable[[], float]
) -> Exchange:
    """Send, and wait for a 2xx status. Raises the BackendError that the upstream's refusal, or
    its silence, stands for. `clock` gives Unix time in seconds."""
    loop = asyncio.get_running_loop()
    timeouts = call.timeouts
    started = loop.time()
    total_at = started + timeouts.total
    first_at = min(started + timeouts.first_token, total_at) if call.stream else total_at
    try:
        response = await transport.send(
            outgoing.endpoint,
            outgoing.body,
            connect=min(timeouts.connect, timeouts.total),
            deadline=first_at,
            headers=outgoing.headers,
        )
    except httpx.TransportError as exc:
        raise _unanswered(exc, call.stream and first_at < total_at) from exc
    if 200 <= response.status < 300:
        return Exchange(response, timeouts, total_at, call.stream)
    try:
        response.deadline = min(loop.time() + _ERROR_SECONDS, total_at)
        body = await _error_body(response)
    finally:
        response.close()
    raise error_for(
        Refusal(response.status, parse_error(body), response.headers, outgoing.secrets, clock())
    )


async def _error_body(response: UpstreamResponse) -> bytes:
    # The status alone says enough when the body is late, cut or huge.
    try:
        return await response.read(ERROR_BYTES)
    except httpx.TransportError:
        return b""


def _unanswered(exc: httpx.TransportError, first_token: bool) -> BackendError:
    if isinstance(exc, httpx.ReadTimeout):
        if first_token:
            return FirstTokenTimeout("the upstream gave no content in time")
        return UpstreamTimeout("the upstream did not answer in time")
    if isinstance(exc, httpx.PoolTimeout):
        return Overloaded("all connections to the upstream are busy")
    if isinstance(exc, TooLarge):
        return UpstreamProtocolError("the upstream's headers are too large")
    if isinstance(exc, httpx.RemoteProtocolError) and not isinstance(exc, Disconnected):
        return UpstreamProtocolError("the upstream's answer is not valid HTTP")
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return ConnectFailed("cannot connect to the upstream")
    error = ConnectFailed("the connection was lost before an answer")
    if isinstance(exc, ResentInVain):
        error.sends = 2
    return error


def call_headers(call: Call) -> tuple[tuple[bytes, bytes], ...]:
    """What is said of this one call by header: its id, and where it belongs in a trace."""
    found = []
    if _plain(call.request_id):
        found.append((b"x-request-id", call.request_id.encode()))
    if _plain(call.traceparent):
        found.append((b"traceparent", call.traceparent.encode()))
    return tuple(found)


def _plain(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()


def header_pairs(headers: Iterable[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    """Header text as bytes. Raises ValueError for what is not latin-1."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
