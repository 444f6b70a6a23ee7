"""The ledger against a model: any order of reserving, settling, expiring and time passing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gateway.ledger import (
    Budget,
    DuplicateRequest,
    Enter,
    LeaseExpired,
    Ledger,
    Reserve,
    Scope,
    Settlement,
)
from gateway.records import UsageRecord, encode_record
from gateway.records.outbox import parse_entry
from gateway.store import EmbeddedStore, Store, StoreSettings

LEASE = 50.0
SCOPES = (
    Scope("key:abc", Budget(100, "100")),
    Scope("team:ml", Budget(250, "300")),
    Scope("org:acme", Budget(1000, "total")),
)
costs = st.integers(0, 120)


class NoBooks:
    """Records in which nothing was spent."""

    async def mark(self, org: str, scope: str) -> bool:
        return True

    async def spent(self, org, scope, window, outbox) -> int:
        return 0


class Held:
    """The model's view of one request."""

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.state = "open"
        self.amount = 0
        self.booked = 0
        self.windows: dict[str, int] = {}


class LedgerMachine(RuleBasedStateMachine):
    url = ""
    requests = Bundle("requests")

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 3_000_000.0
        self.store = Store(StoreSettings(self.url, deadline_ms=20_000))
        self.ledger = Ledger(self.store, lambda: self.now, NoBooks())
        self.model: dict[str, Held] = {}
        self.spent: dict[tuple[str, int], int] = {}
        self.held: dict[tuple[str, int], int] = {}
        self.reached = {scope.id: self.number(scope) for scope in SCOPES}
        self.count = 0
        self.run(self.store.command("FLUSHALL"))
        for scope in SCOPES:
            self.run(self.ledger.provision("acme", scope))

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.store.aclose())
            self.loop.close()

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def number(self, scope: Scope) -> int:
        window = scope.budget.window
        return 0 if window == "total" else int(self.now // int(window))

    def current(self, scope: Scope) -> int:
        self.reached[scope.id] = max(self.reached[scope.id], self.number(scope))
        return self.reached[scope.id]

    def room(self, scope: Scope, window: int) -> int:
        key = (scope.id, window)
        return scope.budget.limit - self.spent.get(key, 0) - self.held.get(key, 0)

    def book(self, held: Held, spent: int, amount: int) -> None:
        for scope, window in held.windows.items():
            key = (scope, window)
            self.spent[key] = self.spent.get(key, 0) + spent - held.booked
            self.held[key] = self.held.get(key, 0) + amount - held.amount
        held.booked, held.amount = spent, amount

    def windows(self, held: Held) -> dict[str, int]:
        # An earlier window in which nothing is held any more is closed for good.
        kept = {s: w for s, w in held.windows.items() if self.held.get((s, w), 0)}
        return {scope.id: kept.get(scope.id, self.current(scope)) for scope in SCOPES}

    def expected(self, held: Held, wanted: tuple[int, ...], booked: int) -> int | None:
        windows = self.windows(held)
        for index, cost in enumerate(wanted):
            more = booked - held.booked - held.amount + cost
            if cost == 0 or all(more <= self.room(s, windows[s.id]) for s in SCOPES):
                return index
        return None

    @rule(target=requests, wanted=st.none() | st.tuples(costs, costs))
    def enter(self, wanted: tuple[int, ...] | None):
        self.count += 1
        id = f"r{self.count}"
        held = Held(self.now + LEASE)
        index = None if wanted is None else self.expected(held, wanted, 0)
        draft = encode_record(UsageRecord(f"{id}/1", id, self.now, "acme", key_id="abc"))
        entered = self.run(
            self.ledger.enter(Enter("acme", id, SCOPES, 0, LEASE, costs=wanted, draft=draft))
        )
        if wanted is not None and index is None:
            assert entered.outcome == "unaffordable"
            return multiple()
        assert (entered.outcome, entered.index) == ("ok", index)
        if wanted is not None:
            held.windows = self.windows(held)
            self.book(held, 0, wanted[index])
        self.model[id] = held
        return id

    @rule(id=requests, wanted=st.tuples(costs, costs), extra=st.integers(0, 30))
    def reserve(self, id: str, wanted: tuple[int, ...], extra: int) -> None:
        held = self.model[id]
        # A failed attempt costs no more than what was held for it.
        booked = held.booked + min(extra, held.amount)
        request = Reserve(
            "acme",
            id,
            SCOPES,
            wanted,
            LEASE,
            encode_record(UsageRecord(f"{id}/2", id, self.now, "acme", key_id="abc")),
            booked=booked,
        )
        if held.state != "open":
            with pytest.raises(LeaseExpired):
                self.run(self.ledger.reserve(request))
            return
        index = self.expected(held, wanted, booked)
        entered = self.run(self.ledger.reserve(request))
        if index is None:
            assert entered.outcome == "unaffordable"
            return
        assert (entered.outcome, entered.index) == ("ok", index)
        held.windows = self.windows(held)
        self.book(held, booked, wanted[index])
        held.ends = self.now + LEASE

    @rule(id=requests, share=st.floats(0, 1))
    def settle(self, id: str, share: float) -> None:
        held = self.model[id]
        most = held.amount + held.booked
        cost = held.booked + int((most - held.booked) * share)
        if held.state == "expired":
            cost = int(most * share)
        records = (encode_record(UsageRecord(f"{id}/s", id, self.now, "acme", cost_nano=cost)),)
        settled = self.run(self.ledger.settle(Settlement("acme", id, SCOPES, cost, 0, records)))
        assert settled.duplicate == (held.state == "settled")
        if held.state != "settled":
            self.book(held, cost, 0)
            held.state = "settled"

    @rule(id=requests)
    def enter_again(self, id: str) -> None:
        with pytest.raises(DuplicateRequest):
            self.run(self.ledger.enter(Enter("acme", id, SCOPES, 0, LEASE)))

    @rule(id=requests)
    def renew(self, id: str) -> None:
        held = self.model[id]
        gone = self.run(self.ledger.renew("acme", [id], LEASE))
        assert gone == ([] if held.state == "open" else [id])
        if held.state == "open":
            held.ends = self.now + LEASE

    @rule()
    def sweep(self) -> None:
        expired = set(self.run(self.ledger.sweep("acme", 1000)))
        due = {id for id, h in self.model.items() if h.state == "open" and h.ends <= self.now}
        assert expired == due
        for id in due:
            held = self.model[id]
            self.book(held, held.booked + held.amount, 0)
            held.state = "expired"

    @rule(seconds=st.sampled_from([1.0, 20.0, 49.0, 100.0, 333.0, -30.0, -500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for scope in SCOPES:
            self.current(scope)
        # The store opens a window when it next touches the ledger; make that now, so that a
        # jump back finds it open in both.
        self.run(self.ledger.settle(Settlement("acme", f"touch{self.now}", SCOPES, 0, 0, ())))

    @invariant()
    def the_ledger_is_the_model_and_never_above_its_budget(self) -> None:
        if not hasattr(self, "loop"):
            return
        for scope in SCOPES:
            key = (scope.id, self.current(scope))
            balance = self.run(self.ledger.balance("acme", scope))
            assert (balance.spent, balance.held) == (self.spent.get(key, 0), self.held.get(key, 0))
            assert balance.spent + balance.held <= scope.budget.limit

    @invariant()
    def what_was_spent_is_what_the_records_say(self) -> None:
        if not hasattr(self, "loop"):
            return
        entries = self.run(self.store.command("XRANGE", "th:{acme}:o", "-", "+"))
        recorded = sum(r.cost_nano for _, fields in entries for r in parse_entry(fields))
        unfiled = sum(h.booked for h in self.model.values() if h.state == "open")
        balance = self.run(self.ledger.balance("acme", SCOPES[2]))
        assert balance.spent == recorded + unfiled


@pytest.fixture
def url(valkey: EmbeddedStore) -> str:
    LedgerMachine.url = valkey.url
    return valkey.url


def test_the_ledger_follows_its_model(url: str):
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
