"""Rows 6 to 8: an upstream whose answer breaks off, falls silent, or is not what it should be."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from backends.faults import STREAM_FAULTS
from tests.faults.conftest import Stage
from tests.faults.scene import (
    PROMPT_TOKENS,
    Answer,
    Backend,
    Key,
    Scene,
    chat,
    completion,
    prompt,
    raw_server,
)
from tests.support import PLAIN

HOWS = ("fin", "rst", "noterm")
TEXT = "w0 w1 w2 w3 w4 w5"
# What is kept when nothing but the fault's own bytes is wrong; all others end in an error.
KEPT_STREAMS = STREAM_FAULTS - {"nofinish", "error200", "html", "wrongtype", "bigevent"}
KEPT_BODIES = frozenset({"nodone", "twodone", "toolindex", "nousage", "negusage", "hugeusage"})
ESTIMATED = frozenset({"nousage", "negusage", "hugeusage"})

SPARE = Backend("spare", "tokens=6,chunk=1ms")
CUTS = tuple(Backend(f"cut_{how}", f"cut=40,tokens=60,how={how}") for how in HOWS)
EARLY = tuple(Backend(f"early_{how}", f"cut=0,tokens=60,how={how}") for how in HOWS)
# Says at its beginning that it has given one token, and the rest at its end.
CLAUDES = tuple(
    Backend(f"claude_{how}", f"cut=39,tokens=60,how={how}", provider="anthropic") for how in HOWS
)
STALL = Backend("stall", "tokens=10,stall=30s,after=3")
VARIANTS = tuple(
    Backend(f"{fault}_{kind}", f"{fault},tokens=6,latency={wait}ms")
    for fault in sorted(STREAM_FAULTS)
    # The wait keeps the two model names, and so their lines in the log, apart.
    for kind, wait in (("stream", 1), ("whole", 2))
)
TOOLS = Backend("tools", "toolindex")


def drip(connection: socket.socket) -> None:
    """An answer that begins, and then comes byte by byte without ever completing an event."""
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        b'data: {"choices":[{"index":0,"text":"Hello"}]}\n\ndata: {"choices":['
    )
    while True:
        time.sleep(0.25)
        connection.sendall(b" ")


def counting(*completion_tokens: int | None) -> Callable[[socket.socket], None]:
    """An answer of three pieces of six letters that is cut before its finish reason. Each number
    is stated as the usage so far together with a piece; None states nothing."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        for tokens in completion_tokens:
            usage = None if tokens is None else {"prompt_tokens": 16, "completion_tokens": tokens}
            chunk = {"choices": [{"index": 0, "text": "letter"}], "usage": usage}
            connection.sendall(b"data: %b\n\n" % json.dumps(chunk).encode())

    return answer


def half(ending: str) -> Callable[[socket.socket], None]:
    """The first of two answers that were asked for, and then the end."""
    choice = {"index": 0, "text": "first", "finish_reason": "stop"}
    data = json.dumps({"object": "text_completion", "model": "m", "choices": [choice]}).encode()
    kind = "application/json"
    if ending != "body":
        data = b"data: %b\n\n" % data + (b"data: [DONE]\n\n" if ending == "done" else b"")
        kind = "text/event-stream"

    def answer(connection: socket.socket) -> None:
        # Cut: more was promised.
        length = len(data) + (ending == "cut")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n"
        connection.sendall(f"{head}content-length: {length}\r\n\r\n".encode() + data)

    return answer


@pytest.fixture(scope="module")
def halves() -> Iterator[tuple[Backend, ...]]:
    with contextlib.ExitStack() as servers:
        yield tuple(
            Backend(
                f"half_{how}", f"half-{how}", url=servers.enter_context(raw_server(half(how)))[0]
            )
            for how in ("cut", "done", "body")
        )


def lines(connection: socket.socket) -> None:
    """Events whose JSON is spread over several lines."""
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    )
    for choice in ({"text": "Hello there"}, {"text": "", "finish_reason": "stop"}):
        data = json.dumps({"choices": [{"index": 0, **choice}]}, indent=1)
        connection.sendall(b"data: %b\n\n" % data.replace("\n", "\ndata: ").encode())
    connection.sendall(b"data: [DONE]\n\n")


@pytest.fixture(scope="module")
def several() -> Iterator[Backend]:
    with raw_server(lines) as (url, _):
        yield Backend("lines", "several-lines", url=url)


# Name, what is stated with each piece, and what is booked for it: the tokens and whether they are
# estimated.
COUNTS = (
    ("first", (1, None, None), 5, True),
    ("same", (1, 1, 1), 5, True),
    ("each", (1, 2, 3), 3, False),
    ("last", (None, None, 4), 4, False),
)


@pytest.fixture(scope="module")
def counts() -> Iterator[tuple[Backend, ...]]:
    with contextlib.ExitStack() as servers:
        yield tuple(
            Backend(
                name, f"counts-{name}", url=servers.enter_context(raw_server(counting(*said)))[0]
            )
            for name, said, _, _ in COUNTS
        )


@pytest.fixture(scope="module")
def dripping() -> Iterator[str]:
    with raw_server(drip) as (url, _):
        yield url


@pytest.fixture(scope="module")
def scene(
    stage: Stage,
    dripping: str,
    several: Backend,
    counts: tuple[Backend, ...],
    halves: tuple[Backend, ...],
) -> Scene:
    slow = Backend("drip", "drip-by-drip", url=dripping)
    alone = (*CUTS, *CLAUDES, STALL, slow, several, *counts, *halves, *VARIANTS, TOOLS)
    keys = (
        *(Key(backend.name, (backend.name,)) for backend in alone),
        *(Key(backend.name, (backend.name, "spare")) for backend in EARLY),
        *(Key(f"{b.name}_or_spare", (b.name, "spare")) for b in (*CUTS, STALL)),
    )
    return stage((*alone, *EARLY, SPARE), keys)


def cut_short(scene: Scene, answer: Answer, error: str) -> None:
    """A terminal error after content: nobody else is asked, and what came is paid for."""
    assert answer.status == 200
    assert answer.broken, answer.events[-3:]
    assert answer.error is not None
    assert answer.error["code"] == error
    (record,) = scene.usage(answer.request_id)
    assert (record["outcome"], record["estimated"]) == ("error", 1)
    backend = scene.backends[record["backend"]]
    cost = backend.cost(record["prompt_tokens"], record["completion_tokens"])
    assert record["cost_nano"] == cost > 0


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("key", ["cut_{}", "cut_{}_or_spare"])
def test_a_stream_cut_after_its_first_content_ends_in_an_error(
    scene: Scene, how: str, key: str
) -> None:
    answer = scene.ask(key.format(how), completion(prompt(1), stream=True))
    assert answer.text == "w0" + "".join(f" w{number}" for number in range(1, 40))
    code = "upstream_error" if how == "rst" else "upstream_stream_truncated"
    cut_short(scene, answer, code)
    (attempt,) = scene.attempts(answer.request_id)
    (record,) = scene.usage(answer.request_id)
    assert record["completion_tokens"] >= attempt["completion_tokens"]


def test_a_broken_stream_is_counted_as_a_failure(scene: Scene) -> None:
    def served(status: str) -> float:
        counted = f'tollhouse_status="{status}"'
        lines = httpx.get(f"{scene.gateway.url}/metrics", timeout=30, **PLAIN).text.splitlines()
        requests = [line for line in lines if line.startswith("tollhouse_requests_total{")]
        return sum(float(line.split()[-1]) for line in requests if counted in line)

    failed, answered = served("5xx"), served("2xx")
    answer = scene.ask("cut_fin", completion(prompt(31), stream=True))
    assert answer.status == 200
    assert answer.broken
    assert (served("5xx"), served("2xx")) == (failed + 1, answered)


@pytest.mark.parametrize("how", HOWS)
def test_the_count_at_the_beginning_of_a_stream_is_not_that_of_its_end(
    scene: Scene, how: str
) -> None:
    answer = scene.ask(f"claude_{how}", chat("Hello", stream=True))
    assert answer.text.endswith(" w38")
    code = "upstream_error" if how == "rst" else "upstream_stream_truncated"
    cut_short(scene, answer, code)
    (attempt,) = scene.attempts(answer.request_id)
    (record,) = scene.usage(answer.request_id)
    assert record["prompt_tokens"] == attempt["prompt_tokens"]
    assert record["completion_tokens"] >= attempt["completion_tokens"] == 39


@pytest.mark.parametrize(("name", "said", "booked", "estimated"), COUNTS)
def test_text_that_came_after_the_last_count_is_estimated(
    scene: Scene, name: str, said: tuple[int | None, ...], booked: int, estimated: bool
) -> None:
    answer = scene.ask(name, completion(prompt(9), stream=True))
    assert answer.text == "letter" * len(said)
    assert answer.broken
    (record,) = scene.usage(answer.request_id)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (PROMPT_TOKENS, booked)
    assert record["estimated"] == estimated


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_before_its_first_content_fails_over(
    scene: Scene, how: str, stream: bool
) -> None:
    answer = scene.ask(f"early_{how}", completion(prompt(2), stream=stream))
    assert answer.complete, answer.body
    assert answer.text == TEXT
    assert answer.headers["x-tollhouse-backend"] == "spare"
    lost = scene.usage(answer.request_id, 2)[0]
    # The upstream had said 200: it read the prompt, so the prompt is counted as paid.
    assert (lost["outcome"], lost["estimated"]) == ("error", 1)
    assert lost["cost_nano"] >= scene.backends[f"early_{how}"].cost(16, 0)


@pytest.mark.parametrize("how", HOWS)
def test_a_body_cut_in_the_middle_fails_over(scene: Scene, how: str) -> None:
    answer = scene.ask(f"cut_{how}_or_spare", completion(prompt(3)))
    assert answer.complete
    assert answer.text == TEXT
    assert len(scene.usage(answer.request_id, 2)) == 2


def test_a_stall_in_the_middle_ends_in_an_error(scene: Scene) -> None:
    answer = scene.ask("stall_or_spare", completion(prompt(4), stream=True))
    assert answer.text == "w0 w1 w2"
    cut_short(scene, answer, "upstream_timeout")
    assert answer.seconds < 10
    (attempt,) = scene.ended(answer.request_id)
    assert attempt["cancelled_at"] is not None


def test_bytes_that_complete_no_event_do_not_prolong_the_wait(scene: Scene) -> None:
    answer = scene.ask("drip", completion(prompt(5), stream=True))
    assert answer.text == "Hello"
    cut_short(scene, answer, "upstream_timeout")
    assert answer.seconds < 10


MANY = [{"n": 2}, {"prompt": [prompt(10), prompt(11)]}]


@pytest.mark.parametrize("asked", MANY)
def test_a_stream_cut_before_all_of_its_choices_ends_in_an_error(
    scene: Scene, asked: dict[str, Any]
) -> None:
    answer = scene.ask("half_cut", completion(prompt(10), stream=True) | asked)
    assert answer.text == "first"
    assert not answer.done
    assert answer.error is not None
    assert answer.error["code"] == "upstream_stream_truncated"
    assert [record["outcome"] for record in scene.usage(answer.request_id)] == ["error"]


@pytest.mark.parametrize("asked", MANY)
@pytest.mark.parametrize("stream", [False, True])
def test_what_an_engine_says_that_ignores_n_is_passed_on_and_not_kept(
    scene: Scene, stream: bool, asked: dict[str, Any]
) -> None:
    key = "half_done" if stream else "half_body"
    for _ in range(2):
        answer = scene.ask(key, completion(prompt(10), stream=stream) | asked)
        assert answer.complete, answer.body
        assert (answer.text, answer.finishes) == ("first", ["stop"])
        assert answer.headers["x-tollhouse-cache"] == "miss"
        assert answer.headers["x-tollhouse-attempts"] == "1"
        assert [record["outcome"] for record in scene.usage(answer.request_id)] == ["ok"]


def test_events_of_several_lines_reach_the_client_whole(scene: Scene) -> None:
    for cache in ("miss", "hit"):
        answer = scene.ask("lines", completion(prompt(13), stream=True))
        assert answer.headers["x-tollhouse-cache"] == cache
        assert all(line.startswith(b"data: ") for line in answer.body.split(b"\n") if line)
        assert answer.complete
        assert answer.text == "Hello there"


def sound(scene: Scene, fault: str, answer: Answer) -> None:
    """A complete answer with its usage, exact or estimated and flagged."""
    assert answer.complete, answer.events or answer.body
    assert answer.text == TEXT
    assert answer.events.count(b"[DONE]") == len(answer.events[-1:])
    (record,) = scene.usage(answer.request_id)
    assert record["outcome"] == "ok"
    assert record["estimated"] == (fault in ESTIMATED)
    assert 0 < record["prompt_tokens"] < 100
    assert 6 <= record["completion_tokens"] < 20
    backend = scene.backends[record["backend"]]
    assert record["cost_nano"] == backend.cost(record["prompt_tokens"], record["completion_tokens"])


def clean_error(scene: Scene, answer: Answer, fault: str) -> None:
    """An error that a client can read, and never an empty or cut answer."""
    if answer.events:
        assert answer.broken, answer.events
    else:
        assert answer.status >= 500
        assert answer.error is not None
        assert set(answer.error) == {"message", "type", "param", "code"}
    records = scene.usage(answer.request_id)
    assert {record["outcome"] for record in records} == {"error"}
    assert len(records) <= 3
    # The upstream had answered 200 and charged for it, so it is booked: as the upstream stated
    # it, or estimated where nothing that could be read did.
    assert all(record["estimated"] == (fault != "nofinish") for record in records)
    assert all(record["cost_nano"] > 0 for record in records)


@pytest.mark.parametrize("fault", sorted(STREAM_FAULTS))
def test_a_malformed_stream_is_kept_or_ends_in_an_error(scene: Scene, fault: str) -> None:
    body = completion(prompt(6), stream=True, stream_options={"include_usage": True})
    answer = scene.ask(f"{fault}_stream", body)
    if fault in KEPT_STREAMS:
        sound(scene, fault, answer)
        assert answer.usage is not None
    else:
        clean_error(scene, answer, fault)
    for data in answer.events:
        assert data == b"[DONE]" or json.loads(data)


def test_an_answer_of_which_an_event_was_left_out_is_not_served_again(scene: Scene) -> None:
    for _ in range(2):
        answer = scene.ask("malformed_stream", completion(prompt(14), stream=True))
        assert answer.complete
        assert answer.headers["x-tollhouse-cache"] == "miss"


@pytest.mark.parametrize("fault", sorted(STREAM_FAULTS))
def test_a_malformed_body_is_kept_or_refused(scene: Scene, fault: str) -> None:
    answer = scene.ask(f"{fault}_whole", completion(prompt(7)))
    assert answer.json
    if fault in KEPT_BODIES:
        sound(scene, fault, answer)
    else:
        clean_error(scene, answer, fault)


def test_a_tool_call_with_a_wrong_index_is_passed_on_whole(scene: Scene) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
    answer = scene.ask("tools", chat("add 3", stream=True, tools=[tool]))
    assert answer.complete
    assert answer.finishes == ["tool_calls"]
    deltas = [choice["delta"] for chunk in answer.chunks for choice in chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    assert "".join(call["function"].get("arguments") or "" for call in calls) == '{"a":3}'


def test_the_worker_is_none_the_worse(scene: Scene) -> None:
    answer = scene.ask("early_fin", completion(prompt(8)))
    assert answer.complete
    for name in ("cut_rst", "early_fin", "html_whole", "hugeusage_stream"):
        scene.balanced(name)
