"""Many streams at once, a stop in the middle of them, and two tenants beside each other."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import (
    PROMPT_TOKENS,
    Backend,
    Key,
    Raw,
    Scene,
    chat,
    completion,
    eventually,
    prompt,
    read_events,
)

STREAMS = 500
PIECES = 25
STEADY = Backend("steady", f"tokens={PIECES},chunk=80ms")
SLOW = Backend("slow", "tokens=40,chunk=75ms")
QUICK = Backend("quick", "tokens=3,chunk=1ms")
PATIENT = "connect = 5.0, first_token = 40.0, idle = 40.0, total = 90.0"


def patient(backend: Backend) -> Backend:
    return Backend(backend.name, backend.fault, timeouts=PATIENT)


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    keys = (
        Key("steady", ("steady",)),
        Key("slow", ("slow",)),
        Key("one", ("quick",), more='org = "one"\nteam = "blue"'),
        Key("two", ("quick",), more='org = "two"\nteam = "blue"'),
        Key("poor", ("quick",), 0.000000001, more='org = "three"'),
    )
    # The streams begin in one burst, on a machine that may be running other tests beside them.
    extra = "[store]\ndeadline_ms = 5000.0"
    return stage((patient(STEADY), patient(SLOW), patient(QUICK)), keys, extra=extra)


@pytest.fixture(scope="module")
def second(stage: Stage) -> Scene:
    """Another gateway with a store and a database of its own."""
    return stage((patient(QUICK),), (Key("one", ("quick",), more='org = "one"'),))


def expected(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


async def stream(scene: Scene, key: str, number: int) -> str:
    raw = await Raw.connect(scene.gateway)
    try:
        await raw.send(
            scene.gateway.keys[key], completion(prompt(number), stream=True, max_tokens=60)
        )
        status = await raw.head()
        assert status == 200, await raw.rest()
        return text_of(await raw.body())
    finally:
        await raw.close()


def text_of(data: bytes) -> str:
    """The text of a stream that ended well."""
    *events, last = read_events(data)
    assert last == b"[DONE]"
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    assert choices[-1]["finish_reason"] == "stop"
    return "".join(choice["text"] for choice in choices)


async def test_five_hundred_streams_in_one_worker(scene: Scene) -> None:
    (upstream,) = scene.upstreams.values()
    texts = asyncio.gather(*(stream(scene, "steady", number) for number in range(STREAMS)))
    most = 0
    while not texts.done():
        found = await asyncio.to_thread(upstream.stats)
        most = max(most, found["in_flight"])
        await asyncio.sleep(0.1)
    assert set(await texts) == {expected(PIECES)}
    assert most > STREAMS / 2
    spent = await asyncio.to_thread(scene.balanced, "steady")
    assert spent == STREAMS * STEADY.cost(PROMPT_TOKENS, PIECES) == scene.charged("steady")


def test_two_tenants_share_nothing(scene: Scene) -> None:
    first = scene.ask("one", chat("A secret of the first"))
    second = scene.ask("two", chat("A secret of the first"))
    assert first.complete
    assert second.complete
    assert second.headers["x-tollhouse-cache"] == "miss"
    assert scene.balanced("one") == scene.usage(first.request_id)[0]["cost_nano"]
    assert scene.balanced("two") == scene.usage(second.request_id)[0]["cost_nano"]
    assert scene.usage(first.request_id)[0]["org"] == "one"
    assert scene.usage(second.request_id)[0]["org"] == "two"
    # A budget that is used up stops its own tenant only.
    assert scene.ask("poor", chat("Too dear")).status == 402
    assert scene.ask("one", chat("Still there")).complete


def test_two_gateways_share_nothing(scene: Scene, second: Scene) -> None:
    body = chat("Is anybody there?")
    assert scene.ask("one", body).complete
    answer = second.ask("one", body)
    assert answer.complete
    assert answer.headers["x-tollhouse-cache"] == "miss"
    with second.gateway.client(scene.gateway.keys["one"]) as client:
        refused = client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 401
    assert second.balanced("one") == second.usage(answer.request_id)[0]["cost_nano"]


async def test_a_stop_lets_open_streams_end(stage: Stage) -> None:
    scene = stage((patient(SLOW),), (Key("slow", ("slow",)),))
    streams = [asyncio.create_task(stream(scene, "slow", number)) for number in range(20)]
    (upstream,) = scene.upstreams.values()

    def under_way() -> bool:
        return bool(upstream.stats()["in_flight"] >= len(streams))

    assert await asyncio.to_thread(eventually, under_way, 30)
    children = scene.gateway.process.children()
    scene.gateway.process.signal(signal.SIGTERM)
    assert set(await asyncio.gather(*streams)) == {expected(40)}
    assert await asyncio.to_thread(scene.gateway.process.wait, 30) == 0
    # Everything is filed, and nothing that it started is left.
    assert scene.recorded("slow") == len(streams) * SLOW.cost(PROMPT_TOKENS, 40)
    assert await asyncio.to_thread(
        eventually, lambda: not any(child.is_running() for child in children)
    )
