"""What a client wrote is checked before anything is done with it; errors name the field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bodies import MAX_DEPTH
from gateway.errors import GatewayError
from gateway.inbound import Controls, Inbound, parse, read_body, read_controls

MESSAGES = [{"role": "user", "content": "hi"}]


def parsed(body: dict[str, Any], operation: Any = "chat") -> Inbound:
    return parse(operation, msgspec.json.encode(body), Controls(), "req_1")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": MESSAGES}, "model"),
        ({"model": 5, "messages": MESSAGES}, "model"),
        ({"model": "auto"}, "messages"),
        ({"model": "auto", "messages": []}, "messages"),
        ({"model": "auto", "messages": "hi"}, "messages"),
        ({"model": "auto", "messages": ["hi"]}, "messages[0]"),
        ({"model": "auto", "messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"model": "auto", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "auto", "messages": MESSAGES, "stream": "yes"}, "stream"),
        ({"model": "auto", "messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        ({"model": "auto", "messages": MESSAGES, "max_tokens": 1.5}, "max_tokens"),
        ({"model": "auto", "messages": MESSAGES, "temperature": 9}, "temperature"),
        ({"model": "auto", "messages": MESSAGES, "n": True}, "n"),
        ({"model": "auto", "messages": MESSAGES, "tools": {}}, None),
        ({"model": "auto", "messages": MESSAGES, "tools": "x"}, "tools"),
        ({"model": "auto", "messages": MESSAGES, "stream_options": {}}, "stream_options"),
        ({"model": "auto", "messages": MESSAGES, "api_base": "http://x"}, "api_base"),
        ({"model": "auto", "messages": MESSAGES, "api_key": "k"}, "api_key"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str | None) -> None:
    if param is None:
        assert parsed(body).model == "auto"
        return
    with pytest.raises(GatewayError) as caught:
        parsed(body)
    assert caught.value.status == 400
    assert caught.value.param == param


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"5", b'{"model": NaN}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_not_a_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        parse("chat", raw, Controls(), "req_1")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ("text", None),
        (["a", "b"], None),
        ([1, 2], None),
        ([[1, 2], [3]], None),
        ([[1], [[2]]], "[1]"),
        ([[[]]], "[0]"),
    ],
)
@pytest.mark.parametrize(
    ("operation", "name"), [("completions", "prompt"), ("embeddings", "input")]
)
def test_prompts_are_lists_of_two_levels_at_most(
    operation: Any, name: str, prompt: Any, param: str | None
) -> None:
    body = {"model": "auto", name: prompt}
    if param is None:
        assert parsed(body, operation).body == body
        return
    with pytest.raises(GatewayError) as caught:
        parsed(body, operation)
    assert (caught.value.status, caught.value.param) == (400, name + param)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded(opening: bytes, closing: bytes) -> None:
    for depth in (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 900, 20_000):
        deep = opening * depth + b'"["' + closing * depth
        raw = b'{"model": "auto", "messages": [{"role": "user"}], "x": ' + deep + b"}"
        if depth < MAX_DEPTH:
            assert parse("chat", raw, Controls(), "req_1").model == "auto"
            continue
        with pytest.raises(GatewayError, match=f"{MAX_DEPTH} levels") as caught:
            parse("chat", raw, Controls(), "req_1")
        assert caught.value.status == 400


def test_brackets_in_text_and_long_conversations_are_no_depth() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "[{" * 300}]}
    assert len(parsed({"model": "auto", "messages": [message] * 300}).body["messages"]) == 300


def test_completions_may_ask_for_no_token() -> None:
    body = {"model": "auto", "prompt": "x", "echo": True, "logprobs": 1, "max_tokens": 0}
    assert parsed(body, "completions").body == body
    with pytest.raises(GatewayError) as caught:
        parsed({**body, "max_tokens": -1}, "completions")
    assert caught.value.param == "max_tokens"


def test_unknown_fields_survive() -> None:
    body = {"model": "auto", "messages": MESSAGES, "new_field": {"a": [1, 2.5, None]}}
    assert parsed(body).body == body


def test_streams_and_usage() -> None:
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    assert not parsed(body).include_usage
    assert parsed({**body, "stream_options": {"include_usage": True}}).include_usage


def controls(**headers: str) -> Controls:
    return read_controls([(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()])


def test_headers() -> None:
    found = controls(
        authorization="Bearer th-x",
        x_tollhouse_residency="eu, phi",
        x_tollhouse_max_cost="0.5",
        cache_control="no-cache, max-age=60",
    )
    assert found.token == "th-x"
    assert found.labels == ("eu", "phi")
    assert found.max_cost == 500_000_000
    assert not found.cache.read
    assert found.cache.write
    assert found.cache.max_age == 60
    assert controls(x_api_key="th-y").token == "th-y"
    assert not controls(cache_control="no-store").cache.write
    assert controls(cache_control="max-age=soon").cache.max_age == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_tollhouse_max_cost", "cheap"),
        ("x_tollhouse_max_cost", "-1"),
        ("x_tollhouse_max_cost", "nan"),
        ("x_tollhouse_tags", ",".join(["t"] * 17)),
        ("x_tollhouse_residency", ",".join(f"l{i}" for i in range(65))),
    ],
)
def test_a_wrong_header_is_named(name: str, value: str) -> None:
    with pytest.raises(GatewayError) as caught:
        controls(**{name: value})
    assert caught.value.status == 400
    assert caught.value.param == name.replace("_", "-")


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=8))
def test_any_headers_give_controls_or_a_400(headers: list[tuple[bytes, bytes]]) -> None:
    names = [b"authorization", b"x-tollhouse-max-cost", b"cache-control", b"x-tollhouse-tags"]
    try:
        found = read_controls([(names[len(k) % 4], v) for k, v in headers])
    except GatewayError as error:
        assert error.status == 400
    else:
        assert found.max_cost is None or found.max_cost >= 0


def receiver(*parts: bytes) -> Any:
    messages = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})
    iterator = iter(messages)

    async def receive() -> Any:
        return next(iterator)

    return receive


async def test_bodies_are_joined_and_bounded() -> None:
    assert await read_body(receiver(b"ab", b"cd"), [], 10) == b"abcd"
    assert await read_body(receiver(), [], 10) is None
    for parts, headers in (
        ((b"x" * 11,), []),
        ((b"x" * 6, b"x" * 6), []),
        ((b"",), [(b"content-length", b"11")]),
    ):
        with pytest.raises(GatewayError) as caught:
            await read_body(receiver(*parts), headers, 10)
        assert caught.value.status == 413
