"""The oracles that a translator between chat and messages must pass, as properties."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.dialects import chat_answer, chat_ir, ir
from backends.dialects.messages_answer import decode_answer, decode_usage, encode_answer
from backends.dialects.messages_events import StreamEncoder as MessagesEncoder
from backends.dialects.messages_inbound import decode_request as decode_messages
from backends.dialects.messages_request import JSON_TOOL, Target, encode_request
from backends.dialects.messages_stream import StreamDecoder
from backends.errors import BackendError, StreamFailed, StreamTruncated, UpstreamProtocolError
from backends.prices import Price
from backends.profiles import find_profile
from backends.sse import SSEParser

ORACLE = settings(
    max_examples=int(os.environ.get("TOLLHOUSE_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
TARGET = Target(model="claude-opus-4-1", profile=find_profile("claude-opus-4-1"))

KINDS = (
    "message_start content_block_start content_block_delta content_block_stop message_delta "
    "message_stop ping error new_event"
)
FIELDS = (
    "index delta content_block message usage type id name text partial_json stop_reason content "
    "choices input_tokens iterations finish_reason tool_calls function error input output_tokens "
    "signature thinking"
)


def chunks_of(data: bytes, cuts: list[int] | None = None, **options: Any) -> list[dict[str, Any]]:
    """An upstream's bytes through parser, decoder and encoder."""
    parser, decoder = SSEParser(), StreamDecoder(**options)
    encoder = chat_answer.StreamEncoder(created=1)
    edges = [0, *sorted(cuts or []), len(data)]
    chunks = []
    for start, end in itertools.pairwise(edges):
        for name, payload in parser.feed(data[start:end]):
            for delta in decoder.feed(name, payload):
                chunks += [json.loads(event.data) for event in encoder.encode(delta)]
    for name, payload in parser.close():
        for delta in decoder.feed(name, payload):
            chunks += [json.loads(event.data) for event in encoder.encode(delta)]
    decoder.close()
    return chunks


def test_t1_chat_through_the_internal_form_loses_nothing(wires: SimpleNamespace) -> None:
    @ORACLE
    @given(body=wires.chat_bodies())
    def check(body: dict[str, Any]) -> None:
        before = json.dumps(body, sort_keys=True)
        again = chat_ir.encode_request(chat_ir.decode_request(body))
        assert json.dumps(again, sort_keys=True) == before
        assert json.dumps(body, sort_keys=True) == before, "the caller's body was changed"

    check()


def test_t2_chat_to_messages_and_back_keeps_the_conversation(wires: SimpleNamespace) -> None:
    def normal(messages: list[dict[str, Any]]) -> list[Any]:
        flat: list[Any] = []
        for message in messages:
            texts = message.get("content")
            if texts:
                flat.append((message["role"], texts, message.get("tool_call_id")))
            for call in message.get("tool_calls", []):
                function = call["function"]
                arguments = json.loads(function["arguments"])
                flat.append(("call", call["id"], function["name"], arguments))
        # Instructions are hoisted to the front.
        return sorted(flat, key=lambda item: item[0] != "system")

    @ORACLE
    @given(messages=wires.plain_conversations())
    def check(messages: list[dict[str, Any]]) -> None:
        tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
        request = chat_ir.decode_request({"model": "m", "messages": messages, "tools": tools})
        encoded = encode_request(request, TARGET)
        body = json.loads(json.dumps(encoded.body))
        roles = [message["role"] for message in body["messages"]]
        assert all(a != b for a, b in itertools.pairwise(roles))
        for message in body["messages"]:
            kinds = [block["type"] == "tool_result" for block in message["content"]]
            assert kinds == sorted(kinds, reverse=True), "tool results are not first"
        back = chat_ir.encode_request(decode_messages(body))
        assert normal(back["messages"]) == normal(messages)
        assert back["tools"][0]["function"]["name"] == "look_up"
        assert encoded.dropped == ()

    check()


def test_t3_stream_equals_non_stream(wires: SimpleNamespace) -> None:
    @ORACLE
    @given(message=wires.answers(), cut=st.integers(1, 9))
    def check(message: dict[str, Any], cut: int) -> None:
        whole = chat_answer.encode_answer(decode_answer(message, created=1))
        folded = wires.fold(chunks_of(wires.wire(wires.stream_of(message, cut))))
        choice = whole["choices"][0]
        want = choice["message"]
        assert folded["finish"] == choice["finish_reason"]
        assert folded["raw"] == choice["native_finish_reason"] == message["stop_reason"]
        assert folded["usage"] == whole["usage"]
        got = folded["message"]
        assert (got["content"] or None) == (want["content"] or None)
        assert got.get("reasoning_content") == want.get("reasoning_content")
        assert got["thinking_blocks"] == want.get("thinking_blocks", [])
        for mine, theirs in zip(got["tool_calls"], want.get("tool_calls", []), strict=True):
            assert mine["id"] == theirs["id"]
            assert mine["name"] == theirs["function"]["name"]
            assert json.loads(mine["arguments"]) == json.loads(theirs["function"]["arguments"])

    check()


def test_t4_any_cut_of_the_bytes_gives_the_same_events(wires: SimpleNamespace) -> None:
    @ORACLE
    @given(message=wires.answers(), newline=st.sampled_from(["\n", "\r\n", "\r"]), data=st.data())
    def check(message: dict[str, Any], newline: str, data: Any) -> None:
        raw = wires.wire(wires.stream_of(message), newline)
        cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=12))
        assert chunks_of(raw, cuts) == chunks_of(raw)

    check()


def test_t6_exactly_one_terminal(wires: SimpleNamespace) -> None:
    @ORACLE
    @given(message=wires.answers(), data=st.data())
    def check(message: dict[str, Any], data: Any) -> None:
        events = wires.stream_of(message)
        end = data.draw(st.integers(0, len(events)))
        failure = ("error", {"type": "error", "error": {"type": "overloaded_error"}})
        fails = data.draw(st.booleans())
        cut = events[:end] + ([failure] if fails else [])
        if end == len(events):
            finishes = [
                choice["finish_reason"]
                for chunk in chunks_of(wires.wire(cut))
                for choice in chunk["choices"]
                if choice["finish_reason"]
            ]
            assert len(finishes) == 1
        else:
            with pytest.raises(StreamFailed if fails else StreamTruncated):
                chunks_of(wires.wire(cut))

    check()


def test_t7_either_dialect_of_a_call_costs_the_same() -> None:
    counts = st.integers(0, 1_000_000)
    price = Price.from_usd_per_million(input="3", output="15", cached="0.3", cache_write="3.75")

    @ORACLE
    @given(fresh=counts, read=counts, write=counts, out=counts, thought=counts)
    def check(fresh: int, read: int, write: int, out: int, thought: int) -> None:
        thought = min(thought, out)
        messages = {
            "input_tokens": fresh,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": write,
            "output_tokens": out,
            "output_tokens_details": {"thinking_tokens": thought},
        }
        chat = {
            "prompt_tokens": fresh + read + write,
            "completion_tokens": out,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": write},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
        one, other = decode_usage(messages), chat_answer.decode_usage(chat)
        assert one is not None and one == other
        assert price.cost(one) == price.cost(other)
        exact = fresh * 3000 + read * 300 + write * 3750 + out * 15_000
        assert price.cost(one) == exact

    check()


def test_t9_malformed_streams_raise_only_known_errors(wires: SimpleNamespace) -> None:
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("tool_use"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys(), inner, max_size=4),
        max_leaves=12,
    )
    kinds = st.sampled_from(KINDS.split())
    event = st.tuples(kinds, st.dictionaries(_keys(), junk, max_size=5))
    raw = st.binary(max_size=30)

    @ORACLE
    @given(events=st.lists(event, max_size=6), tail=raw, whole=junk)
    def check(events: list[tuple[str, dict[str, Any]]], tail: bytes, whole: Any) -> None:
        decoder, encoder = StreamDecoder(), chat_answer.StreamEncoder(created=1)
        payloads = [(name, json.dumps({"type": name, **data}).encode()) for name, data in events]
        try:
            for name, payload in [*payloads, ("content_block_delta", tail)]:
                for delta in decoder.feed(name, payload):
                    encoder.encode(delta)
        except (UpstreamProtocolError, StreamFailed, StreamTruncated):
            pass
        chat = chat_answer.StreamDecoder()
        try:
            for _, payload in payloads:
                chat.feed(payload)
            chat.feed(tail)
        except (StreamFailed, StreamTruncated):
            pass
        for decode in (decode_answer, chat_answer.decode_answer):
            with contextlib.suppress(UpstreamProtocolError):
                decode(whole)

    check()


def _keys() -> Any:
    return st.sampled_from(FIELDS.split())


def test_t10_unknown_kinds_are_ignored(wires: SimpleNamespace) -> None:
    message = {
        "id": "msg_1",
        "model": "claude-x",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "a_new_reason",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2, "moon_phase": "full"},
    }
    events = wires.stream_of(message)
    events.insert(2, ("new_event", {"type": "new_event", "x": 1}))
    strange = {"index": 9, "content_block": {"type": "hologram"}}
    events.insert(2, ("content_block_start", {"type": "content_block_start", **strange}))
    hint = {"index": 9, "delta": {"type": "hologram_delta", "text": "no"}}
    events.insert(3, ("content_block_delta", {"type": "content_block_delta", **hint}))
    folded = wires.fold(chunks_of(wires.wire(events)))
    assert folded["message"]["content"] == "hi"
    assert (folded["finish"], folded["raw"]) == ("stop", "a_new_reason")


def test_messages_out_and_in_again(wires: SimpleNamespace) -> None:
    """The way towards Anthropic clients: chat chunks to message events and back."""

    @ORACLE
    @given(message=wires.answers())
    def check(message: dict[str, Any]) -> None:
        chat = chat_answer.StreamDecoder()
        encoder, decoder = MessagesEncoder(), StreamDecoder()
        events = []
        chunks = chunks_of(wires.wire(wires.stream_of(message)))
        for payload in [*(json.dumps(chunk).encode() for chunk in chunks), b"[DONE]"]:
            for delta in chat.feed(payload):
                events += encoder.encode(delta)
        indexes = [
            json.loads(data)["index"]
            for name, data in events
            if name.endswith("_start") and name != "message_start"
        ]
        assert indexes == list(range(len(indexes)))
        again = chat_answer.StreamEncoder(created=1)
        second = []
        for name, data in events:
            for delta in decoder.feed(name, data):
                second += [json.loads(event.data) for event in again.encode(delta)]
        decoder.close()
        one, two = wires.fold(chunks), wires.fold(second)
        assert one["message"] == two["message"]
        assert one["usage"] == two["usage"] and one["finish"] == two["finish"]

    check()


def test_answers_round_trip_through_messages(wires: SimpleNamespace) -> None:
    @ORACLE
    @given(message=wires.answers())
    def check(message: dict[str, Any]) -> None:
        answer = decode_answer(message)
        again = decode_answer(encode_answer(answer))
        assert again.parts == answer.parts
        assert again.usage == answer.usage and again.stop == answer.stop

    check()


def test_interleaved_tool_calls_do_not_interleave_blocks() -> None:
    encoder = MessagesEncoder()
    deltas: list[ir.Delta] = [
        ir.CallStart(0, "a", "f"),
        ir.CallStart(1, "b", "g"),
        ir.CallDelta(1, '{"y"'),
        ir.CallDelta(0, '{"x":1}'),
        ir.CallDelta(1, ":2}"),
        ir.TextDelta("done"),
        ir.Finish("tool_calls"),
    ]
    events = [json.loads(data) for delta in deltas for _, data in encoder.encode(delta)]
    decoder = StreamDecoder()
    calls: dict[str, str] = {}
    names: dict[int, str] = {}
    for event in events:
        for delta in decoder.feed(event["type"], json.dumps(event).encode()):
            if isinstance(delta, ir.CallStart):
                names[delta.index] = delta.id
            elif isinstance(delta, ir.CallDelta):
                name = names[delta.index]
                calls[name] = calls.get(name, "") + delta.arguments
    assert calls == {"a": '{"x":1}', "b": '{"y":2}'}
    opened = [event["index"] for event in events if event["type"] == "content_block_start"]
    assert opened == [0, 1, 2]


def test_the_json_tool_is_unwrapped_in_streams_too(wires: SimpleNamespace) -> None:
    message = {
        "id": "msg_1",
        "model": "m",
        "content": [{"type": "tool_use", "id": "t", "name": JSON_TOOL, "input": {"a": [1, "ü"]}}],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    folded = wires.fold(chunks_of(wires.wire(wires.stream_of(message)), json_tool=True))
    whole = chat_answer.encode_answer(decode_answer(message, json_tool=True))
    assert json.loads(folded["message"]["content"]) == {"a": [1, "ü"]}
    assert json.loads(whole["choices"][0]["message"]["content"]) == {"a": [1, "ü"]}
    assert folded["finish"] == whole["choices"][0]["finish_reason"] == "stop"
    assert folded["message"]["tool_calls"] == []


def test_an_error_event_never_ends_as_success(wires: SimpleNamespace) -> None:
    failing = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    with pytest.raises(BackendError) as caught:
        chunks_of(wires.wire([("error", failing)]))
    assert (caught.value.status, caught.value.code) == (529, "upstream_overloaded")
