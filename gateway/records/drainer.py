"""The background task that files the outbox into the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection

from gateway.ledger.ledger import ORGS, outbox_key
from gateway.records.chain import Head, append_decisions
from gateway.records.database import Database, insert_rows
from gateway.records.errors import RecordsError, RecordsRejected
from gateway.records.outbox import BadEntry, parse_entry
from gateway.records.schema import usage_records
from gateway.records.types import DecisionRecord, Record, UsageRecord
from gateway.store import Store, StoreError
from gateway.store.lock import Lock

_log = logging.getLogger(__name__)


class OutboxLag(msgspec.Struct, frozen=True):
    """Entries not filed yet in all orgs, and the age in seconds of the oldest."""

    entries: int
    oldest_s: float


def head_key(org: str) -> str:
    """The store's copy of an org's chain head, as `seq:hash`."""
    return f"th:{{{org}}}:head"


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

    async def heads(self) -> dict[str, Head]:
        """The chain heads as the store saw them, for `verify_chain`."""
        heads = {}
        for org in await self._orgs():
            value = await self._store.command("GET", head_key(org))
            if value:
                seq, _, digest = value.decode().partition(":")
                heads[org] = Head(int(seq), digest)
        return heads

    async def _orgs(self) -> list[str]:
        return sorted(org.decode() for org in await self._store.command("SMEMBERS", ORGS))

    async def _drain(self, org: str) -> int:
        key = outbox_key(org)
        entries = await self._store.command("XRANGE", key, "-", "+", "COUNT", self._batch)
        if not entries:
            return 0
        heads: dict[str, Head] = {}
        readable = []
        for _, fields in entries:
            try:
                readable.append((fields, parse_entry(fields)))
            except BadEntry as exc:
                await self._set_aside(org, fields, exc)
        try:
            records = [record for _, found in readable for record in found]
            heads.update(await self._database.write(file_records, records))
        except RecordsRejected:
            for fields, found in readable:
                try:
                    heads.update(await self._database.write(file_records, found))
                except RecordsRejected as exc:
                    await self._set_aside(org, fields, exc)
        if org in heads:
            head = heads[org]
            await self._store.command("SET", head_key(org), f"{head.seq}:{head.hash}")
        await self._store.command("XDEL", key, *(id for id, _ in entries))
        return len(entries)

    async def _set_aside(self, org: str, fields: list[Any], error: Exception) -> None:
        # One bad entry must not keep all later ones from being filed.
        _log.error(
            "an outbox entry of %s cannot be filed and is kept in its dead stream: %s", org, error
        )
        await self._store.command("XADD", f"th:{{{org}}}:dead", "*", *fields)


def file_records(connection: Connection, records: list[Record]) -> dict[str, Head]:
    """Insert what is not there yet. Returns the new chain head of each org that got decisions."""
    usage = [_row(record) for record in records if isinstance(record, UsageRecord)]
    insert_rows(connection, usage_records, usage, ignore=True)
    decisions: dict[str, list[DecisionRecord]] = {}
    for record in records:
        if isinstance(record, DecisionRecord):
            decisions.setdefault(record.org, []).append(record)
    heads = {org: append_decisions(connection, org, decisions[org]) for org in sorted(decisions)}
    return {org: head for org, head in heads.items() if head is not None}


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
