"""Row 15: a worker is killed in the middle of many calls."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import psutil
import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import (
    PROMPT_TOKENS,
    Backend,
    Key,
    Raw,
    Scene,
    completion,
    eventually,
    prompt,
)

CALLS = 100
TOKENS = 60
LEASE = 2.0
# Only the prompt has a price: what a call may cost and what it costs are then the same, however
# far it came.
FLAT = Backend("flat", f"tokens={TOKENS},chunk=50ms", input=8.0, output=0.0)
METERED = Backend("metered", f"tokens={TOKENS},chunk=51ms", input=1.0, output=4.0)
REFUSING = Backend("refusing", "status=503,latency=1500ms,tokens=2")
DEAR = Backend("dear", "tokens=3", input=9.0, output=36.0)
WORKERS = 3


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    keys = (
        Key("flat", ("flat",)),
        Key("metered", ("metered",)),
        Key("frozen", ("refusing", "dear")),
    )
    return stage(
        (FLAT, METERED, REFUSING, DEAR), keys, workers=WORKERS, extra=f"[store]\nlease = {LEASE}"
    )


def workers(scene: Scene) -> dict[int, int]:
    """The processes that serve, with the number of their connections to the upstream."""
    ports = {urlsplit(upstream.url).port for upstream in scene.upstreams.values()}
    found = {}
    for child in scene.gateway.process.children():
        try:
            connections = child.net_connections("tcp")
        except psutil.Error:
            continue
        found[child.pid] = sum(1 for c in connections if c.raddr and c.raddr.port in ports)
    return {pid: count for pid, count in found.items() if count}


async def call(scene: Scene, key: str, number: int) -> str:
    """How one stream ended for the client."""
    raw = await Raw.connect(scene.gateway)
    body = completion(prompt(number), max_tokens=TOKENS, stream=True)
    try:
        await raw.send(scene.gateway.keys[key], body)
        assert await raw.head() == 200
        data = await raw.body()
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut"
    finally:
        await raw.close()
    assert data.endswith(b"data: [DONE]\n\n")
    return "complete"


async def test_the_books_are_right_after_a_kill(scene: Scene) -> None:
    calls = [
        asyncio.create_task(call(scene, key, number))
        for number in range(CALLS)
        for key in ("flat", "metered")
    ]
    (upstream,) = scene.upstreams.values()

    def under_way() -> bool:
        return bool(upstream.stats()["in_flight"] >= 2 * CALLS)

    assert await asyncio.to_thread(eventually, under_way, 30)
    found = await asyncio.to_thread(workers, scene)
    victim = max(found, key=lambda pid: found[pid])
    psutil.Process(victim).kill()
    ended = await asyncio.gather(*calls)
    assert ended.count("cut") == found[victim] > 0
    assert ended.count("complete") == 2 * CALLS - ended.count("cut")

    # Leases expire, and then nothing is held; ledger and records agree.
    flat = await asyncio.to_thread(scene.balanced, "flat")
    metered = await asyncio.to_thread(scene.balanced, "metered")
    assert flat == scene.charged("flat") == CALLS * FLAT.cost(PROMPT_TOKENS, 0)
    assert metered >= scene.charged("metered")
    log = [row for row in upstream.log() if row["id"]]
    lost = [row for row in log if row["cancelled_at"] is not None]
    assert len(lost) == ended.count("cut")
    worst = sum(
        METERED.cost(PROMPT_TOKENS, TOKENS - row["completion_tokens"]) - METERED.cost(16, 0)
        for row in lost
        if row["model"] == METERED.upstream
    )
    assert metered == scene.charged("metered") + worst
    # One record for each call, and what the dead worker left is told apart.
    rows = scene.sql("SELECT outcome, COUNT(*) AS n FROM usage_records GROUP BY outcome")
    outcomes = {row["outcome"]: row["n"] for row in rows}
    # A living worker that was starved for longer than its lease takes the expiry back.
    corrected = outcomes.pop("corrected", 0)
    cut, complete = ended.count("cut"), ended.count("complete")
    assert outcomes.pop("ok", 0) == complete
    assert outcomes == {"lease_expired": cut + corrected}


async def test_another_worker_takes_its_place(scene: Scene) -> None:
    def restarted() -> bool:
        return len(serving(scene)) >= WORKERS

    assert await asyncio.to_thread(eventually, restarted, 60), serving(scene)
    ended = await asyncio.gather(*(call(scene, "flat", 1000 + number) for number in range(12)))
    assert set(ended) == {"complete"}
    await asyncio.to_thread(scene.balanced, "flat")


def serving(scene: Scene) -> list[int]:
    """The processes that hold the listening socket, apart from their parent."""
    port = urlsplit(scene.gateway.url).port
    found = []
    for child in scene.gateway.process.children():
        try:
            connections = child.net_connections("tcp")
        except psutil.Error:
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            found.append(child.pid)
    return found


async def test_a_worker_that_stood_still_does_not_spend_what_it_lost(scene: Scene) -> None:
    """Frozen for longer than its lease, it may not take a dearer candidate without money."""
    raw = await Raw.connect(scene.gateway)
    await raw.send(scene.gateway.keys["frozen"], completion(prompt(1)))
    (upstream,) = scene.upstreams.values()

    def under_way() -> bool:
        return any(row["model"] == REFUSING.upstream for row in upstream.log())

    assert await asyncio.to_thread(eventually, under_way, 20)
    frozen = serving_peer(scene, raw.writer.get_extra_info("sockname")[1])
    frozen.suspend()
    try:
        expired = "SELECT 1 FROM usage_records WHERE key_id = ? AND outcome = 'lease_expired'"
        key = scene.key_id("frozen")
        assert await asyncio.to_thread(eventually, lambda: bool(scene.sql(expired, key)), 12)
    finally:
        frozen.resume()
    assert await raw.head() == 503
    assert json.loads(await raw.rest())["error"]["code"] == "lease_expired"
    await raw.close()
    models = [row["model"] for row in scene.attempts(raw.headers["x-request-id"])]
    assert set(models) == {REFUSING.upstream}
    # What the sweeper had booked in its absence is taken back.
    assert await asyncio.to_thread(scene.balanced, "frozen") == 0


def serving_peer(scene: Scene, port: int) -> psutil.Process:
    """The worker at the other end of our connection from this port."""
    for child in scene.gateway.process.children():
        if any(c.raddr and c.raddr.port == port for c in child.net_connections("tcp")):
            return child
    raise AssertionError("no worker has this connection")
