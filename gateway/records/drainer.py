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

from gateway.ledger.ledger import ORGS, outbox_key
from gateway.records.chain import Appended, Cut, Head, Witness, append_decisions
from gateway.records.database import Database, insert_rows
from gateway.records.errors import RecordsError, RecordsRejected
from gateway.records.outbox import BadEntry, parse_entry
from gateway.records.schema import usage_records
from gateway.records.types import DecisionRecord, Record, UsageRecord
from gateway.store import Script, Store, StoreError
from gateway.store.lock import Lock

_log = logging.getLogger(__name__)

# What the outbox holds may be all that fills the server: it is filed and deleted there as well.
_NOTE = Script(
    "note",
    """#!lua flags=allow-oom
if ARGV[2] ~= '' then redis.call('SADD', KEYS[2], ARGV[2]) end
return redis.call('SET', KEYS[1], ARGV[1])""",
)
_SET_ASIDE = Script(
    "set_aside", "#!lua flags=allow-oom\nreturn redis.call('XADD', KEYS[1], '*', unpack(ARGV))"
)


class OutboxLag(msgspec.Struct, frozen=True):
    """Entries not filed yet in all orgs, and the age in seconds of the oldest."""

    entries: int
    oldest_s: float


def head_key(org: str) -> str:
    """The store's copy of an org's chain head, as `seq:hash`."""
    return f"th:{{{org}}}:head"


def cuts_key(org: str) -> str:
    """The set of places where an org's chain was cut, as `seq:hash:resumed`. Nothing here removes
    any."""
    return f"th:{{{org}}}:cuts"


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
        for org in await self._orgs():
            most = max(most, await self._drain(org))
        return most

    async def flush(self) -> None:
        """File everything that is in the outbox now."""
        while await self.drain_once():
            pass

    async def lag(self) -> OutboxLag:
        """How far the database is behind."""
        entries, oldest = 0, None
        for org in await self._orgs():
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
        found = {}
        for org in await self._orgs():
            head = await self._head(org)
            cuts = await self._store.command("SMEMBERS", cuts_key(org))
            if head is not None or cuts:
                found[org] = Witness(head, tuple(_read_cut(cut) for cut in cuts))
        return found

    async def _head(self, org: str) -> Head | None:
        value = await self._store.command("GET", head_key(org))
        return _read_head(value) if value else None

    async def _orgs(self) -> list[str]:
        return sorted(org.decode() for org in await self._store.command("SMEMBERS", ORGS))

    async def _drain(self, org: str) -> int:
        key = outbox_key(org)
        entries = await self._store.command("XRANGE", key, "-", "+", "COUNT", self._batch)
        if not entries:
            return 0
        # Before the transaction, so that the tables are never behind it.
        known = {org: head} if (head := await self._head(org)) is not None else {}
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
            await self._note(org, appended[0].cut, appended[-1].head)
        await self._store.command("XDEL", key, *(id for id, _ in entries))
        return len(entries)

    async def _note(self, org: str, cut: Cut | None, head: Head) -> None:
        """Both at once: killed before, the next append finds the cut again by the old head."""
        value = ""
        if cut is not None:
            _log.error("the decision records of %s: %s", org, cut)
            value = f"{cut.head.seq}:{cut.head.hash}:{cut.resumed}"
        keys = (head_key(org), cuts_key(org))
        await self._store.call(_NOTE, keys, (f"{head.seq}:{head.hash}", value))

    async def _set_aside(self, org: str, fields: list[Any], error: Exception) -> None:
        # One bad entry must not keep all later ones from being filed.
        _log.error(
            "an outbox entry of %s cannot be filed and is kept in its dead stream: %s", org, error
        )
        await self._store.call(_SET_ASIDE, (f"th:{{{org}}}:dead",), fields)


def _read_head(value: bytes) -> Head:
    seq, _, digest = value.decode().partition(":")
    return Head(int(seq), digest)


def _read_cut(value: bytes) -> Cut:
    head, _, resumed = value.rpartition(b":")
    return Cut(_read_head(head), int(resumed))


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
