"""Scripts of the ledger against a real server: outcomes, limits, leases, windows, rebuilding."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from gateway.ledger import (
    AmountTooLarge,
    Balance,
    Budget,
    CannotProvision,
    DuplicateRequest,
    Enter,
    Entered,
    LeaseExpired,
    Ledger,
    Reserve,
    Scope,
    Settlement,
    Short,
    Sweeper,
)
from gateway.records import Drainer, UsageRecord
from gateway.records.outbox import parse_entry
from gateway.store import Store, StoreFull
from gateway.store.lock import Lock

DAY = 86_400.0


class Gate:
    """Short forms for one org."""

    def __init__(self, ledger: Ledger, store: Store, make) -> None:
        self.ledger, self.store, self.make = ledger, store, make

    async def enter(self, id: str, scopes, *costs: int, tokens: int = 0, **more) -> Entered:
        draft = self.make.usage(f"{id}/1")
        values = {"costs": costs or None, "draft": draft, "lease_s": 60.0} | more
        return await self.ledger.enter(Enter("acme", id, scopes, tokens, **values))

    async def reserve(self, id: str, scopes, *costs: int, **more) -> Entered:
        draft = self.make.usage(f"{id}/2")
        return await self.ledger.reserve(Reserve("acme", id, scopes, costs, 60.0, draft, **more))

    async def settle(self, id: str, scopes, cost: int, tokens: int = 0, **more):
        records = (self.make.usage(f"{id}/1", cost),) if cost else ()
        values = {"records": records} | more
        return await self.ledger.settle(Settlement("acme", id, scopes, cost, tokens, **values))

    async def books(self, scope: Scope) -> tuple[int, int]:
        balance = await self.ledger.balance("acme", scope)
        assert balance is not None
        return balance.spent, balance.held

    async def provision(self, *scopes: Scope) -> None:
        for scope in scopes:
            await self.ledger.provision("acme", scope)

    async def filed(self) -> list[UsageRecord]:
        entries = await self.store.command("XRANGE", "th:{acme}:o", "-", "+")
        return [record for _, fields in entries for record in parse_entry(fields)]


@pytest.fixture
def gate(ledger: Ledger, store: Store, make) -> Gate:
    return Gate(ledger, store, make)


async def test_reserve_then_settle(gate: Gate, make):
    scopes = (make.scope("key:abc", 1000), make.scope("org:acme", 5000))
    await gate.provision(*scopes)
    entered = await gate.enter("r1", scopes, 400)
    assert (entered.outcome, entered.index, entered.left) == ("ok", 0, 600)
    assert entered.share_left == pytest.approx(0.6)
    assert [await gate.books(s) for s in scopes] == [(0, 400), (0, 400)]
    settled = await gate.settle("r1", scopes, 150)
    assert (settled.left, settled.duplicate) == (850, False)
    assert [await gate.books(s) for s in scopes] == [(150, 0), (150, 0)]
    again = await gate.settle("r1", scopes, 150)
    assert (again.left, again.duplicate) == (850, True)
    assert [await gate.books(s) for s in scopes] == [(150, 0), (150, 0)]
    assert [r.cost_nano for r in await gate.filed()] == [150]


async def test_all_scopes_or_none(gate: Gate, make):
    scopes = (make.scope("key:abc", 1000), make.scope("team:ml", 100), make.scope("org:acme"))
    await gate.provision(*scopes)
    assert (await gate.enter("r1", scopes, 101)).outcome == "unaffordable"
    assert [await gate.books(s) for s in scopes] == [(0, 0)] * 3


async def test_the_budget_that_does_not_pay_is_named(gate: Gate, make, clock):
    scopes = (make.scope("key:abc", 1000, "day"), make.scope("team:ml", 100, "day"))
    await gate.provision(*scopes)
    until = (clock.now // DAY + 1) * DAY
    await gate.enter("r1", scopes, 30)
    refused = await gate.enter("r2", scopes, 900, 71)
    assert refused.outcome == "unaffordable"
    assert refused.short == Short("team:ml", 70, until)
    # What the request itself holds, it may use.
    refused = await gate.reserve("r1", scopes, 81, booked=20)
    assert refused.short == Short("team:ml", 80, until)
    assert (await gate.reserve("r1", scopes, 80, booked=20)).short is None
    # A request keeps the window in which it was held first.
    clock.now += DAY
    assert (await gate.reserve("r1", scopes, 81, booked=20)).short == Short("team:ml", 80, until)
    assert (await gate.enter("r3", scopes, 101)).short == Short("team:ml", 100, until + DAY)


async def test_a_total_budget_that_does_not_pay_has_no_end(gate: Gate, make):
    scopes = (make.scope("key:abc", 10), make.scope("org:acme", 50))
    await gate.provision(*scopes)
    assert (await gate.enter("r1", scopes, 60)).short == Short("key:abc", 10, None)


async def test_a_budget_of_nothing_has_nothing_left(gate: Gate, make):
    scopes = (make.scope("key:abc", 0), make.scope("org:acme", 50))
    await gate.provision(*scopes)
    free = await gate.enter("r1", scopes, 1, 0)
    assert (free.index, free.left, free.share_left) == (1, 0, 0.0)


async def test_the_first_affordable_candidate_is_taken(gate: Gate, make):
    scopes = (make.scope("key:abc", 100),)
    await gate.provision(*scopes)
    assert (await gate.enter("r1", scopes, 500, 80, 10)).index == 1
    assert (await gate.enter("r2", scopes, 500, 80, 10)).index == 2
    assert (await gate.enter("r3", scopes, 500, 80)).outcome == "unaffordable"
    assert (await gate.enter("r4", scopes, 500, 80, 0)).index == 2


async def test_a_missing_ledger_fails_closed_except_for_what_is_free(gate: Gate, make, store):
    scopes = (make.scope("key:abc"), make.scope("org:acme", 10_000))
    await gate.provision(*scopes)
    await store.command("DEL", "th:{acme}:b:key:abc")
    refused = await gate.enter("r1", scopes, 1)
    assert (refused.outcome, refused.missing_scope) == ("missing", "key:abc")
    assert await gate.books(scopes[1]) == (0, 0)
    free = await gate.enter("r2", scopes, 1, 0)
    assert (free.outcome, free.index, free.left) == ("ok", 1, 0)
    await gate.settle("r2", scopes, 0)
    assert await gate.ledger.balance("acme", scopes[0]) is None


async def test_a_lost_ledger_is_rebuilt_from_records_outbox_and_live_holds(
    gate: Gate, make, store, drainer: Drainer
):
    scopes = (make.scope("key:abc", 1000), make.scope("org:acme", 10_000))
    await gate.provision(*scopes)
    for id, cost in (("r1", 100), ("r2", 50)):
        await gate.enter(id, scopes, cost)
        await gate.settle(id, scopes, cost)
        if id == "r1":
            await drainer.flush()
    await gate.enter("live", scopes, 30)
    await gate.reserve("live", scopes, 20, booked=7)
    await gate.enter("late", scopes, 40)
    await store.command("DEL", "th:{acme}:b:key:abc")
    await gate.settle("late", scopes, 11)
    assert not await gate.ledger.provision("acme", scopes[0])
    assert await gate.books(scopes[0]) == (100 + 50 + 11 + 7, 20)
    assert await gate.books(scopes[1]) == (100 + 50 + 11 + 7, 20)
    await gate.settle("live", scopes, 12)
    assert await gate.books(scopes[0]) == (100 + 50 + 11 + 12, 0)


async def test_a_rebuilt_ledger_knows_how_many_requests_are_in_flight(gate: Gate, make, store):
    scopes = (make.scope("key:abc", 1000, concurrency=3), make.scope("org:acme"))
    await gate.provision(*scopes)
    for id in ("r1", "r2"):
        await gate.enter(id, scopes, 10)
    await gate.enter("other", scopes[1:], 10)
    await store.command("DEL", "th:{acme}:b:key:abc")
    await gate.ledger.provision("acme", scopes[0])
    assert [(await gate.enter(id, scopes, 10)).limited_kind for id in ("r3", "r4")] == [
        None,
        "concurrency",
    ]
    await gate.settle("r1", scopes, 10)
    assert (await gate.enter("r5", scopes, 10)).outcome == "ok"


async def test_provisioning_twice_keeps_what_is_there(gate: Gate, make):
    scope = make.scope("key:abc")
    assert await gate.ledger.provision("acme", scope)
    await gate.enter("r1", (scope,), 10)
    assert not await gate.ledger.provision("acme", scope)
    assert await gate.books(scope) == (0, 10)


async def test_a_budget_with_another_window_is_counted_anew(gate: Gate, make, clock):
    await gate.provision(make.scope("key:abc"))
    await gate.enter("r1", (make.scope("key:abc"),), 10)
    await gate.settle("r1", (make.scope("key:abc"),), 10)
    monthly = make.scope("key:abc", 1000, "month")
    assert (await gate.enter("r2", (monthly,), 1)).outcome == "missing"
    await gate.provision(monthly)
    assert await gate.books(monthly) == (10, 0)


async def test_a_scope_the_records_do_not_know_stays_closed(gate: Gate, make):
    with pytest.raises(CannotProvision):
        await gate.ledger.provision("acme", make.scope("session:x"))


async def test_failover_replaces_the_hold_and_keeps_what_failed_attempts_cost(gate: Gate, make):
    scopes = (make.scope("key:abc", 100),)
    await gate.provision(*scopes)
    await gate.enter("r1", scopes)
    assert await gate.books(scopes[0]) == (0, 0)
    assert (await gate.reserve("r1", scopes, 90)).left == 10
    assert (await gate.reserve("r1", scopes, 95, 60, booked=20)).index == 1
    assert await gate.books(scopes[0]) == (20, 60)
    assert (await gate.reserve("r1", scopes, 60, booked=20)).outcome == "ok"
    assert await gate.books(scopes[0]) == (20, 60)
    assert (await gate.reserve("r1", scopes, 90, booked=20)).outcome == "unaffordable"
    assert await gate.books(scopes[0]) == (20, 60)
    await gate.settle("r1", scopes, 75)
    assert await gate.books(scopes[0]) == (75, 0)


async def test_a_request_id_is_used_once(gate: Gate, make):
    scopes = (make.scope("key:abc"),)
    await gate.provision(*scopes)
    await gate.enter("r1", scopes, 1)
    with pytest.raises(DuplicateRequest):
        await gate.enter("r1", scopes, 1)


async def test_settling_at_zero_undoes_an_entry_that_ran_unseen_or_runs_late(gate: Gate, make):
    scopes = (make.scope("key:abc", 100, concurrency=1),)
    await gate.provision(*scopes)
    await gate.enter("r1", scopes, 100)
    await gate.settle("r1", scopes, 0)
    assert (await gate.enter("r2", scopes, 100)).outcome == "ok"
    await gate.settle("r2", scopes, 0)
    await gate.settle("r3", scopes, 0)
    with pytest.raises(DuplicateRequest):
        await gate.enter("r3", scopes, 100)
    assert await gate.books(scopes[0]) == (0, 0)


async def test_what_was_never_held_is_booked_all_the_same(gate: Gate, make):
    scopes = (make.scope("key:abc", 100), make.scope("org:acme", None))
    await gate.provision(*scopes)
    await gate.enter("r1", scopes)
    assert (await gate.settle("r1", scopes, 40)).left == 60
    assert await gate.books(scopes[0]) == (40, 0)


async def test_requests_per_minute(gate: Gate, make, clock):
    scopes = (make.scope("key:abc", None, requests_per_minute=7), make.scope("org:acme", None))
    for i in range(7):
        entered = await gate.enter(f"r{i}", scopes)
        assert entered.outcome == "ok"
        assert entered.requests is not None
        assert entered.requests.remaining == 6 - i
    refused = await gate.enter("r8", scopes)
    assert (refused.outcome, refused.limited_kind) == ("limited", "requests")
    assert refused.limited_scope == "key:abc"
    assert refused.retry_after == pytest.approx(60 / 7, rel=1e-3)
    clock.now += refused.retry_after + 0.001
    assert (await gate.enter("r9", scopes)).outcome == "ok"
    assert (await gate.enter("r10", scopes)).outcome == "limited"


async def test_a_clock_that_jumps_back_blocks_for_two_minutes_at_most(gate: Gate, make, clock):
    scopes = (make.scope("key:abc", None, requests_per_minute=1),)
    await gate.enter("r1", scopes)
    clock.now -= 10 * DAY
    assert (await gate.enter("r2", scopes)).retry_after == pytest.approx(120, rel=1e-3)


async def test_tokens_are_corrected_at_settlement(gate: Gate, make):
    scopes = (make.scope("key:abc", None, tokens_per_minute=1000),)
    await gate.enter("r1", scopes, tokens=900)
    assert (await gate.enter("r2", scopes, tokens=200)).limited_kind == "tokens"
    await gate.settle("r1", scopes, 0, tokens=100)
    entered = await gate.enter("r3", scopes, tokens=200)
    assert entered.outcome == "ok"
    assert entered.tokens is not None
    assert entered.tokens.remaining == 700
    never = await gate.enter("r4", scopes, tokens=1001)
    assert (never.outcome, never.retry_after) == ("limited", None)


async def test_tokens_of_a_limit_that_was_lost_meanwhile_are_not_missed(gate: Gate, make, store):
    scopes = (make.scope("key:abc", None, tokens_per_minute=1000, concurrency=1),)
    await gate.enter("r1", scopes, tokens=900)
    await store.command("DEL", "th:{acme}:b:key:abc")
    await gate.settle("r1", scopes, 0, tokens=100)
    entered = await gate.enter("r2", scopes, tokens=1000)
    assert (entered.outcome, entered.tokens and entered.tokens.remaining) == ("ok", 0)


async def test_concurrency_and_its_release(gate: Gate, make, clock):
    scopes = (make.scope("key:abc", None, concurrency=2),)
    assert [(await gate.enter(f"r{i}", scopes)).outcome for i in range(3)] == [
        "ok",
        "ok",
        "limited",
    ]
    await gate.settle("r0", scopes, 0)
    assert (await gate.enter("r3", scopes)).outcome == "ok"
    assert (await gate.enter("r4", scopes)).limited_kind == "concurrency"
    clock.now += 61
    assert sorted(await gate.ledger.sweep("acme")) == ["r1", "r3"]
    assert (await gate.enter("r5", scopes)).outcome == "ok"
    await gate.settle("r1", scopes, 0)
    assert [(await gate.enter(f"s{i}", scopes)).outcome for i in range(2)] == ["ok", "limited"]


async def test_a_refusal_changes_nothing(gate: Gate, make, store):
    scopes = (
        make.scope("key:abc", 100, requests_per_minute=10, tokens_per_minute=100, concurrency=3),
        make.scope("org:acme", 10, requests_per_minute=10),
    )
    await gate.provision(*scopes)
    before = [await store.command("GET", f"th:{{acme}}:b:{s.id}") for s in scopes]
    assert (await gate.enter("r1", scopes, 50)).outcome == "unaffordable"
    assert (await gate.enter("r1", scopes, 1, tokens=101)).outcome == "limited"
    assert [await store.command("GET", f"th:{{acme}}:b:{s.id}") for s in scopes] == before
    assert await store.command("EXISTS", "th:{acme}:r:r1") == 0


async def test_a_hit_costs_one_request_and_nothing_else(gate: Gate, make):
    scopes = (
        make.scope("key:abc", 100, requests_per_minute=10, tokens_per_minute=50, concurrency=1),
    )
    await gate.provision(*scopes)
    first = await gate.enter("r1", scopes, 60, tokens=50, cache_key="k")
    assert (first.outcome, first.cached) == ("ok", None)
    stored = {"cache_key": "k", "cache_value": b"\x00answer\xff", "cache_ttl": 60}
    await gate.settle("r1", scopes, 60, 50, **stored)
    hit = await gate.enter("r2", scopes, 60, tokens=50, cache_key="k")
    assert (hit.outcome, hit.cached, hit.left) == ("hit", b"\x00answer\xff", 40)
    assert hit.requests is not None
    assert hit.requests.remaining == 8
    assert await gate.books(scopes[0]) == (60, 0)
    assert (await gate.enter("r3", scopes, 60, cache_key="other")).outcome == "unaffordable"


async def test_a_request_that_goes_on_after_a_hit_is_counted_once(gate: Gate, make):
    scopes = (make.scope("key:abc", None, requests_per_minute=2),)
    await gate.settle("r1", scopes, 0, cache_key="k", cache_value=b"old", cache_ttl=60)
    left = []
    for id in ("r2", "r3"):
        hit = await gate.enter(id, scopes, cache_key="k")
        on = await gate.enter(id, scopes, counted=True)
        assert (hit.outcome, on.outcome) == ("hit", "ok")
        assert hit.requests == on.requests
        assert on.requests is not None
        left.append(on.requests.remaining)
    assert left == [1, 0]
    assert (await gate.enter("r4", scopes)).outcome == "limited"


@pytest.mark.parametrize(
    "stored",
    [{"cache_value": b"x", "cache_ttl": 0}, {"cache_value": b"", "cache_ttl": 60}],
    ids=["for no time", "nothing"],
)
async def test_what_is_not_to_be_kept_is_not(gate: Gate, make, stored):
    scopes = (make.scope("key:abc", None),)
    await gate.settle("r1", scopes, 0, cache_key="k", **stored)
    assert (await gate.enter("r2", scopes, cache_key="k")).outcome == "ok"


async def test_another_org_never_sees_the_entry(gate: Gate, make, ledger: Ledger):
    scopes = (make.scope("key:abc", None),)
    await gate.settle("r1", scopes, 0, cache_key="k", cache_value=b"secret", cache_ttl=60)
    other = await ledger.enter(Enter("umbrella", "r2", scopes, 0, 60.0, cache_key="k"))
    assert (other.outcome, other.cached) == ("ok", None)


async def test_an_expired_lease_is_booked_in_full_and_corrected_when_late(
    gate: Gate, make, clock, ledger: Ledger, store: Store
):
    scopes = (make.scope("key:abc", 1000),)
    await gate.provision(*scopes)
    await gate.enter("r1", scopes, 300)
    await gate.enter("entered-only", scopes)
    clock.now += 30
    assert await ledger.renew("acme", ["r1", "unknown"], 60.0) == ["unknown"]
    clock.now += 31
    sweeper = Sweeper(ledger, Lock(store, "sweep", "me"))
    assert await sweeper.sweep_once() == 1
    assert await gate.books(scopes[0]) == (0, 300)
    clock.now += 30
    assert await sweeper.sweep_once() == 1
    assert await gate.books(scopes[0]) == (300, 0)
    (record,) = await gate.filed()
    assert (record.outcome, record.cost_nano, record.estimated) == ("lease_expired", 300, True)
    with pytest.raises(LeaseExpired):
        await gate.reserve("r1", scopes, 1)
    await gate.settle("r1", scopes, 120)
    assert await gate.books(scopes[0]) == (120, 0)
    assert sum(r.cost_nano for r in await gate.filed()) == 120
    assert len({r.attempt_id for r in await gate.filed()}) == 3


async def test_a_late_settlement_gives_back_nothing_that_others_hold(
    gate: Gate, make, clock, ledger: Ledger
):
    scopes = (make.scope("key:abc", 1000),)
    await gate.provision(*scopes)
    await gate.enter("late", scopes, 300)
    clock.now += 61
    assert await ledger.sweep("acme") == ["late"]
    await gate.enter("r2", scopes, 200)
    await gate.settle("late", scopes, 120)
    assert await gate.books(scopes[0]) == (120, 200)


async def test_a_reservation_prolongs_the_lease_and_is_what_an_expiry_files(
    gate: Gate, make, clock, ledger: Ledger
):
    scopes = (make.scope("key:abc", 1000),)
    await gate.provision(*scopes)
    await gate.enter("r1", scopes)
    clock.now += 40
    await gate.reserve("r1", scopes, 300)
    clock.now += 40
    assert await ledger.sweep("acme") == []
    await gate.reserve("r1", scopes, 200, booked=50)
    clock.now += 61
    assert await ledger.sweep("acme") == ["r1"]
    assert await gate.books(scopes[0]) == (250, 0)
    (record,) = await gate.filed()
    assert (record.attempt_id, record.cost_nano) == ("r1/2:lease_expired", 250)


async def test_a_lease_of_a_request_that_is_lost_is_forgotten(
    gate: Gate, make, clock, ledger: Ledger, store: Store
):
    scopes = (make.scope("key:abc", 1000),)
    await gate.provision(*scopes)
    await gate.enter("lost", scopes, 100)
    clock.now += 1
    await gate.enter("r1", scopes, 200)
    await store.command("DEL", "th:{acme}:r:lost")
    clock.now += 61
    assert await ledger.sweep("acme") == ["r1"]
    assert await store.command("ZCARD", "th:{acme}:l") == 0


async def test_the_audit_record_is_filed_with_the_reservation_only(gate: Gate, make, store):
    scopes = (make.scope("key:abc", 10),)
    await gate.provision(*scopes)
    audit = make.usage("audit")
    await gate.enter("r1", scopes, 50, audit=audit)
    assert await gate.filed() == []
    await gate.enter("r2", scopes, 5, audit=audit)
    assert [r.attempt_id for r in await gate.filed()] == ["audit"]
    await gate.enter("r3", scopes)
    later = make.usage("later")
    assert (await gate.reserve("r3", scopes, 6, audit=later)).outcome == "unaffordable"
    assert [r.attempt_id for r in await gate.filed()] == ["audit"]
    assert (await gate.reserve("r3", scopes, 5, audit=later)).outcome == "ok"
    assert [r.attempt_id for r in await gate.filed()] == ["audit", "later"]
    assert (await gate.reserve("r3", scopes, 4)).outcome == "ok"
    entries = await store.command("XRANGE", "th:{acme}:o", "-", "+")
    assert [len(fields) for _, fields in entries] == [2, 2]


async def test_settling_works_on_a_full_server_and_entering_does_not(
    gate: Gate, ledger: Ledger, make, store, clock
):
    scopes = (make.scope("key:abc", 100),)
    await gate.provision(*scopes)
    await gate.enter("r1", scopes, 60)
    await store.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreFull):
            await gate.enter("r2", scopes, 1)
        assert await ledger.renew("acme", ["r1"], 60.0) == []
        # As after a new connection: the organisation is made known again first.
        await Ledger(store, clock).settle(Settlement("acme", "r1", scopes, 50, 0, ()))
        assert await gate.books(scopes[0]) == (50, 0)
    finally:
        await store.command("CONFIG", "SET", "maxmemory", "64mb")


async def test_amounts_that_are_not_exact_are_refused(gate: Gate, make):
    scopes = (make.scope("key:abc", 2**53 - 1),)
    await gate.provision(*scopes)
    for cost in (2**53, -1):
        with pytest.raises(AmountTooLarge):
            await gate.enter("r", scopes, cost)
        with pytest.raises(AmountTooLarge):
            await gate.settle("r", scopes, cost)
    await gate.enter("r1", scopes, 2**53 - 2)
    assert (await gate.enter("r2", scopes, 2)).outcome == "unaffordable"
    assert (await gate.enter("r3", scopes, 1)).left == 0
    await gate.settle("r1", scopes, 2**53 - 3)
    assert await gate.books(scopes[0]) == (2**53 - 3, 1)


async def test_what_was_free_when_a_window_closed_is_held_in_the_next(gate: Gate, make, clock):
    scope = make.scope("key:abc", 100, "day")
    await gate.provision(scope)
    await gate.enter("r1", (scope,), 0)
    clock.now += DAY
    assert (await gate.reserve("r1", (scope,), 81, booked=20)).outcome == "unaffordable"
    assert (await gate.reserve("r1", (scope,), 80, booked=20)).outcome == "ok"
    assert await gate.books(scope) == (20, 80)
    await gate.settle("r1", (scope,), 30)
    assert await gate.books(scope) == (30, 0)


@pytest.mark.parametrize("window", ["fortnight", "0", "-5", "1.5", ""])
def test_windows_are_checked(window: str):
    with pytest.raises(ValueError, match="window"):
        Budget(1, window)


@pytest.mark.parametrize(
    ("window", "before", "after", "end"),
    [
        ("day", "2027-03-27T23:59:59.9", "2027-03-28T00:00:00", "2027-03-29T00:00:00"),
        ("month", "2028-02-29T23:59:59.9", "2028-03-01T00:00:00", "2028-04-01T00:00:00"),
        ("month", "2026-12-31T23:59:59.9", "2027-01-01T00:00:00", "2027-02-01T00:00:00"),
        ("3600", "2027-03-28T00:59:59.9", "2027-03-28T01:00:00", "2027-03-28T02:00:00"),
    ],
)
async def test_a_window_rolls_over_once_and_never_back(
    gate: Gate, make, clock, window: str, before: str, after: str, end: str
):
    scope = make.scope("key:abc", 100, window)
    clock.now = _utc(before)
    await gate.provision(scope)
    await gate.enter("old", (scope,), 100)
    assert (await gate.enter("no", (scope,), 1)).outcome == "unaffordable"
    clock.now = _utc(after)
    assert (await gate.enter("new", (scope,), 90)).outcome == "ok"
    await gate.settle("old", (scope,), 77)
    assert await gate.books(scope) == (0, 90)
    clock.now = _utc(before) - 40 * DAY
    assert (await gate.enter("no2", (scope,), 11)).outcome == "unaffordable"
    balance = await gate.ledger.balance("acme", scope)
    assert isinstance(balance, Balance)
    assert (balance.window_start, balance.window_end) == (_utc(after), _utc(end))
    await gate.settle("new", (scope,), 80)
    assert await gate.books(scope) == (80, 0)


async def test_months_are_those_of_the_calendar(gate: Gate, make, clock):
    scope = make.scope("key:abc", 100, "month")
    await gate.provision(scope)
    day = datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC)
    for _ in range(30):
        clock.now = day.timestamp()
        await gate.enter(f"r{clock.now}", (scope,), 1)
        balance = await gate.ledger.balance("acme", scope)
        assert balance is not None
        first = day.replace(day=1, hour=0)
        following = (first + datetime.timedelta(days=32)).replace(day=1)
        assert (balance.window_start, balance.window_end) == (
            first.timestamp(),
            following.timestamp(),
        )
        day += datetime.timedelta(days=29)


async def test_the_store_has_the_clock_by_default(store: Store, make, database):
    ledger = Ledger(store)
    seconds, _ = await store.command("TIME")
    entered = await ledger.enter(Enter("acme", "r", (make.scope("key:abc", None),), 0, 60.0))
    assert 0 <= entered.at - int(seconds) < 60


@pytest.mark.parametrize("org", ["", "a}b", "{", "a:b", "x" * 129, "a\n"])
async def test_orgs_that_could_reach_into_others_are_refused(ledger: Ledger, make, org: str):
    with pytest.raises(ValueError, match="org name"):
        await ledger.enter(Enter(org, "r", (make.scope("key:abc", None),), 0, 60.0))


async def test_the_sweeper_runs_in_one_worker_at_a_time(
    gate: Gate, make, clock, ledger: Ledger, store: Store
):
    scopes = (make.scope("key:abc", 1000),)
    await gate.provision(*scopes)
    await gate.enter("r1", scopes, 300)
    clock.now += 61
    tasks = [
        asyncio.create_task(Sweeper(ledger, Lock(store, "sweep", name), interval_s=0.01).run())
        for name in ("one", "two")
    ]
    async with asyncio.timeout(30):
        while await gate.books(scopes[0]) != (300, 0):  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(await gate.filed()) == 1
    assert await store.command("EXISTS", "th:lock:sweep") == 0


def _utc(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()
