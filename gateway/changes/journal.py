"""The log of administrators' changes, and a version counter for each kind of thing they change.

Both are written in the transaction of the change itself: there is no change without its line,
and no worker can see a new version without the change.
"""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from gateway.records.database import insert_or_ignore
from gateway.records.schema import metadata

admin_log = sa.Table(
    "admin_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("actor", sa.String(64), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("target", sa.String(128), nullable=False),
    sa.Column("before", sa.String(128), nullable=False),
    sa.Column("after", sa.String(128), nullable=False),
)

change_counters = sa.Table(
    "change_counters",
    metadata,
    sa.Column("topic", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


class Change(msgspec.Struct, frozen=True):
    """Who did what to what, when (seconds since the epoch). `before` and `after` identify the
    states (an ETag, a version); they never hold a secret."""

    at: float
    actor: str
    action: str
    target: str
    before: str = ""
    after: str = ""


class LogEntry(Change, frozen=True, kw_only=True):
    id: int


def write_change(connection: sa.Connection, topic: str, change: Change) -> int:
    """Append the line and raise the topic's counter; the new value of the counter."""
    connection.execute(admin_log.insert().values(msgspec.structs.asdict(change)))
    raised = (
        change_counters.update()
        .where(change_counters.c.topic == topic)
        .values(version=change_counters.c.version + 1)
    )
    if connection.execute(raised).rowcount == 0:
        # Another worker may make the topic's first row at the same moment: raise whoever's it is.
        insert_or_ignore(connection, change_counters, [{"topic": topic, "version": 0}])
        connection.execute(raised)
    return current_version(connection, topic)


def current_version(connection: sa.Connection, topic: str) -> int:
    query = sa.select(change_counters.c.version).where(change_counters.c.topic == topic)
    return connection.execute(query).scalar() or 0


def list_changes(connection: sa.Connection, before_id: int | None, limit: int) -> list[LogEntry]:
    """Newest first."""
    query = sa.select(admin_log).order_by(admin_log.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(admin_log.c.id < before_id)
    names = LogEntry.__struct_fields__
    rows = connection.execute(query).mappings()
    return [LogEntry(**{name: row[name] for name in names}) for row in rows]
