"""A real Valkey and real SQLite for the tests of this folder."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from gateway.ledger import Budget, Ledger, Limits, Scope
from gateway.records import Database, Drainer, LedgerBooks, UsageRecord, encode_record
from gateway.store import Store
from gateway.store.lock import Lock

START = 1_800_000_000.0


class Clock:
    """Seconds since the epoch, moved by the test."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(store: Store, database: Database, clock: Clock) -> Ledger:
    return Ledger(store, clock, LedgerBooks(database))


@pytest.fixture
def drainer(store: Store, database: Database) -> Drainer:
    return Drainer(store, database, Lock(store, "drain", "me"))


class Make:
    """Builders with defaults."""

    @staticmethod
    def scope(id: str, limit: int | None = 1000, window: str = "total", **limits: int) -> Scope:
        budget = None if limit is None else Budget(limit, window)
        return Scope(id, budget, Limits(**limits) if limits else None)

    @staticmethod
    def usage(attempt_id: str, cost: int = 0, **more: object) -> bytes:
        values = {"request_id": attempt_id, "ts": START, "org": "acme", "key_id": "abc"} | more
        return encode_record(UsageRecord(attempt_id=attempt_id, cost_nano=cost, **values))


@pytest.fixture
def make() -> type[Make]:
    return Make


@pytest.fixture
def rows(database: Database):
    async def run(sql: str, **values: object):
        def work(connection):
            result = connection.execute(text(sql), values)
            return result.all() if result.returns_rows else None

        return await database.write(work)

    return run
