from __future__ import annotations

import asyncio
import json

import pytest

from backends.base import Usage
from backends.dialects.chat import ChatBackend, ChatSettings
from backends.dialects.chat_answer import decode_usage
from backends.errors import (
    ChoicesMissing,
    ContextTooLong,
    Overloaded,
    RateLimited,
    StreamBroken,
    StreamFailed,
    StreamTruncated,
    UpstreamFailed,
    UpstreamProtocolError,
)
from tests.backends.chat_upstream import (
    CLOSE,
    KEY,
    SSE,
    USAGE,
    WHOLE,
    body_answer,
    call,
    chunked,
    collect,
    piece,
    sent,
    sse,
)


async def test_the_request_passes_through_with_model_key_and_usage_option(serve) -> None:
    stream = sse(piece("hi"), piece(finish="stop"), b"[DONE]")
    backend, seen = await serve(SSE % CLOSE + stream, headers={"OpenAI-Organization": "o1"})
    body = {
        "model": "alias",
        "messages": [{"role": "user", "content": "hé"}],
        "unknown_field": {"deep": [1, 2.5, None]},
        "seed": 12345678901234567890,
        "stream_options": {"include_obfuscation": False},
    }
    before = json.dumps(body)
    await collect(backend, call(body=body))
    assert json.dumps(body) == before
    assert sent(seen) == {
        **body,
        "model": "m",
        "stream": True,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }
    head = seen[0].partition(b"\r\n\r\n")[0].lower()
    assert b"post /v1/chat/completions http/1.1" in head
    assert b"authorization: bearer " + KEY.encode() in head
    assert b"x-request-id: req-1" in head
    assert b"openai-organization: o1" in head


async def test_chunks_pass_through_byte_for_byte(serve) -> None:
    first = b'{"choices":[],"prompt_filter_results":[{"x":1}]}'
    spaced = (
        b'{ "choices" : [ {"index":0, "delta":{"content":"\xc3\xa9","zz":[1]}} ], "x-new": 1.50 }'
    )
    last = json.dumps({"choices": [], "usage": USAGE}).encode()
    chunks = [first, spaced, json.dumps(piece(finish="stop")).encode(), last]
    backend, _ = await serve(SSE % CLOSE + sse(*chunks, b"[DONE]", b"[DONE]"))
    reply, events = await collect(backend, call())
    assert [event.data for event in events] == chunks
    assert [event.semantic for event in events] == [False, True, True, False]
    assert [event.text_bytes for event in events] == [0, 2, 0, 0]
    assert [event.finish for event in events] == [None, None, "stop", None]
    assert [event.usage_only for event in events] == [False, False, False, True]
    assert events[3].usage == reply.usage == Usage(prompt=9, completion=5)
    assert reply.model == "m-1"


@pytest.mark.parametrize(
    ("delta", "size"),
    [
        ({"role": "assistant", "content": ""}, 0),
        ({"reasoning_content": "abc"}, 3),
        ({"reasoning": "abc"}, 3),
        ({"reasoning": "abc", "reasoning_content": "abc"}, 3),
        ({"refusal": "no"}, 2),
        ({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}, 3),
        ({"tool_calls": [{"index": "zero", "function": {"name": "f"}}]}, 1),
        ({"function_call": {"name": "f"}}, 1),
        ({"content": [{"type": "thinking", "thinking": [{"text": "abc"}]}]}, 3),
        ({"content": [{"type": "text", "text": "abcd"}]}, 4),
    ],
)
async def test_what_counts_as_content(serve, delta, size) -> None:
    chunk = piece()
    chunk["choices"][0]["delta"] = delta
    backend, _ = await serve(SSE % CLOSE + sse(chunk, piece(finish="stop")))
    _, events = await collect(backend, call())
    assert (events[0].semantic, events[0].text_bytes) == (size > 0, size)


def _calls(*calls: dict, index: int = 0) -> dict:
    chunk = piece(index=index)
    chunk["choices"][0]["delta"] = {"tool_calls": list(calls)}
    return chunk


def _begin(name: str, arguments: str = "", **more) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def _more(arguments: str, **more) -> dict:
    return {"function": {"arguments": arguments}, **more}


@pytest.mark.parametrize(
    ("calls", "numbers"),
    [
        # Right ones, also those that begin late or come out of order.
        ([_begin("f", index=0, id="a"), _more("{}", index=0), _begin("g", index=1, id="b")], None),
        ([_begin("f", index=7, id="a"), _more("{}", index=7), _begin("g", index=8, id="b")], None),
        ([_begin("f", index=1, id="a"), _begin("g", index=0, id="b")], None),
        # An id of its own for each piece.
        ([_begin("f", index=0, id="a"), _more("{}", index=0, id="b")], None),
        # No index at all (Gemini), with an id, without one, in pieces.
        ([_begin("f", "{}", id="a"), _begin("g", "{}", id="b")], [0, 1]),
        ([_begin("f", "{}", id=""), _begin("f", "{}", id="")], [0, 1]),
        (
            [_begin("f", id="a"), _more("{"), _more("}", index=None), _begin("g", id="b")],
            [0, 0, 0, 1],
        ),
        ([_begin("f", id="a"), _begin("f", "{}", id="a")], [0, 0]),
        # The same index for all of them.
        (
            [_begin("f", index=0, id="a"), _begin("g", index=0, id="b"), _more("x", index=0)],
            [0, 1, 1],
        ),
    ],
)
@pytest.mark.parametrize("together", [False, True])
async def test_tool_calls_are_numbered(serve, calls, numbers, together) -> None:
    chunks = [_calls(*calls)] if together else [_calls(one) for one in calls]
    backend, _ = await serve(SSE % CLOSE + sse(*chunks, piece(finish="tool_calls"), b"[DONE]"))
    reply, events = await collect(backend, call())
    if numbers is None:
        assert [event.data for event in events[:-1]] == [json.dumps(c).encode() for c in chunks]
    read = [json.loads(event.data)["choices"][0]["delta"] for event in events[:-1]]
    got = [one for delta in read for one in delta["tool_calls"]]
    assert [one["index"] for one in got] == (numbers or [one["index"] for one in calls])
    assert [{**one, "index": 0} for one in got] == [{**one, "index": 0} for one in calls]
    assert reply.malformed == 0


async def test_tool_calls_are_numbered_for_each_choice(serve) -> None:
    chunks = [_calls(_begin("f", "{}", id=f"c{i}"), index=i) for i in (0, 1)]
    ends = [piece(finish="tool_calls", index=index) for index in (0, 1)]
    backend, _ = await serve(SSE % CLOSE + sse(*chunks, *ends, b"[DONE]"))
    _, events = await collect(backend, call(body={"messages": [], "n": 2}))
    read = [json.loads(event.data)["choices"][0]["delta"]["tool_calls"] for event in events[:2]]
    assert [one["index"] for (one,) in read] == [0, 0]


async def test_a_wrong_type_does_not_lose_the_event(serve) -> None:
    odd = piece("x")
    odd["choices"][0]["delta"] = {"content": {"not": "text"}}
    odd["usage"] = "many"
    backend, _ = await serve(SSE % CLOSE + sse(odd, piece(finish="stop")))
    reply, events = await collect(backend, call())
    assert json.loads(events[0].data) == odd
    assert events[0].semantic
    assert reply.malformed == 0


_HALF = [
    {"content": "A\ud83d"},
    {"reasoning_content": "\ude00"},
    {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '"\ud83d'}}]},
]


@pytest.mark.parametrize("delta", _HALF)
async def test_text_that_was_cut_inside_a_surrogate_pair_is_text(serve, delta) -> None:
    """Engines that count UTF-16 units may end a chunk in the middle of an emoji (RFC 8259, 8.2)."""
    chunk = piece(usage=USAGE)
    chunk["choices"][0]["delta"] = delta
    backend, _ = await serve(SSE % CLOSE + sse(chunk, piece(finish="stop"), b"[DONE]"))
    reply, events = await collect(backend, call())
    assert events[0].data == json.dumps(chunk).encode()
    assert events[0].semantic and events[0].text_bytes > 0
    assert (reply.malformed, reply.usage, reply.model) == (0, Usage(9, 5), "m-1")


async def test_a_whole_answer_cut_inside_a_surrogate_pair(serve) -> None:
    body = {**WHOLE, "choices": [{"message": {"content": "A\ud83d"}, "finish_reason": "length"}]}
    backend, _ = await serve(body_answer(body))
    _, (event,) = await collect(backend, call(False))
    assert (event.data, event.finish) == (json.dumps(body).encode(), "length")
    assert event.text_bytes == 4


async def test_an_error_that_holds_half_a_surrogate_pair(serve) -> None:
    backend, _ = await serve(SSE % CLOSE + sse(piece("a"), {"error": {"message": "no \ud83d"}}))
    with pytest.raises(StreamFailed, match="no"):
        await collect(backend, call())


_BROKEN_OFF = [
    {"finish_reason": "error"},
    {"finish_reason": "error", "error": {"code": 429, "message": "boom"}},
    {"finish_reason": "abort"},
    {"finish_reason": "insufficient_system_resource"},
]


@pytest.mark.parametrize("choice", _BROKEN_OFF)
async def test_an_answer_that_its_engine_broke_off_is_no_answer(serve, choice) -> None:
    last = {**piece(), "choices": [{"index": 0, "delta": {"content": ""}, **choice}]}
    backend, _ = await serve(SSE % CLOSE + sse(piece("a"), last, b"[DONE]"))
    with pytest.raises(StreamFailed):
        await collect(backend, call())


@pytest.mark.parametrize("choice", _BROKEN_OFF)
async def test_a_whole_answer_that_its_engine_broke_off(serve, choice) -> None:
    body = {**WHOLE, "choices": [{"index": 0, "message": {"content": "par"}, **choice}]}
    backend, _ = await serve(body_answer(body))
    with pytest.raises(RateLimited if "error" in choice else UpstreamFailed):
        await collect(backend, call(False))


@pytest.mark.parametrize(
    "bad",
    [
        b'{"choices":[{"index":0,"delta":{"content":"x"',
        b"not json",
        b'{"choices":[{"index":0,"delta":{"content":"\x00"}}]}',
        b'{"other":"\xff\xfe"}',
        b"[1,2]",
        b'"text"',
        b"[" * 100_000,
    ],
)
async def test_a_bad_event_is_dropped_and_counted(serve, bad) -> None:
    stream = sse(piece("a"), bad, piece("b"), piece(finish="stop"), b"[DONE]")
    backend, _ = await serve(SSE % CLOSE + stream)
    reply, events = await collect(backend, call())
    assert [event.text_bytes for event in events] == [1, 1, 0]
    assert reply.malformed == 1


async def test_an_event_of_several_lines_becomes_one_line(serve) -> None:
    lines = json.dumps(piece("a b"), indent=1).encode()
    event = b"data: " + lines.replace(b"\n", b"\r\ndata: ") + b"\r\n\r\n"
    broken = b'data: {"choices":[{"delta":{"content":"a\ndata: b"}}]}\n\n'
    stream = event + broken + sse(piece(finish="stop"), b"[DONE]")
    backend, _ = await serve(SSE % CLOSE + stream)
    reply, events = await collect(backend, call())
    assert events[0].data == lines.replace(b"\n", b" ")
    assert [event.text_bytes for event in events] == [3, 0]
    # Within a string a line break is no JSON: the event is not mended.
    assert reply.malformed == 1


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (sse(b"[DONE]"), StreamTruncated),
        (b"", StreamTruncated),
        (sse({"error": {"message": f"oops {KEY}", "code": 500}}, b"[DONE]"), StreamFailed),
        (sse({"error": "plain text"}), StreamFailed),
        (b"event: error\n" + sse({"message": "m"}), StreamFailed),
        (sse({"object": "error", "message": "vllm", "code": 400}), StreamFailed),
        (
            sse(b'{"choices":[{"delta":{"content":"' + b"x" * 10_000_000 + b'"}}]}'),
            UpstreamProtocolError,
        ),
    ],
)
async def test_a_stream_that_does_not_end_well_after_content(serve, tail, error) -> None:
    backend, _ = await serve(SSE % CLOSE + sse(piece("a")) + tail)
    reply = await backend.open(call())
    got = []

    async def drain() -> None:
        async for event in reply.events():
            got.append(event)

    with pytest.raises(error) as caught:
        await drain()
    assert [event.text_bytes for event in got] == [1]
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "x", "code": 429}, RateLimited),
        ({"message": "maximum context length is 8", "code": "400"}, ContextTooLong),
        ({"message": "x"}, StreamFailed),
        ("text", StreamFailed),
    ],
)
async def test_an_error_before_content_is_what_its_status_says(serve, error, expected) -> None:
    stream = sse(piece(""), {"error": error}, b"[DONE]")
    backend, _ = await serve(SSE % CLOSE + stream)
    with pytest.raises(expected):
        await collect(backend, call())


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("complete", [False, True])
async def test_a_cut_stream_is_an_error_unless_all_of_the_answer_came(
    serve, reset, complete
) -> None:
    stream = sse(piece("a"), piece(finish="stop")) if complete else sse(piece("a"))
    answer = SSE % b"transfer-encoding: chunked\r\n" + chunked(stream)
    backend, _ = await serve(answer, reset=reset)
    if complete:
        _, events = await collect(backend, call())
        assert events[-1].finish == "stop"
    else:
        with pytest.raises(StreamBroken if reset else StreamTruncated):
            await collect(backend, call())


async def test_every_choice_needs_its_finish(serve) -> None:
    stream = sse(piece("a"), piece("b", index=1), piece(finish="stop"), b"[DONE]")
    backend, _ = await serve(SSE % CLOSE + stream)
    with pytest.raises(StreamTruncated):
        await collect(backend, call())


_MANY = [{"n": 2}, {"prompt": ["a", "b"]}, {"prompt": [[1], [2]]}, {"prompt": ["a"], "n": 2}]


@pytest.mark.parametrize(
    ("reset", "error"), [(False, ChoicesMissing), (True, StreamBroken)], ids=["end", "reset"]
)
@pytest.mark.parametrize("asked", _MANY)
async def test_a_stream_that_stops_before_all_choices_is_cut(serve, asked, reset, error) -> None:
    stream = sse(piece("a"), piece(finish="stop"))
    answer = SSE % (b"transfer-encoding: chunked\r\n" if reset else CLOSE)
    backend, _ = await serve(answer + (chunked(stream) if reset else stream), reset=reset)
    request = call(operation="completions", body={"model": "alias", **asked})
    with pytest.raises(error):
        await collect(backend, request)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("asked", _MANY)
@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b"data: [DONE] \n\n", b"data: [DONE]"])
async def test_an_engine_that_ignores_n_and_says_that_it_is_done(serve, asked, reset, done) -> None:
    stream = sse(piece("a"), piece(finish="stop")) + done
    framing = b"transfer-encoding: chunked\r\n"
    cut_after = reset and done.endswith(b"\n\n")
    answer = SSE % framing + chunked(stream) if cut_after else SSE % CLOSE + stream
    backend, _ = await serve(answer, reset=cut_after)
    request = call(operation="completions", body={"model": "alias", **asked})
    reply, events = await collect(backend, request)
    assert [event.finish for event in events] == [None, "stop"]
    assert reply.malformed == 0


async def test_a_stream_of_all_choices_may_be_cut_at_its_end(serve) -> None:
    pieces = (piece("a"), piece(finish="stop"), piece("b", index=1), piece(finish="stop", index=1))
    backend, _ = await serve(SSE % b"transfer-encoding: chunked\r\n" + chunked(sse(*pieces)))
    request = call(body={"model": "alias", "messages": [], "n": 2})
    assert len((await collect(backend, request))[1]) == len(pieces)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 1, "completion_tokens": -5},
        {"prompt_tokens": 10**12, "completion_tokens": 5},
        {"prompt_tokens": 1, "completion_tokens": 10**30},
        {"prompt_tokens": 1.5, "completion_tokens": "many"},
        {"prompt_tokens": 4, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 5}},
        {},
        [],
        "x",
    ],
)
async def test_usage_that_cannot_be_true_is_ignored(serve, usage) -> None:
    last = {"choices": [], "usage": usage}
    backend, _ = await serve(SSE % CLOSE + sse(piece("a"), piece(finish="stop"), last))
    reply, events = await collect(backend, call())
    assert reply.usage is None
    assert len(events) == 3


async def test_usage_with_details(serve) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    backend, _ = await serve(
        SSE % CLOSE + sse(piece("a", usage=None), piece(finish="stop", usage=usage))
    )
    reply, events = await collect(backend, call())
    assert reply.usage == Usage(100, 50, 60, 30, 20)
    assert not events[-1].usage_only


def _counts(prompt: int, completion: int, total: object, reasoning: int | None = None) -> dict:
    found = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    if reasoning is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return found


@pytest.mark.parametrize(
    ("stated", "usage"),
    [
        # xAI counts reasoning beside the completion, Gemini in the total alone.
        (_counts(12, 1, 399, 386), Usage(12, 387, reasoning=386)),
        (_counts(20, 198, 623), Usage(20, 603, reasoning=405)),
        (_counts(21, 0, 81, 60), Usage(21, 60, reasoning=60)),
        # OpenAI counts it in the completion.
        (_counts(9, 50, 59, 20), Usage(9, 50, reasoning=20)),
        # A total that says nothing more.
        (_counts(9, 5, 0), Usage(9, 5)),
        (_counts(9, 5, 3), Usage(9, 5)),
        (_counts(9, 5, "14"), Usage(9, 5)),
        (_counts(9, 5, 14.0), Usage(9, 5)),
        (_counts(9, 5, 10**12), None),
        (_counts(9, 5, 14, 6), None),
        (_counts(8, 9, None, 94), None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_beside_the_completion_is_counted(serve, stated, usage, stream) -> None:
    streamed = SSE % CLOSE + sse(piece("a"), piece(finish="stop", usage=stated))
    backend, _ = await serve(streamed if stream else body_answer({**WHOLE, "usage": stated}))
    assert (await collect(backend, call(stream)))[0].usage == usage
    assert decode_usage(stated) == usage


async def test_a_whole_answer(serve) -> None:
    backend, seen = await serve(body_answer(WHOLE))
    reply, events = await collect(backend, call(stream=False))
    assert len(events) == 1
    assert events[0].data == json.dumps(WHOLE).encode()
    assert (events[0].finish, events[0].text_bytes, events[0].semantic) == ("stop", 6, True)
    assert events[0].usage == reply.usage == Usage(9, 5)
    assert reply.model == "m-1"
    assert "stream" not in sent(seen)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (body_answer(b"<html>hi</html>", b"text/html"), UpstreamProtocolError),
        (body_answer(b"<html>hi</html>"), UpstreamProtocolError),
        (body_answer({**WHOLE, "choices": []}), UpstreamProtocolError),
        (body_answer({"id": 1}), UpstreamProtocolError),
        (body_answer({**WHOLE, "choices": WHOLE["choices"] * 2}), UpstreamProtocolError),
        (body_answer({**WHOLE, "choices": [{"message": {"content": "x"}}]}), UpstreamProtocolError),
        (body_answer(b"[]"), UpstreamProtocolError),
        (body_answer(b""), UpstreamProtocolError),
        (body_answer({"error": {"message": "x", "code": 503}}), Overloaded),
        (body_answer({"error": "x"}), UpstreamFailed),
        (body_answer(WHOLE)[:-20], StreamTruncated),
    ],
)
async def test_a_whole_answer_that_is_none(serve, answer, error) -> None:
    backend, _ = await serve(answer)
    with pytest.raises(error):
        await collect(backend, call(stream=False))


@pytest.mark.parametrize("asked", [{"n": 2}, {"prompt": ["a", "b"]}])
async def test_a_whole_answer_with_fewer_choices_is_passed_on(serve, asked) -> None:
    backend, _ = await serve(body_answer(WHOLE))
    request = call(False, {"model": "alias", **asked}, operation="completions")
    _, (event,) = await collect(backend, request)
    assert event.data == json.dumps(WHOLE).encode()


@pytest.mark.parametrize(
    "content_type", [b"text/html", b"application/json", b"application/octet-stream"]
)
async def test_a_stream_of_the_wrong_type(serve, content_type) -> None:
    backend, _ = await serve(body_answer(b"<html></html>", content_type))
    with pytest.raises(UpstreamProtocolError):
        await collect(backend, call())


async def test_the_connection_is_kept_after_a_stream(raw_server, transport) -> None:
    async def handler(peer):
        stream = sse(piece("a"), piece(finish="stop"), b"[DONE]")
        while await peer.request():
            head = SSE % b"transfer-encoding: chunked\r\n"
            await peer.send(head + b"%x\r\n%b\r\n" % (len(stream), stream))
            await asyncio.sleep(0.02)
            await peer.send(b"0\r\n\r\n")

    await raw_server.start(handler)
    backend = ChatBackend(ChatSettings("b", raw_server.base), transport, lambda: 0.0)
    for _ in range(3):
        await collect(backend, call())
        await asyncio.sleep(0.1)
    assert raw_server.accepted == 1


async def test_embeddings_with_a_field_of_the_wrong_type(serve) -> None:
    body = {"data": [{"embedding": [0.5]}], "model": 7, "usage": {"prompt_tokens": 3}}
    backend, _ = await serve(body_answer(body))
    request = call(False, {"input": "x"}, operation="embeddings")
    reply, (event,) = await collect(backend, request)
    assert (event.data, reply.usage) == (json.dumps(body).encode(), Usage(3))


async def test_completions_and_embeddings(serve, raw_server) -> None:
    answers = {
        b"/v1/embeddings": {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 3}},
        b"/v1/completions": {
            "choices": [{"index": i, "text": "abc", "finish_reason": "length"} for i in range(4)],
            "usage": USAGE,
        },
    }

    async def handler(peer):
        while data := await peer.request():
            await peer.answer(json.dumps(answers[data.split(b" ")[1]]).encode())

    backend, _ = await serve(b"")
    await raw_server.stop()
    await raw_server.start(handler)
    backend = ChatBackend(ChatSettings("b", raw_server.base), backend._transport, lambda: 0.0)
    reply, _ = await collect(backend, call(False, {"input": "x"}, operation="embeddings"))
    assert reply.usage == Usage(prompt=3)
    _, events = await collect(
        backend, call(False, {"prompt": ["a", "b"], "n": 2}, operation="completions")
    )
    assert (events[0].text_bytes, events[0].finish) == (12, "length")
    answers[b"/v1/embeddings"] = {"object": "list"}
    with pytest.raises(UpstreamProtocolError):
        await collect(backend, call(False, {"input": "x"}, operation="embeddings"))
