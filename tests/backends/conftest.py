from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from backends.dialects.chat import ChatBackend, ChatSettings
from backends.http import UpstreamTransport
from tests.backends.chat_upstream import KEY


class Peer:
    """One accepted connection of the raw server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Head and body of one request; b"" when the client closed instead."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", extra: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
            % (extra, len(body), body)
        )

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawServer:
    """A server whose every byte is the test's own."""

    def __init__(self) -> None:
        self.accepted = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self, handler: Callable[[Peer], Awaitable[None]], context: object = None
    ) -> RawServer:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted += 1
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await handler(Peer(reader, writer))
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                self._tasks.discard(task)
                writer.close()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = self._server.sockets[0].getsockname()[1]
        scheme = "https" if context else "http"
        host = "localhost" if context else "127.0.0.1"
        self.url = f"{scheme}://{host}:{port}/v1/chat/completions"
        self.base = f"{scheme}://{host}:{port}/v1"
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def raw_server() -> AsyncIterator[RawServer]:
    server = RawServer()
    yield server
    await server.stop()


@pytest.fixture
async def transport() -> AsyncIterator[UpstreamTransport]:
    upstream = UpstreamTransport()
    yield upstream
    await upstream.aclose()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The transport leans on details of the loop, so its tests run on both."""
    loops = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_http.py":
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def serve(raw_server, transport):
    """A backend whose upstream answers every request with these bytes and closes."""

    async def start(answer: bytes, *, reset: bool = False, **settings: Any):
        seen: list[bytes] = []

        async def handler(peer):
            data = await peer.request()
            seen.append(data)
            await peer.send(answer)
            if reset:
                await asyncio.sleep(0.05)
                peer.reset()

        await raw_server.start(handler)
        options = {"name": "b", "base_url": raw_server.base, "api_key": KEY, **settings}
        return ChatBackend(ChatSettings(**options), transport, lambda: 1_700_000_000.0), seen

    return start
