"""The records on a real PostgreSQL, where its server and driver are installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import psutil
import pytest
from sqlalchemy import Connection

from gateway.auth import KeyAdmin, Keyring, ScopeInfo, Terms
from gateway.changes import Change, list_changes, write_change
from gateway.config import Config
from gateway.config.model import AuthConfig
from gateway.ledger import Ledger
from gateway.records import (
    Database,
    DecisionRecord,
    LedgerBooks,
    RecordFilter,
    RecordsRejected,
    RecordsUnavailable,
    UsageRecord,
    encode_record,
    file_records,
    list_decisions,
    list_usage,
    summarize_usage,
    verify_chain,
)
from gateway.store import Store

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")


@pytest.fixture
async def database(cluster: str) -> AsyncIterator[Database]:
    database = Database(cluster)
    await database.start()
    yield database
    await database.write(
        lambda connection: [
            connection.exec_driver_sql(f"TRUNCATE {table}")
            for table in (
                "usage_records",
                "decision_records",
                "chain_heads",
                "chain_starts",
                "spent_before",
                "ledger_marks",
            )
        ]
    )
    await database.aclose()


def decision(i: int) -> DecisionRecord:
    return DecisionRecord(f"d{i}", f"r{i}", 1000.1 + i, "acme", labels=("eu",), reason="policy")


@pytest.mark.parametrize(
    ("more", "expected"), [("", ("5", "10000", "5")), ("&connect_timeout=9", ("9", "10000", "5"))]
)
async def test_a_server_that_vanishes_is_not_waited_for(
    cluster: str, more: str, expected: tuple[str, ...]
) -> None:
    def parameters(connection: Connection) -> dict[str, str]:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        return dict(driver.info.get_parameters())

    database = Database(cluster + more)
    await database.start()
    found = await database.read(parameters)
    await database.aclose()
    names = ("connect_timeout", "tcp_user_timeout", "keepalives_idle")
    assert tuple(found[name] for name in names) == expected


async def test_filing_and_asking(database: Database):
    usage = UsageRecord("a1", "r1", 86_400.7, "acme", key_id="abc", tags=("x",), cost_nano=7)
    for _ in range(2):
        await database.write(file_records, [usage, decision(1), decision(2)])
    assert await database.read(list_usage, RecordFilter()) == ([usage], None)
    assert (await database.read(list_decisions, RecordFilter()))[0] == [decision(2), decision(1)]
    (total,) = await database.read(summarize_usage, RecordFilter(), ("day", "backend"))
    assert (total.group["day"], total.cost_nano) == ("1970-01-02", 7)


async def test_writers_at_once_make_one_chain(database: Database, cluster: str):
    others = [Database(cluster) for _ in range(3)]
    await asyncio.gather(*(other.start() for other in others))
    batches = [[decision(i) for i in range(n, n + 5)] for n in range(0, 60, 3)]
    await asyncio.gather(
        *(others[i % 3].write(file_records, batch) for i, batch in enumerate(batches))
    )
    (report,) = await verify_chain(database)
    assert (report.ok, report.rows) == (True, 62)
    for other in others:
        await other.aclose()


async def test_a_chain_that_grows_meanwhile_is_sound(database: Database, cluster: str):
    other = Database(cluster)
    await other.start()
    await database.write(file_records, [decision(i) for i in range(2000)])
    ended = asyncio.Event()

    async def grow() -> int:
        filed = 2000
        while not ended.is_set():
            await other.write(file_records, [decision(filed)])
            filed += 1
        return filed

    growing = asyncio.create_task(grow())
    try:
        for _ in range(5):
            (report,) = await verify_chain(database, "acme")
            assert report.problem is None
            assert report.rows >= 2000
    finally:
        ended.set()
        filed = await growing
        await other.aclose()
    (report,) = await verify_chain(database, "acme")
    assert (report.ok, report.rows) == (True, filed)


@pytest.fixture
async def crowd(cluster: str) -> AsyncIterator[list[Database]]:
    found = [Database(cluster) for _ in range(4)]
    for one in found:
        await one.start()
    yield found
    for one in found:
        await one.aclose()


async def test_the_first_changes_of_a_topic_may_come_at_once(crowd: list[Database]):
    change = Change(1.0, "root", "test", "x")
    for i in range(20):
        topic = f"topic-{i}"
        versions = await asyncio.gather(*(one.write(write_change, topic, change) for one in crowd))
        assert sorted(versions) == [1, 2, 3, 4]


async def test_the_first_terms_of_a_scope_may_come_at_once(crowd: list[Database], store: Store):
    config = Config(auth=AuthConfig(hash_key="0123456789abcdef"))
    admins = []
    for one in crowd:
        ledger = Ledger(store, books=LedgerBooks(one))
        admins.append(KeyAdmin(Keyring(config, one, store, ledger), one))
    for i in range(20):
        scopes = [
            ScopeInfo(f"org:acme-{i}", "database", terms=Terms(concurrency=n + 1))
            for n in range(len(admins))
        ]
        await asyncio.gather(
            *(admin.put_scope(scope, "root") for admin, scope in zip(admins, scopes, strict=True))
        )
        log = [
            (entry.before, entry.after)
            for entry in await crowd[0].read(list_changes, None, 4)
            if entry.target == f"org:acme-{i}"
        ]
        # Each says what it replaced: the newest first, the first one nothing.
        assert [before for before, _ in log] == [*(after for _, after in log[1:]), ""]


async def test_rows_it_cannot_hold_are_told_from_its_absence(database: Database):
    with pytest.raises(RecordsRejected):
        await database.write(
            file_records, [UsageRecord("a1", "r1", 1.0, "acme", prompt_tokens=2**63)]
        )
    await database.write(file_records, [UsageRecord("a2", "r1", 1.0, "acme", error="a\0b")])
    assert (await database.read(list_usage, RecordFilter()))[0][0].error == "a\ufffdb"


async def test_what_a_scope_has_spent(database: Database):
    books = LedgerBooks(database)
    assert await books.mark("acme", "key:abc")
    assert not await books.mark("acme", "key:abc")
    filed = UsageRecord("a1", "r1", 10.0, "acme", key_id="abc", cost_nano=2**40)
    waiting = UsageRecord("a2", "r2", 11.0, "acme", key_id="abc", cost_nano=5)
    await database.write(file_records, [filed])
    outbox = [[b"1-0", [b"r", encode_record(filed), b"r", encode_record(waiting)]]]
    assert await books.spent("acme", "key:abc", (0.0, 20.0), outbox) == 2**40 + 5
    assert await books.spent("acme", "key:abc", (0.0, 11.0), outbox) == 2**40
    assert await books.spent("acme", "org:acme", None, outbox) == 2**40 + 5


@pytest.fixture
async def frozen(cluster: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Stops all processes of the server until the end of the test."""
    watcher = Database(cluster)
    await watcher.start()
    own = await watcher.read(_value, "SELECT pg_backend_pid()")
    server = psutil.Process(own).parent()
    assert server is not None
    await watcher.aclose()
    stopped: list[psutil.Process] = []

    async def freeze() -> None:
        for process in (server, *server.children(recursive=True)):
            stopped.append(process)
            process.suspend()

    yield freeze
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def _value(connection: Connection, query: str) -> int:
    return int(connection.exec_driver_sql(query).scalar_one())


async def test_a_server_that_stands_still_is_given_up(
    cluster: str, frozen: Callable[[], Awaitable[None]]
) -> None:
    database = Database(cluster + "&connect_timeout=2", limit_s=0.5)
    await database.start()
    await frozen()
    async with asyncio.timeout(30):
        for ask in (database.read, database.write):
            with pytest.raises(RecordsUnavailable):
                await ask(_value, "SELECT 1")
        waiting = [database.read(_value, "SELECT 1") for _ in range(20)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in found} == {RecordsUnavailable}
        await database.aclose()


async def test_a_query_that_takes_too_long_does_not_end_the_next_one(cluster: str) -> None:
    database = Database(cluster, limit_s=0.5)
    await database.start()
    with pytest.raises(RecordsUnavailable):
        await database.read(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(60)"))
    assert await database.read(_value, "SELECT 1")
    await database.aclose()


async def test_a_query_that_nobody_waits_for_any_more_does_not_keep_the_end_waiting(
    cluster: str, frozen: Callable[[], Awaitable[None]]
) -> None:
    database = Database(cluster + "&connect_timeout=2", limit_s=0.5)
    await database.start()
    await frozen()
    asked = asyncio.create_task(database.write(_value, "SELECT 1"))
    await asyncio.sleep(0.1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    async with asyncio.timeout(30):
        await database.aclose()
    assert asked.cancelled()
