"""What is held when a request goes on to its next candidate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gateway.ledger import Entered, Reserve
from gateway.limits import Gate
from routers.types import Candidate


class PickyLedger:
    """Holds the cost at `indexes`, one for each request for money, and keeps the requests."""

    def __init__(self, *indexes: int) -> None:
        self._indexes = iter(indexes)
        self.asked: list[tuple[tuple[int, ...], int]] = []

    async def reserve(self, request: Reserve) -> Entered:
        self.asked.append((request.costs, request.booked))
        return Entered("ok", 0.0, index=next(self._indexes))


def gate(ledger: PickyLedger) -> Gate:
    store = SimpleNamespace(lease=60.0, on_failure="closed")
    config = SimpleNamespace(store=store, cache=SimpleNamespace(enabled=False))
    runtime = SimpleNamespace(ledger=ledger, config=config)
    return Gate(runtime, SimpleNamespace(draft=lambda ex, first: b"draft"))  # type: ignore[arg-type]


def exchange(held: int) -> Any:
    return SimpleNamespace(
        inbound=SimpleNamespace(request_id="req_1"),
        principal=SimpleNamespace(org="acme", scopes=()),
        entered=Entered("ok", 0.0),
        audit=False,
        recorded=False,
        held=held,
        spent=0,
    )


def plan(*costs: int) -> tuple[Candidate, ...]:
    return tuple(Candidate("b", f"m{at}", "local", worst_cost=c) for at, c in enumerate(costs))


async def test_what_is_held_already_pays_for_the_next_one() -> None:
    ledger = PickyLedger()
    ex = exchange(held=100)
    assert await gate(ledger).move(ex, plan(100, 500)) == 0
    assert (ledger.asked, ex.held) == ([], 100)


async def test_what_failed_is_held_besides_the_next_one() -> None:
    ledger = PickyLedger(0)
    ex = exchange(held=100)
    ex.spent = 1
    assert await gate(ledger).move(ex, plan(100)) == 0
    assert (ledger.asked, ex.held) == ([((100,), 1)], 101)


async def test_where_less_was_held_for_a_cheaper_one_more_is_asked_for_the_one_after_it() -> None:
    ledger = PickyLedger(1, 0)
    ex = exchange(held=100)
    ex.spent = 50
    candidates = plan(500, 10, 40)
    assert await gate(ledger).move(ex, candidates) == 1
    assert ex.held == 60
    assert await gate(ledger).move(ex, candidates[2:]) == 0
    assert (ledger.asked, ex.held) == ([((500, 10, 40), 50), ((40,), 50)], 90)
