"""What an API is sent of a client's request, by what its row of the table says."""

from __future__ import annotations

import json

import pytest

from backends.dialects.chat import Quirks
from backends.errors import Untranslatable
from tests.backends.chat_upstream import (
    CLOSE,
    SSE,
    WHOLE,
    body_answer,
    call,
    collect,
    piece,
    sent,
    sse,
)


@pytest.mark.parametrize(
    ("quirks", "body", "expected", "dropped"),
    [
        (Quirks(drop_fields=("user",)), {"user": "u", "seed": 1}, {"seed": 1}, ("user",)),
        (Quirks(allow_fields=("seed",)), {"user": "u", "seed": 1}, {"seed": 1}, ("user",)),
        (Quirks(drop_fields=("n",)), {"n": 1}, {}, ("n",)),
        (
            Quirks(max_tokens_field="max_tokens"),
            {"max_completion_tokens": 5},
            {"max_tokens": 5},
            (),
        ),
        (
            Quirks(max_tokens_field="max_completion_tokens"),
            {"max_tokens": 4, "max_completion_tokens": 5},
            {"max_completion_tokens": 5},
            (),
        ),
        (Quirks(stream_options=False), {"stream_options": {"include_usage": True}}, {}, ()),
        (
            Quirks(fixed_sampling=("m", "o1*")),
            {"temperature": 0.2, "top_p": 1, "presence_penalty": 0.0, "stop": None, "seed": 1},
            {"seed": 1},
            ("temperature",),
        ),
        (Quirks(fixed_sampling=("m-*",)), {"temperature": 0.2}, {"temperature": 0.2}, ()),
    ],
)
async def test_quirks(serve, quirks, body, expected, dropped) -> None:
    stream = sse(piece("hi"), piece(finish="stop"))
    backend, seen = await serve(SSE % CLOSE + stream, quirks=quirks)
    reply, _ = await collect(backend, call(body={"messages": [], **body}))
    options = {"stream_options": {"include_usage": True}} if quirks.stream_options else {}
    assert sent(seen) == {"model": "m", "messages": [], "stream": True, **options, **expected}
    assert reply.dropped == dropped


async def test_a_field_that_changes_the_meaning_is_not_dropped_silently(serve) -> None:
    quirks = Quirks(drop_fields=("logprobs",))
    stream = sse(piece("hi"), piece(finish="stop"))
    backend, seen = await serve(SSE % CLOSE + stream, quirks=quirks)
    with pytest.raises(Untranslatable) as caught:
        await backend.open(call(body={"messages": [], "logprobs": True}))
    assert (caught.value.param, seen) == ("logprobs", [])
    reply, _ = await collect(
        backend, call(body={"messages": [], "logprobs": True}, drop_params=True)
    )
    assert reply.dropped == ("logprobs",)


@pytest.mark.parametrize(
    ("quirks", "body", "param"),
    [
        (Quirks(fixed_sampling=("m",)), {"stop": ["."]}, "stop"),
        (
            Quirks(drop_message_fields=frozenset({"audio", "function_call"})),
            {"messages": [{"role": "assistant", "audio": {"id": "a"}, "function_call": None}]},
            "messages.audio",
        ),
    ],
)
async def test_what_a_model_or_a_message_cannot_do_without_is_refused_by_name(
    serve, quirks, body, param
) -> None:
    stream = sse(piece("hi"), piece(finish="stop"))
    backend, seen = await serve(SSE % CLOSE + stream, quirks=quirks)
    with pytest.raises(Untranslatable) as caught:
        await backend.open(call(body={"messages": [], **body}))
    assert (caught.value.param, seen) == (param, [])
    reply, _ = await collect(backend, call(body={"messages": [], **body}, drop_params=True))
    assert reply.dropped == (param,)


@pytest.mark.parametrize(
    ("model", "role"), [("qwen3", "system"), ("openai/gpt-oss-20b", "developer")]
)
async def test_the_developer_role_where_it_is_not_known(serve, model, role) -> None:
    backend, seen = await serve(body_answer(WHOLE), quirks=Quirks(developer_role=False))
    messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]
    await collect(backend, call(False, {"messages": messages}, model=model))
    assert sent(seen)["messages"] == [{"role": role, "content": "x"}, messages[1]]
    assert messages[0]["role"] == "developer"


def _call(name: str, id: str) -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def _signed(signature: str, **more) -> dict:
    return {**more, "extra_content": {"google": {"thought_signature": signature}}}


async def test_calls_of_this_turn_that_nobody_has_signed_are_marked(serve) -> None:
    """With the value that Google documents for another model's calls, on the first of a message."""
    user = {"role": "user", "content": "x"}
    plain = {"role": "assistant", "tool_calls": [_call("f", "a"), _call("g", "b")]}
    own = {"role": "assistant", "tool_calls": [_signed("s", **_call("f", "a"))]}
    result = {"role": "tool", "tool_call_id": "a", "content": "1"}
    messages = [user, plain, result, user, plain, result, own, result]
    marked = [_signed("skip_thought_signature_validator", **plain["tool_calls"][0])]
    wanted = [*messages]
    wanted[4] = {**plain, "tool_calls": [*marked, plain["tool_calls"][1]]}
    backend, seen = await serve(body_answer(WHOLE), quirks=Quirks(signed_calls=("gemini-[3-9]*",)))
    for model, expected in (("gemini-3.5-flash", wanted), ("gemini-2.5-pro", messages)):
        await collect(backend, call(False, {"messages": messages}, model=model))
        assert json.loads(seen[-1].partition(b"\r\n\r\n")[2])["messages"] == expected
    assert messages[4] is plain and "extra_content" not in plain["tool_calls"][0]
