"""MessagesBackend against a real socket that plays Anthropic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from backends.base import Call, Timeouts, Usage
from backends.dialects.messages import MessagesBackend, MessagesSettings
from backends.errors import (
    BackendError,
    ContextTooLong,
    InvalidUpstreamRequest,
    Overloaded,
    RateLimited,
    StreamFailed,
    StreamIdle,
    StreamTruncated,
    Untranslatable,
    UpstreamAuthFailed,
    UpstreamBilling,
    UpstreamFailed,
    UpstreamModelMissing,
    UpstreamProtocolError,
)
from backends.http import UpstreamTransport

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-real",
    "content": [
        {"type": "thinking", "thinking": "hm hm", "signature": "s1"},
        {"type": "text", "text": "Grüße 漢字"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 20},
}
Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    def __init__(self) -> None:
        self.respond: Respond | None = None
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append((head[0], headers, json.loads(body)))
            assert self.respond is not None
            await self.respond(writer)
            await writer.drain()
        finally:
            writer.close()

    def answer(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def respond(writer: asyncio.StreamWriter) -> None:
            head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}"
            writer.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + data)

        self.respond = respond

    def stream(self, pieces: list[bytes], hold: bool = False) -> None:
        async def respond(writer: asyncio.StreamWriter) -> None:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            for piece in pieces:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            if hold:
                await asyncio.sleep(30)
            writer.write(b"0\r\n\r\n")

        self.respond = respond


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    played = Upstream()
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0)
    played.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"  # type: ignore[attr-defined]
    yield played
    server.close()


@pytest.fixture
async def backend(upstream: Upstream) -> AsyncIterator[MessagesBackend]:
    transport = UpstreamTransport()
    settings = MessagesSettings(
        name="a",
        base_url=upstream.url,  # type: ignore[attr-defined]
        api_key="sk-ant-secret",
        betas=("one-beta", "two-beta"),
    )
    yield MessagesBackend(settings, transport, lambda: 1_700_000_000.9)
    await transport.aclose()


def call(stream: bool = False, operation: Any = "chat", **fields: Any) -> Call:
    body = {"model": "alias", "messages": [{"role": "user", "content": "hi"}], **fields}
    timeouts = Timeouts(connect=2, first_token=5, idle=0.3, total=10)
    return Call(operation, "claude-sonnet-4-5", body, stream, timeouts)


async def collect(backend: MessagesBackend, made: Call) -> tuple[Any, list[Any]]:
    reply = await backend.open(made)
    return reply, [event async for event in reply.events()]


async def test_a_whole_answer(upstream: Upstream, backend: MessagesBackend) -> None:
    upstream.answer(200, MESSAGE)
    reply, events = await collect(backend, call(seed=4))
    line, headers, sent = upstream.requests[0]
    assert line == "POST /v1/messages HTTP/1.1"
    assert headers["x-api-key"] == "sk-ant-secret"
    assert headers["anthropic-version"] == "2023-06-01"
    assert headers["anthropic-beta"] == "one-beta,two-beta"
    assert sent["model"] == "claude-sonnet-4-5" and "stream" not in sent
    [event] = events
    body = json.loads(event.data)
    message = body["choices"][0]["message"]
    assert (body["object"], body["created"]) == ("chat.completion", 1_700_000_000)
    assert message["content"] == "Grüße 漢字" and message["reasoning_content"] == "hm hm"
    assert [c["function"]["arguments"] for c in message["tool_calls"]] == ['{"a":1}', "{}"]
    assert body["usage"]["prompt_tokens"] == 9
    assert event.usage == reply.usage == Usage(prompt=9, completion=20, cached=8)
    assert (event.finish, event.semantic) == ("tool_calls", True)
    assert event.text_bytes == len("hm hmGrüße 漢字".encode()) + len('f{"a":1}g{}')
    assert (reply.model, reply.dropped) == ("claude-real", ("seed",))


async def test_a_streamed_answer(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    raw = wires.wire(wires.stream_of(MESSAGE))
    upstream.stream([raw[at : at + 7] for at in range(0, len(raw), 7)])
    reply, events = await collect(backend, call(stream=True))
    assert upstream.requests[0][2]["stream"] is True
    folded = wires.fold([json.loads(event.data) for event in events])
    assert folded["message"]["content"] == "Grüße 漢字"
    assert folded["message"]["thinking_blocks"][0]["signature"] == "s1"
    assert [c["arguments"] for c in folded["message"]["tool_calls"]] == ['{"a":1}', "{}"]
    assert not events[0].semantic and events[1].semantic
    assert events[-1].usage_only and events[-1].usage == Usage(9, 20, 8)
    assert events[-2].finish == "tool_calls" and not events[-2].usage_only
    assert (reply.model, reply.usage) == ("claude-real", Usage(9, 20, 8))
    text = sum(event.text_bytes for event in events)
    assert text == len("hm hmGrüße 漢字".encode()) + len('f{"a":1}g{}')


async def test_what_a_block_begins_with_is_part_of_it(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    """Servers that only speak this dialect send a block's text, or a call's input, at once."""
    events = wires.stream_of({**MESSAGE, "content": []})
    blocks = [
        ("content_block_start", {"type": "content_block_start", "index": at}) for at in (0, 1, 2)
    ]
    for (_, event), block in zip(blocks, MESSAGE["content"], strict=False):
        event["content_block"] = block
    upstream.stream([wires.wire([*events[:2], *blocks, *events[2:]])])
    _, found = await collect(backend, call(stream=True))
    message = wires.fold([json.loads(event.data) for event in found])["message"]
    assert message["content"] == "Grüße 漢字"
    assert message["reasoning_content"] == "hm hm"
    assert message["thinking_blocks"][0] == MESSAGE["content"][0]
    assert [c["arguments"] for c in message["tool_calls"]] == ['{"a":1}']


async def test_the_chunks_are_valid_for_the_openai_sdk(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    upstream.stream([wires.wire(wires.stream_of(MESSAGE))])
    _, events = await collect(backend, call(stream=True))
    chunks = [ChatCompletionChunk.model_validate_json(e.data, strict=True) for e in events]
    assert len(chunks) > 5
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    upstream.answer(200, MESSAGE)
    _, [whole] = await collect(backend, call())
    completion = ChatCompletion.model_validate_json(whole.data, strict=True)
    assert completion.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("status", "kind", "message", "error"),
    [
        (400, "invalid_request_error", "max_tokens: wrong", InvalidUpstreamRequest),
        (400, "invalid_request_error", "prompt is too long: 9 > 8 maximum", ContextTooLong),
        (400, "invalid_request_error", "Your credit balance is too low", None),
        (401, "authentication_error", "invalid x-api-key", UpstreamAuthFailed),
        (402, "billing_error", "pay", UpstreamBilling),
        (403, "permission_error", "no", UpstreamAuthFailed),
        (404, "not_found_error", "model: x", UpstreamModelMissing),
        (413, "request_too_large", "big", InvalidUpstreamRequest),
        (429, "rate_limit_error", "slow", RateLimited),
        (500, "api_error", "oops", UpstreamFailed),
        (529, "overloaded_error", "busy", Overloaded),
    ],
)
async def test_error_statuses(
    upstream: Upstream,
    backend: MessagesBackend,
    status: int,
    kind: str,
    message: str,
    error: type[BackendError] | None,
) -> None:
    upstream.answer(status, {"type": "error", "error": {"type": kind, "message": message}})
    with pytest.raises(BackendError) as caught:
        await backend.open(call())
    expected = error
    if kind == "invalid_request_error" and "credit" in message:
        expected = UpstreamBilling
    assert type(caught.value) is expected
    assert "sk-ant-secret" not in str(caught.value)


async def test_configured_headers_are_kept_out_of_errors(upstream: Upstream) -> None:
    secret = "Zx81-private-team-value"
    settings = MessagesSettings(
        name="a",
        base_url=upstream.url,  # type: ignore[attr-defined]
        headers={"x-proxy": f"Basic {secret}"},
    )
    transport = UpstreamTransport()
    error = {"type": "invalid_request_error", "message": f"access denied for {secret}"}
    upstream.answer(400, {"type": "error", "error": error})
    with pytest.raises(InvalidUpstreamRequest) as caught:
        await MessagesBackend(settings, transport, lambda: 0.0).open(call())
    await transport.aclose()
    assert "access denied for" in caught.value.message
    assert secret not in caught.value.message


def error_event(kind: str) -> bytes:
    data = json.dumps({"type": "error", "error": {"type": kind, "message": "secret words"}})
    return f"event: error\ndata: {data}\n\n".encode()


async def test_an_error_before_any_content_is_its_status(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    start = wires.wire(wires.stream_of(MESSAGE)[:2])
    upstream.stream([start, error_event("overloaded_error")])
    with pytest.raises(Overloaded):
        await collect(backend, call(stream=True))


async def test_an_error_after_content_fails_the_stream(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    start = wires.wire(wires.stream_of(MESSAGE)[:5])
    upstream.stream([start, error_event("overloaded_error")])
    reply = await backend.open(call(stream=True))
    seen = []
    with pytest.raises(StreamFailed) as caught:
        async for event in reply.events():
            seen.append(event)
    assert any(event.semantic for event in seen)
    assert all(event.finish is None for event in seen)
    assert caught.value.code == "upstream_overloaded" and "secret" not in str(caught.value)
    assert reply.usage is not None and reply.usage.prompt == 9


async def test_an_early_end_is_a_truncation(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    upstream.stream([wires.wire(wires.stream_of(MESSAGE)[:-1])])
    with pytest.raises(StreamTruncated):
        await collect(backend, call(stream=True))


async def test_silence_after_content_is_idle(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    upstream.stream([wires.wire(wires.stream_of(MESSAGE)[:6])], hold=True)
    with pytest.raises(StreamIdle):
        await collect(backend, call(stream=True))


async def test_a_model_that_thinks_unseen_has_begun_its_answer(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    """Newer models do not show their reasoning: for its whole length there are pings alone."""
    blocks = [{"type": "thinking", "thinking": "", "signature": "s"}, *MESSAGE["content"][1:2]]
    events = wires.stream_of({**MESSAGE, "content": blocks, "stop_reason": "end_turn"})
    kinds = [event["type"] for _, event in events]
    begun = kinds.index("content_block_start") + 1
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'

    async def respond(writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        writer.write(head + wires.wire(events[:begun]))
        for _ in range(4):
            await asyncio.sleep(0.2)
            writer.write(ping)
        writer.write(wires.wire(events[begun:]))

    upstream.respond = respond
    patient = Timeouts(first_token=0.4, idle=5.0)
    asked = msgspec.structs.replace(call(stream=True), timeouts=patient)
    _, got = await collect(backend, asked)
    folded = wires.fold([json.loads(event.data) for event in got])
    assert folded["message"]["content"] == "Grüße 漢字"
    assert folded["message"]["thinking_blocks"] == blocks[:1]


async def test_each_delta_comes_before_the_next_is_sent(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    upstream.stream([wires.wire(wires.stream_of(MESSAGE)[:4])], hold=True)
    reply = await backend.open(call(stream=True))
    events = reply.events()
    deltas = [json.loads((await anext(events)).data)["choices"][0]["delta"] for _ in range(3)]
    assert deltas[0]["role"] == "assistant"
    assert deltas[1:] == [{"reasoning_content": ""}, {"reasoning_content": "hm "}]
    await reply.aclose()
    await reply.aclose()


async def test_broken_events_are_left_out_and_counted(
    upstream: Upstream, backend: MessagesBackend, wires: SimpleNamespace
) -> None:
    events = wires.stream_of(MESSAGE)
    raw = wires.wire(events[:3]) + b"data: {oops\n\n" + wires.wire(events[3:])
    upstream.stream([raw])
    reply, got = await collect(backend, call(stream=True))
    assert reply.malformed == 1 and got[-2].finish == "tool_calls"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", "text/html"),
        (b"{", "application/json"),
        ({"ok": True}, "application/json"),
        ({**MESSAGE, "stop_reason": None}, "application/json"),
    ],
)
async def test_what_is_no_message(
    upstream: Upstream, backend: MessagesBackend, body: Any, kind: str
) -> None:
    upstream.answer(200, body, kind)
    with pytest.raises(UpstreamProtocolError):
        await collect(backend, call())


@pytest.mark.parametrize("operation", ["completions", "embeddings"])
async def test_other_operations(backend: MessagesBackend, operation: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        await backend.open(call(operation=operation))
    assert caught.value.param == "model"


@pytest.mark.parametrize("usage", [None, {"input_tokens": -1, "output_tokens": 2}, {"x": 1}, 7])
async def test_unbelievable_usage_is_no_usage(
    upstream: Upstream, backend: MessagesBackend, usage: Any
) -> None:
    upstream.answer(200, {**MESSAGE, "usage": usage})
    reply, [event] = await collect(backend, call())
    assert reply.usage is None and event.usage is None


# As the API counts an answer for which it first shortened the conversation, and asked another
# model for advice: its totals are those of the last part alone.
COMPACTED = {
    "input_tokens": 100,
    "output_tokens": 20,
    "iterations": [
        {"type": "compaction", "input_tokens": 9000, "output_tokens": 300},
        {"type": "advisor_message", "input_tokens": 5000, "output_tokens": 700},
        {
            "type": "message",
            "input_tokens": 100,
            "cache_read_input_tokens": 8,
            "cache_creation_input_tokens": None,
            "output_tokens": 20,
        },
    ],
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (COMPACTED, Usage(prompt=9108, completion=320, cached=8)),
        # Nothing but advice: the totals are the answer's own.
        (
            COMPACTED | {"iterations": COMPACTED["iterations"][1:2]},  # type: ignore[index]
            Usage(prompt=100, completion=20),
        ),
        (COMPACTED | {"iterations": []}, Usage(prompt=100, completion=20)),
        (COMPACTED | {"iterations": ["?"]}, Usage(prompt=100, completion=20)),
    ],
)
async def test_all_parts_of_an_answer_by_this_model_are_counted(
    upstream: Upstream,
    backend: MessagesBackend,
    wires: SimpleNamespace,
    usage: dict[str, Any],
    expected: Usage,
) -> None:
    upstream.answer(200, {**MESSAGE, "usage": usage})
    reply, _ = await collect(backend, call())
    assert reply.usage == expected
    events = wires.stream_of({**MESSAGE, "usage": {"input_tokens": 100, "output_tokens": 20}})
    [end] = [event for kind, event in events if kind == "message_delta"]
    end["usage"] = usage
    upstream.stream([wires.wire(events)])
    reply, _ = await collect(backend, call(stream=True))
    assert reply.usage == expected
