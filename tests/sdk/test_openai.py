"""The unmodified `openai` SDK against a real llama.cpp engine, through both dialects outward.

`engine/tiny` speaks chat completions to the engine, `claude/tiny` Anthropic messages to the same.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

BOTH = pytest.mark.parametrize("model", ["engine/tiny", "claude/tiny"])
GREETING = "Hello! How can I help you today?"
COUNTED = "1, 2, 3, 4, 5"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Person(BaseModel):
    name: str
    age: int


def user(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


def fold(chunks: list[Any]) -> tuple[str, list[str]]:
    """Text and finish reasons of a stream's first choice."""
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, [choice.finish_reason for choice in choices if choice.finish_reason]


@BOTH
def test_chat(strict: openai.OpenAI, model: str) -> None:
    answer = strict.chat.completions.create(
        model=model, messages=user("Hello"), temperature=0, max_completion_tokens=50
    )
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", GREETING)
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@BOTH
async def test_async_chat_and_stream(aclient: openai.AsyncOpenAI, model: str) -> None:
    asked: Any = {"model": model, "messages": user("Count to 5"), "temperature": 0}
    whole = await aclient.chat.completions.create(**asked)
    chunks = [chunk async for chunk in await aclient.chat.completions.create(**asked, stream=True)]
    assert whole.choices[0].message.content == COUNTED
    assert fold(chunks) == (COUNTED, ["stop"])


@BOTH
@pytest.mark.parametrize("wanted", [None, {}, {"include_usage": False}, {"include_usage": True}])
def test_stream_shows_usage_only_when_asked(strict: openai.OpenAI, model: str, wanted: Any) -> None:
    options = {} if wanted is None else {"stream_options": wanted}
    chunks = list(
        strict.chat.completions.create(
            model=model, messages=user("Count to 5"), temperature=0, stream=True, **options
        )
    )
    assert fold(chunks) == (COUNTED, ["stop"])
    assert len(chunks) > 5
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    reported = [chunk for chunk in chunks if chunk.usage]
    if wanted == {"include_usage": True}:
        assert reported == chunks[-1:]
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens > 5
    else:
        assert reported == []
        assert all(chunk.choices for chunk in chunks)


@BOTH
def test_stream_helper_accumulates(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(
        model=model, messages=user("Hello"), temperature=0
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == GREETING
    assert kinds.count("content.done") == 1


@BOTH
def test_stream_can_be_left_early(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.create(
        model=model, messages=user("Tell me a long story."), temperature=0, stream=True
    ) as stream:
        seen = [next(iter(stream)) for _ in range(3)]
    assert len(seen) == 3
    again = client.chat.completions.create(model=model, messages=user("Hello"), temperature=0)
    assert again.choices[0].message.content == GREETING


@BOTH
@pytest.mark.parametrize("choice", ["auto", "required", WEATHER["function"]["name"]])
@pytest.mark.parametrize("streamed", [False, True])
def test_tool_call_and_result(
    strict: openai.OpenAI, model: str, choice: str, streamed: bool
) -> None:
    named = {"type": "function", "function": {"name": choice}}
    asked: Any = {
        "model": model,
        "messages": user("What is the weather in Paris?"),
        "tools": [WEATHER],
        "tool_choice": choice if choice in ("auto", "required") else named,
        "temperature": 0,
    }
    if streamed:
        with strict.chat.completions.stream(**asked) as stream:
            answer: Any = stream.get_final_completion()
    else:
        answer = strict.chat.completions.create(**asked)
    (first,) = answer.choices
    if choice not in ("auto", "required"):
        # OpenAI answers a named choice with `stop`; engines differ, and the gateway keeps theirs.
        assert first.finish_reason in ("stop", "tool_calls")
    else:
        assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    turn: Any = {
        "role": "assistant",
        "content": first.message.content,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": "get_weather", "arguments": call.function.arguments},
            }
        ],
    }
    weather = '{"temperature": 18, "sky": "sunny"}'
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": weather}
    said = strict.chat.completions.create(
        model=model,
        messages=[*asked["messages"], turn, result],
        tools=[WEATHER],
        temperature=0,
    )
    assert said.choices[0].finish_reason == "stop"
    assert said.choices[0].message.content == "It is 18 degrees and sunny in Paris."


@BOTH
def test_tools_are_not_used_without_need(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=user("Hello"), tools=[WEATHER], temperature=0
    )
    assert answer.choices[0].message.content == GREETING


@pytest.mark.parametrize("model", ["engine/tiny", "scripted/ok", "messages/ok"])
def test_json_schema_parsed_into_a_model(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.parse(
        model=model,
        messages=user("Give me a JSON object with name and age."),
        response_format=Person,
        temperature=0,
    )
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Person)
    assert parsed.name


def test_json_schema_streamed_and_json_object(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "engine/tiny",
        "messages": user("Give me a JSON object with name and age."),
        "temperature": 0,
    }
    with client.chat.completions.stream(**asked, response_format=Person) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Person)
    free = client.chat.completions.create(**asked, response_format={"type": "json_object"})
    assert set(json.loads(free.choices[0].message.content or "")) == {"name", "age"}


def test_logprobs(strict: openai.OpenAI) -> None:
    asked: Any = {
        "model": "engine/tiny",
        "messages": user("Count to 5"),
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    answer = strict.chat.completions.create(**asked)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content).startswith(COUNTED)
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in logprobs.content)
    streamed = [
        token.token
        for chunk in strict.chat.completions.create(**asked, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content or ()
    ]
    assert "".join(streamed).startswith(COUNTED)


@pytest.mark.parametrize("streamed", [False, True])
def test_several_choices(strict: openai.OpenAI, streamed: bool) -> None:
    asked: Any = {"model": "engine/tiny", "messages": user("Count to 5"), "temperature": 0, "n": 2}
    texts = {0: "", 1: ""}
    if streamed:
        for chunk in strict.chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        for each in strict.chat.completions.create(**asked).choices:
            texts[each.index] += each.message.content or ""
    assert texts == {0: COUNTED, 1: COUNTED}


def test_legacy_completions(strict: openai.OpenAI, client: openai.OpenAI) -> None:
    asked: Any = {"model": "engine/tiny", "prompt": "Hello", "max_tokens": 5, "temperature": 0}
    whole = strict.completions.create(**asked)
    assert whole.object == "text_completion"
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage is not None
    # Not with the strict client: its type has no place for the null finish reason that every
    # chunk but the last has, OpenAI's own included.
    chunks = list(
        client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_embeddings(strict: openai.OpenAI, client: openai.OpenAI) -> None:
    """The SDK asks for base64 by itself, which its strict mode then refuses to read."""
    asked: Any = {"model": "engine/tiny", "input": ["Hello", "Bridge"]}
    answer = strict.embeddings.create(**asked, encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1]
    first, second = (item.embedding for item in answer.data)
    assert len(first) == len(second) == 128
    assert first != second
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    decoded = client.embeddings.create(**asked)
    assert decoded.data[0].embedding == pytest.approx(first, abs=1e-6)
    raw: Any = client.embeddings.create(**asked, encoding_format="base64").data[0].embedding
    assert len(base64.b64decode(raw)) == 4 * 128


def test_models(strict: openai.OpenAI) -> None:
    listed = {model.id: model for model in strict.models.list()}
    assert {"auto", "auto:default", "scripted", "engine/tiny", "claude/tiny"} <= set(listed)
    facts: Any = listed["engine/tiny"]
    assert facts.owned_by == "engine"
    assert facts.tollhouse["tier"] == "local"
    assert facts.tollhouse["jurisdiction"] == "de"
    for name in ("auto", "scripted", "engine/tiny"):
        assert strict.models.retrieve(name) == listed[name]
    with pytest.raises(openai.NotFoundError) as failed:
        strict.models.retrieve("no/such")
    assert failed.value.code == "model_not_found"


def test_auto_is_routed(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=user("Hello"), temperature=0
    )
    assert raw.headers["x-tollhouse-backend"] == "engine"
    assert raw.parse().choices[0].message.content == GREETING


@BOTH
def test_headers_of_a_raw_response(client: openai.OpenAI, model: str) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=user("Hello"), temperature=0
    )
    found = raw.headers
    assert found["x-tollhouse-backend"] == model.partition("/")[0]
    assert found["x-tollhouse-model"] == "tiny"
    assert found["x-tollhouse-tier"] == "local"
    assert found["x-tollhouse-reason"] == "explicit"
    assert found["x-tollhouse-attempts"] == "1"
    assert found["x-tollhouse-cost-usd"] == "0"
    assert float(found["x-tollhouse-overhead-ms"]) >= 0
    assert found["x-tollhouse-decision-id"].startswith("dec_")
    assert found["content-type"] == "application/json"
    answer = raw.parse()
    assert answer.choices[0].message.content == GREETING
    # The SDK shows it as `_request_id`, for support requests.
    assert answer._request_id == found["x-request-id"]
    with client.chat.completions.with_streaming_response.create(
        model=model, messages=user("Hello"), temperature=0, stream=True
    ) as streamed:
        assert streamed.headers["x-tollhouse-model"] == "tiny"
        assert streamed.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in streamed.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert lines.count("data: [DONE]") == 1


def test_cost_of_a_paid_model(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="scripted", messages=user("Hello"))
    usage = raw.parse().usage
    assert usage is not None
    dollars = (2 * usage.prompt_tokens + 9 * usage.completion_tokens) / 1_000_000
    assert float(raw.headers["x-tollhouse-cost-usd"]) == pytest.approx(dollars)


def test_unknown_fields_pass_both_ways(client: openai.OpenAI) -> None:
    """`grammar` is a field of llama.cpp alone, `timings` one of its answers alone."""
    asked: Any = {
        "model": "engine/tiny",
        "messages": user("Hello"),
        "extra_body": {"grammar": 'root ::= "yes"', "timings_per_token": True},
    }
    whole: Any = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == "yes"
    assert whole.timings["predicted_n"] >= 1
    chunks: list[Any] = list(client.chat.completions.create(**asked, stream=True))
    assert fold(chunks) == ("yes", ["stop"])
    assert any(getattr(chunk, "timings", None) for chunk in chunks[:-1])


def test_what_the_other_dialect_lacks_is_named(client: openai.OpenAI) -> None:
    """A hint is left out and said to be; what would change the answer is refused."""
    asked: Any = {"model": "claude/tiny", "messages": user("Hello"), "temperature": 0}
    raw = client.chat.completions.with_raw_response.create(**asked, seed=7, store=True)
    assert set(raw.headers["x-tollhouse-dropped-params"].split(",")) == {"seed", "store"}
    assert raw.parse().choices[0].message.content == GREETING
    for param, fields in (("n", {"n": 2}), ("logit_bias", {"logit_bias": {"1": 5}})):
        with pytest.raises(openai.BadRequestError) as failed:
            client.chat.completions.create(**asked, **fields)
        assert failed.value.param == param
        assert failed.value.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["note\nto self"], "..."),
        (["x\r\nset-cookie: evil=1\r\nx-y", "seed"], "seed,..."),
        (["a\u0000b", "größe", "", "a,b", "k" * 65], "..."),
        ([f"field_{i}" for i in range(32)], ",".join(f"field_{i}" for i in range(32))),
        (["k" * 60 + str(i) for i in range(1200)], None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_fields_of_any_name_leave_an_answer_that_can_be_read(
    client: openai.OpenAI, names: list[str], shown: str | None, streamed: bool
) -> None:
    """What was dropped is named as far as a header can hold the names."""
    raw = client.chat.completions.with_raw_response.create(
        model="messages/ok",
        messages=user("Hello"),
        stream=streamed,
        extra_body=dict.fromkeys(names, 1),
    )
    text = raw.headers["x-tollhouse-dropped-params"]
    assert "set-cookie" not in raw.headers
    assert raw.http_response.read()
    if shown is not None:
        assert text == shown
    else:
        listed = text.split(",")
        assert listed == [*names[:32], "..."]


def test_a_field_of_a_message_may_have_any_name(client: openai.OpenAI) -> None:
    message: Any = {"role": "user", "content": "Hello", "x\r\ny: z": 1, "mood": "good"}
    raw = client.chat.completions.with_raw_response.create(model="messages/ok", messages=[message])
    assert raw.headers["x-tollhouse-dropped-params"] == "messages.mood,..."
    assert raw.parse().choices[0].message.content


def test_pictures_need_a_model_that_sees(client: openai.OpenAI, png: bytes) -> None:
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(model="engine/tiny", messages=user(parts))
    assert failed.value.param == "messages"
    assert failed.value.code == "unsupported_parameter"
    assert "vision" in failed.value.message
    for model in ("scripted/ok", "messages/ok", "auto"):
        answer = client.chat.completions.create(model=model, messages=user(parts))
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 85


@pytest.mark.parametrize("model", ["engine/tiny", "claude/tiny", "engine/unbounded"])
@pytest.mark.parametrize("streamed", [False, True])
def test_context_too_long(
    client: openai.OpenAI,
    error_form: Callable[..., dict[str, Any]],
    model: str,
    streamed: bool,
) -> None:
    """Refused by the gateway where it knows the window, else by the engine."""
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(
            model=model, messages=user("bridge river " * 6000), max_tokens=4, stream=streamed
        )
    assert error_form(failed.value)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("prompt", ["Hello", "Count to 3", "Think: what is 3 + 4?", "Hallo!"])
@pytest.mark.parametrize("streamed", [False, True])
def test_both_dialects_give_the_same(client: openai.OpenAI, prompt: str, streamed: bool) -> None:
    """One engine, two ways to it: the same text, finish reason and bill."""
    outcomes = []
    for model in ("engine/tiny", "claude/tiny"):
        asked: Any = {
            "model": model,
            "messages": [{"role": "system", "content": "You are helpful."}, *user(prompt)],
            "temperature": 0,
            "max_tokens": 60,
        }
        if streamed:
            options: Any = {"include_usage": True}
            chunks = list(
                client.chat.completions.create(**asked, stream=True, stream_options=options)
            )
            (text, finish), usage = fold(chunks), chunks[-1].usage
        else:
            answer = client.chat.completions.create(**asked)
            (choice,) = answer.choices
            text, finish, usage = choice.message.content or "", [choice.finish_reason], answer.usage
        assert usage is not None
        outcomes.append(
            (text, finish, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
        )
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]


def test_length_limit_in_both_dialects(client: openai.OpenAI) -> None:
    for model in ("engine/tiny", "claude/tiny"):
        answer = client.chat.completions.create(
            model=model, messages=user("Tell me a long story."), temperature=0, max_tokens=7
        )
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 7


@pytest.mark.parametrize("model", ["scripted/ok", "messages/ok"])
def test_the_scripted_upstream_in_both_dialects(strict: openai.OpenAI, model: str) -> None:
    whole = strict.chat.completions.create(model=model, messages=user("Hello"))
    chunks = list(strict.chat.completions.create(model=model, messages=user("Hello"), stream=True))
    assert fold(chunks) == (whole.choices[0].message.content, ["stop"])
    called = strict.chat.completions.create(
        model=model, messages=user("Weather in Rome?"), tools=[WEATHER], tool_choice="required"
    )
    assert called.choices[0].finish_reason == "tool_calls"
    assert called.choices[0].message.tool_calls


def test_a_key_in_x_api_key(connect: Callable[..., openai.OpenAI], tollhouse: Any) -> None:
    headers: Any = {"Authorization": openai.Omit(), "x-api-key": tollhouse.key}
    answer = connect(api_key="unused").chat.completions.create(
        model="engine/tiny", messages=user("Hello"), temperature=0, extra_headers=headers
    )
    assert answer.choices[0].message.content == GREETING
