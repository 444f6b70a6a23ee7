"""What the ledger is asked before a call, and what becomes of its answers and its silence."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.ledger import Budget, CannotProvision, Enter, Entered, Reserve, Scope
from gateway.limits import Gate
from gateway.records import RecordsError
from gateway.store.errors import StoreError, StoreTimeout, StoreUnavailable
from routers.types import Candidate, Decision, Need, Policy

BUDGET = Scope("key:abc", Budget(1000))


class FakeLedger:
    """Holds the cost at `indexes`, one for each request, and keeps the requests."""

    def __init__(self, *indexes: int) -> None:
        self._indexes = iter(indexes)
        self.reserved: list[Reserve] = []
        self.entered: list[Enter] = []

    async def reserve(self, request: Reserve) -> Entered:
        self.reserved.append(request)
        return Entered("ok", 0.0, index=next(self._indexes))

    async def enter(self, request: Enter) -> Entered:
        self.entered.append(request)
        return Entered("ok", 0.0)


class SilentLedger(FakeLedger):
    """Fails with `error`; without one it never answers."""

    def __init__(self, error: StoreError | None = None) -> None:
        super().__init__()
        self._error = error

    async def enter(self, request: Enter) -> Entered:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        raise AssertionError


class ForgetfulLedger(FakeLedger):
    """Has lost the books of a budget, until `provision`, which raises `error` if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(0)
        self._error = error
        self.provisioned: list[str] = []

    async def provision(self, principal: Any) -> None:
        if self._error is not None:
            raise self._error
        self.provisioned.append(principal.org)

    async def enter(self, request: Enter) -> Entered:
        self.entered.append(request)
        return self._answer()

    async def reserve(self, request: Reserve) -> Entered:
        self.reserved.append(request)
        return self._answer()

    def _answer(self) -> Entered:
        if self.provisioned:
            return Entered("ok", 0.0, index=0)
        return Entered("missing", 0.0, missing_scope="key:abc")


class FakeSettler:
    """`leases`: what will be settled, for the ledger may hold it."""

    def __init__(self) -> None:
        self.leases: list[Any] = []

    def took(self, ex: Any) -> None:
        self.leases.append(ex)

    def draft(self, ex: Any, first: Candidate) -> bytes:
        return b"draft"

    def audit_record(self, ex: Any) -> bytes:
        return b"audit"


def gate(
    ledger: FakeLedger, settler: FakeSettler | None = None, on_failure: str = "closed"
) -> Gate:
    store = SimpleNamespace(lease=60.0, on_failure=on_failure)
    config = SimpleNamespace(store=store, cache=SimpleNamespace(enabled=False))
    runtime: Any = SimpleNamespace(
        ledger=ledger,
        config=config,
        catalog=SimpleNamespace(note_share=lambda *_: None),
        keyring=ledger,
    )
    made: Any = settler or FakeSettler()
    return Gate(runtime, made)


def exchange(**more: Any) -> Any:
    values = {
        "inbound": SimpleNamespace(
            request_id="req_1", controls=SimpleNamespace(cache=SimpleNamespace(read=True))
        ),
        "principal": SimpleNamespace(org="acme", scopes=()),
        "active": SimpleNamespace(policy=Policy()),
        "need": Need(prompt_tokens=100, output_tokens=20, choices=3),
        "decision": None,
        "cache_key": None,
        "cache": "off",
        "entered": Entered("ok", 0.0),
        "audit": False,
        "recorded": False,
        "reserved": False,
        "held": 0,
        "spent": 0,
    }
    return SimpleNamespace(**(values | more))


def plan(*costs: int) -> tuple[Candidate, ...]:
    return tuple(Candidate("b", f"m{at}", "local", worst_cost=c) for at, c in enumerate(costs))


async def test_what_is_held_already_pays_for_the_next_candidate() -> None:
    ledger = FakeLedger()
    ex = exchange(held=100)
    assert await gate(ledger).move(ex, plan(100, 500)) == 0
    assert (ledger.reserved, ex.held) == ([], 100)


async def test_what_failed_is_held_besides_the_next_candidate() -> None:
    ledger = FakeLedger(0)
    ex = exchange(held=100, spent=1)
    assert await gate(ledger).move(ex, plan(100)) == 0
    (request,) = ledger.reserved
    assert (request.costs, request.booked, ex.held) == ((100,), 1, 101)


async def test_where_less_was_held_for_a_cheaper_one_more_is_asked_for_the_one_after_it() -> None:
    ledger = FakeLedger(1, 0)
    ex = exchange(held=100, spent=50)
    candidates = plan(500, 10, 40)
    assert await gate(ledger).move(ex, candidates) == 1
    assert ex.held == 60
    assert await gate(ledger).move(ex, candidates[2:]) == 0
    assert [request.costs for request in ledger.reserved] == [(500, 10, 40), (40,)]
    assert ex.held == 90


async def test_a_decision_is_recorded_with_the_first_reservation_only() -> None:
    ledger = FakeLedger(0, 0)
    ex = exchange(decision=Decision(plan(100, 200)), audit=True)
    await gate(ledger).reserve(ex)
    ex.spent = 50
    await gate(ledger).move(ex, plan(200))
    assert [request.audit for request in ledger.reserved] == [b"audit", None]


async def test_the_tokens_of_every_answer_asked_for_are_taken() -> None:
    ledger = FakeLedger()
    await gate(ledger).enter(exchange())
    assert [request.tokens for request in ledger.entered] == [100 + 3 * 20]


async def test_an_entry_that_may_have_run_unseen_will_be_settled() -> None:
    settler = FakeSettler()
    ex = exchange()
    asked = asyncio.create_task(gate(SilentLedger(), settler).enter(ex))
    await asyncio.sleep(0)
    assert settler.leases == []
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert settler.leases == [ex]


@pytest.mark.parametrize(
    ("error", "held"), [(StoreTimeout("late"), 1), (StoreUnavailable("no"), 0)]
)
async def test_only_a_store_that_was_reached_may_hold_something(
    error: StoreError, held: int
) -> None:
    settler = FakeSettler()
    with pytest.raises(GatewayError) as refused:
        await gate(SilentLedger(error), settler).enter(exchange())
    assert (refused.value.status, refused.value.code) == (503, "store_unavailable")
    assert len(settler.leases) == held


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, None),
        ({"audit": True}, "audit_unavailable"),
        ({"principal": SimpleNamespace(org="acme", scopes=(BUDGET,))}, "store_unavailable"),
    ],
    ids=["unbound", "audit", "budget"],
)
async def test_without_a_store_what_nothing_binds_may_go_on(
    more: dict[str, Any], code: str | None
) -> None:
    opened = gate(SilentLedger(StoreUnavailable("no")), on_failure="open")
    ex = exchange(**more)
    if code is None:
        assert await opened.enter(ex) is None
        assert (ex.entered, ex.cache) == (None, "unavailable")
        return
    with pytest.raises(GatewayError) as refused:
        await opened.enter(ex)
    assert refused.value.code == code


@pytest.mark.parametrize("at", ["entry", "reservation"])
async def test_lost_books_are_made_anew_and_the_request_goes_on(at: str) -> None:
    ledger = ForgetfulLedger()
    ex = exchange(decision=Decision(plan(100)))
    made = gate(ledger)
    await (made.enter(ex) if at == "entry" else made.reserve(ex))
    assert ledger.provisioned == ["acme"]
    assert len(ledger.entered if at == "entry" else ledger.reserved) == 2
    assert (ex.reserved, ex.held) == (True, 100)


@pytest.mark.parametrize("at", ["entry", "reservation"])
@pytest.mark.parametrize(
    "error", [CannotProvision("no"), StoreUnavailable("no"), RecordsError("no")]
)
async def test_books_that_cannot_be_made_stay_closed(error: Exception, at: str) -> None:
    ledger = ForgetfulLedger(error)
    ex = exchange(decision=Decision(plan(100)))
    made = gate(ledger)
    with pytest.raises(GatewayError) as refused:
        await (made.enter(ex) if at == "entry" else made.reserve(ex))
    assert (refused.value.status, refused.value.code) == (503, "ledger_unavailable")
    assert "key:abc" in refused.value.message
    assert (ex.reserved, ex.held) == (False, 0)
