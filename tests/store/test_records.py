"""Filing, the chain, and questions to the records."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.ledger.ledger import ORGS
from gateway.records import (
    Database,
    DecisionRecord,
    Drainer,
    RecordFilter,
    RecordsError,
    RecordsUnavailable,
    RejectedCandidate,
    SchemaMismatch,
    UsageRecord,
    encode_record,
    file_records,
    get_decision,
    list_decisions,
    list_usage,
    summarize_usage,
    verify_chain,
)
from gateway.store import EmbeddedStore, Store
from gateway.store.lock import Lock


def decision(i: int, org: str = "acme", **more: object) -> DecisionRecord:
    return DecisionRecord(
        f"d{i}",
        f"r{i}",
        1000.0 + i,
        org,
        labels=("eu",),
        plan=("local/tiny",),
        rejected=(RejectedCandidate("openai/gpt", "residency", "jurisdiction=us"),),
        reason="residency",
        **more,
    )


async def put(store: Store, *records: object, org: str = "acme") -> None:
    await store.command("SADD", ORGS, org)
    for record in records:
        await store.command("XADD", f"th:{{{org}}}:o", "*", "r", encode_record(record))


@pytest.fixture
async def chain(database: Database) -> Database:
    await database.write(file_records, [decision(i) for i in range(10)])
    await database.write(file_records, [decision(i, "umbrella") for i in range(10, 13)])
    return database


async def test_filing_empties_the_outbox_and_is_idempotent(
    store: Store, database: Database, drainer: Drainer
):
    usage = UsageRecord("a1", "r1", 5.0, "acme", tags=("x",), cost_nano=7, ms_first=1.5)
    for _ in range(2):
        await put(store, usage, decision(1), decision(2))
        assert (await drainer.lag()).entries == 3
        await drainer.flush()
        assert (await drainer.lag()).entries == 0
    assert await database.read(list_usage, RecordFilter()) == ([usage], None)
    assert (await database.read(list_decisions, RecordFilter()))[0] == [decision(2), decision(1)]
    (report,) = await verify_chain(database, None, drainer.seen)
    assert (report.org, report.rows, report.ok) == ("acme", 2, True)


async def test_a_sound_chain(chain: Database):
    reports = await verify_chain(chain)
    assert [(r.org, r.rows, r.ok) for r in reports] == [("acme", 10, True), ("umbrella", 3, True)]


async def test_others_are_served_while_a_long_chain_is_verified(database: Database):
    await database.write(file_records, [decision(i) for i in range(2100)])
    verifying = asyncio.create_task(verify_chain(database))
    await asyncio.sleep(0)
    await database.read(lambda connection: None)
    assert not verifying.done()
    (report,) = await verifying
    assert (report.ok, report.rows) == (True, 2100)


@pytest.mark.parametrize(
    ("tampering", "seq"),
    [
        ("UPDATE decision_records SET body = replace(body, 'eu', 'us') WHERE seq = 4", 4),
        ("UPDATE decision_records SET reason = 'policy' WHERE seq = 4", 4),
        ("UPDATE decision_records SET ts = 1 WHERE seq = 4", 4),
        ("UPDATE decision_records SET refusal = 'budget' WHERE seq = 4", 4),
        ("DELETE FROM decision_records WHERE seq = 4", 5),
        ("DELETE FROM decision_records WHERE seq = 1", 2),
        ("DELETE FROM decision_records WHERE seq = 10", 10),
        ("DELETE FROM chain_heads WHERE org = 'acme'", 10),
        ("UPDATE chain_heads SET seq = 11 WHERE org = 'acme'", 11),
        ("UPDATE decision_records SET org = 'umbrella', seq = 14 WHERE seq = 10", 10),
    ],
)
async def test_tampering_is_found_at_its_row(chain: Database, rows, tampering: str, seq: int):
    await rows(tampering + " AND org = 'acme'" * ("WHERE seq" in tampering))
    report = (await verify_chain(chain, "acme"))[0]
    assert not report.ok
    assert report.seq == seq


async def test_a_row_before_the_first_is_found(chain: Database, rows):
    await rows("UPDATE decision_records SET seq = 0 WHERE seq = 10 AND org = 'acme'")
    await rows("DELETE FROM decision_records WHERE seq > 0 AND org = 'acme'")
    report = (await verify_chain(chain, "acme"))[0]
    assert (report.ok, report.seq) == (False, 0)


async def test_swapped_rows_are_found(chain: Database, rows):
    for old, new in ((4, 99), (5, 4), (99, 5)):
        await rows(f"UPDATE decision_records SET seq = {new} WHERE seq = {old} AND org = 'acme'")
    report = (await verify_chain(chain, "acme"))[0]
    assert (report.ok, report.seq) == (False, 4)


async def test_a_tail_cut_with_its_head_is_told_by_the_store(
    store: Store, database: Database, drainer: Drainer, rows
):
    await put(store, *(decision(i) for i in range(5)))
    await drainer.flush()
    await rows("DELETE FROM decision_records WHERE seq > 3")
    await rows(
        "UPDATE chain_heads SET seq = 3, hash = (SELECT hash FROM decision_records WHERE seq = 3)"
    )
    assert (await verify_chain(database))[0].ok
    report = (await verify_chain(database, None, drainer.seen))[0]
    assert (report.ok, report.seq) == (False, 4)


async def test_a_chain_made_anew_is_told_by_the_store(
    store: Store, database: Database, drainer: Drainer, rows
):
    await put(store, *(decision(i) for i in range(3)))
    await drainer.flush()
    await rows("DELETE FROM decision_records")
    await rows("DELETE FROM chain_heads")
    await database.write(file_records, [decision(i) for i in (7, 8, 9)])
    assert (await verify_chain(database))[0].ok
    assert not (await verify_chain(database, None, drainer.seen))[0].ok


CUT = (
    "DELETE FROM decision_records WHERE seq > 3",
    "UPDATE chain_heads SET seq = 3, hash = (SELECT hash FROM decision_records WHERE seq = 3)",
)


async def test_a_cut_tail_stays_told_when_the_chain_goes_on(
    store: Store, database: Database, drainer: Drainer, rows, caplog
):
    await put(store, *(decision(i) for i in range(5)))
    await drainer.flush()
    for statement in CUT:
        await rows(statement)
    for more in ((5,), (6, 7), (8,)):
        await put(store, *(decision(i) for i in more))
        await drainer.flush()
        (report,) = await verify_chain(database, None, drainer.seen)
        assert (report.ok, report.seq) == (False, 4)
        assert report.problem == "rows 4 to 5 were cut off before row 4 was filed"
    # Nothing that came afterwards is lost by it, and the rows of now are a chain again.
    assert (report.rows, (await verify_chain(database))[0].ok) == (7, True)
    assert caplog.text.count("acme: rows 4 to 5 were cut off") == 1


async def test_rows_that_the_store_had_not_noted_yet_are_no_cut(
    store: Store, database: Database, drainer: Drainer, caplog
):
    """A drainer was killed between filing and noting; or there were two."""
    await put(store, *(decision(i) for i in range(3)))
    await drainer.flush()
    noted = await store.command("GET", "th:{acme}:head")
    await put(store, *(decision(i) for i in (3, 4)))
    await drainer.flush()
    await store.command("SET", "th:{acme}:head", noted)
    await put(store, decision(5))
    await drainer.flush()
    (report,) = await verify_chain(database, None, drainer.seen)
    assert (report.ok, report.rows, (await drainer.seen())["acme"].cuts) == (True, 6, ())
    assert caplog.text == ""


async def test_every_cut_is_told(store: Store, database: Database, drainer: Drainer, rows):
    await put(store, *(decision(i) for i in range(5)))
    await drainer.flush()
    for i in range(5, 10):
        for statement in CUT:
            await rows(statement)
        await put(store, *(decision(j) for j in (i, i + 100)))
        await drainer.flush()
    (report,) = await verify_chain(database, None, drainer.seen)
    assert report.problem == "rows 4 to 5 were cut off before row 4 was filed, and 4 more such"


async def test_a_replaced_tail_stays_told_when_the_chain_goes_on(
    store: Store, database: Database, drainer: Drainer, rows
):
    await put(store, *(decision(i) for i in range(5)))
    await drainer.flush()
    for statement in CUT:
        await rows(statement)
    # By another hand, up to the old end and past it: in itself the chain is sound.
    await database.write(file_records, [decision(i) for i in (11, 12, 13)])
    await put(store, decision(5))
    await drainer.flush()
    (report,) = await verify_chain(database, None, drainer.seen)
    assert (report.ok, report.rows, report.seq) == (False, 7, 5)
    assert report.problem == "row 5 was replaced before row 7 was filed"


async def test_a_database_made_anew_is_told(
    store: Store, database: Database, drainer: Drainer, rows
):
    await put(store, *(decision(i) for i in range(5)))
    await drainer.flush()
    await rows("DELETE FROM decision_records")
    await rows("DELETE FROM chain_heads")
    (report,) = await verify_chain(database, None, drainer.seen)
    assert (report.ok, report.problem) == (False, "the chain ends at 0, the store saw 5")
    await put(store, decision(5))
    await drainer.flush()
    (report,) = await verify_chain(database, None, drainer.seen)
    assert report.problem == "rows 1 to 5 were cut off before row 1 was filed"
    # As the manual says, for one who knows why.
    await store.command("DEL", "th:{acme}:cuts")
    (report,) = await verify_chain(database, None, drainer.seen)
    assert report.ok


async def test_two_drainers_make_one_chain(store: Store, database: Database, tmp_path: Path):
    other = Database(f"sqlite:///{tmp_path}/records.db")
    await other.start()
    await put(store, *(decision(i) for i in range(60)))
    # Both at once, as after a lock that ran out under a stalled owner.
    drainers = [
        Drainer(store, db, Lock(store, "drain", name), batch=7)
        for db, name in ((database, "one"), (other, "two"))
    ]
    await asyncio.gather(*(drainer.flush() for drainer in drainers))
    (report,) = await verify_chain(database, None, drainers[0].seen)
    assert (report.ok, report.rows) == (True, 60)
    await other.aclose()


KILLED = """
import asyncio, os, signal, sys
from gateway.records import Database, Drainer
from gateway.store import Store, StoreSettings
from gateway.store.lock import Lock

class Dying(Store):
    async def command(self, *words, **more):
        die_before(words[0])
        return await super().command(*words, **more)

    async def call(self, script, *more):
        die_before(script.name)
        return await super().call(script, *more)

def die_before(name):
    if name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = Dying(StoreSettings(sys.argv[1], deadline_ms=60_000))
    database = Database(sys.argv[2])
    await database.start()
    await Drainer(store, database, Lock(store, "drain", "dying"), batch=10).drain_once()

asyncio.run(main())
"""


@pytest.mark.parametrize("before", ["XDEL", "note"])
async def test_a_drainer_killed_after_its_commit_files_nothing_twice(
    valkey: EmbeddedStore, store: Store, database: Database, drainer: Drainer, tmp_path, before
):
    usage = [UsageRecord(f"a{i}", f"r{i}", float(i), "acme", cost_nano=3) for i in range(15)]
    await put(store, *(r for i in range(15) for r in (decision(i), usage[i])))
    args = [sys.executable, "-c", KILLED, valkey.url, f"sqlite:///{tmp_path}/records.db", before]
    status = await asyncio.to_thread(subprocess.call, args)
    assert status == -signal.SIGKILL
    assert (await verify_chain(database))[0].rows == 5
    assert await store.command("XLEN", "th:{acme}:o") == 30
    await drainer.flush()
    (report,) = await verify_chain(database, None, drainer.seen)
    assert (report.ok, report.rows) == (True, 15)
    (total,) = await database.read(summarize_usage, RecordFilter(), ())
    assert (total.attempts, total.cost_nano) == (15, 45)


@pytest.mark.parametrize("before", ["note", "XDEL"])
async def test_a_drainer_killed_over_a_cut_tail_hides_nothing(
    valkey: EmbeddedStore,
    store: Store,
    database: Database,
    drainer: Drainer,
    rows,
    tmp_path,
    before,
):
    await put(store, *(decision(i) for i in range(5)))
    await drainer.flush()
    for statement in CUT:
        await rows(statement)
    await put(store, decision(5))
    args = [sys.executable, "-c", KILLED, valkey.url, f"sqlite:///{tmp_path}/records.db", before]
    assert await asyncio.to_thread(subprocess.call, args) == -signal.SIGKILL
    for i in (6, 7, 8):
        assert not (await verify_chain(database, None, drainer.seen))[0].ok
        await put(store, decision(i))
        await drainer.flush()
    (report,) = await verify_chain(database, None, drainer.seen)
    assert (report.ok, report.rows) == (False, 7)


async def test_bad_entries_are_set_aside_and_the_rest_is_filed(
    store: Store, database: Database, drainer: Drainer
):
    await put(store, UsageRecord("a1", "r1", 1.0, "acme"))
    await store.command("XADD", "th:{acme}:o", "*", "r", b"{not json")
    await store.command("XADD", "th:{acme}:o", "*", "x", b"{}", "t", "lease_expired", "c", "1")
    huge = UsageRecord("a2", "r2", 1.0, "acme", prompt_tokens=2**63)
    await put(store, huge, UsageRecord("a3", "r3", 1.0, "acme", error="a\0b"))
    await drainer.flush()
    records, _ = await database.read(list_usage, RecordFilter())
    assert {r.attempt_id: r.error for r in records} == {"a1": "", "a3": "a\ufffdb"}
    assert await store.command("XLEN", "th:{acme}:dead") == 3


async def test_a_server_that_the_outbox_has_filled_is_emptied(
    store: Store, database: Database, drainer: Drainer
):
    await put(store, *(decision(i) for i in range(3)), UsageRecord("a1", "r1", 1.0, "acme"))
    await store.command("XADD", "th:{acme}:o", "*", "r", b"{not json")
    await store.command("CONFIG", "SET", "maxmemory", "1")
    running = asyncio.create_task(drainer.run())
    try:
        async with asyncio.timeout(30):
            while await store.command("XLEN", "th:{acme}:o"):  # noqa: ASYNC110 - no event to wait on
                await asyncio.sleep(0.02)
    finally:
        await store.command("CONFIG", "SET", "maxmemory", "64mb")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    (report,) = await verify_chain(database, None, drainer.seen)
    assert (report.ok, report.rows) == (True, 3)
    assert (await drainer.seen())["acme"].head == report.head
    assert await store.command("XLEN", "th:{acme}:dead") == 1


async def test_the_drainer_survives_a_database_that_is_locked(
    store: Store, database: Database, drainer: Drainer, caplog
):
    class Sometimes:
        failures = 2

        async def write(self, work, *args):
            if self.failures:
                self.failures -= 1
                raise RecordsUnavailable("locked")
            return await database.write(work, *args)

    await put(store, decision(1))
    task = asyncio.create_task(
        Drainer(store, Sometimes(), Lock(store, "drain", "me"), interval_s=0.01).run()
    )
    async with asyncio.timeout(30):
        while (await drainer.lag()).entries:  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await verify_chain(database))[0].rows == 1
    assert caplog.text.count("locked") == 2


async def test_pages_and_filters(database: Database):
    usage = [
        UsageRecord(
            f"a{i:02}", f"r{i}", float(i // 3), "acme", key_id="k1" if i % 2 else "k2", tier="local"
        )
        for i in range(20)
    ]
    await database.write(file_records, usage)
    seen: list[UsageRecord] = []
    cursor = None
    while True:
        page, cursor = await database.read(list_usage, RecordFilter(), 7, cursor)
        seen += page
        if cursor is None:
            break
    assert seen == sorted(usage, key=lambda r: (r.ts, r.attempt_id), reverse=True)
    wanted = RecordFilter(key_id="k1", since=2.0, until=4.0)
    found, _ = await database.read(list_usage, wanted)
    assert {r.attempt_id for r in found} == {
        r.attempt_id for r in usage if r.key_id == "k1" and 2 <= r.ts < 4
    }
    with pytest.raises(ValueError, match="cursor"):
        await database.read(list_usage, RecordFilter(), 7, "x")
    with pytest.raises(ValueError, match="reason"):
        await database.read(list_usage, RecordFilter(reason="x"))


async def test_a_decision_is_shown_to_its_own_org_only(chain: Database):
    found = await chain.read(get_decision, "d3", "acme")
    assert found is not None
    assert (found.record, found.seq) == (decision(3), 4)
    assert await chain.read(get_decision, "d3", "umbrella") is None
    assert await chain.read(get_decision, "nope") is None


async def test_sums_by_backend_key_and_day(database: Database):
    day = 86_400.0
    await database.write(
        file_records,
        [
            UsageRecord("1", "r", day * 2 - 0.5, "acme", backend="b", cost_nano=5),
            UsageRecord("2", "r", day * 2, "acme", backend="b", cost_nano=7, outcome="error"),
            UsageRecord("3", "r", day * 2.7, "acme", backend="c", cost_nano=1, cache="hit"),
        ],
    )
    by_day = await database.read(summarize_usage, RecordFilter(), ("day",))
    assert [(s.group["day"], s.cost_nano) for s in by_day] == [
        ("1970-01-03", 8),
        ("1970-01-02", 5),
    ]
    by_backend = await database.read(summarize_usage, RecordFilter(), ("backend",))
    assert [(s.group["backend"], s.attempts, s.errors, s.cache_hits) for s in by_backend] == [
        ("b", 2, 1, 0),
        ("c", 1, 0, 1),
    ]


async def test_another_schema_version_is_refused(database: Database, rows, tmp_path: Path):
    await rows("UPDATE schema_version SET version = 99")
    other = Database(f"sqlite:///{tmp_path}/records.db")
    with pytest.raises(SchemaMismatch, match="99"):
        await other.start()
    await other.aclose()


async def test_many_workers_may_start_on_an_empty_database(tmp_path: Path):
    databases = [Database(f"sqlite:///{tmp_path}/new/records.db") for _ in range(4)]
    await asyncio.gather(*(database.start() for database in databases))
    assert await databases[3].read(list_usage, RecordFilter()) == ([], None)
    for database in databases:
        await database.aclose()


@pytest.mark.parametrize("url", ["nonsense", "oracle9://x", "sqlite:////proc/nope/records.db"])
async def test_a_database_that_cannot_be_opened_is_an_error_of_ours(url: str):
    database = Database(url)
    with pytest.raises(RecordsError):
        await database.start()
    await database.aclose()


def readable_by_others(folder: Path) -> tuple[set[str], list[str]]:
    """The names of all files below it, and of those that others than their owner may use."""
    made = [path for path in folder.glob("*/**/*") if not path.is_dir()]
    return {path.name for path in made}, [p.name for p in made if p.stat().st_mode & 0o077]


async def test_files_are_for_their_owner_alone_wherever_they_are(tmp_path: Path) -> None:
    for folder in (tmp_path / "records", tmp_path / "store"):
        folder.mkdir(mode=0o755)
    database = Database(f"sqlite:///{tmp_path}/records/records.db")
    server = EmbeddedStore(tmp_path / "store")
    before = os.umask(0o022)
    try:
        await database.start()
        await database.write(file_records, [decision(1)])
        server.start()
        made, readable = readable_by_others(tmp_path)
        assert {"records.db", "records.db-wal", "valkey.log"} <= made
        assert readable == []
    finally:
        os.umask(before)
        server.stop()
        await database.aclose()
