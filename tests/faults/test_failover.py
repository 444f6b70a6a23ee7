"""Rows 9 and 11 to 13: who else is asked, who never is, and who is paid."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import (
    PROMPT_TOKENS,
    Backend,
    Key,
    Scene,
    chat,
    completion,
    eventually,
    prompt,
    raw_server,
)
from tests.support import free_port

SMALL = Backend("small", "context,tokens=2", window=1000)
SAME = Backend("same", "context,tokens=3", window=1000)
LARGE = Backend("large", "tokens=5", window=9000, input=3.0, output=12.0)
FULL = Backend("full", "context,tokens=6", window=9000)
HUGE = Backend("huge", "tokens=8", window=90_000)
FILTERED = Backend("filtered", "filter")
SPARE = Backend("spare", "tokens=7", input=2.0, output=8.0)
FAILING = Backend("failing", "status=500,tokens=9", input=30.0, output=60.0)
FAILED_ONCE = Backend("failed_once", "status=500,times=1,tokens=9", input=5.0, output=20.0)
LATE = Backend("late", "first_token=5s,tokens=9", input=10.0, output=40.0)
DEAR = Backend("dear", "tokens=7,latency=1ms", input=10.0, output=40.0)
SLOW = Backend("slow", "latency=3s,tokens=9", timeouts="first_token = 20.0, total = 20.0")
FRONTIER = Backend("frontier", "tokens=10", tier="frontier", jurisdiction="us")
# What two attempts may cost of which the first gives no answer.
TWICE = LATE.cost(PROMPT_TOKENS, 0) + DEAR.cost(PROMPT_TOKENS, 7)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[str, list[bytes]]]:
    """A host that nobody may be led to."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with raw_server(answer) as server:
        yield server


@pytest.fixture(scope="module")
def redirecting(elsewhere: tuple[str, list[bytes]]) -> Iterator[str]:
    head = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere[0]}/v1/completions\r\n"

    def answer(connection: socket.socket) -> None:
        connection.sendall(head.encode() + b"content-length: 0\r\n\r\n")

    with raw_server(answer) as (url, _):
        yield url


@pytest.fixture(scope="module")
def scene(stage: Stage, redirecting: str) -> Scene:
    nobody = f"http://127.0.0.1:{free_port()}"
    down = Backend("down", "down", url=nobody)
    down_too = Backend("down_too", "down-too", url=nobody)
    unreachable = [Backend(name, name, url=nobody) for name in ("nowhere", "nowhere_too")]
    moved = Backend("moved", "moved", url=redirecting)
    backends = (SMALL, SAME, LARGE, FULL, HUGE, FILTERED, FAILING, FAILED_ONCE, LATE, DEAR, SLOW)
    keys = (
        Key("context", ("small", "same", "large")),
        Key("context_twice", ("small", "full", "huge")),
        Key("filter", ("filtered", "spare")),
        Key("accounts", ("failing", "failed_once", "spare")),
        Key("failing", ("failing", "spare")),
        Key("failed_once", ("failed_once", "spare")),
        Key("late", ("late", "spare")),
        Key("pays_twice", ("late", "dear"), TWICE / 1e9),
        Key("pays_once", ("late", "dear"), (TWICE - 1) / 1e9),
        Key("down", ("down", "down_too")),
        *(Key(backend.name, (backend.name,)) for backend in unreachable),
        Key("down_or_frontier", ("down", "frontier")),
        Key("audited", ("slow",)),
        Key("redirect", ("moved",)),
        Key("redirect_or_spare", ("moved", "spare")),
    )
    return stage((*backends, down, down_too, *unreachable, moved, SPARE, FRONTIER), keys)


@pytest.mark.parametrize("stream", [False, True])
def test_a_context_that_is_too_long_goes_to_a_larger_model(scene: Scene, stream: bool) -> None:
    answer = scene.ask("context", completion(prompt(stream), stream=stream))
    assert answer.complete, answer.body
    assert answer.headers["x-tollhouse-backend"] == "large"
    asked = [row["model"] for row in scene.attempts(answer.request_id)]
    assert asked == [SMALL.upstream, LARGE.upstream]


def test_a_larger_model_is_asked_once(scene: Scene) -> None:
    answer = scene.ask("context_twice", completion(prompt(1)))
    assert answer.status == 400
    assert answer.error is not None
    assert answer.error["code"] == "context_length_exceeded"
    asked = [row["model"] for row in scene.attempts(answer.request_id)]
    assert asked == [SMALL.upstream, FULL.upstream]


@pytest.mark.parametrize("stream", [False, True])
def test_a_content_filter_is_not_routed_around(scene: Scene, stream: bool) -> None:
    answer = scene.ask("filter", completion(prompt(stream), stream=stream))
    assert answer.status == 400
    assert answer.error is not None
    assert answer.error["code"] == "content_policy_violation"
    assert answer.headers["x-should-retry"] == "false"
    assert [row["model"] for row in scene.attempts(answer.request_id)] == [FILTERED.upstream]


@pytest.mark.parametrize("stream", [False, True])
def test_who_answered_is_named_and_paid(scene: Scene, stream: bool) -> None:
    answer = scene.ask("failing", completion(prompt(2), stream=stream))
    assert answer.complete
    assert answer.headers["x-tollhouse-backend"] == "spare"
    assert answer.headers["x-tollhouse-model"] == "m"
    *lost, won = scene.usage(answer.request_id, int(answer.headers["x-tollhouse-attempts"]))
    assert (won["backend"], won["tier"], won["outcome"]) == ("spare", "local", "ok")
    assert (won["prompt_tokens"], won["completion_tokens"]) == (PROMPT_TOKENS, 7)
    assert won["cost_nano"] == SPARE.cost(PROMPT_TOKENS, 7)
    assert [row["cost_nano"] for row in lost] == [0] * len(lost)
    if not stream:
        usd = float(answer.headers["x-tollhouse-cost-usd"])
        assert round(usd * 1e9) == won["cost_nano"]


def test_a_loser_is_booked_at_its_own_price(scene: Scene) -> None:
    answer = scene.ask("late", completion(prompt(3), stream=True))
    assert answer.complete
    loser, winner = scene.usage(answer.request_id, 2)
    assert loser["cost_nano"] == LATE.cost(PROMPT_TOKENS, 0)
    assert winner["cost_nano"] == SPARE.cost(PROMPT_TOKENS, 7)
    scene.ended(answer.request_id)


def test_what_an_attempt_has_cost_is_paid_besides_the_next_one(scene: Scene) -> None:
    first, second = (completion(prompt(n), stream=True, max_tokens=7) for n in (30, 31))
    assert scene.ask("pays_twice", first).complete
    assert scene.balanced("pays_twice") == TWICE
    answer = scene.ask("pays_once", second)
    assert answer.status == 402
    assert [row["model"] for row in scene.ended(answer.request_id)] == [LATE.upstream]
    assert scene.balanced("pays_once") == LATE.cost(PROMPT_TOKENS, 0)


def test_ledger_records_and_upstream_agree(scene: Scene) -> None:
    """After everything that this file has asked of these keys."""
    for number in range(10, 20):
        # This one first, so that its one failure does not use up the attempts of the other.
        assert scene.ask("failed_once", completion(prompt(number))).complete
        assert scene.ask("accounts", completion(prompt(number), stream=number % 2 == 0)).complete
    # Every key that may use one of these backends.
    keys = ("accounts", "failing", "failed_once", "late", "filter", "redirect_or_spare")
    spent = sum(scene.balanced(key) for key in (*keys, "pays_twice", "pays_once"))
    assert spent == scene.charged("failing", "failed_once", "late", "dear", "spare") > 0


def test_all_backends_down_is_a_fast_503(scene: Scene) -> None:
    for number in range(6):
        answer = scene.ask("down", chat(f"down {number}"))
        assert answer.status == 503
    answer = scene.ask("down", chat("down at last"))
    assert answer.status == 503
    assert answer.error is not None
    assert answer.error["code"] == "backends_unavailable"
    assert "retry-after" in answer.headers
    assert answer.seconds < 5
    assert scene.balanced("down") == 0


@pytest.mark.parametrize(("name", "stream"), [("nowhere", False), ("nowhere_too", True)])
def test_an_unreachable_backend_is_named(scene: Scene, name: str, stream: bool) -> None:
    answer = scene.ask(name, chat("anybody there?", stream=stream))
    assert answer.status == 503
    assert answer.error is not None
    assert answer.error["code"] == "upstream_unreachable"
    assert answer.error["message"] == f"{name}: cannot connect to the upstream"
    told = {
        name: answer.headers.get(f"x-tollhouse-{name}") for name in ("backend", "model", "tier")
    }
    assert told == {"backend": name, "model": "m", "tier": "local"}
    assert int(answer.headers["x-tollhouse-attempts"]) >= 1
    assert answer.headers["x-tollhouse-reason"]
    assert "x-tollhouse-overhead-ms" in answer.headers
    # Where it is, only the operator is told.
    assert b"127.0.0.1" not in answer.body


def test_the_log_names_what_cannot_be_reached_and_why_a_few_times(scene: Scene) -> None:
    for number in range(50):
        assert scene.ask("nowhere", chat(f"anybody there? {number}")).status == 503
    lines = [line for line in scene.gateway.process.lines if "backend nowhere at " in line]
    assert all("WARNING" in line for line in lines)
    first, second, *more = lines
    assert re.search(r"nowhere at 127\.0\.0\.1:\d+: connect_failed \(Connection refused\)", first)
    assert "is not asked for 5 s" in second
    assert len(more) <= 1


@pytest.mark.parametrize("label", ["de", "eu", "phi"])
def test_a_label_is_not_widened_when_its_backends_are_down(scene: Scene, label: str) -> None:
    for number in range(7):
        answer = scene.ask(
            "down_or_frontier", chat(f"{label} {number}"), x_tollhouse_residency=label
        )
        assert answer.status == 503
        assert scene.attempts(answer.request_id) == []
    assert answer.error is not None
    assert answer.error["code"] == "backends_unavailable"
    decision = scene.decision(answer.request_id)
    assert decision is not None
    assert {row[1] for row in decision["rejected"]} >= {"residency"}
    # The same request without the label may go there.
    assert scene.ask("down_or_frontier", chat(f"{label} free")).complete


def test_a_label_that_no_backend_fulfils_is_refused(scene: Scene) -> None:
    for label in ("confidential", "no-such-label"):
        answer = scene.ask("redirect", chat("x", model="frontier/m"), x_tollhouse_residency=label)
        assert answer.status == 403
        assert answer.error is not None
        assert answer.error["code"] == "residency_not_available"
        assert label in answer.error["message"]
        assert scene.attempts(answer.request_id) == []


def test_the_decision_on_a_label_is_filed_before_the_answer(scene: Scene) -> None:
    (upstream,) = scene.upstreams.values()

    def asked() -> list[dict[str, Any]]:
        return [row for row in upstream.log() if row["model"] == SLOW.upstream]

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(scene.ask, "audited", chat("Wait"), x_tollhouse_residency="eu")
        assert eventually(lambda: bool(asked()))
        decision = scene.decision(asked()[0]["id"])
        assert asked()[0]["ended"] is None, "the answer came before its decision was looked for"
        assert decision is not None
        assert decision["labels"] == ["eu"]
        assert decision["audit"] is True
        assert answer.result().complete


def test_a_redirect_is_not_followed(scene: Scene, elsewhere: tuple[str, list[bytes]]) -> None:
    answer = scene.ask("redirect", completion(prompt(4)))
    assert answer.status == 502
    assert answer.error is not None
    assert elsewhere[0] not in answer.body.decode()
    answer = scene.ask("redirect_or_spare", completion(prompt(5), stream=True))
    assert answer.complete
    assert answer.headers["x-tollhouse-backend"] == "spare"
    assert elsewhere[1] == []
