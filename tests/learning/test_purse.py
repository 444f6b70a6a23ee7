"""The money of comparisons, where a call is given up before it was made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backends.http import UpstreamTransport
from gateway.catalog import Catalog
from gateway.compose import build_catalog
from gateway.config import Config, parse_config
from gateway.config.model import ShadowConfig
from gateway.learning.purse import ORG, Ask, AskFailed, Purse
from gateway.ledger import Enter, Entered, Ledger, Settled, Settlement
from gateway.ledger.ledger import outbox_key
from gateway.records import Database, LedgerBooks
from gateway.store import Store
from gateway.store.errors import StoreUnavailable
from gateway.telemetry import Telemetry
from routers.decide import ActivePolicy, filter_candidates
from routers.types import Need, Policy

DAY = ShadowConfig(share=1.0, judge="ohio/m", max_usd_per_day=4.1)


class SlowReply(Ledger):
    """The money is held, and the answer that says so is on its way."""

    async def enter(self, request: Enter) -> Entered:
        entered = await super().enter(request)
        self.asked = request
        if entered.outcome == "ok":
            self.held.set()
            await asyncio.sleep(30)
        return entered

    held: asyncio.Event
    asked: Enter


@pytest.fixture
def config() -> Config:
    return parse_config(
        """
        [backends.ohio]
        provider = "vllm"
        base_url = "http://127.0.0.1:9/v1"
        tier = "frontier"
        models.m = { input = 2.0, output = 10.0, max_output = 1000 }
        """,
        {},
    )


@pytest.fixture
async def catalog(config: Config) -> AsyncIterator[Catalog]:
    transport = UpstreamTransport()
    found = build_catalog(config, {}, transport)
    yield found
    await found.aclose()
    await transport.aclose()


def ask(catalog: Catalog) -> Ask:
    need = Need(prompt_tokens=1000, capabilities=frozenset(("chat",)))
    filtered = filter_candidates(
        ActivePolicy("default", 1, Policy(route="strong")), need, catalog.candidates(need)
    )
    return Ask("shadow", "dec_1", "acme", filtered.eligible[0], filtered, {"messages": []})


async def test_a_call_that_is_given_up_at_the_gate_holds_nothing(
    config: Config, catalog: Catalog, database: Database, store: Store
) -> None:
    ledger = SlowReply(store, books=LedgerBooks(database))
    ledger.held = asyncio.Event()
    purse = Purse(DAY, ledger, catalog, Telemetry(config.telemetry, "one"))
    asked = asyncio.create_task(purse.ask(ask(catalog)))
    await ledger.held.wait()
    before = await ledger.balance(ORG, purse.scope)
    assert before is not None
    assert (before.held, before.limit) == (12_000_000, 4_100_000_000)
    # A call that takes all of its time is not taken for lost.
    assert ledger.asked.lease_s > DAY.timeout
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    after = await ledger.balance(ORG, purse.scope)
    assert after is not None
    assert (after.held, after.spent) == (0, 0)
    # Nothing was sent, so nothing is recorded, now or by the sweeper.
    for org in (ORG, "acme"):
        assert await store.command("XLEN", outbox_key(org)) == 0


class GoneOnce(Ledger):
    """The store is gone when the first call with a record of usage is to be settled."""

    gone = False

    async def settle(self, request: Settlement) -> Settled:
        if request.org == ORG and request.records and not self.gone:
            self.gone = True
            raise StoreUnavailable("gone")
        return await super().settle(request)


async def test_what_a_call_has_cost_is_not_lost_with_the_store(
    config: Config, catalog: Catalog, database: Database, store: Store
) -> None:
    ledger = GoneOnce(store, books=LedgerBooks(database))
    purse = Purse(DAY, ledger, catalog, Telemetry(config.telemetry, "one"))
    # Nobody listens at the upstream's address: the call was made, and has cost nothing.
    with pytest.raises(AskFailed, match="connect"):
        await purse.ask(ask(catalog))
    assert ledger.gone
    after = await ledger.balance(ORG, purse.scope)
    assert after is not None
    assert (after.held, after.spent) == (0, 0)
    assert await store.command("XLEN", outbox_key(ORG)) == 1
