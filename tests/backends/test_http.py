from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from backends.http import Disconnected, Limits, TooLarge, UpstreamTransport, make_endpoint

CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_a_request_as_bytes_and_its_answer(raw_server, transport) -> None:
    seen = []

    async def handler(peer):
        while data := await peer.request():
            seen.append(data)
            await peer.answer(b'{"a":1}', b"Set-Cookie: x=1\r\n")

    await raw_server.start(handler)
    endpoint = make_endpoint(raw_server.url, [(b"authorization", b"Bearer k")])
    for _ in range(3):
        response = await transport.send(endpoint, b"{}", headers=[(b"x-request-id", b"r1")])
        assert (response.status, response.header(b"set-cookie")) == (200, b"x=1")
        assert await response.read(100) == b'{"a":1}'
        await response.aclose()
    assert raw_server.accepted == 1
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.split(b"\r\n") == [
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: " + endpoint.origin.host.encode() + b":%d" % endpoint.origin.port,
        b"authorization: Bearer k",
        b"content-length: 2",
        b"x-request-id: r1",
    ]
    assert [stat.idle for stat in transport.stats()] == [1]


async def test_a_stale_connection_is_replaced_once(raw_server, transport) -> None:
    async def handler(peer):
        await peer.request()
        await peer.answer()
        # Closes only when the next request is already on its way: the race that loses requests.
        if raw_server.accepted == 1:
            await peer.request()

    await raw_server.start(handler)
    endpoint = make_endpoint(raw_server.url)
    assert (await (await transport.send(endpoint, b"1")).read(10)) == b"{}"
    assert (await (await transport.send(endpoint, b"2")).read(10)) == b"{}"
    assert raw_server.accepted == 2


async def test_a_connection_closed_while_idle_is_not_used(raw_server, transport) -> None:
    async def handler(peer):
        await peer.request()
        await peer.answer()

    await raw_server.start(handler)
    endpoint = make_endpoint(raw_server.url)
    for _ in range(3):
        assert (await (await transport.send(endpoint, b"1")).read(10)) == b"{}"
        await until(lambda: transport.stats()[0].connections == 0)
    assert raw_server.accepted == 3


async def test_bytes_that_nobody_asked_for_close_an_idle_connection(raw_server, transport) -> None:
    async def handler(peer):
        await peer.request()
        await peer.answer()
        await peer.answer(b"poison")
        await peer.request()

    await raw_server.start(handler)
    endpoint = make_endpoint(raw_server.url)
    for _ in range(2):
        assert (await (await transport.send(endpoint, b"1")).read(10)) == b"{}"
        await until(lambda: transport.stats()[0].connections == 0)
    assert raw_server.accepted == 2


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_fresh_connection_lost_before_headers_is_an_error(
    raw_server, transport, how
) -> None:
    async def handler(peer):
        await peer.request()
        if how == "reset":
            peer.reset()

    await raw_server.start(handler)
    with pytest.raises((httpx.ReadError, Disconnected)):
        await transport.send(make_endpoint(raw_server.url), b"{}")
    assert raw_server.accepted == 1


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhel",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello",
    ],
)
async def test_an_answer_that_ends_early_is_an_error(raw_server, transport, answer) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(answer)

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    with pytest.raises(Disconnected):
        await response.read(1000)


async def test_an_answer_without_a_length_ends_with_its_connection(raw_server, transport) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    assert await response.read(1000) == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused(raw_server, transport, answer) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(answer)
        await peer.request()

    await raw_server.start(handler)
    with pytest.raises(httpx.RemoteProtocolError):
        await (await transport.send(make_endpoint(raw_server.url), b"{}")).read(1000)


async def test_interim_answers_are_skipped(raw_server, transport) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        await peer.answer(b"[]")
        await peer.request()

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    assert (response.status, response.header(b"link")) == (200, None)
    assert await response.read(10) == b"[]"


async def test_the_first_chunk_arrives_before_the_last_is_sent(raw_server, transport) -> None:
    proceed = asyncio.Event()

    async def handler(peer):
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nfirst\r\n")
        await proceed.wait()
        await peer.send(b"4\r\nlast\r\n0\r\n\r\n")
        await peer.request()

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    assert await response.receive() == b"first"
    proceed.set()
    assert [chunk async for chunk in response.chunks()] == [b"last"]
    assert transport.stats()[0].idle == 1


@pytest.mark.parametrize("moment", ["headers", "body"])
async def test_cancellation_closes_the_connection(raw_server, transport, moment) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async def handler(peer):
        await peer.request()
        if moment == "body":
            await peer.send(CHUNKED + b"5\r\nfirst\r\n")
        reached.set()
        if await peer.request() == b"":
            gone.set()

    async def client():
        response = await transport.send(make_endpoint(raw_server.url), b"{}")
        try:
            await response.read(1000)
        finally:
            await response.aclose()

    await raw_server.start(handler)
    task = asyncio.create_task(client())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await gone.wait()
    await until(lambda: transport.stats()[0].connections == 0)


async def test_a_slow_reader_holds_little(raw_server, transport) -> None:
    written = 0

    async def handler(peer):
        nonlocal written
        await peer.request()
        await peer.send(CHUNKED)
        for _ in range(2000):
            await peer.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            written += 0x4000
        await peer.send(b"0\r\n\r\n")

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    before = -1
    while written != before:
        before = written
        await asyncio.sleep(0.2)
    assert 0 < response.buffered < 1_000_000
    assert before < 2000 * 0x4000
    total = 0
    async for chunk in response.chunks():
        total += len(chunk)
    assert total == 2000 * 0x4000


async def test_a_redirect_is_returned(raw_server, transport) -> None:
    async def handler(peer):
        while await peer.request():
            await peer.send(
                b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
            )

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    assert response.status == 307
    assert await response.read(10) == b""


@pytest.mark.parametrize("size", [70_000, 3_000_000])
async def test_huge_headers_are_refused(raw_server, transport, size) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx: " + b"a" * size + b"\r\n\r\n")
        await peer.request()

    await raw_server.start(handler)
    with pytest.raises(TooLarge):
        await transport.send(make_endpoint(raw_server.url), b"{}")


async def test_a_body_is_bounded(raw_server) -> None:
    async def handler(peer):
        await peer.request()
        await peer.answer(b"x" * 500_000)
        await peer.request()

    await raw_server.start(handler)
    transport = UpstreamTransport(Limits(body_bytes=100_000))
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    with pytest.raises(TooLarge):
        await response.read(10**9)
    response = await UpstreamTransport().send(make_endpoint(raw_server.url), b"{}")
    with pytest.raises(TooLarge):
        await response.read(1000)
    await transport.aclose()


async def test_the_deadline_is_kept_and_can_be_moved(raw_server, transport) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n")
        await asyncio.sleep(0.3)
        await peer.send(b"1\r\nb\r\n")
        await peer.request()

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}", deadline=now() + 0.2)
    assert await response.receive() == b"a"
    response.deadline = now() + 30
    assert await response.receive() == b"b"
    response.deadline = now() + 0.05
    with pytest.raises(httpx.ReadTimeout):
        await response.receive()
    await response.aclose()


async def test_silence_before_the_headers_is_a_timeout(raw_server, transport) -> None:
    gone = asyncio.Event()

    async def handler(peer):
        await peer.request()
        if await peer.request() == b"":
            gone.set()

    await raw_server.start(handler)
    with pytest.raises(httpx.ReadTimeout):
        await transport.send(make_endpoint(raw_server.url), b"{}", deadline=now() + 0.05)
    async with asyncio.timeout(5):
        await gone.wait()
    assert raw_server.accepted == 1


async def test_connections_are_limited_and_handed_over(raw_server) -> None:
    async def handler(peer):
        while await peer.request():
            await asyncio.sleep(0.01)
            await peer.answer()

    await raw_server.start(handler)
    transport = UpstreamTransport(Limits(connections=2))
    endpoint = make_endpoint(raw_server.url)

    async def one() -> bytes:
        return await (await transport.send(endpoint, b"{}")).read(10)

    assert await asyncio.gather(*[one() for _ in range(20)]) == [b"{}"] * 20
    assert raw_server.accepted == 2
    held = [await transport.send(endpoint, b"{}") for _ in range(2)]
    await asyncio.gather(*[response.read(10) for response in held])
    await transport.aclose()


async def test_waiting_for_a_connection_is_bounded_and_survives_cancellation(raw_server) -> None:
    release = asyncio.Event()

    async def handler(peer):
        while await peer.request():
            await release.wait()
            await peer.answer()

    await raw_server.start(handler)
    transport = UpstreamTransport(Limits(connections=1))
    endpoint = make_endpoint(raw_server.url)
    first = asyncio.create_task(transport.send(endpoint, b"{}"))
    await until(lambda: raw_server.accepted == 1)
    with pytest.raises(httpx.PoolTimeout):
        await transport.send(endpoint, b"{}", connect=0.05)
    cancelled = asyncio.create_task(transport.send(endpoint, b"{}"))
    patient = asyncio.create_task(transport.send(endpoint, b"{}"))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    release.set()
    assert await (await first).read(10) == b"{}"
    assert await (await patient).read(10) == b"{}"
    await transport.aclose()


async def test_idle_connections_expire(raw_server) -> None:
    async def handler(peer):
        while await peer.request():
            await peer.answer()

    await raw_server.start(handler)
    transport = UpstreamTransport(Limits(keepalive=0.05))
    await (await transport.send(make_endpoint(raw_server.url), b"{}")).read(10)
    await until(lambda: transport.stats()[0].connections == 0)
    assert transport.stats()[0].connections == 0
    await transport.aclose()


async def test_nothing_listens(transport, unused_tcp_port) -> None:
    with pytest.raises(httpx.ConnectError):
        await transport.send(make_endpoint(f"http://127.0.0.1:{unused_tcp_port}/"), b"{}")
    assert transport.stats()[0].connections == 0


async def test_a_drained_answer_gives_its_connection_back(raw_server, transport) -> None:
    async def handler(peer):
        while await peer.request():
            await peer.send(CHUNKED + b"5\r\nfirst\r\n")
            await asyncio.sleep(0.05)
            await peer.send(b"4\r\nrest\r\n0\r\n\r\n")

    await raw_server.start(handler)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    assert await response.receive() == b"first"
    response.finish()
    await until(lambda: transport.stats()[0].idle == 1)
    response = await transport.send(make_endpoint(raw_server.url), b"{}")
    await response.receive()
    response.finish(grace=0.01)
    await until(lambda: transport.stats()[0].connections == 0)


async def test_httpx_client_over_the_transport(raw_server, transport) -> None:
    seen = []

    async def handler(peer):
        while data := await peer.request():
            seen.append(data)
            await peer.answer(b'{"a":1}')

    await raw_server.start(handler)
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await client.post(raw_server.url + "?q=1", json={"x": 1})).json() == {"a": 1}
        assert (await client.get(raw_server.url)).status_code == 200
    assert seen[0].startswith(b"POST /v1/chat/completions?q=1 HTTP/1.1\r\n")
    assert seen[0].endswith(b'\r\n\r\n{"x":1}')
    assert raw_server.accepted == 1


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://x/", []),
        ("http:///x", []),
        ("http://x/a b", []),
        ("http://x/", [(b"a", b"b\r\nc: d")]),
        ("http://x/", [(b"a\nb", b"c")]),
        ("http://x/", [(b"Content-Length", b"3")]),
    ],
)
def test_what_would_break_a_request_is_refused(url, headers) -> None:
    with pytest.raises(ValueError, match=r"URL|path|header"):
        make_endpoint(url, headers)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            str(key),
            "-out",
            str(cert),
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


async def test_tls_with_a_trusted_certificate(raw_server, certificate) -> None:
    async def handler(peer):
        while await peer.request():
            await peer.answer()

    await raw_server.start(handler, server_context(certificate))
    trusted = UpstreamTransport(ssl_context=ssl.create_default_context(cafile=certificate[1]))
    for _ in range(2):
        response = await trusted.send(make_endpoint(raw_server.url), b"{}")
        assert await response.read(10) == b"{}"
    assert raw_server.accepted == 1
    await trusted.aclose()


async def test_tls_refuses_an_unknown_certificate(raw_server, transport, certificate) -> None:
    asked = []

    async def handler(peer):
        asked.append(await peer.request())

    await raw_server.start(handler, server_context(certificate))
    with pytest.raises(httpx.ConnectError):
        await transport.send(make_endpoint(raw_server.url), b"secret")
    assert asked in ([], [b""])


async def test_tls_cut_without_notice_is_not_a_clean_end(raw_server, certificate) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf an ans")
        # Closes the socket below the TLS layer, as a cut line or an attacker would.
        with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as below:
            below.shutdown(socket.SHUT_WR)
        await asyncio.sleep(5)

    await raw_server.start(handler, server_context(certificate))
    trusted = UpstreamTransport(ssl_context=ssl.create_default_context(cafile=certificate[1]))
    response = await trusted.send(make_endpoint(raw_server.url), b"{}", deadline=now() + 10)
    with pytest.raises((Disconnected, httpx.ReadError)):
        await response.read(1000)
    await trusted.aclose()


async def test_tls_closed_with_notice_ends_an_answer_without_a_length(
    raw_server, certificate
) -> None:
    async def handler(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")

    await raw_server.start(handler, server_context(certificate))
    trusted = UpstreamTransport(ssl_context=ssl.create_default_context(cafile=certificate[1]))
    response = await trusted.send(make_endpoint(raw_server.url), b"{}", deadline=now() + 10)
    assert await response.read(1000) == b"whole"
    await trusted.aclose()
