"""What becomes of a request's lease when its settlement cannot be booked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import settlement
from gateway.ledger import Settled, Settlement
from gateway.ledger.errors import AmountTooLarge
from gateway.settlement import Settler
from gateway.store import StoreUnavailable


class BrokenLedger:
    """Fails to settle with `errors`, one after the other, the last one again and again."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def settle(self, _: Settlement) -> Any:
        raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]


def settler(ledger: Any) -> tuple[Settler, Any]:
    catalog = SimpleNamespace(note_share=lambda *_: None)
    made = Settler(SimpleNamespace(ledger=ledger, catalog=catalog))  # type: ignore[arg-type]
    ex: Any = SimpleNamespace(
        inbound=SimpleNamespace(request_id="req_1"), principal=SimpleNamespace(org="acme")
    )
    made.took(ex)
    assert made.held() == {"acme": ["req_1"]}
    return made, ex


SETTLEMENT = Settlement("acme", "req_1", (), 0, 0, ())


@pytest.mark.parametrize("error", [AmountTooLarge("too much"), OverflowError("too large")])
async def test_a_lease_that_nobody_can_settle_is_let_run_out(error: Exception) -> None:
    made, ex = settler(BrokenLedger(error))
    with pytest.raises(type(error)):
        await made._book(SETTLEMENT, ex)
    assert made.held() == {}


class QuickLedger:
    """Settles everything, and tells for whom leases were prolonged."""

    def __init__(self) -> None:
        self.renewed: asyncio.Queue[tuple[str, list[str]]] = asyncio.Queue()

    async def settle(self, _: Settlement) -> Settled:
        return Settled()

    async def renew(self, org: str, request_ids: list[str], lease_s: float) -> list[str]:
        self.renewed.put_nowait((org, request_ids))
        return []


async def test_what_is_filed_holds_no_lease_any_more() -> None:
    made, _ = settler(QuickLedger())
    await made._file(SETTLEMENT)
    assert made.held() == {}


async def test_a_lease_is_prolonged_for_as_long_as_it_is_held() -> None:
    ledger = QuickLedger()
    made, _ = settler(ledger)
    renewing = asyncio.create_task(made.renew(0.003))
    for _ in range(2):
        assert await ledger.renewed.get() == ("acme", ["req_1"])
    await made._book(SETTLEMENT, SimpleNamespace(principal=None))  # type: ignore[arg-type]
    assert made.held() == {}
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)


async def test_a_client_that_leaves_while_it_is_settled_leaves_nothing_unsettled() -> None:
    seen: list[Settlement] = []
    answered = asyncio.Event()

    class SlowLedger:
        async def settle(self, settlement: Settlement) -> Settled:
            seen.append(settlement)
            await answered.wait()
            return Settled()

    made, ex = settler(SlowLedger())
    made._settlement = lambda ex, value: SETTLEMENT  # type: ignore[method-assign]
    ex.settled, ex.attempts = False, []
    leaving = asyncio.create_task(made.settle(ex, None))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    answered.set()
    await made.drain()
    assert seen == [SETTLEMENT, SETTLEMENT]
    assert (made.held(), made.pending) == ({}, 0)


async def test_also_when_the_store_was_away_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ledger.again._SECONDS", (0.0,))
    made, ex = settler(BrokenLedger(StoreUnavailable("away"), OverflowError("too large")))
    await made._book(SETTLEMENT, ex)
    assert made.held() == {"acme": ["req_1"]}
    (task,) = made._tasks
    with pytest.raises(OverflowError):
        await task
    assert made.held() == {}


async def test_records_that_wait_for_a_store_that_is_away_are_bounded_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.ledger.again._SECONDS", (600.0,))
    monkeypatch.setattr(settlement, "MAX_WAITING", 20)
    made, ex = settler(BrokenLedger(StoreUnavailable("away")))
    lost: list[str] = []
    made._runtime.telemetry = SimpleNamespace(count=lambda metric, reason: lost.append(reason))
    made._held.clear()
    for _ in range(50):
        made._spawn_records(ex, (b"usage", b"decision"))
        await asyncio.sleep(0)
    # What the store may hold a lease for is settled, however many wait.
    made.took(ex)
    made._spawn_records(ex, (b"decision",))
    await asyncio.sleep(0.01)
    assert (made.pending, lost) == (21, ["too_many"] * 2 * 30)
    for task in list(made._tasks):
        task.cancel()
    await made.drain()


async def test_records_that_are_given_up_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ledger.again._SECONDS", (0.0,))
    made, ex = settler(BrokenLedger(StoreUnavailable("away")))
    lost: list[str] = []
    made._runtime.telemetry = SimpleNamespace(count=lambda metric, reason: lost.append(reason))
    made._spawn_records(ex, (b"usage", b"decision"))
    await asyncio.sleep(0)
    while made.pending:
        await asyncio.wait(set(made._tasks))
    assert lost == ["too_long"] * 2
