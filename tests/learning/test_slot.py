"""Replacing a router while it scores."""

from __future__ import annotations

import asyncio

from gateway.learning import RouterSlot
from routers.types import Query, Score, Turn

QUERY = Query((Turn("user", "hello"),))


class Slow:
    """Scores when told to; counts what it is doing, and says when it is used after its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go = asyncio.Event()
        self.calls = 0
        self.closed = False

    async def score(self, query: Query, *, deadline: float) -> Score:
        assert not self.closed
        self.calls += 1
        try:
            await self.go.wait()
        finally:
            self.calls -= 1
        assert not self.closed
        return Score(p_local_ok=0.5, p_frontier_ok=0.5, model=self.name)

    def detect(self, text: str) -> frozenset[str]:
        assert not self.closed
        return frozenset({self.name})

    def describe(self) -> dict[str, object]:
        return {"model": self.name}

    def stats(self) -> dict[str, object]:
        return {"calls": self.calls}

    async def aclose(self) -> None:
        assert not self.calls
        self.closed = True


async def test_calls_end_where_they_began_and_new_ones_go_to_the_new_router() -> None:
    old, new = Slow("old"), Slow("new")
    slot = RouterSlot(old)
    early = [asyncio.create_task(slot.score(QUERY, deadline=1)) for _ in range(3)]
    await asyncio.sleep(0)
    swapping = asyncio.create_task(slot.swap(new))
    await asyncio.sleep(0)
    late = asyncio.create_task(slot.score(QUERY, deadline=1))
    await asyncio.sleep(0)
    assert (old.calls, new.calls) == (3, 1)
    assert (slot.name, slot.describe(), slot.stats()) == ("new", {"model": "new"}, {"calls": 1})
    assert slot.detect("text") == {"new"}
    new.go.set()
    assert (await late).model == "new"
    assert not old.closed
    assert not swapping.done()
    old.go.set()
    assert {(await call).model for call in early} == {"old"}
    await swapping
    assert old.closed
    assert not new.closed
    await slot.aclose()
    assert new.closed


async def test_a_call_that_is_cancelled_does_not_keep_the_old_router() -> None:
    old = Slow("old")
    slot = RouterSlot(old)
    call = asyncio.create_task(slot.score(QUERY, deadline=1))
    await asyncio.sleep(0)
    swapping = asyncio.create_task(slot.swap(Slow("new")))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await swapping
    assert old.closed


async def test_many_swaps_under_load_lose_no_call() -> None:
    slot = RouterSlot(Slow("r0"))
    scored: list[str] = []

    async def ask() -> None:
        for _ in range(50):
            router = slot.router
            assert isinstance(router, Slow)
            router.go.set()
            scored.append((await slot.score(QUERY, deadline=1)).model)
            await asyncio.sleep(0)

    async def change() -> None:
        for i in range(1, 20):
            fresh = Slow(f"r{i}")
            fresh.go.set()
            await slot.swap(fresh)
            await asyncio.sleep(0)

    await asyncio.gather(change(), *(ask() for _ in range(8)))
    assert len(scored) == 400
    assert len(set(scored)) > 5
    assert slot.swaps == 19
