"""What the ledger asks of the records, see `gateway.ledger.Books`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from gateway.records.database import Database, insert_or_ignore
from gateway.records.outbox import BadEntry, parse_entry
from gateway.records.schema import ledger_marks, usage_records
from gateway.records.types import UsageRecord

_COLUMN = {"key": "key_id", "team": "team", "user": "user", "org": "org"}
_IDS_AT_ONCE = 500
Window = tuple[float, float] | None


class LedgerBooks:
    """Scopes are summed by the usage records' own columns: `key:ID`, `team:NAME`, `user:NAME` and
    `org:NAME`, always within the org."""

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
        return await self._database.read(_spent, org, (column, name), window, chosen)


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
    u = usage_records.c
    query = select(func.sum(u.cost_nano)).where(u.org == org, u[scope[0]] == scope[1])
    if window is not None:
        query = query.where(u.ts >= window[0], u.ts < window[1])
    filed = int(connection.execute(query).scalar() or 0)
    left = dict(waiting)
    ids = list(waiting)
    for start in range(0, len(ids), _IDS_AT_ONCE):
        part = ids[start : start + _IDS_AT_ONCE]
        for (known,) in connection.execute(select(u.attempt_id).where(u.attempt_id.in_(part))):
            left.pop(known, None)
    return filed + sum(left.values())
