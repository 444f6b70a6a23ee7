"""The background task that files the outbox into the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection

from gateway.ledger.ledger import outbox_key
from gateway.records.chain import Appended, Head, Witness, append_decisions
from gateway.records.database import Database, insert_rows
from gateway.records.errors import RecordsError, RecordsRejected
from gateway.records.outbox import BadEntry, parse_entry
from gateway.records.schema import usage_records
from gateway.records.types import DecisionRecord, Record, UsageRecord
from gateway.records.witness import Witnesses
from gateway.store import Script, Store, StoreError
from gateway.store.lock import Lock

_log = logging.getLogger(__name__)

# What the outbox holds may be all that fills the server: it is set aside there as well.
_SET_ASIDE = Script(
    "set_aside", "#!lua flags=allow-oom\nreturn redis.call('XADD', KEYS[1], '*', unpack(ARGV))"
)


class OutboxLag(msgspec.Struct, frozen=True):
    """Entries not filed yet in all orgs, and the age in seconds of the oldest."""

    entries: int
    oldest_s: float


class Drainer:
    """Files up to `batch` entries of an org at a time, then deletes them from the outbox. Killed
    in between, it files them again: usage is keyed by attempt, decisions by decision, so nothing
    is there twice. Run in every worker: the lock saves double work, and two at once stay right."""

    def __init__(
        self,
        store: Store,
        database: Database,
        lock: Lock,
        *,
        batch: int = 100,
        interval_s: float = 0.2,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._witnesses = Witnesses(store)
        self._database = database
        self._lock = lock
        self._batch = batch
        self._interval_s = interval_s
        self._clock = clock

    async def run(self) -> None:
        """For ever; cancel to end. Failures are logged and tried again: what is not filed stays
        in the outbox."""
        try:
            while True:
                pause = self._interval_s
                try:
                    if await self._lock.hold() and await self.drain_once() >= self._batch:
                        pause = 0.0
                except (StoreError, RecordsError) as exc:
                    _log.warning("outbox not filed: %s", exc)
                    pause = max(1.0, self._interval_s)
                await asyncio.sleep(pause)
        finally:
            await self._lock.release()

    async def drain_once(self) -> int:
        """File one batch of every org. Returns how many entries the fullest one had."""
        most = 0
        for org in await self._witnesses.orgs():
            most = max(most, await self._drain(org))
        return most

    async def flush(self) -> None:
        """File everything that is in the outbox now."""
        while await self.drain_once():
            pass

    async def lag(self) -> OutboxLag:
        """How far the database is behind."""
        entries, oldest = 0, None
        for org in await self._witnesses.orgs():
            length = await self._store.command("XLEN", outbox_key(org))
            if not length:
                continue
            entries += length
            first = await self._store.command("XRANGE", outbox_key(org), "-", "+", "COUNT", 1)
            if first:
                made = int(first[0][0].partition(b"-")[0]) / 1000
                oldest = made if oldest is None else min(oldest, made)
        return OutboxLag(entries, 0.0 if oldest is None else max(0.0, self._clock() - oldest))

    async def seen(self) -> dict[str, Witness]:
        """The chains as the store saw them, for `verify_chain`."""
        return await self._witnesses.seen()

    async def _drain(self, org: str) -> int:
        key = outbox_key(org)
        entries = await self._store.command("XRANGE", key, "-", "+", "COUNT", self._batch)
        if not entries:
            return 0
        # Before the transaction, so that the tables are never behind it.
        head = await self._witnesses.head(org)
        known = {org: head} if head is not None else {}
        appended: list[Appended] = []
        readable = []
        for _, fields in entries:
            try:
                readable.append((fields, parse_entry(fields)))
            except BadEntry as exc:
                await self._set_aside(org, fields, exc)
        try:
            records = [record for _, found in readable for record in found]
            filed = await self._database.write(file_records, records, known)
            appended += [filed[org]] if org in filed else []
        except RecordsRejected:
            for fields, found in readable:
                try:
                    filed = await self._database.write(file_records, found, known)
                    appended += [filed[org]] if org in filed else []
                except RecordsRejected as exc:
                    await self._set_aside(org, fields, exc)
        if appended:
            first, last = appended[0], appended[-1].head
            if first.cut is not None:
                _log.error("the decision records of %s: %s", org, first.cut)
            await self._witnesses.note(org, first, last)
        await self._store.command("XDEL", key, *(id for id, _ in entries))
        return len(entries)

    async def _set_aside(self, org: str, fields: list[Any], error: Exception) -> None:
        # One bad entry must not keep all later ones from being filed.
        _log.error(
            "an outbox entry of %s cannot be filed and is kept in its dead stream: %s", org, error
        )
        await self._store.call(_SET_ASIDE, (dead_key(org),), fields)


def dead_key(org: str) -> str:
    """The stream of an org's outbox entries that cannot be filed."""
    return f"th:{{{org}}}:dead"


def file_records(
    connection: Connection, records: list[Record], known: Mapping[str, Head] | None = None
) -> dict[str, Appended]:
    """Insert what is not there yet. Returns what became of the chain of each org that got
    decisions. `known`: the store's heads, see `append_decisions`."""
    known = known or {}
    usage = [_row(record) for record in records if isinstance(record, UsageRecord)]
    insert_rows(connection, usage_records, usage, ignore=True)
    decisions: dict[str, list[DecisionRecord]] = {}
    for record in records:
        if isinstance(record, DecisionRecord):
            decisions.setdefault(record.org, []).append(record)
    appended = {
        org: append_decisions(connection, org, decisions[org], known.get(org))
        for org in sorted(decisions)
    }
    return {org: made for org, made in appended.items() if made is not None}


_values = attrgetter(*(column.name for column in usage_records.columns))
_TAGS = [column.name for column in usage_records.columns].index("tags")


def _row(record: UsageRecord) -> tuple[Any, ...]:
    values = list(_values(record))
    values[_TAGS] = msgspec.json.encode(record.tags).decode()
    for i, value in enumerate(values):
        # PostgreSQL stores no NUL in text; upstream errors and model names may hold one.
        if type(value) is str and "\0" in value:
            values[i] = value.replace("\0", "\ufffd")
    return tuple(values)
