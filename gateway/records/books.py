"""What the ledger asks of the records, see `gateway.ledger.Books`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from gateway.records.database import Database, insert_or_ignore
from gateway.records.outbox import BadEntry, parse_entry
from gateway.records.schema import ledger_marks, spent_before, usage_records
from gateway.records.types import UsageRecord

_COLUMN = {"key": "key_id", "team": "team", "user": "user", "org": "org"}
_IDS_AT_ONCE = 500
Window = tuple[float, float] | None


class LedgerBooks:
    """Scopes are summed by the usage records' own columns: `key:ID`, `team:NAME`, `user:NAME` and
    `org:NAME`, always within the org. Of records that retention has deleted, the sum of a UTC day
    counts whole where any of them was in the window: too much rather than too little."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def mark(self, org: str, scope: str) -> bool:
        """Note that the scope has a ledger key. True when this is its first."""
        return await self._database.write(_mark, org, scope)

    async def spent(self, org: str, scope: str, window: Window, outbox: list[Any]) -> int:
        """Nano-USD in the records of a window, those waiting in the outbox included."""
        kind, _, name = scope.partition(":")
        column = _COLUMN.get(kind)
        if column is None or not name:
            raise ValueError(f"records do not tell scopes of the kind {kind!r} apart")
        waiting: dict[str, UsageRecord] = {}
        for _, fields in outbox:
            try:
                records = parse_entry(fields)
            except BadEntry:
                # The drainer sets such entries aside and reports them.
                continue
            for record in records:
                if isinstance(record, UsageRecord) and record.org == org:
                    waiting[record.attempt_id] = record
        chosen = {
            record.attempt_id: record.cost_nano
            for record in waiting.values()
            if getattr(record, column) == name
            and (window is None or window[0] <= record.ts < window[1])
        }
        return await self._database.read(_spent, org, (kind, name), window, chosen)


def _mark(connection: Connection, org: str, scope: str) -> bool:
    where = (ledger_marks.c.org == org, ledger_marks.c.scope == scope)
    known = connection.execute(select(ledger_marks.c.org).where(*where)).first()
    if known is None:
        insert_or_ignore(connection, ledger_marks, [{"org": org, "scope": scope}])
    return known is None


def _spent(
    connection: Connection,
    org: str,
    scope: tuple[str, str],
    window: Window,
    waiting: dict[str, int],
) -> int:
    (kind, name), u, b = scope, usage_records.c, spent_before.c
    filed = select(func.sum(u.cost_nano)).where(u.org == org, u[_COLUMN[kind]] == name)
    before = select(func.sum(b.cost_nano)).where(b.org == org, b.scope == f"{kind}:{name}")
    if window is not None:
        filed = filed.where(u.ts >= window[0], u.ts < window[1])
        before = before.where(b.last >= window[0], b.day * 86_400 < window[1])
    # One statement: retention moves costs from one table to the other meanwhile.
    parts = connection.execute(select(filed.scalar_subquery(), before.scalar_subquery())).one()
    left = dict(waiting)
    ids = list(waiting)
    for start in range(0, len(ids), _IDS_AT_ONCE):
        part = ids[start : start + _IDS_AT_ONCE]
        for (known,) in connection.execute(select(u.attempt_id).where(u.attempt_id.in_(part))):
            left.pop(known, None)
    return sum(int(part or 0) for part in parts) + sum(left.values())
