"""A model that costs next to nothing: fixed answers over raw asyncio and httptools.

It answers every POST. The request's text steers it: `n=DIGITS;` is echoed in the answer, so that
a client can tell that an answer is its own; a stream also obeys `chunks=N;` and `gap_us=N;`. Each
chunk carries `t=NANOSECONDS;`, the monotonic clock at the moment of its writing.

    python -m loadtest.bench.mock PORT
"""

from __future__ import annotations

import asyncio
import re
import sys
from time import monotonic_ns
from typing import cast

import httptools
import uvloop

_NONCE = re.compile(rb"n=(\d+);")
_CHUNKS = re.compile(rb"chunks=(\d+);")
_GAP = re.compile(rb"gap_us=(\d+);")
_STREAM = re.compile(rb'"stream":\s*true')
_USAGE = re.compile(rb'"include_usage":\s*true')
_BEARING = b"The gate opens when the fare is paid and the papers are in order. "
_FILL = (_BEARING * 12)[:700]

_ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,'
    b'"model":"bench-model","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"n=%s; ' + _FILL + b'"},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":420,"completion_tokens":160,"total_tokens":580}}'
)
_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench-model","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}\n\n'
)
_USAGE_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench-model","choices":[],"usage":{"prompt_tokens":420,'
    b'"completion_tokens":%d,"total_tokens":%d}}\n\n'
)
_MODELS = b'{"object":"list","data":[{"id":"bench-model","object":"model","owned_by":"bench"}]}'
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
_SSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _number(pattern: re.Pattern[bytes], body: bytes, default: int) -> int:
    found = pattern.search(body)
    return int(found.group(1)) if found else default


class _Stream:
    """One answer in pieces, each in a write of its own."""

    def __init__(self, connection: Connection, body: bytes) -> None:
        self._connection = connection
        self._left = _number(_CHUNKS, body, 20)
        self._total = self._left
        self._gap = _number(_GAP, body, 0) / 1_000_000
        self._usage = bool(_USAGE.search(body))
        self._loop = asyncio.get_running_loop()

    def begin(self, nonce: int) -> None:
        self._connection.write(_SSE)
        # Streams that begin together must not tick together: traffic has no common clock.
        self._due = self._loop.time() + self._gap * (nonce * 7919 % 1000) / 1000
        self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        if not self._connection.open:
            return
        if self._left == 0:
            self._end()
            return
        self._left -= 1
        delta = b'{"content":"t=%d; fare"}' % monotonic_ns()
        self._connection.write(_chunked(_EVENT % (delta, b"null")))
        self._due += self._gap
        self._loop.call_at(self._due, self._tick)

    def _end(self) -> None:
        parts = [_EVENT % (b"{}", b'"stop"')]
        if self._usage:
            parts.append(_USAGE_EVENT % (self._total, self._total + 420))
        parts.append(b"data: [DONE]\n\n")
        self._connection.write(_chunked(b"".join(parts)) + b"0\r\n\r\n")


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One client connection; requests on it come one after the other."""

    def __init__(self) -> None:
        self.open = False
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if self._parser.get_method() == b"GET":
            self.write(_JSON % (len(_MODELS), _MODELS))
            return
        nonce = _NONCE.search(body)
        echoed = nonce.group(1) if nonce else b"0"
        if _STREAM.search(body):
            _Stream(self, body).begin(int(echoed))
            return
        answer = _ANSWER % echoed
        self.write(_JSON % (len(answer), answer))


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        Connection, "127.0.0.1", port, backlog=4096
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
