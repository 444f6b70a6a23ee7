"""Chat bodies as hypothesis makes them, and recorded-shape Anthropic streams."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

_NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
_TEXT = st.text(max_size=20)
_WORDS = st.text(string.ascii_letters + "äöü漢字🙂 .,", min_size=1, max_size=20).filter(str.strip)
_SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | _TEXT
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=2),
    max_leaves=4,
)
_EXTRA = st.dictionaries(_NAMES.map(lambda name: "x_" + name), _JSON, max_size=1)


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> Any:
    fixed = st.fixed_dictionaries(required, optional=optional or {})
    return st.tuples(fixed, _EXTRA).map(lambda pair: {**pair[1], **pair[0]})


def _parts() -> Any:
    text = _object({"type": st.just("text"), "text": _TEXT})
    url = st.sampled_from(
        ["https://example.org/a.png", "data:image/png;base64,iVBO", "data:text/plain,hi"]
    )
    image = _object(
        {
            "type": st.just("image_url"),
            "image_url": st.fixed_dictionaries(
                {"url": url}, optional={"detail": st.sampled_from(["low", "auto"])}
            ),
        }
    )
    audio = st.just({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}})
    file = _object(
        {
            "type": st.just("file"),
            "file": st.fixed_dictionaries(
                {"file_data": st.just("data:application/pdf;base64,JVBE")},
                optional={"filename": _NAMES},
            ),
        }
    )
    return st.lists(text | image | audio | file, max_size=3)


def _calls() -> Any:
    function = _object(
        {"name": _NAMES, "arguments": st.sampled_from(["", "{}", '{"a": 1}', "{broken"])}
    )
    return st.lists(
        _object({"id": _NAMES, "type": st.just("function"), "function": function}), max_size=2
    )


def _messages() -> Any:
    content = _TEXT | _parts()
    system = _object(
        {"role": st.sampled_from(["system", "developer"]), "content": content}, {"name": _NAMES}
    )
    user = _object({"role": st.just("user"), "content": content}, {"name": _NAMES})
    assistant = _object(
        {"role": st.just("assistant")},
        {
            "content": st.none() | content,
            "refusal": st.none() | _TEXT,
            "tool_calls": _calls(),
            "function_call": st.none()
            | st.fixed_dictionaries({"name": _NAMES, "arguments": _TEXT}),
            "reasoning_content": _TEXT,
            "thinking_blocks": st.lists(
                st.fixed_dictionaries(
                    {"type": st.just("thinking"), "thinking": _TEXT, "signature": _TEXT}
                )
                | st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": _TEXT}),
                max_size=2,
            ),
            "name": _NAMES,
        },
    )
    tool = _object({"role": st.just("tool"), "tool_call_id": _NAMES, "content": content})
    function = _object({"role": st.just("function"), "name": _NAMES, "content": _TEXT})
    return st.lists(system | user | assistant | tool | function, min_size=1, max_size=5)


def _tools() -> Any:
    function = _object(
        {"name": _NAMES},
        {"description": st.none() | _TEXT, "parameters": _EXTRA, "strict": st.booleans()},
    )
    return st.lists(_object({"type": st.just("function"), "function": function}), max_size=2)


def chat_bodies() -> Any:
    """Bodies that OpenAI's schema allows, with unknown keys everywhere."""
    number = st.integers(0, 2) | st.floats(0, 2, allow_nan=False)
    choice = (
        st.sampled_from(["auto", "none", "required"])
        | st.fixed_dictionaries(
            {
                "type": st.just("function"),
                "function": st.fixed_dictionaries({"name": _NAMES}),
            }
        )
        | st.just(
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            }
        )
    )
    schema = _object({"name": _NAMES, "schema": _EXTRA}, {"strict": st.none() | st.booleans()})
    form = st.sampled_from([{"type": "text"}, {"type": "json_object"}]) | st.fixed_dictionaries(
        {"type": st.just("json_schema"), "json_schema": schema}
    )
    return _object(
        {"model": _NAMES, "messages": _messages()},
        {
            "max_tokens": st.none() | st.integers(1, 99),
            "max_completion_tokens": st.none() | st.integers(1, 99),
            "temperature": st.none() | number,
            "top_p": st.none() | number,
            "stop": st.none() | _TEXT | st.lists(_TEXT, max_size=4),
            "n": st.none() | st.integers(1, 3),
            "seed": st.integers(),
            "user": _TEXT,
            "safety_identifier": _TEXT,
            "stream": st.none() | st.booleans(),
            "stream_options": st.none() | st.just({"include_usage": True}),
            "tools": _tools(),
            "functions": st.lists(_object({"name": _NAMES}, {"parameters": _EXTRA}), max_size=2),
            "tool_choice": choice,
            "function_call": st.sampled_from(["auto", "none", {"name": "f"}]),
            "parallel_tool_calls": st.booleans(),
            "response_format": form,
            "reasoning_effort": st.none()
            | st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
            "logit_bias": st.none() | st.just({"5": 1}),
            "metadata": st.none() | st.dictionaries(_NAMES, _TEXT, max_size=2),
        },
    )


def plain_conversations() -> Any:
    """Conversations that every dialect can hold: texts, calls with their results."""
    system = _WORDS.map(lambda text: [{"role": "system", "content": text}])
    user = _WORDS.map(lambda text: [{"role": "user", "content": text}])

    def loop(drawn: tuple[list[str], str]) -> list[dict[str, Any]]:
        ids, text = drawn
        calls = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": "look_up", "arguments": json.dumps({"n": at, "q": text})},
            }
            for at, call_id in enumerate(ids)
        ]
        results = [
            {"role": "tool", "tool_call_id": call_id, "content": text + call_id} for call_id in ids
        ]
        return [
            {"role": "assistant", "content": text, "tool_calls": calls},
            *results,
            {"role": "assistant", "content": "so: " + text},
        ]

    tools = st.tuples(st.lists(_NAMES, min_size=1, max_size=3, unique=True), _WORDS).map(loop)
    exchange = st.tuples(user, tools).map(lambda pair: pair[0] + pair[1])
    middle = st.lists(exchange, max_size=2).map(lambda lists: [m for one in lists for m in one])
    opening = st.lists(system, max_size=2).map(lambda lists: [m for one in lists for m in one])
    return st.tuples(opening, middle, user).map(lambda three: three[0] + three[1] + three[2])


def answers() -> Any:
    """Anthropic messages: any mix of blocks, with usage."""
    block = (
        _WORDS.map(lambda text: {"type": "text", "text": text})
        | st.tuples(_NAMES, _NAMES, st.dictionaries(_NAMES, _SCALARS, max_size=2)).map(
            lambda t: {"type": "tool_use", "id": "toolu_" + t[0], "name": t[1], "input": t[2]}
        )
        | st.tuples(_WORDS, _NAMES).map(
            lambda t: {"type": "thinking", "thinking": t[0], "signature": t[1]}
        )
        | _NAMES.map(lambda data: {"type": "redacted_thinking", "data": data})
        | st.just({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})
    )
    count = st.integers(0, 10_000)
    usage = st.fixed_dictionaries(
        {"input_tokens": count, "output_tokens": count},
        optional={
            "cache_read_input_tokens": st.none() | count,
            "cache_creation_input_tokens": st.none() | count,
        },
    )
    stop = st.sampled_from(
        ["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "compaction"]
    )
    return st.fixed_dictionaries(
        {
            "id": _NAMES.map(lambda name: "msg_" + name),
            "type": st.just("message"),
            "role": st.just("assistant"),
            "model": _NAMES,
            "content": st.lists(block, max_size=5),
            "stop_reason": stop,
            "stop_sequence": st.none(),
            "usage": usage,
        }
    )


def stream_of(message: dict[str, Any], cut: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """The events in which Anthropic streams this message, its texts in pieces of `cut`."""
    usage = message["usage"]
    first = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": first}),
        ("ping", {}),
    ]
    for index, block in enumerate(message["content"]):
        empty, deltas = _block_deltas(block, cut)
        events.append(("content_block_start", {"index": index, "content_block": empty}))
        events += [("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
        events.append(("content_block_stop", {"index": index}))
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    end = {"output_tokens": usage["output_tokens"]}
    events.append(("message_delta", {"delta": delta, "usage": end}))
    events.append(("message_stop", {}))
    return [(name, {"type": name, **fields}) for name, fields in events]


def _block_deltas(block: dict[str, Any], cut: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def pieces(text: str) -> list[str]:
        return [text[at : at + cut] for at in range(0, len(text), cut)]

    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        return {"type": "text", "text": ""}, deltas
    if block["type"] == "thinking":
        thought = [
            {"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])
        ]
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*thought, signature]
    if block["type"] == "tool_use":
        text = json.dumps(block["input"], separators=(",", ":")) if block["input"] else ""
        parts = ["", *pieces(text)]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in parts]
        return {**block, "input": {}}, deltas
    return block, []


def wire(events: list[tuple[str, dict[str, Any]]], newline: str = "\n") -> bytes:
    lines = [
        f"event: {name}{newline}data: {json.dumps(data, ensure_ascii=False)}{newline}{newline}"
        for name, data in events
    ]
    return "".join(lines).encode()


def fold(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What an SDK's accumulator makes of chat chunks: the message, finish reason and usage."""
    message: dict[str, Any] = {"content": "", "tool_calls": {}, "thinking_blocks": []}
    finish, usage, extension = None, None, None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                if delta.get(name):
                    message[name] = message.get(name, "") + delta[name]
            for block in delta.get("thinking_blocks", []):
                assert block["index"] == len(message["thinking_blocks"])
                kept = {name: value for name, value in block.items() if name != "index"}
                message["thinking_blocks"].append(kept)
            for call in delta.get("tool_calls", []):
                whole = message["tool_calls"].setdefault(call["index"], {"arguments": ""})
                function = call["function"]
                whole["arguments"] += function.get("arguments") or ""
                whole.update({k: v for k, v in call.items() if k == "id"})
                whole.update({k: v for k, v in function.items() if k == "name"})
            if choice["finish_reason"]:
                assert finish is None, "two finish reasons"
                finish = choice["finish_reason"]
                extension = choice.get("native_finish_reason")
    message["tool_calls"] = [message["tool_calls"][k] for k in sorted(message["tool_calls"])]
    return {"message": message, "finish": finish, "usage": usage, "raw": extension}


@pytest.fixture(scope="session")
def wires() -> SimpleNamespace:
    """The strategies and helpers of this folder, for its tests."""
    build: Callable[..., Any] = stream_of
    return SimpleNamespace(
        chat_bodies=chat_bodies,
        plain_conversations=plain_conversations,
        answers=answers,
        stream_of=build,
        wire=wire,
        fold=fold,
    )
