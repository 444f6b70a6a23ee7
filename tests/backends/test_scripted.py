from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from backends.base import Call, Timeouts, Usage
from backends.dialects.chat import ChatBackend, ChatSettings
from backends.errors import BackendError
from backends.faults import Plan, Script, parse_plan
from backends.scripted import ScriptedBackend
from backends.scripted_answer import count_prompt
from loadtest.upstream import Upstream

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "label": {"type": "string"}},
        },
    },
}


@pytest.fixture
async def upstream():
    server = Upstream()
    port = await server.start()
    server.base = f"http://127.0.0.1:{port}"
    yield server
    await server.stop()


@pytest.fixture(params=["in process", "over http"])
def backend(request, upstream, transport):
    if request.param == "in process":
        return ScriptedBackend("s", lambda: asyncio.get_running_loop().time())
    return ChatBackend(ChatSettings("s", upstream.base + "/v1"), transport, lambda: 0.0)


def call(model: str, stream: bool = True, body: dict | None = None, **timeouts: float) -> Call:
    return Call("chat", model, body or HELLO, stream, Timeouts(**timeouts), request_id="r-1")


async def outcome(backend, request: Call) -> tuple[str, str, str | None, Usage | None]:
    """How it ended ("ok" or the error's class), the text, the finish reason and the usage."""
    text, finish, reply = "", None, None
    try:
        reply = await backend.open(request)
        async for event in reply.events():
            for choice in json.loads(event.data).get("choices", ()):
                text += (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            finish = event.finish or finish
        return "ok", text, finish, reply.usage
    except BackendError as exc:
        return type(exc).__name__, text, finish, reply.usage if reply else None
    finally:
        if reply is not None:
            await reply.aclose()


TEN = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9"
USAGE = Usage(prompt=6, completion=10)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "streamed", "whole"),
    [
        ("ok", ("ok", TEN, "stop", USAGE), None),
        ("latency=10ms,chunk=1ms,first_token=10ms", ("ok", TEN, "stop", USAGE), None),
        ("status=429", ("RateLimited", "", None, None), None),
        ("status=503", ("Overloaded", "", None, None), None),
        ("status=529", ("Overloaded", "", None, None), None),
        ("status=500", ("UpstreamFailed", "", None, None), None),
        ("status=401", ("UpstreamAuthFailed", "", None, None), None),
        ("reset", ("ConnectFailed", "", None, None), None),
        ("context", ("ContextTooLong", "", None, None), None),
        ("filter", ("ContentFiltered", "", None, None), None),
        ("redirect", ("UpstreamRedirected", "", None, None), None),
        ("cut=4,how=fin", ("StreamTruncated", TEN[:11], None, None), ("StreamTruncated", "")),
        ("cut=4,how=noterm", ("StreamTruncated", TEN[:11], None, None), ("StreamTruncated", "")),
        ("cut=4,how=rst", ("StreamBroken", TEN[:11], None, None), ("StreamBroken", "")),
        ("malformed", ("ok", TEN, "stop", USAGE), ("UpstreamProtocolError", "")),
        ("nul", ("ok", TEN, "stop", USAGE), ("UpstreamProtocolError", "")),
        ("badutf8", ("ok", TEN, "stop", USAGE), ("UpstreamProtocolError", "")),
        ("nodone", ("ok", TEN, "stop", USAGE), None),
        ("twodone", ("ok", TEN, "stop", USAGE), None),
        ("nofinish", ("StreamTruncated", TEN, None, USAGE), ("UpstreamProtocolError", "")),
        ("error200", ("StreamFailed", "", None, None), ("UpstreamFailed", "")),
        ("error200,after=3", ("StreamFailed", TEN[:8], None, None), ("UpstreamFailed", "")),
        ("html", ("UpstreamProtocolError", "", None, None), None),
        ("wrongtype", ("UpstreamProtocolError", "", None, None), None),
        ("bigevent,after=2", ("UpstreamProtocolError", TEN[:5], None, None), ("Upst", "")),
        ("nousage", ("ok", TEN, "stop", None), None),
        ("negusage", ("ok", TEN, "stop", None), None),
        ("hugeusage", ("ok", TEN, "stop", None), None),
    ],
)
async def test_faults_end_as_promised(backend, script, stream, streamed, whole) -> None:
    ended = await outcome(backend, call(f"scripted:tokens=10,{script}", stream))
    if stream or whole is None:
        assert ended == streamed
    else:
        assert (ended[0].startswith(whole[0]), ended[1]) == (True, whole[1])


@pytest.mark.parametrize(
    ("script", "stream", "timeouts", "error"),
    [
        ("hang", True, {"first_token": 0.1}, "FirstTokenTimeout"),
        ("hang", False, {"total": 0.1}, "UpstreamTimeout"),
        ("first_token=20s", True, {"first_token": 0.1}, "FirstTokenTimeout"),
        ("latency=20s", True, {"total": 0.1}, "UpstreamTimeout"),
        ("stall=30s,after=2", True, {"idle": 0.1}, "StreamIdle"),
        ("chunk=20ms,tokens=1000", True, {"total": 0.2}, "UpstreamTimeout"),
    ],
)
async def test_silence_ends_by_its_timeout(backend, script, stream, timeouts, error) -> None:
    ended = await outcome(backend, call(f"scripted:{script}", stream, **timeouts))
    assert ended[0] == error


async def test_times_and_retry_after(backend) -> None:
    request = call("scripted:status=429,times=1,retry_after=2,tokens=3")
    with pytest.raises(BackendError) as caught:
        await backend.open(request)
    assert caught.value.retry_after == 2
    assert (await outcome(backend, request))[:2] == ("ok", "w0 w1 w2")


async def test_tools(backend) -> None:
    body = {
        "messages": [{"role": "user", "content": "call add with 41 and 'é'"}],
        "tools": [TOOL],
    }
    reply = await backend.open(call("scripted:ok", body=body))
    events = [event async for event in reply.events()]
    arguments = ""
    for event in events:
        for choice in json.loads(event.data)["choices"]:
            for part in choice["delta"].get("tool_calls", ()):
                arguments += part["function"]["arguments"]
    assert json.loads(arguments) == {"a": 41, "label": "é"}
    assert [event.finish for event in events if event.finish] == ["tool_calls"]
    result = {"role": "tool", "tool_call_id": "x", "content": "42"}
    again = {**body, "messages": [*body["messages"], result]}
    assert (await outcome(backend, call("scripted:ok", False, again)))[2] == "stop"
    none = await outcome(backend, call("scripted:ok", False, {**body, "tool_choice": "none"}))
    assert none[2] == "stop"


@pytest.mark.parametrize("stream", [True, False])
async def test_limits_stops_choices_and_schemas(backend, stream) -> None:
    async def say(**more):
        return await outcome(backend, call("scripted:tokens=10", stream, {**HELLO, **more}))

    assert await say(max_tokens=3) == ("ok", "w0 w1 w2", "length", Usage(6, 3))
    assert (await say(stop=["w4"]))[1:3] == ("w0 w1 w2 w3", "stop")
    assert (await say(stop=5))[2] == (await say(stop=[7, None]))[2] == "stop"
    assert (await say(n=2))[3] == Usage(6, 20)
    schema = {"type": "object", "properties": {"x": {"type": ["integer", "null"]}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    text = (
        await outcome(backend, call("scripted:ok", stream, {**HELLO, "response_format": wanted}))
    )[1]
    assert json.loads(text) == {"x": 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_each_prompt_has_its_answers(backend, stream) -> None:
    body = {"prompt": ["text a", "text b"], "n": 2}
    reply = await backend.open(
        Call("completions", "scripted:tokens=3", body, stream, Timeouts(), request_id="r-1")
    )
    assert sum([event.text_bytes async for event in reply.events()]) == 4 * len("w0 w1 w2")
    assert reply.usage is not None
    assert reply.usage.completion == 12


async def test_embeddings(backend) -> None:
    request = Call("embeddings", "scripted:ok", {"input": ["a", "a", "b"]}, False, Timeouts())
    reply = await backend.open(request)
    [event] = [event async for event in reply.events()]
    first, second, third = (row["embedding"] for row in json.loads(event.data)["data"])
    assert first == second != third
    assert reply.usage == Usage(prompt=15)


def test_prompts_are_counted_by_rule() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:..."}}
    content = [{"type": "text", "text": "12345"}, image]
    assert count_prompt({"messages": [{"role": "user", "content": "é234"}]}) == 4 + 2
    assert count_prompt({"messages": [{"role": "user", "content": content}]}) == 4 + 2 + 85
    assert count_prompt({"system": "1234", "messages": [{"content": "1"}]}) == 4 + 1 + 4 + 1
    assert count_prompt({"prompt": "12345678"}) == 4 + 2


def test_plans() -> None:
    assert parse_plan("scripted:ok") == parse_plan("anything") == Plan()
    assert parse_plan("x:stall=30s,after=40").stall == 30.0
    assert parse_plan("x:latency=200ms,tokens=60,chunk=5ms") == Plan(0.2, 0.0, 0.005, 60)
    for bad in ("x:nonsense", "x:latency=soon", "x:tokens=-1", "x:how=gently", "x:stall=nan"):
        with pytest.raises(ValueError, match=r"item|number"):
            parse_plan(bad)


def test_flapping_follows_the_clock() -> None:
    now = [0.0]
    script = Script(lambda: now[0])
    seen = []
    for _ in range(5):
        seen.append(script.plan("x:flap=60s").status)
        now[0] += 45
    assert seen == [503, 503, 200, 503, 200]


async def test_the_upstreams_own_account(upstream, transport) -> None:
    backend = ChatBackend(ChatSettings("s", upstream.base + "/v1"), transport, lambda: 0.0)
    await outcome(backend, call("scripted:tokens=10"))
    await outcome(backend, call("scripted:status=503"))
    await outcome(backend, call("scripted:cut=4,tokens=10"))
    reply = await backend.open(call("scripted:tokens=1000,chunk=20ms"))
    async for event in reply.events():
        if event.semantic:
            break
    await reply.aclose()
    async with httpx.AsyncClient() as client:
        async with asyncio.timeout(5):
            while upstream.in_flight:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        log = (await client.get(upstream.base + "/_log")).json()
        stats = (await client.get(upstream.base + "/_stats")).json()
        assert [entry["status"] for entry in log] == [200, 503, 200, 200]
        assert {entry["id"] for entry in log} == {"r-1"}
        assert [entry["completion_tokens"] for entry in log[:3]] == [10, 0, 4]
        assert 1 <= log[3]["completion_tokens"] < 1000
        assert [entry["cancelled_at"] is not None for entry in log] == [False] * 3 + [True]
        assert stats["requests"] == 4
        assert stats["cancelled"] == 1
        assert stats["prompt_tokens"] == sum(entry["prompt_tokens"] for entry in log)
        assert (await client.post(upstream.base + "/v1/nope")).status_code == 404
        bad = await client.post(upstream.base + "/v1/chat/completions", json={"model": "x:huh"})
        assert bad.status_code == 400
        assert (await client.get(upstream.base + "/v1/models")).json()["data"]
        await client.post(upstream.base + "/_reset")
        assert (await client.get(upstream.base + "/_log")).json() == []


async def test_anthropic_through_its_own_sdk(upstream) -> None:
    anthropic = pytest.importorskip("anthropic")
    client = anthropic.AsyncAnthropic(api_key="k", base_url=upstream.base, max_retries=0)
    ask = {"max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
    message = await client.messages.create(model="scripted:tokens=10", **ask)
    assert (message.content[0].text, message.stop_reason) == (TEN, "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (6, 10)
    async with client.messages.stream(model="scripted:tokens=10", **ask) as stream:
        streamed = await stream.get_final_message()
    assert streamed.content[0].text == TEN
    assert streamed.usage.output_tokens == 10
    tool = {"name": "add", "input_schema": TOOL["function"]["parameters"]}
    asked = {**ask, "messages": [{"role": "user", "content": "add 5 'x'"}], "tools": [tool]}
    async with client.messages.stream(model="scripted:ok", **asked) as stream:
        called = await stream.get_final_message()
    assert called.stop_reason == "tool_use"
    assert called.content[0].input == {"a": 5, "label": "x"}
    for script, error in (
        ("status=429", anthropic.RateLimitError),
        ("context", anthropic.BadRequestError),
        ("status=529", anthropic.InternalServerError),
    ):
        with pytest.raises(error):
            await client.messages.create(model=f"scripted:{script}", **ask)
    with pytest.raises(anthropic.APIError):
        async with client.messages.stream(
            model="scripted:error200,after=3,tokens=9", **ask
        ) as stream:
            await stream.get_final_message()
    await client.close()
