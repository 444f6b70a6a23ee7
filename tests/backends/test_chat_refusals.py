"""What the chat dialect makes of refusals, silence and upstreams that are not there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from backends.base import Timeouts
from backends.dialects.chat import ChatBackend, ChatSettings
from backends.errors import (
    BackendError,
    ConnectFailed,
    ContentFiltered,
    ContextTooLong,
    FirstTokenTimeout,
    InvalidUpstreamRequest,
    Overloaded,
    RateLimited,
    StreamFailed,
    StreamIdle,
    UpstreamAuthFailed,
    UpstreamBilling,
    UpstreamFailed,
    UpstreamModelMissing,
    UpstreamProtocolError,
    UpstreamRedirected,
    UpstreamTimeout,
)
from tests.backends.chat_upstream import (
    CLOSE,
    KEY,
    SSE,
    WHOLE,
    body_answer,
    call,
    collect,
    piece,
    sse,
)


def refused(status: int, **error: Any) -> bytes:
    return body_answer({"error": error}, status=b"%d X" % status)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refused(400, message="bad", code="context_length_exceeded"), ContextTooLong),
        (
            refused(400, message="This model's maximum context length is 8192 tokens"),
            ContextTooLong,
        ),
        (refused(400, message="x", type="exceed_context_size_error", code=400), ContextTooLong),
        (refused(400, message="x", code="content_filter"), ContentFiltered),
        (
            refused(
                400, message="x", code=None, innererror={"code": "ResponsibleAIPolicyViolation"}
            ),
            ContentFiltered,
        ),
        (refused(400, message="API key not valid. Please pass"), UpstreamAuthFailed),
        (refused(400, message="temperature too high", param="temperature"), InvalidUpstreamRequest),
        (refused(413, message="large"), InvalidUpstreamRequest),
        (body_answer({"detail": "extra field"}, status=b"422 X"), InvalidUpstreamRequest),
        (refused(401, message=f"Incorrect API key provided: {KEY}"), UpstreamAuthFailed),
        (refused(403, message="no"), UpstreamAuthFailed),
        (refused(402, message="pay"), UpstreamBilling),
        (refused(429, message="pay", code="insufficient_quota"), UpstreamBilling),
        (refused(404, message="no such model"), UpstreamModelMissing),
        (refused(408, message="slow"), UpstreamFailed),
        (refused(504, message="slow"), UpstreamFailed),
        (refused(429, message="slow down"), RateLimited),
        (refused(503, message="busy"), Overloaded),
        (body_answer(b"<html>", b"text/html", b"529 X"), Overloaded),
        (body_answer(b"<html>", b"text/html", b"500 X"), UpstreamFailed),
        (body_answer(b"", b"text/html", b"599 X"), UpstreamFailed),
        (body_answer(b"", b"text/html", b"307 X"), UpstreamRedirected),
        (body_answer(b"", b"text/html", b"418 X"), UpstreamProtocolError),
        (body_answer(b"x" * 100_000, b"text/html", b"502 X"), UpstreamFailed),
    ],
)
async def test_refusals(serve, answer, expected) -> None:
    backend, _ = await serve(answer)
    with pytest.raises(BackendError) as caught:
        await backend.open(call())
    assert type(caught.value) is expected
    assert KEY not in str(caught.value)
    if expected in (RateLimited, Overloaded):
        assert caught.value.retry_after == 7


async def test_the_requests_own_fault_keeps_message_and_param_without_our_key(serve) -> None:
    message = f"'messages' is wrong (key {KEY}, Bearer abcdef)"
    backend, _ = await serve(refused(400, message=message, param="messages", code="invalid_type"))
    with pytest.raises(InvalidUpstreamRequest) as caught:
        await backend.open(call())
    assert "'messages' is wrong" in caught.value.message
    assert KEY not in caught.value.message
    assert "abcdef" not in caught.value.message
    assert (caught.value.param, caught.value.code) == ("messages", "invalid_type")


TEAM = "Zx81-private-team-value"
BASIC = "dGVhbTp3b3Jkcw=="


@pytest.mark.parametrize("echo", [TEAM, f"Basic {BASIC}", BASIC, f"x-team-key: {TEAM}, {BASIC}"])
async def test_configured_headers_are_kept_out_of_errors(serve, echo) -> None:
    own = {"x-team-key": TEAM, "x-proxy": f"Basic {BASIC}", "x-region": "eu-west"}
    answer = refused(400, message=f"access denied for {echo} in eu-west", param=echo, code="bad")
    backend, _ = await serve(answer, headers=own)
    with pytest.raises(InvalidUpstreamRequest) as caught:
        await backend.open(call())
    shown = f"{caught.value.message} {caught.value.param}"
    assert "access denied for" in shown and "eu-west" in shown
    assert TEAM not in shown
    assert BASIC not in shown


async def test_configured_headers_are_kept_out_of_a_streams_error(serve) -> None:
    events = sse(piece("Hi"), {"error": {"message": f"denied for {TEAM}"}})
    backend, _ = await serve(SSE % CLOSE + events, headers={"x-team-key": TEAM})
    reply = await backend.open(call(stream=True))
    with pytest.raises(StreamFailed) as caught:
        _ = [event async for event in reply.events()]
    assert "denied for" in caught.value.message
    assert TEAM not in caught.value.message


def silent(raw_server, transport, first: bytes = b"", then: bytes = b"", every: float = 0.02):
    """An upstream that sends `first`, then `then` again and again, for ever."""
    gone = asyncio.Event()

    async def handler(peer):
        await peer.request()
        closed = asyncio.create_task(peer.request())
        # A write may notice that the client has gone before the read does.
        with contextlib.suppress(ConnectionError):
            if first:
                await peer.send(first)
            while not closed.done():
                if then:
                    await peer.send(then)
                await asyncio.sleep(every)
        gone.set()

    async def start() -> ChatBackend:
        await raw_server.start(handler)
        return ChatBackend(ChatSettings("b", raw_server.base), transport, lambda: 0.0)

    return start, gone


@pytest.mark.parametrize(
    ("stream", "first", "then", "timeouts", "error"),
    [
        (True, b"", b"", Timeouts(first_token=0.1), FirstTokenTimeout),
        (True, SSE % CLOSE, b": ping\n\n", Timeouts(first_token=0.1), FirstTokenTimeout),
        (True, SSE % CLOSE, sse(piece("")), Timeouts(first_token=0.1), FirstTokenTimeout),
        (True, SSE % CLOSE + sse(piece("a")), b"", Timeouts(idle=0.1), StreamIdle),
        (True, SSE % CLOSE + sse(piece("a")), b"d", Timeouts(idle=0.1), StreamIdle),
        (True, SSE % CLOSE, sse(piece("a")), Timeouts(total=0.2), UpstreamTimeout),
        (True, b"", b"", Timeouts(total=0.1), UpstreamTimeout),
        (False, b"", b"", Timeouts(first_token=0.01, total=0.2), UpstreamTimeout),
        (False, body_answer(WHOLE)[:-5], b"", Timeouts(idle=0.01, total=0.2), UpstreamTimeout),
    ],
)
async def test_silence(raw_server, transport, stream, first, then, timeouts, error) -> None:
    start, gone = silent(raw_server, transport, first, then)
    backend = await start()
    with pytest.raises(BackendError) as caught:
        await collect(backend, call(stream, timeouts=timeouts))
    assert type(caught.value) is error
    async with asyncio.timeout(5):
        await gone.wait()


async def test_leaving_the_stream_stops_the_upstream(raw_server, transport) -> None:
    start, gone = silent(raw_server, transport, SSE % CLOSE, sse(piece("a")))
    reply = await (await start()).open(call())
    async for _ in reply.events():
        break
    await reply.aclose()
    await reply.aclose()
    async with asyncio.timeout(5):
        assert await gone.wait()


async def test_no_upstream(transport, unused_tcp_port) -> None:
    settings = ChatSettings("b", f"http://127.0.0.1:{unused_tcp_port}/v1")
    with pytest.raises(ConnectFailed):
        await ChatBackend(settings, transport, lambda: 0.0).open(call())
