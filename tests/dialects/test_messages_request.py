"""What becomes of each field on the way from chat to messages."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backends.dialects import chat_answer, chat_ir, ir
from backends.dialects.messages_answer import decode_answer
from backends.dialects.messages_request import JSON_TOOL, Encoded, Target, encode_request
from backends.errors import InvalidValue, Untranslatable
from backends.profiles import Profile, find_profile

OLD, BUDGET, NEW, ALWAYS = (
    "claude-3-5-sonnet-latest",
    "claude-sonnet-4-5",
    "claude-opus-4-8",
    "claude-opus-5-5",
)
HELLO = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def encode(
    *messages: dict[str, Any], model: str = OLD, drop_params: bool = False, **fields: Any
) -> Encoded:
    body = {"model": "alias", "messages": list(messages or (HELLO,)), **fields}
    target = Target(model=model, profile=find_profile(model), drop_params=drop_params)
    return encode_request(chat_ir.decode_request(body), target)


def refused(*messages: dict[str, Any], **fields: Any) -> Untranslatable | InvalidValue:
    with pytest.raises((Untranslatable, InvalidValue)) as caught:
        encode(*messages, **fields)
    return caught.value


def call(arguments: str, call_id: str = "t1") -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {
        "role": "assistant",
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(content: Any, call_id: str = "t1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_max_tokens_is_always_there() -> None:
    assert encode().body["max_tokens"] == find_profile(OLD).max_output
    assert encode(model="unheard-of").body["max_tokens"] == 4096
    both = encode(max_tokens=5, max_completion_tokens=7)
    assert both.body["max_tokens"] == 7 and both.dropped == ()
    assert refused(max_tokens=0).param == "max_tokens"


def test_system_and_developer_messages_are_hoisted_in_order() -> None:
    body = encode(
        {"role": "system", "content": "one"},
        HELLO,
        {"role": "developer", "content": [{"type": "text", "text": "two"}]},
    ).body
    assert [block["text"] for block in body["system"]] == ["one", "two"]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]


def test_only_instructions_are_no_conversation() -> None:
    assert refused({"role": "system", "content": "one"}).param == "messages"


def test_same_roles_merge_and_empty_texts_vanish() -> None:
    body = encode(
        HELLO, {"role": "user", "content": "  "}, HELLO, {"role": "assistant", "content": "yes \n"}
    ).body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"]
    assert len(body["messages"][0]["content"]) == 2
    assert body["messages"][1]["content"][0]["text"] == "yes"


def test_tool_results_come_first_in_one_user_message() -> None:
    body = encode(
        HELLO,
        call("{}", "t1"),
        call('{"x": 1}', "t2"),
        result("one", "t1"),
        HELLO,
        result([{"type": "text", "text": "two"}], "t2"),
        tools=[TOOL],
    ).body
    kinds = [block["type"] for block in body["messages"][2]["content"]]
    assert kinds == ["tool_result", "tool_result", "text"]
    assert [b["input"] for b in body["messages"][1]["content"]] == [{}, {"x": 1}]


@pytest.mark.parametrize("arguments", ["{", "[1]", "nope", "1"])
def test_bad_arguments_name_their_message(arguments: str) -> None:
    error = refused(HELLO, call(arguments))
    assert error.param == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize("arguments", ["", " ", "null"])
def test_empty_arguments_are_an_empty_object(arguments: str) -> None:
    body = encode(HELLO, call(arguments), result("x")).body
    assert body["messages"][1]["content"][0]["input"] == {}


@pytest.mark.parametrize("call_id", ["functions.f:0", "", "a b", "ü", "x\n"])
def test_ids_of_calls_that_the_api_would_refuse_are_replaced(call_id: str) -> None:
    made, answered = encode(HELLO, call("{}", call_id), result("x", call_id)).body["messages"][1:]
    (given,) = made["content"]
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", given["id"])
    assert answered["content"][0]["tool_use_id"] == given["id"]
    other = encode(HELLO, call("{}", f"{call_id}.")).body["messages"][1]["content"][0]
    assert other["id"] != given["id"]


def test_a_result_without_its_call_is_refused() -> None:
    assert refused(HELLO, result("x")).param == "messages[1].tool_call_id"
    assert refused(HELLO, call("{}"), HELLO, result("x", "other")).param


@pytest.mark.parametrize(
    ("choice", "want"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_tool_choice(choice: Any, want: dict[str, Any]) -> None:
    assert encode(tools=[TOOL], tool_choice=choice).body["tool_choice"] == want


def test_allowed_tools_are_the_only_ones_offered() -> None:
    other = {"type": "function", "function": {"name": "g"}}
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "required",
            "tools": [{"type": "function", "function": {"name": "g"}}],
        },
    }
    body = encode(tools=[TOOL, other], tool_choice=choice).body
    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    assert body["tool_choice"] == {"type": "any"}


def test_a_strict_tool_is_strict_where_the_model_can_be() -> None:
    function = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    tools = [{"type": "function", "function": function}]
    for model in (OLD, BUDGET, NEW):
        able = "json_schema" in find_profile(model).capabilities
        encoded = encode(tools=tools, model=model, drop_params=True)
        assert encoded.body["tools"][0].get("strict", False) == able
        assert encoded.dropped == (() if able else ("tools.function.strict",))
    assert not encode(tools=[TOOL], model=NEW).body["tools"][0].get("strict")


def test_parallel_tool_calls() -> None:
    body = encode(tools=[TOOL], parallel_tool_calls=False).body
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tool_choice" not in encode(tools=[TOOL], parallel_tool_calls=True).body


def test_images() -> None:
    def block(url: str) -> Any:
        part = {"type": "image_url", "image_url": {"url": url}}
        return encode({"role": "user", "content": [part]}).body["messages"][0]["content"][0]

    assert block("data:image/png;base64,AAA")["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": "AAA",
    }
    assert block("https://x.example/a.png")["source"] == {
        "type": "url",
        "url": "https://x.example/a.png",
    }
    assert block("data:application/pdf;base64,AAA")["type"] == "document"
    for spelling in ("image/jpg", "image/JPEG", "IMAGE/JPG"):
        assert block(f"data:{spelling};base64,AAA")["source"]["media_type"] == "image/jpeg"


@pytest.mark.parametrize("url", ["data:image/tiff;base64,AA", "file:///etc/passwd", "data:,x"])
def test_other_images_are_refused(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    error = refused({"role": "user", "content": [part]})
    assert error.param == "messages[0].content[0].image_url.url"


def test_parts_of_an_answer_of_another_api() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Well."},
        {"type": "refusal", "refusal": "I will not."},
    ]
    encoded = encode(HELLO, {"role": "assistant", "content": parts}, HELLO)
    said = [{"type": "text", "text": text} for text in ("Well.", "I will not.")]
    assert encoded.body["messages"][1]["content"] == said
    assert encoded.dropped == ("messages.content.thinking",)
    odd = {"role": "assistant", "content": [parts[1], {"type": "hologram"}]}
    assert refused(HELLO, odd).param == "messages[1].content[1].hologram"


def test_audio_is_refused_by_its_place() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
    error = refused(HELLO, {"role": "user", "content": [part]})
    assert error.param == "messages[1].content[0].input_audio"
    assert error.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content"}),
        ("web_search_options", {}),
        ("temperature", 1.5),
        ("tools", [{"type": "custom", "custom": {"name": "x"}}]),
    ],
)
def test_what_changes_the_meaning_is_refused_or_dropped_on_demand(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert (error.param, error.code) == (field, "unsupported_parameter")
    dropped = encode(drop_params=True, **{field: value})
    assert dropped.dropped == (field,) and field not in dropped.body


def test_what_asks_for_nothing_is_no_drop() -> None:
    harmless = {
        "n": 1,
        "logprobs": False,
        "logit_bias": {},
        "modalities": ["text"],
        "seed": None,
        "stream_options": {"include_usage": True},
        "presence_penalty": 0,
        "stop": None,
    }
    assert encode(**harmless).dropped == ()


def test_hints_are_dropped_and_named() -> None:
    hints = {
        "seed": 1,
        "metadata": {"a": "b"},
        "store": True,
        "prompt_cache_key": "k",
        "verbosity": "low",
        "frequency_penalty": 0.5,
        "made_up": 1,
    }
    assert set(encode(**hints).dropped) == set(hints)
    assert encode({**HELLO, "name": "ann"}).dropped == ("messages.name",)


def test_the_end_user_is_named_by_a_keyed_hash() -> None:
    request = chat_ir.decode_request({"messages": [HELLO], "user": "ann@example.org"})
    ids = {
        encode_request(request, Target(model="m", user_salt=salt)).body["metadata"]["user_id"]
        for salt in (b"", b"one", b"two")
    }
    assert len(ids) == 3 and not any("ann" in user for user in ids)


def test_stop_sequences() -> None:
    assert encode(stop="x").body["stop_sequences"] == ["x"]
    some = encode(stop=["\n", "y"])
    assert some.body["stop_sequences"] == ["y"] and some.dropped == ("stop",)
    none = encode(stop=[" "])
    assert "stop_sequences" not in none.body and none.dropped == ("stop",)


def test_sampling_by_model() -> None:
    assert encode(temperature=0, top_p=0.5).body["top_p"] == 0.5
    one = encode(model=BUDGET, temperature=0.5, top_p=0.5)
    assert one.body["temperature"] == 0.5 and one.dropped == ("top_p",)
    none = encode(model=NEW, temperature=0.5, top_p=1)
    assert "temperature" not in none.body and none.dropped == ("temperature",)


def test_json_schema_where_the_model_has_it() -> None:
    body = encode(model=NEW, response_format=JSON_SCHEMA).body
    assert body["output_config"]["format"] == {"type": "json_schema", "schema": SCHEMA}
    assert "tools" not in body


def test_json_schema_by_a_forced_tool() -> None:
    encoded = encode(model=OLD, response_format=JSON_SCHEMA)
    assert encoded.json_tool
    assert encoded.body["tool_choice"] == {"type": "tool", "name": JSON_TOOL}
    assert encoded.body["tools"][0]["input_schema"] == SCHEMA
    offered = encode(model=OLD, response_format={"type": "json_object"}, tools=[TOOL])
    assert offered.body["tool_choice"] == {"type": "any"}
    assert not encode(response_format={"type": "text"}).json_tool


def test_reasoning_by_model() -> None:
    old = encode(model=OLD, reasoning_effort="high")
    assert "thinking" not in old.body and old.dropped == ("reasoning_effort",)
    budget = encode(model=BUDGET, reasoning_effort="medium", max_tokens=10_000)
    assert budget.body["thinking"] == {"type": "enabled", "budget_tokens": 5000}
    small = encode(model=BUDGET, reasoning_effort="high", max_tokens=1024)
    assert "thinking" not in small.body and small.dropped == ("reasoning_effort",)
    new = encode(model=NEW, reasoning_effort="minimal")
    assert new.body["output_config"] == {"effort": "low"}
    assert new.body["thinking"] == {"type": "adaptive"}
    off = encode(model=NEW, reasoning_effort="none")
    assert off.body["thinking"] == {"type": "disabled"} and off.dropped == ()
    always = encode(model=ALWAYS, reasoning_effort="none")
    assert "thinking" not in always.body and always.dropped == ("reasoning_effort",)


def test_a_forced_tool_and_thinking_do_not_meet() -> None:
    budget = encode(model=BUDGET, tools=[TOOL], tool_choice="required", reasoning_effort="low")
    assert "thinking" not in budget.body and "reasoning_effort" in budget.dropped
    new = encode(model=NEW, tools=[TOOL], tool_choice="required")
    assert new.body["thinking"] == {"type": "disabled"}
    assert refused(model=ALWAYS, tools=[TOOL], tool_choice="required").param == "tool_choice"


def test_signed_thinking_goes_back_and_unsigned_does_not() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xx"},
    ]
    signed = encode(HELLO, {"role": "assistant", "content": "a", "thinking_blocks": blocks}, HELLO)
    assert signed.body["messages"][1]["content"][:2] == blocks
    foreign = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    unsigned = encode(HELLO, foreign, HELLO)
    assert [b["type"] for b in unsigned.body["messages"][1]["content"]] == ["text"]
    assert unsigned.dropped == ("messages.reasoning_content",)


def test_legacy_functions_there_and_back() -> None:
    encoded = encode(
        HELLO,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
        functions=[{"name": "f", "parameters": SCHEMA}],
        function_call={"name": "f"},
    )
    body = encoded.body
    chosen = {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    assert encoded.legacy and body["tool_choice"] == chosen
    use, answer = body["messages"][1]["content"][0], body["messages"][2]["content"][0]
    assert use["id"] == answer["tool_use_id"] and answer["content"] == "42"
    reply = {
        "id": "m",
        "model": "c",
        "stop_reason": "tool_use",
        "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
    }
    choice = chat_answer.encode_answer(decode_answer(reply), legacy=True)["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in choice["message"]


def test_a_legacy_client_is_given_one_call() -> None:
    """It adds up the pieces of whatever `function_call` a stream has: of two it would make one."""
    chosen = encode(functions=[{"name": "f"}], function_call="auto").body["tool_choice"]
    assert chosen == {"type": "auto", "disable_parallel_tool_use": True}
    encoder = chat_answer.StreamEncoder(created=1, legacy=True)
    deltas = [ir.CallStart(0, "a", "f"), ir.CallDelta(0, "{}")]
    more = [ir.CallStart(1, "b", "g"), ir.CallDelta(1, "[]")]
    one = b"".join(event.data for delta in deltas for event in encoder.encode(delta))
    assert one.count(b"function_call") == 2
    assert [event for delta in more for event in encoder.encode(delta)] == []


def test_from_the_new_api_version_on_nothing_is_sampled() -> None:
    request = chat_ir.decode_request({"messages": [HELLO], "temperature": 0.3})
    target = Target(model="m", profile=Profile(), api_version="2026-10-21")
    encoded = encode_request(request, target)
    assert "temperature" not in encoded.body and encoded.dropped == ("temperature",)


def test_cache_marks_are_kept_for_five_minutes() -> None:
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    block = encode({"role": "user", "content": [part]}).body["messages"][0]["content"][0]
    assert block["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([1], "messages[0]"),
        ([{"role": "robot"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [5]}], "messages[0].content[0]"),
        ([HELLO, {"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
    ],
)
def test_malformed_messages_name_their_place(messages: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        chat_ir.decode_request({"messages": messages})
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")
