"""The client's side of an exchange: one watcher on `receive`, and the writes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Headers = list[tuple[bytes, bytes]]


# A client that leaves is noticed within this many seconds. Most requests are over before, and
# then never pay for a watcher of their own.
WATCH_AFTER = 0.1


class Client:
    """`gone` becomes true when the client closed its connection before the answer was complete,
    `late` when the request's deadline ran out; the task that serves it is then cancelled,
    wherever it waits."""

    __slots__ = (
        "_deadline",
        "_done",
        "_owner",
        "_send",
        "_timer",
        "_watcher",
        "_watching",
        "gone",
        "late",
        "receive",
        "started",
    )

    def __init__(
        self,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        deadline: float,
    ) -> None:
        """`deadline` is in seconds from now, for the whole exchange."""
        self.receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._watching = False
        self._done = False
        self.gone = False
        self.late = False
        self.started = False
        owner = asyncio.current_task()
        assert owner is not None
        self._owner = owner
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + deadline
        self._timer = loop.call_later(min(WATCH_AFTER, deadline), self._attend)

    def watch(self) -> None:
        """From now on a disconnect counts. Call once the request's body has been read."""
        self._watching = True

    def _attend(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._deadline - loop.time()
        if left <= 0.0:
            self.late = True
            self._owner.cancel()
            return
        if self._watching and self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        pause = left if self._watcher is not None else min(WATCH_AFTER, left)
        self._timer = loop.call_later(pause, self._attend)

    async def _watch(self) -> None:
        while True:
            message = await self.receive()
            if self._done:
                return
            if message["type"] == "http.disconnect":
                self.gone = True
                self._owner.cancel()
                return

    def release(self) -> None:
        """The exchange is over: neither a disconnect nor the deadline means anything now."""
        self._done = True
        self._timer.cancel()
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
