"""Rows 1 to 5: an upstream that fails before its answer has begun."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import PROMPT_TOKENS, Backend, Key, Scene, completion, prompt

FAULTS = {
    "limited_once": "status=429,retry_after=2,times=1,tokens=3",
    "limited_long": "status=429,retry_after=60,tokens=3",
    "limited": "status=429,tokens=3",
    "unavailable": "status=503,tokens=3",
    "overloaded": "status=529,tokens=3",
    "failed_once": "status=500,times=1,tokens=3",
    "reset_once": "reset,times=1,tokens=3",
    "silent": "hang",
    "late": "first_token=6s,tokens=3",
    "slow_headers": "latency=6s,tokens=3",
}
SPARE = Backend("spare", "tokens=4", input=2.0, output=8.0)
DEADLINE = 6.0
PATIENT = "connect = 2.0, first_token = 60.0, idle = 60.0, total = 60.0"
ENDLESS = (
    Backend("never", "hang,tokens=2", timeouts=PATIENT),
    Backend("endless", "tokens=5000,chunk=50ms", timeouts=PATIENT),
)
TOTAL = "connect = 2.0, first_token = 1.5, idle = 1.0, total = 2.0"
PRIMARIES = tuple(Backend(name, fault) for name, fault in FAULTS.items())
WHOLE = (Backend("silent_whole", "hang,tokens=1", timeouts=TOTAL),)


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    primaries = (*PRIMARIES, *WHOLE)
    keys = (
        *(Key(backend.name, (backend.name, "spare")) for backend in primaries),
        *(Key(backend.name, (backend.name,)) for backend in ENDLESS),
    )
    return stage(
        (*primaries, *ENDLESS, SPARE), keys, extra=f"[server]\nrequest_deadline = {DEADLINE}"
    )


def models(scene: Scene, request_id: str) -> list[str]:
    by_upstream = {b.upstream: name for name, b in scene.backends.items()}
    return [by_upstream[row["model"]] for row in scene.attempts(request_id)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_that_names_its_end_is_waited_for(scene: Scene, stream: bool) -> None:
    for upstream in scene.upstreams.values():
        upstream.reset()
    answer = scene.ask("limited_once", completion(prompt(stream), stream=stream))
    assert answer.complete, answer.body
    first, second = scene.attempts(answer.request_id)
    assert [first["status"], second["status"]] == [429, 200]
    # The upstream's clock: it asked for two seconds and got them, or another answered at once.
    assert second["started"] - first["started"] >= 2.0
    assert answer.headers["x-tollhouse-backend"] == "limited_once"
    assert answer.headers["x-tollhouse-attempts"] == "2"


def test_a_rate_limit_that_ends_too_late_is_not_waited_for(scene: Scene) -> None:
    answer = scene.ask("limited_long", completion(prompt(1)))
    assert answer.complete
    assert models(scene, answer.request_id) == ["limited_long", "spare"]


@pytest.mark.parametrize("name", ["limited", "unavailable", "overloaded"])
def test_the_fallback_answers_for_a_primary_that_keeps_refusing(scene: Scene, name: str) -> None:
    answer = scene.ask(name, completion(prompt(2), stream=True))
    assert answer.complete
    asked = models(scene, answer.request_id)
    assert asked[-1] == "spare"
    assert 2 <= len(asked) <= 3
    assert set(asked[:-1]) == {name}
    refused = scene.usage(answer.request_id, len(asked))[:-1]
    assert [row["cost_nano"] for row in refused] == [0] * len(refused)


@pytest.mark.parametrize("name", ["failed_once", "reset_once"])
def test_one_retry_brings_the_answer(scene: Scene, name: str) -> None:
    answer = scene.ask(name, completion(prompt(3), stream=True))
    assert answer.complete
    assert models(scene, answer.request_id) == [name, name]
    assert answer.text == "w0 w1 w2"


def test_silence_costs_one_first_token_timeout(scene: Scene) -> None:
    answer = scene.ask("silent", completion(prompt(4), stream=True))
    assert answer.complete
    assert models(scene, answer.request_id) == ["silent", "spare"]
    loser, winner = scene.usage(answer.request_id, 2)
    assert (loser["outcome"], loser["error"]) == ("error", "first_token_timeout")
    assert (winner["outcome"], winner["backend"]) == ("ok", "spare")
    assert answer.seconds < DEADLINE + 1


def test_silence_costs_one_timeout_without_a_stream_too(scene: Scene) -> None:
    answer = scene.ask("silent_whole", completion(prompt(5)))
    assert answer.complete
    assert models(scene, answer.request_id)[-1] == "spare"
    loser, _ = scene.usage(answer.request_id, 2)
    assert loser["error"] == "upstream_timeout"


@pytest.mark.parametrize("name", ["late", "slow_headers"])
def test_a_late_first_token_loses_is_cancelled_and_paid_for(scene: Scene, name: str) -> None:
    answer = scene.ask(name, completion(prompt(6), stream=True))
    assert answer.complete
    assert answer.text == "w0 w1 w2 w3"
    assert models(scene, answer.request_id) == [name, "spare"]
    late, _ = scene.ended(answer.request_id)
    assert late["cancelled_at"] is not None
    loser, winner = scene.usage(answer.request_id, 2)
    assert loser["estimated"] == 1
    assert loser["cost_nano"] == scene.backends[name].cost(PROMPT_TOKENS, 0)
    assert winner["cost_nano"] == SPARE.cost(PROMPT_TOKENS, 4)
    assert scene.balanced(name) == loser["cost_nano"] + winner["cost_nano"]


def test_a_request_ends_at_its_deadline(scene: Scene) -> None:
    calls = [
        ("never", completion(prompt(7))),
        ("never", completion(prompt(7), stream=True)),
        ("endless", completion(prompt(7), stream=True)),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        whole, silent, endless = pool.map(lambda call: scene.ask(*call), calls)
    for answer in (whole, silent):
        assert answer.status == 504
        assert answer.error is not None
    assert endless.status == 200
    assert endless.broken
    assert endless.text.startswith("w0 w1 w2")
    for answer in (whole, silent, endless):
        # The second is the guarantee; the rest is for a loaded machine.
        assert DEADLINE - 1 < answer.seconds < DEADLINE + 5
        (attempt,) = scene.ended(answer.request_id)
        assert attempt["cancelled_at"] is not None
    assert scene.balanced("never") >= scene.charged("never")
    assert scene.balanced("endless") > 0
