"""Deletes records that are older than they may become.

Decisions go from the old end of each chain, in whole runs: a chain stays one, and it says where it
begins now. The store is told before, so that it can tell this from rows that somebody else deletes.
Of usage records the sums stay behind that budgets need.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec
from sqlalchemy import Connection, case, delete, insert, select, update

from gateway.records.chain import Head, check_row, genesis, next_rows, orgs_in, start_of
from gateway.records.database import Database, insert_or_ignore
from gateway.records.drainer import dead_key
from gateway.records.errors import RecordsError
from gateway.records.schema import (
    chain_heads,
    chain_starts,
    decision_records,
    ledger_marks,
    spent_before,
    usage_records,
)
from gateway.records.witness import Witnesses
from gateway.store import Store, StoreError
from gateway.store.lock import Lock

_log = logging.getLogger(__name__)

_DAY_S = 86_400


class Removed(msgspec.Struct, frozen=True):
    """How many records went. `dead`: entries of the outbox that could never be filed."""

    decisions: int = 0
    usage: int = 0
    dead: int = 0


class Run(msgspec.Struct, frozen=True):
    """The oldest rows of a chain that may go: how many, those after `start` up to `end`. `problem`:
    what is wrong with the row after them, in words."""

    rows: int
    start: Head
    end: Head
    problem: str | None = None


class Retention:
    """Deletes what is older than `keep_s` seconds, `batch` rows at a time with a pause of `pause_s`
    between them, every `interval_s`. Run in every worker: the lock saves double work, and two at
    once stay right."""

    def __init__(
        self,
        store: Store,
        database: Database,
        lock: Lock,
        keep_s: float,
        *,
        batch: int = 500,
        pause_s: float = 0.05,
        interval_s: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._witnesses = Witnesses(store)
        self._database = database
        self._lock = lock
        self._keep_s = keep_s
        self._batch = batch
        self._pause_s = pause_s
        self._interval_s = interval_s
        self._clock = clock

    async def run(self) -> None:
        """For ever; cancel to end. Failures are logged, and the next time is a new try."""
        try:
            while True:
                try:
                    if await self._lock.hold():
                        gone = await self.once()
                        if any(msgspec.structs.astuple(gone)):
                            _log.info("deleted by retention: %s", gone)
                except (StoreError, RecordsError) as exc:
                    _log.warning("retention of records waits: %s", exc)
                await asyncio.sleep(self._interval_s)
        finally:
            await self._lock.release()

    async def once(self) -> Removed:
        """Delete all that is too old now. Raises StoreError, RecordsError."""
        before = self._clock() - self._keep_s
        decisions = usage = dead = 0
        for org in await self._database.read(orgs_in, decision_records):
            decisions += await self._decisions(org, before)
        for org in await self._database.read(orgs_in, usage_records):
            usage += await self._usage(org, before)
        for org in await self._witnesses.orgs():
            dead += await self._store.command("XTRIM", dead_key(org), "MINID", int(before * 1000))
        return Removed(decisions, usage, dead)

    async def _decisions(self, org: str, before: float) -> int:
        gone = 0
        while await self._lock.hold():
            # Where the store's head is gone, the next row could not be told from one after a cut.
            head = await self._witnesses.head(org)
            last = None if head is None else head.seq
            run = await self._database.read(oldest, org, before, self._batch, last)
            # After the tables: whoever deletes tells the store before.
            if not (await self._witnesses.of(org)).allows(run.start):
                said = f"rows up to {run.start.seq} were cut off"
                run = Run(0, run.start, run.start, said)
            if run.rows:
                await self._witnesses.allow(org, run.end)
                gone += await self._database.write(cut, org, run.end)
            if run.problem is not None:
                _log.error("retention leaves the decision records of %s: %s", org, run.problem)
            if run.problem is not None or run.rows < self._batch:
                break
            await asyncio.sleep(self._pause_s)
        return gone

    async def _usage(self, org: str, before: float) -> int:
        gone = 0
        while await self._lock.hold():
            rows = await self._database.write(forget_usage, org, before, self._batch)
            gone += rows
            if rows < self._batch:
                break
            await asyncio.sleep(self._pause_s)
        return gone


def oldest(
    connection: Connection, org: str, before: float, limit: int, last: int | None = None
) -> Run:
    """The rows at the beginning of a chain that were all made before that time, up to number `last`
    and at most `limit`. One that does not follow the row before it, or was changed, ends them: what
    has been tampered with is evidence."""
    start = end = start_of(connection, org) or genesis(org)
    count = 0
    for row in connection.execute(next_rows(org, end, limit, last)).all():
        problem = check_row(row, end)
        if problem is not None:
            return Run(count, start, end, f"at row {row.seq}: {problem}")
        if row.ts >= before:
            break
        count, end = count + 1, Head(row.seq, row.hash)
    return Run(count, start, end)


def cut(connection: Connection, org: str, end: Head) -> int:
    """Delete the rows of a chain up to this one; how many went: none where another worker was
    first. Needs a write transaction."""
    # The row lock keeps two workers on PostgreSQL from moving the beginning at once.
    connection.execute(
        select(chain_heads.c.seq).where(chain_heads.c.org == org).with_for_update()
    ).all()
    rows, start = decision_records.c, chain_starts.c
    there = select(rows.hash).where(rows.org == org, rows.seq == end.seq)
    if connection.execute(there).scalar() != end.hash:
        return 0
    gone = connection.execute(delete(decision_records).where(rows.org == org, rows.seq <= end.seq))
    connection.execute(delete(chain_starts).where(start.org == org))
    connection.execute(insert(chain_starts).values(org=org, seq=end.seq, hash=end.hash))
    return int(gone.rowcount)


def forget_usage(connection: Connection, org: str, before: float, limit: int) -> int:
    """Delete usage records of before that time, at most `limit`; how many went. What they had cost
    stays in `spent_before`. Needs a write transaction."""
    u = usage_records.c
    some = select(u.attempt_id).where(u.org == org, u.ts < before).limit(limit)
    columns = (u.ts, u.cost_nano, u.key_id, u.team, u.user)
    # Two workers at once: only what this one has really deleted counts.
    gone = connection.execute(
        delete(usage_records).where(u.attempt_id.in_(some)).returning(*columns)
    ).all()
    sums: dict[tuple[str, int], tuple[int, float]] = {}
    for row in gone:
        if not row.cost_nano:
            continue
        scopes = {"key": row.key_id, "team": row.team, "user": row.user, "org": org}
        for scope in (f"{kind}:{name}" for kind, name in scopes.items() if name):
            cost, last = sums.get((scope, row.ts // _DAY_S), (0, row.ts))
            sums[scope, row.ts // _DAY_S] = (cost + row.cost_nano, max(last, row.ts))
    _keep(connection, org, sums)
    return len(gone)


def _keep(connection: Connection, org: str, sums: dict[tuple[str, int], tuple[int, float]]) -> None:
    """Add to what scopes had spent, those that have had a budget."""
    marks = ledger_marks.c
    names = {scope for scope, _ in sums}
    marked = select(marks.scope).where(marks.org == org, marks.scope.in_(names))
    known = set(connection.execute(marked).scalars())
    kept = spent_before.c
    for (scope, day), (cost, last) in sorted(sums.items()):
        if scope not in known:
            continue
        row = {"org": org, "scope": scope, "day": int(day)}
        insert_or_ignore(connection, spent_before, [row | {"cost_nano": 0, "last": last}])
        added = update(spent_before).where(*(kept[name] == value for name, value in row.items()))
        later = case((kept.last > last, kept.last), else_=last)
        connection.execute(added.values(cost_nano=kept.cost_nano + cost, last=later))
