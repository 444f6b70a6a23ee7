"""What is learnt outlives the worker, also when the worker stops while it saves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.config.model import TelemetryConfig
from gateway.exchange import Exchange
from gateway.learning import RouterSlot
from gateway.policies import Policies
from gateway.steering import Parts, Steering
from gateway.store import EmbeddedStore, Store, StoreSettings
from gateway.telemetry import Telemetry
from routers.base import FixedRouter
from routers.decide import ActivePolicy, filter_candidates
from routers.types import Candidate, Need, Policy, Score, Target

HALF = ActivePolicy("half", 1, Policy(target=Target(share=0.5)))


class Slow(Store):
    """Takes its time while `stuck`."""

    stuck = False

    async def command(self, *words: Any) -> Any:
        if self.stuck:
            await asyncio.sleep(30)
        return await super().command(*words)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Slow]:
    server = EmbeddedStore(tmp_path)
    server.start()
    client = Slow(StoreSettings(server.url, deadline_ms=20_000))
    yield client
    await client.aclose()
    server.stop()


def exchange() -> Exchange:
    """As far as steering looks."""
    need = Need(capabilities=frozenset(("chat",)))
    candidates = [
        Candidate(
            backend=tier, model="m", tier=tier, capabilities=need.capabilities, context_window=9999
        )
        for tier in ("local", "frontier")
    ]
    found = SimpleNamespace(
        filtered=filter_candidates(HALF, need, candidates),
        score=Score(p_local_ok=0.5, p_frontier_ok=0.9),
        active=HALF,
        principal=SimpleNamespace(key_id="k"),
        decision=None,
        ticket=None,
    )
    return cast(Exchange, found)


async def test_a_stop_in_the_middle_of_saving_saves_all_the_same(store: Slow) -> None:
    policies = cast(Policies, SimpleNamespace(active=lambda: [HALF]))
    slot = RouterSlot(FixedRouter(Score()))
    steering = Steering(
        Parts(policies, slot, store, Telemetry(TelemetryConfig(), "one"), lambda policy: ""),
        lambda: 1_800_000_000.0,
    )
    ex = exchange()
    steering.decide(ex, count=True)
    assert ex.ticket is not None
    store.stuck = True
    running = asyncio.create_task(steering.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.stuck = False
    await steering.aclose()
    assert await store.command("EXISTS", "th:steering:state:half") == 1
