"""The deterministic fake: a Backend without a network, whose model names choose its faults.

What it sends is parsed by the same code as a real upstream's bytes, so a fault means here what it
means over HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from backends.base import Call, Timeouts
from backends.dialects.chat_reply import ChatReply, choices_asked
from backends.dialects.exchange import check_headers
from backends.dialects.refusals import Refusal, error_for, parse_error
from backends.errors import (
    BackendError,
    ConnectFailed,
    FirstTokenTimeout,
    StreamBroken,
    StreamIdle,
    StreamTruncated,
    UpstreamModelMissing,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from backends.faults import Plan, Script
from backends.scripted_wire import ChatWire, Frame, Playback, embeddings, play

__all__ = ["ScriptedBackend"]

Sleep = Callable[[float], Awaitable[None]]


class ScriptedBackend:
    """`clock` is monotonic, in seconds; `sleep` waits on that same clock.

    `calls` and `cancelled` count what was opened, and what was closed before its end.
    """

    def __init__(self, name: str, clock: Callable[[], float], sleep: Sleep = asyncio.sleep) -> None:
        self.calls = 0
        self.cancelled = 0
        self._name = name
        self._clock = clock
        self._sleep = sleep
        self._script = Script(clock)

    @property
    def name(self) -> str:
        return self._name

    async def open(self, call: Call) -> ChatReply:
        self.calls += 1
        try:
            plan = self._script.plan(call.model)
        except ValueError as exc:
            raise UpstreamModelMissing(str(exc), status=404) from exc
        playback = _playback(call, plan)
        exchange = _Performance(self, playback, call)
        await exchange.start()
        return ChatReply(exchange, call.operation, choices=choices_asked(call.body))

    async def aclose(self) -> None:
        """Nothing to close."""

    async def wait(self, seconds: float, until: float) -> bool:
        """Sleep, but not past `until`; False when the time ran out first."""
        left = until - self._clock()
        if seconds <= 0 and left > 0:
            return True
        await self._sleep(max(min(seconds, left), 0.0))
        return seconds < left

    def now(self) -> float:
        return self._clock()


def _playback(call: Call, plan: Plan) -> Playback:
    body = {**call.body, "model": call.model, "stream": call.stream}
    if call.operation == "embeddings":
        if plan.status == 200:
            frame = Frame(embeddings(body), "content", delay=plan.first_token)
            return Playback(200, "application/json", (), (frame,), before=plan.latency)
        body["stream"] = False
    body["stream_options"] = {"include_usage": True}
    return play(ChatWire(call.operation, body, toolindex=plan.fault == "toolindex"), body, plan)


class _Performance:
    """Plays an answer to a ChatReply, under the call's timeouts."""

    def __init__(self, owner: ScriptedBackend, playback: Playback, call: Call) -> None:
        self.stream = call.stream
        self.semantic = False
        self._owner = owner
        self._playback = playback
        self._frames: Sequence[Frame] = playback.frames
        self._next = 0
        self._done = False
        started = owner.now()
        self._timeouts: Timeouts = call.timeouts
        self._total_at = started + call.timeouts.total
        first_token = call.timeouts.first_token if call.stream else math.inf
        self._until = min(self._total_at, started + first_token)

    async def start(self) -> None:
        playback = self._playback
        before = math.inf if playback.hang else playback.before
        if not await self._owner.wait(before, self._until):
            raise self._late()
        if playback.reset:
            raise ConnectFailed("the connection was lost before an answer")
        if playback.status != 200:
            headers = [(name.encode(), value.encode()) for name, value in playback.headers]
            error = parse_error(playback.frames[0].data)
            raise error_for(Refusal(playback.status, error, headers))

    def progress(self, semantic: bool) -> None:
        self.semantic = self.semantic or semantic

    def check_type(self, kind: Literal["json", "stream"]) -> None:
        check_headers([(b"content-type", self._playback.content_type.encode())], kind)

    async def receive(self) -> bytes:
        if self._next >= len(self._frames):
            return self._end()
        if self.semantic and self.stream:
            self._until = min(self._owner.now() + self._timeouts.idle, self._total_at)
        frame = self._frames[self._next]
        if not await self._owner.wait(frame.delay, self._until):
            raise self._late()
        self._next += 1
        return frame.data

    async def read(self, limit: int) -> bytes:
        data = await self.receive()
        if len(data) > limit:
            raise UpstreamProtocolError("the upstream's answer is too large")
        self._end()
        return data

    def _end(self) -> bytes:
        self._done = True
        if self._playback.end == "rst":
            raise StreamBroken("the connection to the upstream broke")
        if self._playback.end != "clean":
            raise StreamTruncated("the upstream's answer ended early")
        return b""

    def finish(self) -> None:
        self._done = True

    def close(self) -> None:
        if not self._done:
            self._done = True
            self._owner.cancelled += 1

    def _late(self) -> BackendError:
        if self._owner.now() >= self._total_at or not self.stream:
            return UpstreamTimeout("the upstream did not finish in time")
        if not self.semantic:
            return FirstTokenTimeout("the upstream gave no content in time")
        return StreamIdle("the upstream fell silent")
