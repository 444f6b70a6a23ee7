"""The client's side of an exchange: one watcher on `receive`, and the writes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Headers = list[tuple[bytes, bytes]]


class Client:
    """`gone` becomes true when the client closed its connection before the answer was complete;
    the task that serves it is then cancelled, wherever it waits."""

    __slots__ = ("_done", "_send", "_watcher", "gone", "receive", "started")

    def __init__(
        self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._done = False
        self.gone = False
        self.started = False

    def watch(self) -> None:
        """Start watching. Call once the request's body has been read."""
        owner = asyncio.current_task()
        assert owner is not None
        self._watcher = asyncio.create_task(self._watch(owner))

    async def _watch(self, owner: asyncio.Task[Any]) -> None:
        while True:
            message = await self.receive()
            if self._done:
                return
            if message["type"] == "http.disconnect":
                self.gone = True
                owner.cancel()
                return

    def release(self) -> None:
        """The exchange is over: a disconnect no longer means anything."""
        self._done = True
        if self._watcher is not None and not self._watcher.done():
            self._watcher.cancel()

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.finish(body)

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        self._done = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
