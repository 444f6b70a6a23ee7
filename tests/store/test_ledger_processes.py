"""I1 across processes: one budget, many requests, several workers, and a worker killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from gateway.ledger import Ledger, Scope, Sweeper
from gateway.records import Drainer, RecordFilter
from gateway.records.queries import summarize_usage
from gateway.store import EmbeddedStore, Store
from gateway.store.lock import Lock

WORKER = """
import asyncio, json, sys
from gateway.ledger import Budget, Enter, Ledger, Scope, Settlement
from gateway.records import UsageRecord, encode_record
from gateway.store import Store, StoreSettings

url, name, count, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
scopes = (Scope("key:abc", Budget(100_000)), Scope("org:acme", Budget(100_000)))

async def one(ledger, i):
    id = f"{name}-{i}"
    draft = encode_record(UsageRecord(f"{id}/1", id, 0.0, "acme", key_id="abc"))
    lease = 1.0 if mode == "hang" else 60.0
    entered = await ledger.enter(
        Enter("acme", id, scopes, 0, lease, costs=(1000,), draft=draft)
    )
    if entered.outcome != "ok":
        return 0
    if mode == "hang":
        return 1
    record = UsageRecord(f"{id}/1", id, entered.at, "acme", key_id="abc", cost_nano=1000)
    await ledger.settle(Settlement("acme", id, scopes, 1000, 0, (encode_record(record),)))
    return 1

async def main():
    store = Store(StoreSettings(url, deadline_ms=60_000))
    ledger = Ledger(store)
    passed = sum(await asyncio.gather(*(one(ledger, i) for i in range(count))))
    print(json.dumps(passed), flush=True)
    if mode == "hang":
        await asyncio.sleep(600)
    await store.aclose()

asyncio.run(main())
"""


def start(server: EmbeddedStore, name: str, count: int, mode: str = "settle"):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, server.url, name, str(count), mode],
        stdout=subprocess.PIPE,
    )


@pytest.fixture
def scopes(make) -> tuple[Scope, ...]:
    return (make.scope("key:abc", 100_000), make.scope("org:acme", 100_000))


@pytest.fixture
def now_ledger(store: Store, database) -> Ledger:
    from gateway.records import LedgerBooks

    return Ledger(store, None, LedgerBooks(database))


async def test_a_thousand_at_once_on_a_budget_worth_a_hundred(
    valkey: EmbeddedStore, now_ledger: Ledger, scopes, drainer: Drainer, database
):
    for scope in scopes:
        await now_ledger.provision("acme", scope)
    workers = [start(valkey, f"w{i}", 250) for i in range(4)]
    outputs = await asyncio.to_thread(lambda: [w.communicate()[0] for w in workers])
    assert sum(json.loads(out) for out in outputs) == 100
    for scope in scopes:
        balance = await now_ledger.balance("acme", scope)
        assert balance is not None
        assert (balance.spent, balance.held) == (100_000, 0)
    await drainer.flush()
    (total,) = await database.read(summarize_usage, RecordFilter(org="acme"), ())
    assert (total.attempts, total.cost_nano) == (100, 100_000)


async def test_a_killed_worker_leaves_no_hold_and_no_free_call(
    valkey: EmbeddedStore, store: Store, now_ledger: Ledger, scopes, drainer: Drainer, database
):
    for scope in scopes:
        await now_ledger.provision("acme", scope)
    worker = start(valkey, "w", 40, "hang")
    line = await asyncio.to_thread(worker.stdout.readline)
    assert json.loads(line) == 40
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    sweeper = asyncio.create_task(
        Sweeper(now_ledger, Lock(store, "sweep", "me"), interval_s=0.05).run()
    )
    async with asyncio.timeout(60):
        while (await now_ledger.balance("acme", scopes[0])).held:  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0.05)
    sweeper.cancel()
    await asyncio.gather(sweeper, return_exceptions=True)
    assert (await now_ledger.balance("acme", scopes[1])).spent == 40_000
    await drainer.flush()
    (total,) = await database.read(summarize_usage, RecordFilter(org="acme"), ("outcome",))
    assert total.group == {"outcome": "lease_expired"}
    assert (total.attempts, total.cost_nano) == (40, 40_000)
