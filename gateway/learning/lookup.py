"""Finding a decision that a client names, which may not be filed yet."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from gateway.ledger.ledger import outbox_key
from gateway.records import Database, DecisionRecord, get_decision
from gateway.records.outbox import BadEntry, parse_entry
from gateway.records.schema import decision_records
from gateway.store import Store

# The drainer is a fraction of a second behind. Further back than this only while the database is
# away, and then nothing can be looked up anyhow.
_OUTBOX_ENTRIES = 2_000


class Lookup:
    """Only ever looks into the records of one organisation, so that an id of another one is
    answered like one that never existed."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    async def find(self, org: str, decision_id: str, request_id: str) -> DecisionRecord | None:
        """By either id; by both when both are given. Raises RecordsError, StoreError."""
        found = await self._database.read(_filed, org, decision_id, request_id)
        if found is not None:
            return found
        found = _pick(await self._waiting(org), decision_id, request_id)
        if found is not None:
            return found
        # What was filed between the two looks is in neither.
        return await self._database.read(_filed, org, decision_id, request_id)

    async def _waiting(self, org: str) -> list[DecisionRecord]:
        entries = await self._store.command(
            "XREVRANGE", outbox_key(org), "+", "-", "COUNT", _OUTBOX_ENTRIES
        )
        found: list[DecisionRecord] = []
        for _, fields in entries:
            try:
                records = parse_entry(fields)
            except BadEntry:
                # The drainer sets such entries aside and reports them.
                continue
            found += [r for r in records if isinstance(r, DecisionRecord) and r.org == org]
        return found


def _pick(
    records: Iterable[DecisionRecord], decision_id: str, request_id: str
) -> DecisionRecord | None:
    for record in records:
        if decision_id and record.decision_id != decision_id:
            continue
        if request_id and record.request_id != request_id:
            continue
        return record
    return None


def _filed(
    connection: sa.Connection, org: str, decision_id: str, request_id: str
) -> DecisionRecord | None:
    if not decision_id:
        query = sa.select(decision_records.c.decision_id).where(
            decision_records.c.request_id == request_id, decision_records.c.org == org
        )
        decision_id = connection.execute(query).scalar() or ""
    found = get_decision(connection, decision_id, org) if decision_id else None
    if found is None or (request_id and found.record.request_id != request_id):
        return None
    return found.record
