"""One pipelined connection to the store: many calls in flight, one write per event-loop turn."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis
import msgspec
from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import RedisError

from gateway.store.errors import (
    StoreError,
    StoreReadOnly,
    StoreTimeout,
    StoreUnavailable,
    translate,
)

_NOTHING = object()
# The package's own annotation admits tuples of one element only.
pack: Callable[[tuple[Any, ...]], bytes] = cast(Any, hiredis).pack_command
_LAST_LOOK_S = 0.005
# A call behind others that are being answered may take so many limits in all.
_PATIENCE = 4
_RECONNECT_S = 1.0
_MAX_IN_FLIGHT = 20_000


class Endpoint(msgspec.Struct, frozen=True):
    """Where the server is and what to say first. `path` for a unix socket, else host and port."""

    path: str | None
    host: str
    port: int
    tls: ssl.SSLContext | None
    greeting: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """From `redis://`, `rediss://` or `unix://`. Raises StoreError for anything else,
        and for TLS options that cannot be used."""
        try:
            parts: dict[str, Any] = dict(parse_url(url))
            kind = parts.pop("connection_class", None)
            tls = SSLConnection(**parts).ssl_context.get() if kind is SSLConnection else None
        except (ValueError, TypeError, OSError, RedisError) as exc:
            raise StoreError(f"store url: {exc}") from exc
        greeting: list[tuple[str, ...]] = []
        if parts.get("password"):
            user = (parts["username"],) if parts.get("username") else ()
            greeting.append(("AUTH", *user, parts["password"]))
        if parts.get("db"):
            greeting.append(("SELECT", str(parts["db"])))
        host, port = parts.get("host", "localhost"), parts.get("port", 6379)
        return cls(parts.get("path"), host, port, tls, tuple(greeting))


class Health(Protocol):
    """Told of every batch of replies and of every failure."""

    def success(self) -> None: ...

    def failure(self) -> None: ...


class Entry:
    """A command on its way. `written`: when, by the monotonic clock; infinite before that.
    `again` is what to send when the server lacks the script."""

    __slots__ = ("again", "future", "written")

    def __init__(
        self, future: asyncio.Future[Any] | None, again: tuple[bytes, bytes] | None
    ) -> None:
        self.future = future
        self.written = math.inf
        self.again = again


class _Wire(asyncio.Protocol):
    """The callbacks of one connection: those of a connection already given up are ignored."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def data_received(self, data: bytes) -> None:
        if self._link.wire is self:
            self._link.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._link.wire is self:
            self._link.lost(exc)


class Link:
    """Connects on the first call and again after a loss. Replies come in the order of the
    commands, so a call that timed out keeps its place and its late reply is dropped.

    `limit_s`: what connecting may take, and how long the server may be silent while a call waits.
    A call that stands behind others which are being answered waits longer, `_PATIENCE` limits at
    most: a thousand calls in one instant are not the failure of a server that works through them.
    """

    def __init__(self, endpoint: Endpoint, limit_s: float, health: Health) -> None:
        self._endpoint = endpoint
        self._limit_s = limit_s
        self._health = health
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.wire: _Wire | None = None
        self.connections = 0
        self._heard = 0.0
        self._connected = 0.0
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[Entry] = deque()
        self._out: list[bytes] = []
        self._unwritten: list[Entry] = []
        self._flush_due = False
        self._watch: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def send(self, packed: bytes, entry: Entry) -> None:
        """Queue a command; it is written with all others of this turn of the event loop."""
        self._queue(packed, entry)
        self._unwritten.append(entry)

    def _queue(self, packed: bytes, entry: Entry) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if len(self._waiting) >= _MAX_IN_FLIGHT:
            raise StoreUnavailable("too many calls in flight")
        if not self._flush_due:
            self._flush_due = True
            loop.call_soon(self._flush)
        self._out.append(packed)
        self._waiting.append(entry)

    def drop(self, error: StoreError) -> None:
        """Close the connection and fail every call in flight."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self.wire = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._out.clear()
        self._unwritten.clear()
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if entry.future is not None and not entry.future.done():
                entry.future.set_exception(_copy(error))
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    def _flush(self) -> None:
        self._flush_due = False
        if not self._out:
            return
        self._start_clocks()
        transport = self._transport
        if transport is None:
            if self._connecting is None:
                assert self._loop is not None
                self._connecting = self._loop.create_task(self._connect())
            return
        out, self._out = self._out, []
        transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _start_clocks(self) -> None:
        # Only now: a turn with a thousand requests in it takes a while, which is not the server's.
        if not self._unwritten:
            return
        assert self._loop is not None
        now = time.monotonic()  # the loop's own clock stands still in a turn
        for entry in self._unwritten:
            entry.written = now
        if self._watch is None:
            self._watch = self._loop.call_at(now + self._limit_s, self._due)
        self._unwritten.clear()

    async def _connect(self) -> None:
        loop, end = asyncio.get_running_loop(), self._endpoint
        try:
            async with asyncio.timeout(self._limit_s):
                if end.path is not None:
                    made = await loop.create_unix_connection(lambda: _Wire(self), end.path)
                else:
                    made = await loop.create_connection(
                        lambda: _Wire(self), end.host, end.port, ssl=end.tls
                    )
        except OSError as exc:  # includes TimeoutError and TLS errors
            self._connecting = None
            where = end.path or f"{end.host}:{end.port}"
            error = StoreUnavailable(f"cannot connect to the store at {where}: {exc!r}")
            error.__cause__ = exc
            self.drop(error)
            self._health.failure()
            return
        self._connecting = None
        self._transport, self.wire = made
        self.connections += 1
        self._connected = time.monotonic()
        self._greet(loop)
        self._flush()

    def _greet(self, loop: asyncio.AbstractEventLoop) -> None:
        entries: list[Entry] = []
        packed: list[bytes] = []
        for words in self._endpoint.greeting:
            future: asyncio.Future[Any] = loop.create_future()
            future.add_done_callback(self._greeted)
            entry = Entry(future, None)
            entry.written = time.monotonic()
            entries.append(entry)
            packed.append(pack(words))
        self._waiting.extendleft(reversed(entries))
        self._out[:0] = packed

    def _greeted(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, StoreError) and self._transport is not None:
            self.drop(error)

    def received(self, data: bytes) -> None:
        """Match replies with their calls."""
        self._heard = time.monotonic()
        reader = self._reader
        reader.feed(data)
        waiting = self._waiting
        usable = stale = False
        while (reply := reader.gets(False)) is not _NOTHING:
            entry = waiting.popleft()
            if not isinstance(reply, hiredis.ReplyError):
                usable = True
                if entry.future is not None and not entry.future.done():
                    entry.future.set_result(reply)
                continue
            text = str(reply)
            if entry.again is not None and text.startswith("NOSCRIPT"):
                usable = True
                self._resend(entry)
                continue
            error = translate(text)
            usable = usable or not isinstance(error, StoreUnavailable)
            stale = stale or isinstance(error, StoreReadOnly)
            if entry.future is not None and not entry.future.done():
                entry.future.set_exception(error)
        if usable:
            self._health.success()
        else:
            self._health.failure()
        if stale and self._transport is not None and (not waiting or self._has_lasted()):
            # A demoted primary: connect anew, so that the name is resolved again. Under load
            # something is always in flight, and no write of it would be done.
            self.drop(StoreReadOnly("the store was a replica; connecting anew"))

    def _has_lasted(self) -> bool:
        """Whether the connection is old enough to be given up with calls in flight."""
        return time.monotonic() - self._connected > _RECONNECT_S

    def _resend(self, entry: Entry) -> None:
        assert entry.again is not None
        load, packed = entry.again
        entry.again = None
        try:
            self._queue(load, Entry(None, None))
            self._queue(packed, entry)
        except StoreError as exc:
            if entry.future is not None and not entry.future.done():
                entry.future.set_exception(exc)

    def lost(self, exc: Exception | None) -> None:
        """The server closed the connection: what was in flight fails."""
        self._transport = None
        error = StoreUnavailable(f"the store closed the connection: {exc!r}")
        error.__cause__ = exc
        lost_calls = bool(self._waiting)
        self.drop(error)
        if lost_calls:
            self._health.failure()

    def _due(self) -> None:
        # When this process itself was held up, the reply may lie in the socket, unread: timers
        # run before input. One more turn of the loop gives it the chance to be seen.
        assert self._loop is not None
        self._watch = self._loop.call_later(_LAST_LOOK_S, self._expire)

    def _expire(self) -> None:
        assert self._loop is not None
        self._watch = None
        now = self._loop.time()
        nearest = math.inf  # as the end of what is not yet written
        failures = 0
        for entry in self._waiting:
            if entry.future is None or entry.future.done():
                continue
            end = self._end(entry.written)
            if end <= now:
                entry.future.set_exception(StoreTimeout("no reply from the store in time"))
                failures += 1
            elif end < nearest:
                nearest = end
        if nearest < math.inf:
            self._watch = self._loop.call_at(nearest, self._due)
        if failures:
            # Calls in flight together fail together: that is one failure of the server.
            self._health.failure()

    def _end(self, written: float) -> float:
        """When a call that was written then has waited long enough."""
        limit = self._limit_s
        return min(max(written, self._heard) + limit, written + _PATIENCE * limit)


def _copy(error: StoreError) -> StoreError:
    # Raising one instance in many tasks would tie their tracebacks together.
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
