"""What a client may send before the gateway knows who it is, and how much one request may ask of a
worker that serves others too: over the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import psutil
import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.auth import new_key
from gateway.protocol import Protocol
from tests.faults.scene import Raw, chat, eventually
from tests.support import Gateway, Upstream, config_for

LIVEZ = b"GET /livez HTTP/1.1\r\nhost: gateway\r\n"
MORE = b"x-more: " + b"a" * 8_000 + b"\r\n"
MANY_BYTES = 40 << 20
MAY_GROW = 24 << 20


def memory(gateway: Gateway) -> int:
    """Bytes of the gateway's own process: its one worker."""
    return int(psutil.Process(gateway.process.pid).memory_info().rss)


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[Raw]:
    raw = await Raw.connect(gateway)
    try:
        yield raw
    finally:
        await raw.close()


async def pour(raw: Raw, line: bytes, size: int) -> int:
    """Write until `size` bytes have left or the other side has had enough; how many left."""
    sent = 0
    with suppress(ConnectionError):
        while sent < size:
            raw.writer.write(line * 8)
            await raw.writer.drain()
            sent += len(line) * 8
    return sent


@pytest.mark.parametrize(
    ("begin", "line"),
    [
        (LIVEZ, MORE),
        (LIVEZ, b"a:b\r\n" * 1_000),
        (LIVEZ + b"x-endless: ", b"a" * 8_000),
        (b"GET /", b"a" * 8_000),
    ],
    ids=["headers", "many headers", "one header", "address"],
)
async def test_an_endless_head_is_refused_and_not_kept(
    gateway: Gateway, begin: bytes, line: bytes
) -> None:
    before = memory(gateway)
    async with connected(gateway) as raw:
        raw.writer.write(begin)
        sent = await pour(raw, line, MANY_BYTES)
        grown = memory(gateway) - before
    assert sent < MANY_BYTES
    assert grown < MAY_GROW


@pytest.mark.parametrize(
    "whole", [LIVEZ + MORE * 20 + b"\r\n", LIVEZ + b"x-long: " + b"a" * 200_000]
)
async def test_a_head_that_is_too_large_is_answered_with_431(
    gateway: Gateway, whole: bytes
) -> None:
    async with connected(gateway) as raw:
        raw.writer.write(whole)
        assert await raw.head() == 431
        assert raw.headers["connection"] == "close"
        assert b"request_header_fields_too_large" in await raw.rest()
        assert await raw.reader.read() == b""


async def test_a_large_head_is_served(gateway: Gateway) -> None:
    async with connected(gateway) as raw:
        for _ in range(2):
            raw.writer.write(LIVEZ + MORE * 7 + b"\r\n")
            assert await raw.head() == 200
            assert await raw.rest() == b"ok"


@pytest.mark.parametrize("more", [b"content-length: 2\r\n", b"bad header: x\r\n", b" folded\r\n"])
async def test_what_is_not_http_is_an_error_in_the_usual_form(
    gateway: Gateway, more: bytes
) -> None:
    async with connected(gateway) as raw:
        raw.writer.write(
            LIVEZ + b"transfer-encoding: chunked\r\n" + more + b"\r\n0\r\n\r\n" + LIVEZ
        )
        assert await raw.head() == 400
        assert b'"invalid_http"' in await raw.rest()
        assert await raw.reader.read() == b""


async def test_trailers_are_no_headers(gateway: Gateway) -> None:
    async with connected(gateway) as raw:
        raw.writer.write(
            b"GET /v1/models HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n"
            b"0\r\nauthorization: Bearer " + gateway.key.encode() + b"\r\n\r\n"
        )
        assert await raw.head() == 401


async def test_endless_trailers_end_the_connection(gateway: Gateway) -> None:
    async with connected(gateway) as raw:
        raw.writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer "
            + gateway.key.encode()
            + b"\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
        )
        assert await pour(raw, MORE, MANY_BYTES) < MANY_BYTES


@pytest.mark.parametrize("host", ["gateway:99999999", "gateway:-1", "[", "a/admin?", "a@b", ""])
@pytest.mark.parametrize("path", ["/v1/nothing", "/admin/v1/nothing", "/livez"])
async def test_no_host_header_breaks_an_answer(gateway: Gateway, host: str, path: str) -> None:
    async with connected(gateway) as raw:
        raw.writer.write(f"POST {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        assert 400 <= await raw.head() < 500
        assert raw.headers["content-type"] in ("application/json", "application/problem+json")


@pytest.mark.parametrize(
    "filling",
    [b"[]," * 1_200_000, b"{}," * 1_200_000, b"0," * 1_200_000, b'"",' * 1_200_000],
    ids=["arrays", "objects", "numbers", "strings"],
)
def test_a_body_of_millions_of_values_is_refused(gateway: Gateway, filling: bytes) -> None:
    body = b'{"model":"auto","messages":[{"role":"user","content":"hi"}],"x":[%b0]}' % filling
    with gateway.client() as client:
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            reply = client.post(path, content=body)
            assert reply.status_code == 400
            assert "1000000 values" in reply.json()["error"]["message"]


def test_commas_and_brackets_of_a_text_are_no_values(gateway: Gateway) -> None:
    text = '[1,{"a":"\\"}]' * 150_000
    with gateway.client() as client:
        reply = client.post("/v1/embeddings", json={"model": "local/ok", "input": text})
    assert "values" not in reply.text


@asynccontextmanager
async def impatient() -> AsyncIterator[Raw]:
    """A connection to a server that waits a fifth of a second for a head, and takes half a second
    for an answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    config.load()
    state = ServerState()

    def protocol() -> Protocol:
        made = Protocol(config=config, server_state=state, app_state={})
        made.timeout_keep_alive = 0.2  # type: ignore[assignment]
        return made

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    raw = Raw(reader, writer)
    try:
        yield raw
    finally:
        await raw.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("said", [b"", b"\r\n", b"GET /livez HTTP/1.1\r\nx-more: "])
async def test_a_head_that_does_not_come_ends_the_connection(said: bytes) -> None:
    async with impatient() as raw:
        raw.writer.write(said)
        assert await raw.reader.read() == b""


@pytest.mark.parametrize("said", [b"", b"\r\n", b"GET /livez HTTP/1.1\r\nx-more: "])
async def test_so_does_the_next_one_and_the_answer_before_it_is_whole(said: bytes) -> None:
    async with impatient() as raw:
        raw.writer.write(LIVEZ + b"\r\n" + said)
        assert await raw.head() == 200
        assert await raw.reader.read() == b"ok"


async def test_slow_bodies_of_one_tenant_leave_room_for_others(
    serve: Callable[..., Gateway], upstream: Upstream
) -> None:
    extra = (
        'org = "slow"\nconcurrency = 1\n[[keys]]\nkey = "${OTHER}"\norg = "other"\n'
        "[server]\nmax_in_flight = 4"
    )
    keys = {"main": new_key(), "other": new_key()}
    gateway = serve(config_for(upstream.url, extra=extra), keys=keys)
    body = chat("hi", "local/ok")
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(gateway)) for _ in range(3)]
        for raw in slow[:2]:
            await raw.send(keys["main"], body, part=0.5, headers="expect: 100-continue\r\n")
            await raw.until(b"100 Continue\r\n\r\n")
        await slow[2].send(keys["main"], body, part=0.5)
        async with asyncio.timeout(20):
            assert await slow[2].head() == 429
        with gateway.client(keys["other"]) as client:
            assert client.post("/v1/chat/completions", json=body).status_code == 200
        await slow[1].close()
        with gateway.client() as client:
            assert eventually(
                lambda: client.post("/v1/chat/completions", json=body).status_code == 200
            )
