"""Questions to the records. Functions of a connection: run them with `Database.read`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Table,
    and_,
    case,
    cast,
    func,
    or_,
    select,
)

from gateway.records.schema import decision_records, usage_records
from gateway.records.types import DecisionRecord, UsageRecord

_decode = msgspec.json.Decoder(DecisionRecord).decode
_SUMMARY_ROWS = 10_000
Dimension = Literal["backend", "model", "tier", "key_id", "team", "org", "outcome", "day"]


class RecordFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that are set must match. `since` (inclusive) and `until` (exclusive): seconds since the
    epoch. `backend`, `model`, `tier` and `outcome` apply to usage, `reason` and `policy` to
    decisions (`policy` to both)."""

    org: str | None = None
    team: str | None = None
    key_id: str | None = None
    request_id: str | None = None
    policy: str | None = None
    backend: str | None = None
    model: str | None = None
    tier: str | None = None
    outcome: str | None = None
    reason: str | None = None
    since: float | None = None
    until: float | None = None


class UsageSummary(msgspec.Struct, frozen=True):
    """One group: the values of the dimensions asked for, then sums."""

    group: dict[str, str]
    attempts: int
    errors: int
    cache_hits: int
    prompt_tokens: int
    completion_tokens: int
    cost_nano: int


class ChainedDecision(msgspec.Struct, frozen=True):
    """A decision with its place in the chain."""

    record: DecisionRecord
    seq: int
    hash: str


def list_usage(
    connection: Connection, wanted: RecordFilter, limit: int = 100, cursor: str | None = None
) -> tuple[list[UsageRecord], str | None]:
    """Newest first, and the cursor of the next page, None at the end. Raises ValueError for a
    cursor that is none."""
    rows = _page(connection, usage_records, "attempt_id", wanted, limit, cursor)
    records = [_usage(row) for row in rows]
    return records, _next(rows, limit, "attempt_id")


def _usage(row: Any) -> UsageRecord:
    values = {**row._mapping, "tags": tuple(row.tags)}
    for name in ("service_tier", "unpriced"):
        # Null in rows of an earlier version.
        values[name] = values[name] or ""
    return UsageRecord(**values)


def list_decisions(
    connection: Connection, wanted: RecordFilter, limit: int = 100, cursor: str | None = None
) -> tuple[list[DecisionRecord], str | None]:
    """As `list_usage`, for decisions."""
    rows = _page(connection, decision_records, "decision_id", wanted, limit, cursor)
    return [_decode(row.body) for row in rows], _next(rows, limit, "decision_id")


def get_decision(
    connection: Connection, decision_id: str, org: str | None = None
) -> ChainedDecision | None:
    """One decision; with `org`, only if it is of that org."""
    query = select(decision_records).where(decision_records.c.decision_id == decision_id)
    if org is not None:
        query = query.where(decision_records.c.org == org)
    row = connection.execute(query).one_or_none()
    return ChainedDecision(_decode(row.body), row.seq, row.hash) if row is not None else None


def summarize_usage(
    connection: Connection, wanted: RecordFilter, by: Sequence[Dimension]
) -> list[UsageSummary]:
    """Sums by the given dimensions, most expensive first. Days are UTC dates."""
    columns = [_dimension(connection, name).label(f"by_{name}") for name in by]
    u = usage_records.c
    failed = case((u.outcome.in_(("ok", "corrected")), 0), else_=1)
    query = (
        select(
            *columns,
            func.count().label("attempts"),
            func.sum(failed).label("errors"),
            func.sum(case((u.cache == "hit", 1), else_=0)).label("cache_hits"),
            func.sum(u.prompt_tokens).label("prompt_tokens"),
            func.sum(u.completion_tokens).label("completion_tokens"),
            func.sum(u.cost_nano).label("cost_nano"),
        )
        .where(*_conditions(usage_records, wanted))
        .group_by(*columns)
        .order_by(func.sum(u.cost_nano).desc())
        .limit(_SUMMARY_ROWS)
    )
    sums = ("attempts", "errors", "cache_hits", "prompt_tokens", "completion_tokens", "cost_nano")
    summaries = []
    for row in connection.execute(query):
        values = row._mapping
        group: dict[str, str] = {name: _group_value(name, values[f"by_{name}"]) for name in by}
        summaries.append(UsageSummary(group, *(int(values[name] or 0) for name in sums)))
    return summaries


def _dimension(connection: Connection, name: Dimension) -> ColumnElement[Any]:
    if name != "day":
        return usage_records.c[name]
    days = usage_records.c.ts / 86400
    # SQLite's cast cuts off and its floor is optional; PostgreSQL's cast rounds.
    return (
        cast(days, Integer)
        if connection.dialect.name == "sqlite"
        else cast(func.floor(days), BigInteger)
    )


def _group_value(name: str, value: Any) -> str:
    if name != "day":
        return str(value)
    return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=int(value)))


def _conditions(table: Table, wanted: RecordFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for name, value in msgspec.structs.asdict(wanted).items():
        if value is None:
            continue
        if name == "since":
            conditions.append(table.c.ts >= value)
        elif name == "until":
            conditions.append(table.c.ts < value)
        elif name in table.c:
            conditions.append(table.c[name] == value)
        else:
            raise ValueError(f"{table.name} cannot be filtered by {name}")
    return conditions


def _page(
    connection: Connection,
    table: Table,
    key: str,
    wanted: RecordFilter,
    limit: int,
    cursor: str | None,
) -> Sequence[Any]:
    query = select(table).where(*_conditions(table, wanted))
    if cursor is not None:
        before, _, last = cursor.partition("~")
        try:
            ts = float(before)
        except ValueError as exc:
            raise ValueError(f"not a cursor: {cursor!r}") from exc
        query = query.where(or_(table.c.ts < ts, and_(table.c.ts == ts, table.c[key] < last)))
    query = query.order_by(table.c.ts.desc(), table.c[key].desc()).limit(limit)
    return connection.execute(query).all()


def _next(rows: Sequence[Any], limit: int, key: str) -> str | None:
    if len(rows) < limit or not rows:
        return None
    last = rows[-1]
    return f"{last.ts!r}~{getattr(last, key)}"
