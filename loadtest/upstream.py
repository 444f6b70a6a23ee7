"""The scripted upstream over HTTP: `python -m loadtest.upstream --port 9000 [--log FILE]`.

Speaks `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/models` and Anthropic's
`/v1/messages`; the model's name selects the fault (see `backends.faults`). Its own account of what
happened, the oracle of the tests, is at `GET /_log` (attempts), `GET /_stats` (sums), and
`POST /_reset` forgets both.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, TextIO

import httptools
import msgspec

from backends.base import Operation
from backends.faults import Script
from backends.scripted_wire import ChatWire, Frame, Playback, Wire, embeddings, play
from loadtest.messages_wire import MessagesWire

__all__ = ["Attempt", "Upstream", "main"]

MODELS = ("scripted:ok", "scripted:latency=200ms,tokens=60,chunk=5ms")
_LOG_LENGTH = 200_000
_OPERATIONS: dict[str, Operation] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Attempt(msgspec.Struct):
    """One request for a model. Times are Unix seconds; `ended` and `cancelled_at` are None while
    it runs. `completion_tokens` are charged: what was produced until it ended."""

    id: str
    path: str
    model: str
    stream: bool
    started: float
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended: float | None = None
    cancelled_at: float | None = None


class Upstream:
    """The state behind all connections. `start` gives the port."""

    def __init__(self, log: TextIO | None = None) -> None:
        self.attempts: deque[Attempt] = deque(maxlen=_LOG_LENGTH)
        self.connections: set[_Connection] = set()
        self.in_flight = 0
        self._counts: Counter[str] = Counter()
        self._script = Script(time.monotonic)
        self._log = log
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()

    def stats(self) -> dict[str, Any]:
        return {"in_flight": self.in_flight, "connections": len(self.connections), **self._counts}

    def reset(self) -> None:
        self.attempts.clear()
        self._counts.clear()
        self._script.reset()

    def begin(self, attempt: Attempt) -> None:
        self.in_flight += 1
        self.attempts.append(attempt)

    def end(self, attempt: Attempt, *, cancelled: bool) -> None:
        if attempt.ended is not None:
            return
        self.in_flight -= 1
        attempt.ended = time.time()
        if cancelled:
            attempt.cancelled_at = attempt.ended
        counts = self._counts
        counts["requests"] += 1
        counts[f"status_{attempt.status}"] += 1
        counts["cancelled"] += cancelled
        counts["prompt_tokens"] += attempt.prompt_tokens
        counts["completion_tokens"] += attempt.completion_tokens
        if self._log is not None:
            self._log.write(_encode(attempt).decode() + "\n")
            self._log.flush()

    def playback(self, path: str, body: Mapping[str, Any]) -> Playback:
        """What to answer. Raises ValueError for a model name that is not understood."""
        plan = self._script.plan(str(body.get("model")))
        wire: Wire
        if path == "/v1/messages":
            return play(MessagesWire(body), body, plan)
        operation = _OPERATIONS[path]
        if operation == "embeddings" and plan.status == 200:
            data = embeddings(body)
            prompt = int(_decode(data)["usage"]["prompt_tokens"])
            frame = Frame(data, "content", delay=plan.first_token)
            return Playback(
                200, "application/json", (), (frame,), before=plan.latency, prompt=prompt
            )
        wire = ChatWire(operation, body, toolindex=plan.fault == "toolindex")
        return play(wire, body, plan)


class _Connection(asyncio.Protocol):
    """Serves one request after the other. Pipelining is not supported: nobody here does it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._attempt: Attempt | None = None
        self._clear()

    def _clear(self) -> None:
        self._url = b""
        self._id = ""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Annotated this way by asyncio; every stream transport is an asyncio.Transport.
        self._transport = transport  # type: ignore[assignment]
        self._upstream.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._send(400, b'{"error":{"message":"not HTTP"}}')
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.connections.discard(self)
        if self._attempt is not None:
            self._upstream.end(self._attempt, cancelled=True)
        if self._task is not None:
            self._task.cancel()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._id = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        path = self._url.decode("latin-1").partition("?")[0]
        body = b"".join(self._body)
        request_id = self._id
        self._clear()
        if path in _OPERATIONS or path == "/v1/messages":
            self._generate(path, body, request_id)
        else:
            self._serve_plain(path)

    def _serve_plain(self, path: str) -> None:
        upstream = self._upstream
        if path == "/v1/models":
            data = [{"id": name, "object": "model", "owned_by": "scripted"} for name in MODELS]
            self._send(200, _encode({"object": "list", "data": data}))
        elif path == "/_log":
            self._send(200, _encode(list(upstream.attempts)))
        elif path == "/_stats":
            self._send(200, _encode(upstream.stats()))
        elif path == "/_reset":
            upstream.reset()
            self._send(200, b"{}")
        else:
            self._send(404, b'{"error":{"message":"no such path","code":"not_found"}}')

    def _generate(self, path: str, data: bytes, request_id: str) -> None:
        try:
            body = _decode(data)
            if not isinstance(body, dict):
                raise ValueError("the body is not an object")
            playback = self._upstream.playback(path, body)
        except (msgspec.DecodeError, ValueError) as exc:
            error = {"message": str(exc), "type": "invalid_request_error", "code": None}
            self._send(400, _encode({"error": error}))
            return
        stream = body.get("stream") is True
        attempt = Attempt(request_id, path, str(body.get("model")), stream, time.time())
        self._upstream.begin(attempt)
        self._attempt = attempt
        quick = not (playback.before or playback.hang or playback.reset or playback.end != "clean")
        if quick and not any(frame.delay for frame in playback.frames):
            self._perform_at_once(playback, attempt)
        else:
            self._task = asyncio.get_running_loop().create_task(self._perform(playback, attempt))

    def _perform_at_once(self, playback: Playback, attempt: Attempt) -> None:
        self._head(playback, attempt)
        for frame in playback.frames:
            self._frame(frame, playback)
        self._finish(playback, attempt)

    async def _perform(self, playback: Playback, attempt: Attempt) -> None:
        if playback.hang:
            await asyncio.Event().wait()
        if playback.before:
            await asyncio.sleep(playback.before)
        if playback.reset:
            self._reset()
            return
        self._head(playback, attempt)
        for frame in playback.frames:
            if frame.delay:
                await asyncio.sleep(frame.delay)
            self._frame(frame, playback)
            attempt.completion_tokens += frame.tokens
        if playback.end == "rst":
            # What was written should arrive first; a reset throws away what is under way.
            await asyncio.sleep(0.02)
        self._finish(playback, attempt)

    def _head(self, playback: Playback, attempt: Attempt) -> None:
        attempt.status = playback.status
        attempt.prompt_tokens = playback.prompt
        lines = [f"HTTP/1.1 {playback.status} X", f"content-type: {playback.content_type}"]
        lines += [f"{name}: {value}" for name, value in playback.headers]
        if not playback.stream:
            length = sum(len(frame.data) for frame in playback.frames)
            # A cut answer promises more than it brings.
            lines.append(f"content-length: {length + (playback.end != 'clean')}")
        elif playback.end == "fin":
            lines.append("connection: close")
        else:
            lines.append("transfer-encoding: chunked")
        self._write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def _frame(self, frame: Frame, playback: Playback) -> None:
        if playback.stream and playback.end != "fin":
            self._write(b"%x\r\n%b\r\n" % (len(frame.data), frame.data))
        else:
            self._write(frame.data)

    def _finish(self, playback: Playback, attempt: Attempt) -> None:
        attempt.completion_tokens = playback.completion
        if playback.stream and playback.end == "clean":
            self._write(b"0\r\n\r\n")
        self._attempt = None
        self._task = None
        self._upstream.end(attempt, cancelled=False)
        if playback.end == "rst":
            self._reset()
        elif playback.end != "clean":
            self._close()

    def _send(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: "
        self._write(b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _reset(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._upstream.end(attempt, cancelled=False)
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


async def _serve(port: int, log: TextIO | None) -> None:
    upstream = Upstream(log)
    bound = await upstream.start(port)
    print(f"scripted upstream on http://127.0.0.1:{bound}", flush=True)
    await asyncio.Event().wait()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtest.upstream", description="A scripted upstream.")
    parser.add_argument("--port", type=int, default=9000, help="0 takes any free port")
    parser.add_argument("--log", help="append one JSON line per attempt to this file")
    options = parser.parse_args(arguments)
    log = open(options.log, "a", encoding="utf-8") if options.log else None  # noqa: SIM115
    try:
        import uvloop

        uvloop.run(_serve(options.port, log))
    except KeyboardInterrupt:
        pass
    finally:
        if log is not None:
            log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
