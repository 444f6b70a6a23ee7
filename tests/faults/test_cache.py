"""Row 24: what is stored, who is served it, and what never is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import Answer, Backend, Key, Scene, chat, completion, eventually, raw_server

PLAIN = Backend("plain", "tokens=5,chunk=1ms")
OTHER = Backend("other", "tokens=5,chunk=2ms")
SLOW = Backend("slow", "tokens=5,latency=700ms")
CUT = Backend("cut", "cut=3,tokens=5")
FAILS_ONCE = Backend("fails_once", "status=500,times=1,tokens=5")
FILTERED_ONCE = Backend("filtered_once", "filter,times=1,tokens=5")
# Few enough failures to leave its breaker closed.
FAILS = Backend("fails", "cut=2,tokens=5,latency=300ms")
NOFINISH = Backend("nofinish", "nofinish,tokens=5")
NOUSAGE = Backend("nousage", "nousage,tokens=5")
BACKENDS = (PLAIN, OTHER, SLOW, CUT, FAILS_ONCE, FILTERED_ONCE, NOFINISH, NOUSAGE, FAILS)
NAMES = tuple(backend.name for backend in BACKENDS)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
POLICIES = """
[retry]
attempts = 1
[policies.default]
labels.eu.facts.jurisdiction = ["de"]
labels.de.facts.jurisdiction = ["de"]
labels.secret = { cache = false }
[policies.brief]
cache_ttl = 1
[policies.never]
cache_ttl = 0
"""


@pytest.fixture(scope="module")
def half_cut() -> Iterator[str]:
    """Answers two prompts, the second up to its limit only."""
    choices = [
        {"index": 0, "text": "whole", "finish_reason": "stop"},
        {"index": 1, "text": "cut o", "finish_reason": "length"},
    ]
    body = json.dumps({"object": "text_completion", "model": "m", "choices": choices})

    def answer(connection: socket.socket) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())

    with raw_server(answer) as (url, _):
        yield url


def stating(where: str) -> Callable[[socket.socket], None]:
    """A stream of JSON with spaces that states its usage where some engines do: in an event of its
    own, or with its finish reason."""
    usage = {"prompt_tokens": 16, "completion_tokens": 2, "total_tokens": 18}
    text = {"index": 0, "text": "Hello there", "finish_reason": None}
    finish = {"index": 0, "text": "", "finish_reason": "stop"}
    events: list[dict[str, Any]] = [{"choices": [text]}, {"choices": [finish]}]
    if where == "finish":
        events[-1]["usage"] = usage
    else:
        events.append({"choices": [], "usage": usage})
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events)

    def answer(connection: socket.socket) -> None:
        connection.sendall(f"{head}{data}data: [DONE]\n\n".encode())

    return answer


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Backend, ...]]:
    with contextlib.ExitStack() as servers:
        own, finish = (
            servers.enter_context(raw_server(stating(where)))[0] for where in ("own", "finish")
        )
        yield Backend("states_own", "own", url=own), Backend("states_finish", "fin", url=finish)


@pytest.fixture(scope="module")
def scene(stage: Stage, half_cut: str, engines: tuple[Backend, ...]) -> Scene:
    pair = Backend("pair", "pair", url=half_cut)
    names = (*NAMES, "pair", *(engine.name for engine in engines))
    keys = (
        Key("rare", ("plain",), more='org = "rare"\nrequests_per_minute = 3'),
        Key("one", names, more='org = "one"'),
        Key("one_too", names, more='org = "one"'),
        Key("two", NAMES, more='org = "two"'),
        Key("fewer", ("plain", "other"), more='org = "one"'),
    )
    return stage((*BACKENDS, pair, *engines), keys, extra=POLICIES)


def hit(answer: Answer) -> bool:
    assert answer.complete, answer.body
    return answer.headers["x-tollhouse-cache"] == "hit"


def question(text: str, **more: Any) -> dict[str, Any]:
    return chat(text, model="plain/m", **more)


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_request_is_served_from_the_cache(scene: Scene, stream: bool) -> None:
    body = question("Same", stream=stream)
    first = scene.ask("one", body)
    again = scene.ask("one_too", body)
    assert not hit(first)
    assert hit(again)
    assert again.text == first.text
    assert again.events == first.events
    assert again.headers["x-tollhouse-cost-usd"] == "0"
    assert len(scene.attempts(first.request_id)) == 1
    assert scene.attempts(again.request_id) == []
    (record,) = scene.usage(again.request_id)
    assert (record["cache"], record["cost_nano"]) == ("hit", 0)


def test_a_stream_is_replayed_as_a_stream_with_its_usage(scene: Scene) -> None:
    body = question("Replay", stream=True)
    with_usage = {**body, "stream_options": {"include_usage": True}}
    first = scene.ask("one", body)
    assert first.usage is None
    replayed = scene.ask("one", with_usage)
    assert hit(replayed)
    assert replayed.usage is not None
    assert replayed.usage["completion_tokens"] == 5
    assert len(replayed.events) > 5
    whole = scene.ask("one", question("Replay"))
    assert not hit(whole)


@pytest.mark.parametrize("first", [False, True], ids=["not asked", "asked"])
@pytest.mark.parametrize("then", [False, True], ids=["not asked", "asked"])
@pytest.mark.parametrize(
    ("ask", "backend", "form"),
    [
        (completion, "states_own", None),
        (completion, "states_finish", "text_completion"),
        (completion, "nousage", "text_completion"),
        (chat, "nousage", "chat.completion.chunk"),
    ],
    ids=["own event", "with the finish", "nowhere", "nowhere in chat"],
)
def test_a_hit_is_the_stream_that_a_miss_is(
    scene: Scene, ask: Any, backend: str, form: str | None, first: bool, then: bool
) -> None:
    """The usage event is for those who asked for it, whoever made it: the engine, or the gateway,
    which then gives it the `form` of the other events."""
    body = ask(f"Stream {first} {then}", model=f"{backend}/m", stream=True)
    answers = []
    for asked in (first, then):
        answer = scene.ask("one", body | {"stream_options": {"include_usage": asked}})
        assert answer.complete
        usage_only = [chunk for chunk in answer.chunks if not chunk["choices"]]
        assert len(usage_only) == asked
        for chunk in usage_only:
            assert chunk["usage"]["completion_tokens"] > 0
            assert chunk.get("object") == form
        answers.append(answer)
    miss, again = answers
    assert not hit(miss)
    assert hit(again)
    if first == then:
        assert again.events == miss.events


def test_a_stored_answer_that_is_too_old_costs_one_request(scene: Scene) -> None:
    body = question("Stale")
    left = []
    for _ in range(2):
        answer = scene.ask("rare", body, cache_control="max-age=1" if left else "max-age=60")
        assert not hit(answer)
        left.append(int(answer.headers["x-ratelimit-remaining-requests"]))
        time.sleep(1.1)
    assert left == [2, 1]


def variants(text: str) -> dict[str, dict[str, Any]]:
    """Requests with the same last text that differ in one thing which may change the answer."""
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": text}
    return {
        "model": chat(text, model="other/m"),
        "auto": chat(text),
        "system prompt": {"model": "plain/m", "messages": [system, user]},
        "role": {"model": "plain/m", "messages": [{**user, "role": "system"}]},
        "history": {
            "model": "plain/m",
            "messages": [user, {"role": "assistant", "content": "x"}, user],
        },
        "tools": question(text, tools=[TOOL]),
        "temperature": question(text, temperature=0.5),
        "zero temperature": question(text, temperature=0.0),
        "seed": question(text, seed=7),
        "stop": question(text, stop=["w3"]),
        "max_tokens": question(text, max_tokens=400),
        "unknown field": question(text, some_new_field=1),
        "stream": question(text, stream=True),
        "case": question(text.upper()),
        "space": question(text + " "),
        "operation": completion(text, model="plain/m"),
    }


@pytest.mark.parametrize("name", variants(""))
def test_a_request_that_differs_is_not_a_hit(scene: Scene, name: str) -> None:
    text = f"Turn on the light ({name})"
    assert not hit(scene.ask("one", question(text)))
    assert not hit(scene.ask("one", variants(text)[name]))
    assert hit(scene.ask("one", question(text)))


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        ("two", {}),
        ("fewer", {}),
        ("one", {"x_tollhouse_residency": "eu"}),
        ("one", {"x_tollhouse_residency": "eu,de"}),
        ("one", {"x_tollhouse_policy": "brief"}),
    ],
    ids=["tenant", "permissions", "label", "labels", "policy"],
)
def test_another_partition_is_not_a_hit(scene: Scene, key: str, headers: dict[str, str]) -> None:
    body = question(f"Partition {key} {sorted(headers.items())}")
    assert not hit(scene.ask("one", body))
    foreign = scene.ask(key, body, **headers)
    assert not hit(foreign)
    assert len(scene.attempts(foreign.request_id)) == 1
    assert hit(scene.ask("one", body))
    assert hit(scene.ask(key, body, **headers))


def test_a_label_that_forbids_caching_is_obeyed(scene: Scene) -> None:
    for _ in range(2):
        answer = scene.ask("one", question("Secret"), x_tollhouse_residency="secret")
        assert answer.complete
        assert answer.headers["x-tollhouse-cache"] == "off"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_ended_at_its_limit_is_not_stored(scene: Scene, stream: bool) -> None:
    body = question("Long", max_tokens=3, stream=stream)
    for _ in range(2):
        answer = scene.ask("one", body)
        assert answer.finishes == ["length"]
        assert not hit(answer)


def test_one_answer_of_two_that_ended_at_its_limit_keeps_both_out(scene: Scene) -> None:
    body = completion("", model="pair/m") | {"prompt": ["first", "second"]}
    for _ in range(2):
        answer = scene.ask("one", body)
        assert answer.finishes == ["stop", "length"]
        assert not hit(answer)


@pytest.mark.parametrize("name", ["cut", "nofinish"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_answer_is_not_stored(scene: Scene, name: str, stream: bool) -> None:
    body = chat("Broken", model=f"{name}/m", stream=stream)
    for _ in range(2):
        answer = scene.ask("one", body)
        assert not answer.complete
        assert answer.error is not None
        assert len(scene.attempts(answer.request_id)) == 1


@pytest.mark.parametrize("name", ["fails_once", "filtered_once"])
def test_an_error_is_not_stored(scene: Scene, name: str) -> None:
    body = chat("Once", model=f"{name}/m")
    assert scene.ask("one", body).status in (400, 502)
    assert not hit(scene.ask("one", body))
    assert hit(scene.ask("one", body))


@pytest.mark.parametrize("header", ["x_tollhouse_cache", "cache_control"])
def test_cache_control_is_honoured(scene: Scene, header: str) -> None:
    body = question(f"Control by {header}")
    assert not hit(scene.ask("one", body, **{header: "no-store"}))
    assert not hit(scene.ask("one", body))
    assert hit(scene.ask("one", body))
    assert not hit(scene.ask("one", body, **{header: "no-store"}))
    assert not hit(scene.ask("one", body, **{header: "no-cache"}))
    assert not hit(scene.ask("one", body, **{header: "max-age=0"}))
    assert hit(scene.ask("one", body, **{header: "max-age=600"}))


def test_an_answer_grows_old(scene: Scene) -> None:
    body = question("Old")
    assert not hit(scene.ask("one", body, x_tollhouse_policy="brief"))

    def gone() -> bool:
        return not hit(scene.ask("one", body, x_tollhouse_policy="brief"))

    assert eventually(gone, 10)
    for _ in range(2):
        assert not hit(scene.ask("one", body, x_tollhouse_policy="never"))


async def together(scene: Scene, key: str, body: dict[str, Any], count: int) -> list[Any]:
    limits = httpx.Limits(max_connections=count)
    async with scene.gateway.async_client(scene.gateway.keys[key], limits=limits) as client:
        calls = (client.post("/v1/chat/completions", json=body) for _ in range(count))
        return list(await asyncio.gather(*calls))


@pytest.mark.parametrize("stream", [False, True])
async def test_identical_requests_wait_for_one_answer(scene: Scene, stream: bool) -> None:
    body = chat("Together", model="slow/m", stream=stream)
    answers = await together(scene, "one", body, 20)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    asked = [scene.attempts(answer.headers["x-request-id"]) for answer in answers]
    assert sum(map(len, asked)) == 1
    hits = [answer.headers["x-tollhouse-cache"] for answer in answers]
    assert sorted(hits) == ["hit"] * 19 + ["miss"]
    await asyncio.to_thread(scene.balanced, "one")


async def test_requests_of_two_tenants_do_not_wait_for_each_other(scene: Scene) -> None:
    body = chat("Apart", model="slow/m")
    both = await asyncio.gather(together(scene, "one", body, 3), together(scene, "two", body, 3))
    asked = [
        [row for answer in answers for row in scene.attempts(answer.headers["x-request-id"])]
        for answers in both
    ]
    assert [len(rows) for rows in asked] == [1, 1]


async def test_a_leader_that_fails_leaves_the_others_on_their_own(scene: Scene) -> None:
    body = chat("Fails", model="fails/m")
    answers = await together(scene, "one", body, 4)
    assert {answer.status_code for answer in answers} == {502}
    asked = [scene.attempts(answer.headers["x-request-id"]) for answer in answers]
    assert [len(rows) for rows in asked] == [1] * 4
