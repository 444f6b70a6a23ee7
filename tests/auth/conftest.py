from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.auth import KeyAdmin, Keyring
from gateway.config import Config
from gateway.ledger import Ledger
from gateway.policies import Policies
from gateway.records import Database, LedgerBooks
from gateway.store import EmbeddedStore, Store, StoreSettings

HASH_KEY = "0123456789abcdef0123456789abcdef"


class Clock:
    """Seconds since the epoch, set by the test."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """What one worker process has of this area, on a database and a store shared with others."""

    def __init__(self, config: Config, database: Database, store: Store, clock: Clock) -> None:
        self.config = config
        self.database = database
        self.store = store
        self.ledger = Ledger(store, books=LedgerBooks(database))
        self.keyring = Keyring(config, database, store, self.ledger, clock)
        self.keys = KeyAdmin(self.keyring, database)
        self.policies = Policies(config, database, store, clock)


class Cluster:
    """Workers on one SQLite file and one Valkey."""

    def __init__(self, path: Path, valkey: EmbeddedStore, stack: AsyncExitStack) -> None:
        self.clock = Clock()
        self.path = path
        self._valkey = valkey
        self._stack = stack

    async def worker(self, config: Config, *, deaf: bool = False) -> Worker:
        """A `deaf` worker has no connection to the store."""
        url = "unix:///nowhere.sock" if deaf else self._valkey.url
        store = Store(StoreSettings(url=url, deadline_ms=2000))
        self._stack.push_async_callback(store.aclose)
        database = Database(f"sqlite:///{self.path}")
        self._stack.push_async_callback(database.aclose)
        await database.start()
        worker = Worker(config, database, store, self.clock)
        self._stack.push_async_callback(worker.keyring.aclose)
        self._stack.push_async_callback(worker.policies.aclose)
        await worker.policies.start()
        await worker.keyring.start()
        return worker

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement past the gateway."""
        connection = sqlite3.connect(self.path, timeout=10)
        try:
            with connection:
                return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def break_database(self) -> None:
        """Every statement on these tables fails from now on."""
        for table in ("api_keys", "change_counters", "scope_terms", "policy_documents"):
            self.sql(f"ALTER TABLE {table} RENAME TO gone_{table}")

    def mend_database(self) -> None:
        for table in ("api_keys", "change_counters", "scope_terms", "policy_documents"):
            self.sql(f"ALTER TABLE gone_{table} RENAME TO {table}")


@pytest.fixture
async def cluster(tmp_path: Path, valkey: EmbeddedStore) -> AsyncIterator[Cluster]:
    path = tmp_path / "tollhouse.db"
    wiper = Store(StoreSettings(url=valkey.url, deadline_ms=2000))
    await wiper.command("FLUSHALL")
    await wiper.aclose()
    async with AsyncExitStack() as stack:
        yield Cluster(path, valkey, stack)


Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    async def wait(holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(10):
            while not await holds():  # noqa: ASYNC110 - another worker's state, no event here
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def hash_key() -> str:
    return HASH_KEY
