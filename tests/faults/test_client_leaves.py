"""Row 18: the client goes away, at every point of a request."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from backends.local.engine import Engine, EngineSettings
from tests.faults.conftest import Stage
from tests.faults.scene import (
    Backend,
    Key,
    Raw,
    Scene,
    chat,
    completion,
    eventually,
    prompt,
)
from tests.support import PLAIN

# The target is half a second; a loaded test machine gets more.
GRACE = 5.0
PATIENT = "connect = 2.0, first_token = 60.0, idle = 60.0, total = 60.0"
SILENT = Backend("silent", "latency=50s,tokens=3", timeouts=PATIENT)
LATE = Backend("late", "first_token=50s,tokens=3", timeouts=PATIENT)
STREAM = Backend("stream", "tokens=3000,chunk=20ms", timeouts=PATIENT)
# Says at its beginning that it has given one token, and the rest at its end.
CLAUDE = Backend("claude", "tokens=3000,chunk=21ms", provider="anthropic", timeouts=PATIENT)
QUICK = Backend("quick", "tokens=3,latency=5ms")
BACKENDS = (SILENT, LATE, STREAM, CLAUDE, QUICK)
LEASE = 2.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    pytest.importorskip("xllamacpp", reason="needs the `local` extra")
    with Engine(EngineSettings(parallel=2)) as started:
        yield started


@pytest.fixture(scope="module")
def scene(stage: Stage, engine: Engine) -> Scene:
    llama = Backend("llama", "tiny", url=engine.base_url.removesuffix("/v1"), timeouts=PATIENT)
    backends = (*BACKENDS, llama)
    keys = tuple(
        Key(backend.name, (backend.name,), more="concurrency = 300") for backend in backends
    )
    extra = f"[store]\nlease = {LEASE}\n[retry]\nattempts = 1"
    return stage(backends, keys, extra=extra)


def bodies(**more: Any) -> list[dict[str, Any]]:
    return [chat("Hello there", **more), completion(prompt(1), **more)]


async def started(scene: Scene, backend: Backend, since: float) -> dict[str, Any]:
    """The upstream's entry for a call that began after `since`."""
    (upstream,) = scene.upstreams.values()
    found: list[dict[str, Any]] = []

    def there() -> bool:
        rows = upstream.log()
        found[:] = [r for r in rows if r["model"] == backend.upstream and r["started"] >= since]
        return bool(found)

    assert await asyncio.to_thread(eventually, there, 20)
    return found[-1]


async def cancelled(scene: Scene, attempt: dict[str, Any], left_at: float) -> None:
    """The upstream's call ends soon after the client left, and holds are given back."""
    (ended,) = await asyncio.to_thread(scene.ended, attempt["id"], GRACE)
    assert ended["cancelled_at"] is not None
    assert ended["cancelled_at"] - left_at < GRACE
    records = await asyncio.to_thread(scene.usage, attempt["id"])
    assert [record["outcome"] for record in records] == ["cancelled"]
    assert records[0]["estimated"] == 1


@pytest.mark.parametrize("backend", [SILENT, LATE], ids=["before headers", "before content"])
@pytest.mark.parametrize("body", bodies(stream=True), ids=["chat", "completions"])
async def test_before_the_first_token(scene: Scene, backend: Backend, body: dict[str, Any]) -> None:
    since = time.time()
    raw = await Raw.connect(scene.gateway)
    await raw.send(scene.gateway.keys[backend.name], body)
    attempt = await started(scene, backend, since)
    await cancelled(scene, attempt, await raw.close())
    spent = await asyncio.to_thread(scene.balanced, backend.name)
    assert spent >= scene.charged(backend.name)


@pytest.mark.parametrize(
    ("backend", "body"),
    [
        (STREAM, bodies(stream=True)[0]),
        (STREAM, bodies(stream=True)[1]),
        (CLAUDE, bodies(stream=True)[0]),
    ],
    ids=["chat", "completions", "messages"],
)
async def test_in_the_middle_of_a_stream(
    scene: Scene, backend: Backend, body: dict[str, Any]
) -> None:
    since = time.time()
    raw = await Raw.connect(scene.gateway)
    await raw.send(scene.gateway.keys[backend.name], body)
    await raw.until(b" w5")
    attempt = await started(scene, backend, since)
    await cancelled(scene, attempt, await raw.close())
    await asyncio.to_thread(scene.balanced, backend.name)
    # What the client had is paid for.
    (record,) = scene.usage(attempt["id"])
    assert record["completion_tokens"] >= 6
    assert record["cost_nano"] == backend.cost(record["prompt_tokens"], record["completion_tokens"])


@pytest.mark.parametrize("body", bodies(), ids=["chat", "completions"])
async def test_before_a_whole_answer(scene: Scene, body: dict[str, Any]) -> None:
    since = time.time()
    raw = await Raw.connect(scene.gateway)
    await raw.send(scene.gateway.keys["silent"], body)
    attempt = await started(scene, SILENT, since)
    await cancelled(scene, attempt, await raw.close())
    spent = await asyncio.to_thread(scene.balanced, "silent")
    assert spent >= scene.charged("silent")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_half_closed_connection_counts_as_gone(scene: Scene, stream: bool) -> None:
    since = time.time()
    raw = await Raw.connect(scene.gateway)
    await raw.send(scene.gateway.keys["silent"], chat("Half", stream=stream))
    attempt = await started(scene, SILENT, since)
    raw.half_close()
    await cancelled(scene, attempt, time.time())
    await raw.close()
    spent = await asyncio.to_thread(scene.balanced, "silent")
    assert spent >= scene.charged("silent")


async def test_before_the_request_is_whole(scene: Scene) -> None:
    since = time.time()
    for part in (0.0, 0.5):
        raw = await Raw.connect(scene.gateway)
        await raw.send(scene.gateway.keys["quick"], chat("Never sent"), part=part)
        await raw.close()
    answer = await asyncio.to_thread(scene.ask, "quick", chat("Sent"))
    assert answer.complete
    (upstream,) = scene.upstreams.values()
    rows = [row for row in upstream.log() if row["started"] >= since]
    assert [row["id"] for row in rows] == [answer.request_id]


async def test_at_any_moment_nothing_is_left_behind(scene: Scene) -> None:
    """Clients that leave at random moments, also while the ledger is being asked."""
    seeded = random.Random(18)
    key = scene.gateway.keys["quick"]

    async def leave(number: int, delay: float) -> None:
        raw = await Raw.connect(scene.gateway)
        await raw.send(key, completion(prompt(number), stream=number % 2 == 0))
        await asyncio.sleep(delay)
        await raw.close()

    for batch in range(10):
        delays = [seeded.uniform(0.0, 0.04) for _ in range(20)]
        await asyncio.gather(
            *(leave(batch * 20 + number, delay) for number, delay in enumerate(delays))
        )
    await asyncio.to_thread(scene.balanced, "quick")
    # A lease that had been forgotten would expire now and be booked in full.
    await asyncio.sleep(LEASE + 1.5)
    await asyncio.to_thread(scene.balanced, "quick")
    rows = scene.sql("SELECT outcome FROM usage_records WHERE outcome = 'lease_expired'")
    assert rows == []
    assert (await asyncio.to_thread(scene.ask, "quick", chat("Still there?"))).complete


def metrics(engine: Engine) -> dict[str, float]:
    root = engine.base_url.removesuffix("/v1")
    text = httpx.get(f"{root}/metrics", timeout=20, **PLAIN).text
    pairs = (line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("half", [False, True], ids=["close", "half-close"])
async def test_a_real_engine_stops_generating(scene: Scene, engine: Engine, half: bool) -> None:
    """Of a stream: this engine does not notice that the reader of a whole answer has gone."""
    wanted = 8000
    body = chat("Tell me a long story.", stream=True, max_tokens=wanted, ignore_eos=True)
    before = metrics(engine)["llamacpp:n_decode_total"]

    def processing() -> float:
        return metrics(engine)["llamacpp:requests_processing"]

    raw = await Raw.connect(scene.gateway)
    await raw.send(scene.gateway.keys["llama"], body)
    await raw.until(b"data: ")
    assert await asyncio.to_thread(eventually, lambda: processing() > 0, 10)
    if half:
        raw.half_close()
    else:
        await raw.close()
    assert await asyncio.to_thread(eventually, lambda: processing() == 0, GRACE)
    assert 0 < metrics(engine)["llamacpp:n_decode_total"] - before < wanted - 500
    await raw.close()
    await asyncio.to_thread(scene.balanced, "llama")
