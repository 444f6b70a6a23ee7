"""What an operator had deleted stays deleted, wherever it still was.

A conversation may be in the memory of any worker when it is to be deleted: waiting to be written,
being compared, or still being answered. So a deletion leaves a line of what it was about, without
any text, and whatever would be written later is held against these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from gateway.learning import repository
from gateway.learning.repository import Deleted
from gateway.learning.schema import deletions
from gateway.learning.types import Capture, Label, Uncaptured

Row = TypeVar("Row", Capture, Label, Uncaptured)
_EVERY = "*"
# Sets this lock apart from any others in the database: deletions wait for those who write, and
# those who write for deletions.
_LOCK = (0x6C6561, 0x64656C)


def forget(connection: sa.Connection, org: str | None, before: float | None, now: float) -> Deleted:
    """Delete what fits both conditions, now and when it comes to be written, of requests that
    were made until now. Times in seconds since the epoch."""
    _lock(connection, sa.func.pg_advisory_xact_lock)
    whose = _EVERY if org is None else _of(org)
    cut = now if before is None else min(before, now)
    known = connection.execute(
        sa.select(deletions.c.before).where(deletions.c.whose == whose)
    ).scalar()
    if known is None or known < cut:
        row = {"whose": whose, "before": cut}
        repository.upsert(connection, deletions, row, ("whose",))
    return repository.delete(connection, org, before)


def add_captures(connection: sa.Connection, found: Sequence[Capture], max_rows: int) -> int:
    """Those that were not deleted before they came here, as `repository.add_captures` keeps them;
    how many these are."""
    spared = _spared(connection, found)
    if spared:
        repository.add_captures(connection, spared, max_rows)
    return len(spared)


def add_uncaptured(connection: sa.Connection, rows: Sequence[Uncaptured], max_rows: int) -> None:
    """As `repository.add_uncaptured`, of those that were not deleted before they came here."""
    repository.add_uncaptured(connection, _spared(connection, rows), max_rows)


def add_label(connection: sa.Connection, label: Label, max_rows: int) -> bool:
    """As `repository.put_label`, unless it was deleted before it came here: then False."""
    spared = _spared(connection, [label])
    for each in spared:
        repository.put_label(connection, each, max_rows)
    return bool(spared)


def _spared(connection: sa.Connection, rows: Sequence[Row]) -> list[Row]:
    """Until the transaction ends, no deletion begins that they would not be held against."""
    _lock(connection, sa.func.pg_advisory_xact_lock_shared)
    names = {_EVERY, *(_of(row.org) for row in rows)}
    found = connection.execute(sa.select(deletions).where(deletions.c.whose.in_(names)))
    cuts = {line.whose: line.before for line in found}
    every = cuts.get(_EVERY, 0.0)
    return [row for row in rows if row.ts >= max(every, cuts.get(_of(row.org), 0.0))]


def _of(org: str) -> str:
    return f"org:{org}"


def _lock(connection: sa.Connection, how: Callable[..., sa.ColumnElement[Any]]) -> None:
    """On SQLite there is one writer anyhow."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(how(*(sa.cast(part, sa.Integer) for part in _LOCK))))
