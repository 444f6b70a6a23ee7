"""A conversation kept in the SDK's own objects, whose turns are answered by different providers.

Each provider is a few bytes of what it really sends, behind a gateway; what reaches it is compared
with what it takes.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from gateway.auth import new_key
from tests.faults.scene import raw_server
from tests.support import PLAIN, Gateway

CAN = '["chat", "stream", "tools", "tool_choice", "vision", "reasoning"]'
CHAT = ("openai", "mistral", "groq", "gemini", "deepseek", "vllm")
UPSTREAMS = {
    **dict.fromkeys(CHAT, "m"),
    "anthropic": "claude-opus-4-6",
    "gemini": "gemini-3.5-flash",
}
ASKED: Any = {"role": "user", "content": "What is the weather in Graz?"}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def _config(url: str) -> str:
    backends = "".join(
        f"""
[backends.{name}]
provider = "{name}"
base_url = "{url}/v1"
models.m = {{ upstream = "{upstream}", capabilities = {CAN}, input = 1.0, output = 1.0 }}
"""
        for name, upstream in UPSTREAMS.items()
    )
    return f"""
data_dir = "data"
[admin]
token = "${{TEST_ADMIN_TOKEN}}"
[router]
artefact = "heuristic"
[cache]
enabled = false
[[keys]]
key = "${{MAIN}}"
{backends}
"""


def _answer(data: bytes, kind: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _chat(message: dict[str, Any], finish: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return _answer(json.dumps({**head, "choices": [choice]}).encode(), "application/json")


def _messages(*blocks: dict[str, Any]) -> bytes:
    """A streamed answer of Anthropic's."""
    message = {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 9, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(blocks):
        whole = block["type"] == "redacted_thinking"
        opened = block if whole else {"type": block["type"]}
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        for field in () if whole else block.keys() - {"type"}:
            delta = {"type": f"{field}_delta", field: block[field]}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "end_turn"}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 9}})
    events.append({"type": "message_stop"})
    data = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return _answer(data.encode(), "text/event-stream")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """`answer` is what any provider says; `sent()` the last body that reached one."""
    rig = SimpleNamespace(answer=b"")

    def say(connection: socket.socket) -> None:
        connection.sendall(rig.answer)

    with raw_server(say) as (url, seen):
        rig.sent = lambda: json.loads(seen[-1].partition(b"\r\n\r\n")[2])
        folder = tmp_path_factory.mktemp("switching")
        gateway = Gateway(folder, _config(url), keys={"main": new_key()})
        http = openai.DefaultHttpxClient(**PLAIN)
        rig.client = openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key, http_client=http, max_retries=0
        )
        yield rig
        rig.client.close()
        gateway.stop()


def test_the_stream_helper_collects_several_blocks_of_reasoning(rig: SimpleNamespace) -> None:
    """And what it collected goes back to the model that signed it, unchanged."""
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s1"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "aha", "signature": "s2"},
    ]
    rig.answer = _messages(*blocks, {"type": "text", "text": "Sunny."})
    client: openai.OpenAI = rig.client
    with client.chat.completions.stream(model="anthropic/m", messages=[ASKED]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content == "Sunny."
    assert message.reasoning_content == "hmaha"  # type: ignore[attr-defined]
    history = [ASKED, message.model_dump(exclude_none=True), ASKED]
    with client.chat.completions.stream(model="anthropic/m", messages=history) as stream:
        stream.until_done()
    assert rig.sent()["messages"][1]["content"] == [*blocks, {"type": "text", "text": "Sunny."}]


# What an engine answered, with its reasoning, and the fields that the SDK's object always has.
_CALL = {"id": "functions.weather:0", "type": "function"}
_FIRST = {
    "content": None,
    "reasoning_content": "Let me look.",
    "reasoning": "Let me look.",
    "refusal": None,
    "tool_calls": [{**_CALL, "function": {"name": "weather", "arguments": "{}"}}],
}
_REASONING = {"reasoning_content", "reasoning"}
_EMPTY = {"refusal", "annotations", "audio", "function_call"}
_LEFT_OUT = {
    "openai": _REASONING,
    "mistral": _REASONING | _EMPTY,
    "groq": _REASONING | _EMPTY - {"function_call"},
    "gemini": _REASONING | _EMPTY - {"function_call"},
    "deepseek": set(),
    "vllm": set(),
}


@pytest.mark.parametrize("provider", CHAT)
def test_an_answer_goes_to_another_provider_in_the_fields_that_it_takes(
    rig: SimpleNamespace, provider: str
) -> None:
    client: openai.OpenAI = rig.client
    rig.answer = _chat(_FIRST, "tool_calls")
    rules: Any = {"role": "developer", "content": "Be brief."}
    first = client.chat.completions.create(
        model="vllm/m", messages=[rules, ASKED], tools=[TOOL]
    ).choices[0]
    answered = first.message.model_dump()
    assert answered.keys() >= _REASONING | _EMPTY
    (call,) = answered["tool_calls"]
    result: Any = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    history: list[Any] = [rules, ASKED, answered, result]
    rig.answer = _chat({"content": "Sunny."})
    raw = client.chat.completions.with_raw_response.create(
        model=f"{provider}/m", messages=history, tools=[TOOL]
    )
    got = rig.sent()["messages"]
    role = "developer" if provider == "openai" else "system"
    assert got[0] == {"role": role, "content": "Be brief."}
    assert answered.keys() - got[2].keys() == _LEFT_OUT[provider]
    named = sorted(f"messages.{field}" for field in _LEFT_OUT[provider] & _REASONING)
    assert (
        sorted(filter(None, raw.headers.get("x-tollhouse-dropped-params", "").split(","))) == named
    )
    assert got[2]["tool_calls"][0]["id"] == got[3]["tool_call_id"]
    # Gemini 3 refuses a call of this turn that nobody has signed.
    assert ("extra_content" in got[2]["tool_calls"][0]) is (provider == "gemini")
    if provider == "mistral":
        assert re.fullmatch(r"[a-zA-Z0-9]{9}", got[3]["tool_call_id"])
    else:
        assert got[3] == result


def test_the_stream_helper_reads_calls_that_came_without_an_index(rig: SimpleNamespace) -> None:
    """As Gemini sends them; what else it says of a call goes back to it."""
    signed = {"google": {"thought_signature": "sig"}}
    calls = [
        {"id": f"call-{n}", "type": "function", "function": {"name": "weather", "arguments": text}}
        for n, text in enumerate(('{"city":"Graz"}', '{"city":"Wien"}'))
    ]
    calls[0]["extra_content"] = signed
    deltas: list[Any] = [{"role": "assistant", "tool_calls": [call]} for call in calls] + [{}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        {
            **head,
            "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}],
        }
        for delta in deltas
    ]
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    rig.answer = _answer(data.encode(), "text/event-stream")
    client: openai.OpenAI = rig.client
    with client.chat.completions.stream(model="gemini/m", messages=[ASKED], tools=[TOOL]) as stream:
        message = stream.get_final_completion().choices[0].message
    got = [call.model_dump(exclude={"index"}) for call in message.tool_calls or ()]
    assert [call["function"]["arguments"] for call in got] == ['{"city":"Graz"}', '{"city":"Wien"}']
    assert [call["id"] for call in got] == ["call-0", "call-1"]
    results: Any = [
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in got
    ]
    rig.answer = _chat({"content": "Sunny."})
    client.chat.completions.create(
        model="gemini/m",
        messages=[ASKED, {"role": "assistant", "tool_calls": got}, *results],  # type: ignore[typeddict-item]
        tools=[TOOL],
    )
    assert rig.sent()["messages"][1]["tool_calls"][0]["extra_content"] == signed


@pytest.mark.parametrize("provider", ["mistral", "groq", "gemini"])
def test_hints_do_not_reach_an_api_that_refuses_what_it_does_not_know(
    rig: SimpleNamespace, provider: str
) -> None:
    hints: Any = {"safety_identifier": "u", "prompt_cache_key": "k", "verbosity": "low"}
    rig.answer = _chat({"content": "Sunny."})
    client: openai.OpenAI = rig.client
    raw = client.chat.completions.with_raw_response.create(
        model=f"{provider}/m", messages=[ASKED], **hints
    )
    assert rig.sent().keys() == {"model", "messages"}
    assert set(raw.headers["x-tollhouse-dropped-params"].split(",")) == hints.keys()


CALL: Any = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "weather", "arguments": "{}"},
}
ENDS = [("gemini", True, "tool_calls"), ("gemini", False, "stop"), ("openai", True, "stop")]


@pytest.mark.parametrize(("provider", "calls", "finish"), ENDS)
def test_an_answer_of_calls_ends_with_tool_calls_where_the_api_says_stop(
    rig: SimpleNamespace, provider: str, calls: bool, finish: str
) -> None:
    """Gemini does so; at OpenAI it is what a call that was asked for by name ends with."""
    said: dict[str, Any] = {"tool_calls": [CALL]} if calls else {"content": "Sunny."}
    client: openai.OpenAI = rig.client
    rig.answer = _chat(said, "stop")
    whole = client.chat.completions.create(model=f"{provider}/m", messages=[ASKED], tools=[TOOL])
    assert whole.choices[0].finish_reason == finish
    for apart in (True, False):
        rig.answer = _in_pieces(said, apart=apart)
        stream = client.chat.completions.create(
            model=f"{provider}/m", messages=[ASKED], tools=[TOOL], stream=True
        )
        ends = [choice.finish_reason for chunk in stream for choice in chunk.choices]
        assert [end for end in ends if end] == [finish]


def _in_pieces(said: dict[str, Any], *, apart: bool) -> bytes:
    """A stream whose finish reason, `stop`, comes with what is said, or after it."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    delta = {"role": "assistant", **said}
    pieces = [(delta, None), ({}, "stop")] if apart else [(delta, "stop")]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": piece, "finish_reason": end}]}
        for piece, end in pieces
    ]
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return _answer(data.encode(), "text/event-stream")
