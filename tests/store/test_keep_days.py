"""Records that are too old go, on SQLite and PostgreSQL: chains and books stay right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from gateway.ledger import Ledger
from gateway.ledger.ledger import ORGS
from gateway.records import (
    Database,
    DecisionRecord,
    Drainer,
    LedgerBooks,
    RecordFilter,
    Removed,
    Retention,
    UsageRecord,
    Witnesses,
    encode_record,
    file_records,
    list_decisions,
    list_usage,
    verify_chain,
)
from gateway.records.retention import cut, forget_usage, oldest
from gateway.store import Store
from gateway.store.lock import Lock

DAY = 86_400.0
NOW = 1_800_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/records.db")
    else:
        database = Database(request.getfixturevalue("cluster"))
    await database.start()
    yield database
    tables = "usage_records decision_records chain_heads chain_starts spent_before ledger_marks"
    for table in tables.split():
        await database.write(lambda c, name=table: c.exec_driver_sql(f"DELETE FROM {name}"))
    await database.aclose()


def decision(i: int, days: float, org: str = "acme") -> DecisionRecord:
    """Made so many days ago."""
    return DecisionRecord(f"{org}{i}", f"r{i}", NOW - days * DAY, org, reason="policy")


def usage(i: int, days: float, cost: int = 10, **more: object) -> UsageRecord:
    values = {"key_id": "abc", "team": "ml", "user": "ann"} | more
    return UsageRecord(f"a{i}", f"r{i}", NOW - days * DAY, "acme", cost_nano=cost, **values)


class Books:
    """A store, its drainer, and a retention of ten days at NOW."""

    def __init__(self, store: Store, database: Database, clock) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.drainer = Drainer(store, database, Lock(store, "drain", "me"))
        clock.now = NOW

    def retention(self, name: str = "me", batch: int = 7, store: Store | None = None) -> Retention:
        lock = Lock(self.store, name, name)
        return Retention(
            store or self.store,
            self.database,
            lock,
            10 * DAY,
            batch=batch,
            pause_s=0,
            interval_s=0.02,
            clock=self.clock,
        )

    async def file(self, *records: DecisionRecord | UsageRecord) -> None:
        for record in records:
            await self.store.command("SADD", ORGS, record.org)
            key = f"th:{{{record.org}}}:o"
            await self.store.command("XADD", key, "*", "r", encode_record(record))
        await self.drainer.flush()

    async def verify(self, org: str = "acme"):
        (report,) = await verify_chain(self.database, org, self.drainer.seen)
        return report

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.database.write(lambda c, s=statement: c.execute(text(s)))


@pytest.fixture
def books(store: Store, database: Database, clock) -> Books:
    return Books(store, database, clock)


async def test_what_is_too_old_goes_and_the_rest_is_a_chain(books: Books):
    await books.file(*(decision(i, 40 - i) for i in range(40)))
    await books.file(*(decision(i, 11 - i, "umbrella") for i in range(3)))
    await books.file(*(usage(i, 40 - i) for i in range(40)))
    assert await books.retention().once() == Removed(decisions=31, usage=30)
    kept = (await books.database.read(list_decisions, RecordFilter(org="acme")))[0]
    assert [d.decision_id for d in kept] == [f"acme{i}" for i in range(39, 29, -1)]
    assert len((await books.database.read(list_usage, RecordFilter()))[0]) == 10
    report = await books.verify()
    assert (report.problem, report.rows, report.deleted) == (None, 10, 30)
    report = await books.verify("umbrella")
    assert (report.problem, report.rows, report.deleted) == (None, 2, 1)
    assert await books.retention().once() == Removed()
    await books.file(decision(40, 0))
    report = await books.verify()
    assert (report.problem, report.rows, report.head.seq) == (None, 11, 41)


async def test_a_chain_goes_on_when_all_of_it_is_gone(books: Books):
    await books.file(*(decision(i, 20) for i in range(5)))
    assert (await books.retention().once()).decisions == 5
    report = await books.verify()
    assert (report.problem, report.rows, report.deleted) == (None, 0, 5)
    await books.file(decision(5, 0))
    report = await books.verify()
    assert (report.problem, report.rows, report.head.seq) == (None, 1, 6)
    assert (await books.drainer.seen())["acme"].cuts == ()


async def test_a_head_that_the_store_had_not_moved_on_from_is_no_cut(books: Books):
    """A drainer was killed between filing and noting, after the rows before were deleted."""
    await books.file(*(decision(i, 20) for i in range(5)))
    noted = await books.store.command("GET", "th:{acme}:head")
    await books.retention().once()
    await books.file(decision(5, 0))
    await books.store.command("SET", "th:{acme}:head", noted)
    await books.file(decision(6, 0))
    report = await books.verify()
    assert (report.problem, report.rows) == (None, 2)


async def test_a_row_that_the_store_has_not_noted_stays(books: Books):
    await books.file(*(decision(i, 20) for i in range(5)))
    noted = await books.store.command("GET", "th:{acme}:head")
    await books.file(*(decision(i, 20) for i in range(5, 8)))
    await books.store.command("SET", "th:{acme}:head", noted)
    assert (await books.retention().once()).decisions == 5
    await books.file(decision(8, 0))
    report = await books.verify()
    assert (report.problem, report.rows) == (None, 4)
    assert (await books.retention().once()).decisions == 3


async def test_a_worker_that_comes_late_moves_no_beginning_back(books: Books):
    await books.file(*(decision(i, 20 if i < 10 else 5) for i in range(12)))
    early = await books.database.read(oldest, "acme", NOW - 10 * DAY, 7)
    assert (await books.retention().once()).decisions == 10
    await Witnesses(books.store).allow("acme", early.end)
    assert await books.database.write(cut, "acme", early.end) == 0
    report = await books.verify()
    assert (report.problem, report.deleted) == (None, 10)


async def test_an_old_decision_that_was_filed_late_waits_for_those_before_it(books: Books):
    await books.file(decision(0, 20), decision(1, 5), decision(2, 20))
    assert (await books.retention().once()).decisions == 1
    assert (await books.verify()).deleted == 1
    books.clock.now += 6 * DAY
    assert (await books.retention().once()).decisions == 2
    assert (await books.verify()).ok


FORGED = (
    "INSERT INTO chain_starts SELECT org, seq, hash FROM decision_records WHERE seq = 3",
    "DELETE FROM decision_records WHERE seq <= 3",
)
FURTHER = (
    "UPDATE chain_starts SET seq = 6, hash = (SELECT hash FROM decision_records WHERE seq = 6)",
    "DELETE FROM decision_records WHERE seq <= 6",
)


async def test_a_beginning_cut_off_by_another_hand_is_told(books: Books):
    await books.file(*(decision(i, 5) for i in range(8)))
    await books.run(*FORGED)
    # In themselves the tables are sound.
    assert (await verify_chain(books.database, "acme"))[0].ok
    said = "rows up to 3 were cut off, retention has deleted none"
    for i in (8, 9):
        report = await books.verify()
        assert (report.problem, report.seq) == (said, 1)
        # Neither retention nor what is filed later covers it up.
        await books.retention().once()
        await books.file(decision(i, 0))


async def test_a_beginning_cut_off_further_than_retention_did_is_told(books: Books):
    await books.file(*(decision(i, 20 if i < 4 else 5) for i in range(9)))
    assert (await books.retention().once()).decisions == 4
    await books.run(*FURTHER)
    for _ in range(2):
        report = await books.verify()
        assert report.problem == "rows up to 6 were cut off, retention has deleted those up to 4"
        assert report.seq == 5
        await books.retention().once()
    # Not even where the rest has become old enough.
    books.clock.now += 6 * DAY
    await books.file(decision(20, -6))
    await books.retention().once()
    assert not (await books.verify()).ok


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        ("DELETE FROM chain_starts", "row 1 is missing"),
        ("UPDATE chain_starts SET seq = 3", "row 4 is missing"),
        ("UPDATE chain_starts SET hash = 'x'", "does not follow the row before it"),
        ("DELETE FROM decision_records WHERE seq = 5", "row 5 is missing"),
        ("UPDATE chain_heads SET seq = 3", "the chain ends at 8, its head says 3"),
    ],
)
async def test_tampering_after_a_deletion_is_told(books: Books, tampering: str, problem: str):
    await books.file(*(decision(i, 20 if i < 4 else 5) for i in range(8)))
    assert (await books.retention().once()).decisions == 4
    await books.run(tampering)
    assert (await books.verify()).problem == problem


async def test_what_was_tampered_with_is_not_deleted(books: Books, caplog):
    await books.file(*(decision(i, 20) for i in range(9)))
    await books.run("DELETE FROM decision_records WHERE seq = 6")
    assert (await books.retention().once()).decisions == 5
    assert "the decision records of acme: at row 7: row 6 is missing" in caplog.text
    assert (await books.retention().once()).decisions == 0
    report = await books.verify()
    assert (report.ok, report.problem) == (False, "row 6 is missing")


async def test_a_store_that_has_lost_its_data_believes_the_beginning_once(books: Books):
    await books.file(*(decision(i, 20 if i < 4 else 5) for i in range(8)))
    await books.retention().once()
    await books.store.command("FLUSHALL")
    assert (await books.verify()).ok
    await books.file(decision(8, 0))
    assert (await books.verify()).problem is None
    await books.run(*FURTHER)
    assert not (await books.verify()).ok


class Dies(Exception):
    """A worker is killed here."""


@pytest.mark.parametrize("where", ["before the tables", "after them"])
async def test_a_worker_killed_on_the_way_leaves_a_sound_chain(
    books: Books, where: str, monkeypatch
):
    await books.file(*(decision(i, 20) for i in range(20)))
    write = books.database.write

    async def dying(*args):
        if where == "after them":
            await write(*args)
        raise Dies

    monkeypatch.setattr(books.database, "write", dying)
    with pytest.raises(Dies):
        await books.retention().once()
    monkeypatch.undo()
    report = await books.verify()
    assert (report.problem, report.deleted) == (None, 7 if where == "after them" else 0)
    await books.retention().once()
    report = await books.verify()
    assert (report.problem, report.deleted) == (None, 20)


async def test_a_chain_is_verified_while_it_is_being_deleted(books: Books):
    await books.file(*(decision(i, 20 if i < 1500 else 5) for i in range(2500)))
    deleting = asyncio.create_task(books.retention(batch=50).once())
    reports = [await books.verify()]
    while not deleting.done():
        reports.append(await books.verify())
    assert (await deleting).decisions == 1500
    assert {report.problem for report in reports} == {None}
    assert (await books.verify()).rows == 1000


async def test_two_workers_at_once_delete_once(books: Books, database: Database):
    await books.database.read(lambda c: None)
    await books.file(*(decision(i, 20 if i < 90 else 5) for i in range(100)))
    await books.file(*(usage(i, 20 if i < 90 else 5) for i in range(100)))
    await LedgerBooks(database).mark("acme", "key:abc")
    gone = await asyncio.gather(*(books.retention(name).once() for name in ("one", "two")))
    assert sum(each.decisions for each in gone) == 90
    assert sum(each.usage for each in gone) == 90
    assert (await books.verify()).ok
    assert await LedgerBooks(database).spent("acme", "key:abc", None, []) == 1000


async def test_books_that_are_lost_are_made_anew_with_what_was_deleted(
    books: Books, ledger: Ledger, make
):
    scopes = [make.scope("key:abc", 10_000), make.scope("org:acme", 10_000, "month")]
    scopes.append(make.scope("team:ml", 10_000, "day"))
    for scope in scopes:
        await ledger.provision("acme", scope)
    # NOW is the 15th of a month, at eight o'clock.
    await books.file(*(usage(i, days) for i, days in enumerate((60, 20, 13, 12, 11, 1, 0.1))))

    async def spent() -> list[int]:
        found = []
        for scope in scopes:
            await books.store.command("DEL", f"th:{{acme}}:b:{scope.id}")
            await ledger.provision("acme", scope)
            balance = await ledger.balance("acme", scope)
            assert balance is not None
            found.append(balance.spent)
        return found

    before = await spent()
    assert before == [70, 50, 10]
    assert (await books.retention().once()).usage == 5
    assert await spent() == before
    books.clock.now += 30 * DAY
    assert (await books.retention().once()).usage == 2
    assert await spent() == [70, 0, 0]


async def test_nothing_stays_of_who_never_had_a_budget(books: Books, database: Database):
    await LedgerBooks(database).mark("acme", "key:abc")
    await books.file(usage(1, 20), usage(2, 20, key_id="other"), usage(3, 20, cost=-4))
    await books.retention().once()
    query = text("SELECT org, scope, cost_nano FROM spent_before")
    rows = await database.read(lambda c: [tuple(row) for row in c.execute(query)])
    assert rows == [("acme", "key:abc", 6)]


async def test_entries_that_cannot_be_filed_go_too(books: Books):
    await books.store.command("SADD", ORGS, "acme")
    old, new = (int((NOW - days * DAY) * 1000) for days in (20, 5))
    for at in (old, new):
        await books.store.command("XADD", "th:{acme}:dead", f"{at}-0", "r", b"{not json")
    assert (await books.retention().once()).dead == 1
    assert await books.store.command("XLEN", "th:{acme}:dead") == 1


async def test_it_goes_on_after_a_failure(books: Books, caplog, monkeypatch):
    await books.file(*(usage(i, 20) for i in range(3)))
    failing = [True]

    def sometimes(*args):
        if failing:
            failing.pop()
            raise OverflowError("too much")
        return forget_usage(*args)

    monkeypatch.setattr("gateway.records.retention.forget_usage", sometimes)
    running = asyncio.create_task(books.retention().run())
    try:
        async with asyncio.timeout(30):
            while (await books.database.read(list_usage, RecordFilter()))[0]:  # noqa: ASYNC110 - none
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert "retention of records waits: database: too much" in caplog.text


async def test_records_that_nobody_put_in_the_store_go_too(books: Books):
    """Those of an organisation that the store has forgotten."""
    await books.database.write(file_records, [decision(0, 20), usage(0, 20)])
    assert await books.retention().once() == Removed(decisions=1, usage=1)
    assert (await books.verify()).ok
