from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.text import all_text, needed_capabilities, opaque_content, turns_of
from routers.types import Operation, Turn

KEY_NAMES = (
    "messages prompt input content role tool_calls function arguments tools functions logprobs n "
    "response_format type text image_url modalities audio data format best_of top_logprobs x"
)
KEYS = KEY_NAMES.split()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(("image_url", "tool", "json_schema", "audio")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip
bodies = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)


@settings(max_examples=200, deadline=None)
@given(bodies, st.sampled_from(("chat", "completions", "embeddings")))
def test_no_json_is_too_strange(body: dict[str, Any], operation: Operation) -> None:
    text = all_text(body)
    for turn in turns_of(body):
        assert all(line in text for line in turn.text.split("\n"))
    assert operation in needed_capabilities(body, operation)
    assert opaque_content(body) <= {"tokens", "image", "audio", "file", "other"}


def test_depth_costs_nothing_and_hides_nothing() -> None:
    deep: Any = "bottom"
    for _ in range(20_000):
        deep = [deep]
    assert all_text({"metadata": deep}) == "bottom"


def test_turns_carry_parts_tools_and_prompts() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "pay", "arguments": '{"a":1}'}}
    body = {
        "messages": [
            {"role": "developer", "content": "rules"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "paid"},
        ]
    }
    assert turns_of(body) == (
        Turn("developer", "rules"),
        Turn("user", "look"),
        Turn("assistant", 'pay\n{"a":1}'),
        Turn("tool", "paid"),
    )
    assert turns_of({"prompt": ["a", "b"]}) == (Turn("user", "a"), Turn("user", "b"))
    assert turns_of({"input": "a"}) == (Turn("user", "a"),)
    assert turns_of({"input": [1, 2]}) == ()


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"function": {"name": "f", "description": "SECRET"}}]},
        {"tools": [{"function": {"parameters": {"properties": {"SECRET": {"type": "string"}}}}}]},
        {"response_format": {"json_schema": {"schema": {"enum": ["SECRET"]}}}},
        {"messages": [{"role": "user", "name": "SECRET", "content": "x"}]},
        {"messages": [{"role": "SECRET"}]},
        {"messages": [{"content": [{"type": "file", "file": {"file_data": "is SECRET " * 9}}]}]},
        {"messages": [{"content": [{"image_url": {"url": "data:,SECRET"}}]}]},
        {"some_future_field": [[{"k": ["SECRET"]}]]},
        {"metadata": {"SECRET": 1}},
    ],
)
def test_no_place_in_a_body_is_overlooked(body: dict[str, Any]) -> None:
    assert "SECRET" in all_text(body)


def test_numbers_are_text_and_binary_data_is_not() -> None:
    assert "4111111111111111" in all_text({"x": 4111111111111111})
    assert "4111111111111111" in all_text({"x": [4111111111111111.0]})
    assert all_text({"x": 10**5000, "y": True, "n": 3}) == "x\ny"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100}}
    assert "AAAA" not in all_text({"messages": [{"content": [image]}]})


def call_and_result(name: str) -> dict[str, Any]:
    call = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": "done"},
    ]
    return {"messages": messages}


@pytest.mark.parametrize(
    "name",
    [
        "call_foTVHl8meLTo2pRPkm8hUvj9",
        "chatcmpl-tool-4925540237686059eea85437bbc8de8e",
        "4925540237686059eea85437bbc8de8e",
        "toolu_01A09q90qw90lq917835lq9",
    ],
)
def test_random_names_of_tool_calls_are_nobodys_text(name: str) -> None:
    assert name not in all_text(call_and_result(name))
    # Anywhere else the same is text.
    elsewhere = {"id": name, "metadata": {"id": name}, "messages": [{"id": name, "content": name}]}
    assert all_text(elsewhere).count(name) == 4


@pytest.mark.parametrize(
    "name",
    [
        "call_4111111111111111",
        "call_41111111111111114111",
        "RSSMRA85T10A562S",
        "DE89370400440532013000",
        "GB29NWBK60161331926819",
        "anna.weber@example.org",
        "Anna Weber 1980",
        "AnnaMariaWeber19800412",
        "call_123-45-6789",
        "x" * 100_000,
    ],
)
def test_names_of_tool_calls_that_say_something_are_text(name: str) -> None:
    assert all_text(call_and_result(name)).count(name) == 2


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({}, set()),
        ({"tools": [{}]}, {"tools"}),
        ({"messages": [{"role": "tool"}]}, {"tools"}),
        ({"messages": [{"content": [{"type": "image_url"}]}]}, {"vision"}),
        ({"messages": [{"content": [{"type": "input_audio"}]}]}, {"audio"}),
        ({"modalities": ["text", "audio"]}, {"audio"}),
        ({"response_format": {"type": "json_object"}}, {"json_object"}),
        ({"response_format": {"type": "json_schema"}}, {"json_schema"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"logprobs": True}, {"logprobs"}),
        ({"logprobs": 0}, {"logprobs"}),
        ({"logprobs": False, "n": 1}, set()),
        ({"n": 2}, {"n"}),
    ],
)
def test_needed_capabilities(body: dict[str, Any], extra: set[str]) -> None:
    assert needed_capabilities(body, "chat") == {"chat"} | extra
    assert needed_capabilities(body, "embeddings") == {"embeddings"}


IMAGE = "data:image/png;base64," + "QUJD" * 30


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", IMAGE),
        ("image_url", IMAGE),
        ("file_data", IMAGE),
        ("data", IMAGE),
        ("url", "DATA:application/x.y+z;charset=utf-8;Base64," + "+/+/" * 30 + "QQ=="),
        ("url", "data:;base64," + "QUJD" * 30),
        ("data", "QUJD" * 30),
        ("file_data", "QUJD" * 100_000 + "QQ=="),
    ],
)
def test_binary_data_is_left_out_and_counts_as_unread(key: str, value: str) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", key: value}]}]}
    assert "QUJD" not in all_text(body)
    assert "+/+/" not in all_text(body)
    assert opaque_content(body) == {"other"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text", IMAGE),
        ("some_future_key", "QUJD" * 30),
        ("url", "QUJD" * 30),
        ("url", "data:" + "QUJD" * 30),
        ("url", "data:image/png," + "QUJD" * 30),
        ("url", IMAGE + "-0000"),
        ("url", IMAGE + "Q"),
        ("url", IMAGE + "QQ==QUJD"),
        ("url", IMAGE + "\nQUJD"),
        ("url", " " + IMAGE),
        ("url", "data:image/png;base64,QUJD"),
        ("data", "QUJD" * 30 + "\u00e9\u00e9\u00e9\u00e9"),
        ("data", "QUJD" * 30 + "@@@@"),
        ("data", "QUJD" * 100_000 + "=@@@"),
        ("data", "QUJD"),
    ],
)
def test_what_is_not_quite_binary_data_is_read(key: str, value: str) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", key: value}]}]}
    assert value in all_text(body)
    assert opaque_content(body) == frozenset()


def test_parameters_of_binary_data_are_read() -> None:
    value = "data:text/csv;name=max.weber@example.com;base64," + "QUJD" * 30
    text = all_text({"messages": [{"content": [{"type": "file", "file": {"file_data": value}}]}]})
    assert "max.weber@example.com" in text
    assert "QUJD" not in text


def test_opaque_content_is_named() -> None:
    assert opaque_content({"prompt": [1, 2]}) == {"tokens"}
    assert opaque_content({"input": [[1], [2]]}) == {"tokens"}
    assert opaque_content({"input": [{"image": "https://example.org/a.png"}]}) == {"other"}
    parts = [{"type": "image_url"}, {"type": "input_audio"}, {"type": "file"}]
    assert opaque_content({"messages": [{"content": parts}]}) == {"image", "audio", "file"}
    assert opaque_content({"messages": [{"content": [{"type": "video_url"}]}]}) == {"other"}
    assert opaque_content({"messages": [{"content": [{"type": ["text"]}]}]}) == {"other"}
    assert opaque_content({"messages": [{"content": [{"image_url": "x"}]}]}) == {"other"}
    assert opaque_content({"messages": [{"content": [["text"]]}]}) == {"other"}
    assert opaque_content({"prompt": "text", "messages": [{"content": "text"}]}) == frozenset()


@pytest.mark.parametrize(
    "part",
    [
        "text",
        {"text": "text"},
        {"type": "text", "text": "text"},
        {"type": "input_text", "text": "text"},
        {"type": "output_text", "text": "text"},
        {"type": "refusal", "refusal": "no"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "text"}]},
    ],
)
def test_parts_of_text_are_not_opaque(part: Any) -> None:
    assert opaque_content({"messages": [{"content": [part]}]}) == frozenset()


def test_what_names_a_tool_call_is_not_opaque() -> None:
    assert opaque_content(call_and_result("call_foTVHl8meLTo2pRPkm8hUvj9")) == frozenset()
