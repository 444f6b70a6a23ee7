"""The connections of one origin: reuse, limit, waiting, expiry."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from typing import NamedTuple

import httpx

from backends.transport.connection import Connection, Limits

__all__ = ["Origin", "OriginPool"]


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int


class OriginPool:
    """Last used, first reused, so that a falling load lets connections expire.

    `size` counts connections and attempts to connect. A slot that becomes free while somebody
    waits is handed over directly: a newcomer cannot overtake.
    """

    def __init__(self, origin: Origin, limits: Limits, context: ssl.SSLContext | None) -> None:
        self._origin = origin
        self._limits = limits
        self._context = context
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self.size = 0

    @property
    def idle(self) -> int:
        return len(self._idle)

    def reuse(self, now: float) -> Connection | None:
        """An idle connection that is still open, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now - connection.idle_since < self._limits.keepalive:
                connection.reused = True
                return connection
            connection.abort()
        return None

    async def connect(self, patience: float) -> Connection:
        """A new connection, or one that another request gave back while this one waited.

        Raises httpx.ConnectError, httpx.ConnectTimeout, or httpx.PoolTimeout when no connection
        became free in `patience` seconds.
        """
        waiting = False
        try:
            async with asyncio.timeout(None if patience == math.inf else patience):
                if self.size >= self._limits.connections:
                    waiting = True
                    if self._idle:
                        # The caller met a stale one and wants a new one: its neighbours go first.
                        self._idle.pop(0).abort()
                    connection = await self._wait_turn()
                    waiting = False
                    if connection is not None:
                        connection.reused = True
                        return connection
                else:
                    self.size += 1
                return await self._dial()
        except TimeoutError as exc:
            if waiting:
                raise httpx.PoolTimeout("all connections to the upstream are busy") from exc
            raise httpx.ConnectTimeout("the upstream did not accept in time") from exc

    async def _dial(self) -> Connection:
        origin = self._origin
        tls = origin.scheme == "https"
        connected = False
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._limits, self._on_idle, self._on_closed),
                origin.host,
                origin.port,
                ssl=self._context if tls else None,
                server_hostname=origin.host if tls else None,
            )
            connected = True
        except TimeoutError as exc:
            # The kernel's own time limit, or the handshake's.
            raise httpx.ConnectTimeout("the upstream did not accept in time") from exc
        except OSError as exc:
            raise httpx.ConnectError(f"cannot connect: {exc.strerror or exc}") from exc
        finally:
            if not connected:
                self._free_slot()
        if connection.closed:
            self._free_slot()
            raise httpx.ConnectError("the upstream closed the connection at once")
        self._open.add(connection)
        return connection

    async def _wait_turn(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                connection = waiter.result()
                if connection is None:
                    self._free_slot()
                else:
                    self._on_idle(connection)
            raise

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _free_slot(self) -> None:
        waiter = self._next_waiter()
        if waiter is None:
            self.size -= 1
        else:
            waiter.set_result(None)

    def _on_idle(self, connection: Connection) -> None:
        if connection.closed:
            return
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def _on_closed(self, connection: Connection) -> None:
        # A connection that died inside its handshake is the dialler's: it was never added.
        if connection in self._open:
            self._open.discard(connection)
            self._free_slot()

    def expire(self, now: float) -> None:
        """Close connections that were idle too long, and forget those the upstream closed."""
        kept = []
        for connection in self._idle:
            if connection.closed:
                continue
            if now - connection.idle_since < self._limits.keepalive:
                kept.append(connection)
            else:
                connection.abort()
        self._idle = kept

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
