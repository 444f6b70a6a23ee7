"""Captures, feedback and labels in the database: plain functions of an open connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from gateway.learning.schema import captures, feedback, labels, uncaptured
from gateway.learning.types import Capture, Label, Scored, Side, Uncaptured, WhyNot
from gateway.records.database import insert_or_ignore

_CAPTURE = Capture.__struct_fields__
_LABEL = Label.__struct_fields__
_SCORED = Scored.__struct_fields__
# Sets these locks apart from any others in the database.
_TURNS = 0x6C6561726E
# A page of the longest conversations has some tens of MB.
_PAGE = 100


class Given(msgspec.Struct, frozen=True):
    """What a key said of a decision. `outcome` in [0, 1]. `with_text`: the comment may be kept only
    if the conversation is. `learn`: whether a label may be made of it."""

    decision_id: str
    key_id: str
    org: str
    ts: float
    outcome: float
    comment: str = ""
    with_text: bool = False
    learn: bool = True


class Deleted(msgspec.Struct, frozen=True):
    """How many rows went."""

    labels: int
    captures: int
    feedback: int


def upsert(
    connection: sa.Connection, table: sa.Table, row: Mapping[str, Any], keys: Sequence[str]
) -> None:
    """Insert, or replace everything but the keys."""
    changed = {name: value for name, value in row.items() if name not in keys}
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # slow to import, and few need it

        insert = postgresql.insert(table).values(row)
        connection.execute(insert.on_conflict_do_update(index_elements=list(keys), set_=changed))
    else:
        put = sqlite.insert(table).values(row)
        connection.execute(put.on_conflict_do_update(index_elements=list(keys), set_=changed))


def add_captures(connection: sa.Connection, found: Sequence[Capture], max_rows: int) -> None:
    """Keep conversations, `max_rows` of them (see `trim`), and make labels of what was said about
    them before they came here."""
    ids = [capture.decision_id for capture in found]
    _await_turn(connection, ids)
    insert_or_ignore(connection, captures, [msgspec.structs.asdict(c) for c in found])
    said = sa.select(feedback.c.decision_id).where(feedback.c.decision_id.in_(ids)).distinct()
    early = set(connection.execute(said).scalars())
    for capture in found:
        if capture.decision_id in early:
            label_of(connection, capture, max_rows)
    trim(connection, captures, max_rows)


def add_uncaptured(connection: sa.Connection, rows: Sequence[Uncaptured], max_rows: int) -> None:
    """Keep why conversations are not there, of `max_rows`."""
    insert_or_ignore(connection, uncaptured, [msgspec.structs.asdict(row) for row in rows])
    trim(connection, uncaptured, max_rows)


def why_uncaptured(connection: sa.Connection, org: str, decision_id: str) -> WhyNot | None:
    """None for a conversation that is kept, or of which nothing is known."""
    c = uncaptured.c
    query = sa.select(c.reason).where(c.decision_id == decision_id, c.org == org)
    return connection.execute(query).scalar()


def _await_turn(connection: sa.Connection, decision_ids: Sequence[str]) -> None:
    """Of a conversation that comes and feedback that comes, and of two keys that speak, one at a
    time for each decision: whoever is second must see what the first one did, or no label is made
    of both. On SQLite there is one writer anyhow."""
    if connection.dialect.name != "postgresql":
        return
    from sqlalchemy.dialects import postgresql  # slow to import, and few need it

    each = sa.func.unnest(postgresql.array(decision_ids, type_=sa.Text)).column_valued("id")
    turn = sa.func.hashtextextended(each, _TURNS)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(turn)))


def find_capture(
    connection: sa.Connection, org: str, decision_id: str, *, lock: bool = False
) -> Capture | None:
    """With `lock`, nobody deletes it until the transaction ends."""
    query = sa.select(captures).where(captures.c.decision_id == decision_id, captures.c.org == org)
    if lock:
        query = query.with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Capture(**{name: row[name] for name in _CAPTURE})


def give(connection: sa.Connection, given: Given, max_rows: int) -> tuple[bool, Side | None]:
    """Store feedback; whether it replaced earlier feedback of the same key, and which side it
    labelled: None when the conversation is not kept, or may not be learnt from any more."""
    _await_turn(connection, [given.decision_id])
    where = (feedback.c.decision_id == given.decision_id, feedback.c.key_id == given.key_id)
    replaced = connection.execute(sa.select(feedback.c.ts).where(*where)).first() is not None
    row = msgspec.structs.asdict(given)
    capture = None
    if row.pop("learn"):
        # Locked, so that nobody deletes it, and then makes no label of it, before this one is made.
        capture = find_capture(connection, given.org, given.decision_id, lock=True)
    if row.pop("with_text") and capture is None:
        row["comment"] = ""
    upsert(connection, feedback, row, ("decision_id", "key_id"))
    trim(connection, feedback, max_rows)
    if capture is None:
        return replaced, None
    label_of(connection, capture, max_rows)
    return replaced, capture.side


def label_of(connection: sa.Connection, capture: Capture, max_rows: int) -> None:
    """Make the label of a kept conversation from the feedback of all keys: their mean."""
    if capture.side == "":
        return
    f = feedback.c
    query = sa.select(sa.func.avg(f.outcome), sa.func.max(f.ts)).where(
        f.decision_id == capture.decision_id, f.org == capture.org
    )
    mean, last = connection.execute(query).one()
    if mean is None:
        return
    weak, outcome = capture.side == "weak", float(mean)
    put_label(
        connection,
        Label(
            decision_id=capture.decision_id,
            source="feedback",
            org=capture.org,
            ts=capture.ts,
            created=float(last),
            conversation=capture.conversation,
            local_ok=outcome if weak else None,
            frontier_ok=None if weak else outcome,
            local_model=capture.model if weak else None,
            frontier_model=None if weak else capture.model,
            **{key: getattr(capture, key) for key in _SCORED},
        ),
        max_rows,
    )


def put_label(connection: sa.Connection, label: Label, max_rows: int) -> None:
    """Insert or replace, and keep `max_rows`."""
    upsert(connection, labels, msgspec.structs.asdict(label), ("decision_id", "source"))
    trim(connection, labels, max_rows)


def list_labels(
    connection: sa.Connection,
    org: str | None,
    limit: int,
    cursor: str | None = None,
    max_bytes: int | None = None,
) -> tuple[list[Label], str | None]:
    """Newest request first, the labels of one decision next to each other, and the cursor of the
    next page. With `max_bytes` fewer than `limit`, once their conversations are as long as that
    together, but never none. Raises ValueError for a cursor that is none."""
    c = labels.c
    query = sa.select(labels)
    if org is not None:
        query = query.where(c.org == org)
    if cursor is not None:
        ts, decision_id, source = _parse(cursor)
        query = query.where(
            sa.or_(
                c.ts < ts,
                sa.and_(c.ts == ts, c.decision_id < decision_id),
                sa.and_(c.ts == ts, c.decision_id == decision_id, c.source < source),
            )
        )
    query = query.order_by(c.ts.desc(), c.decision_id.desc(), c.source.desc())
    if max_bytes is not None:
        limit = _fitting(connection, query, limit, max_bytes)
    rows = connection.execute(query.limit(limit)).mappings()
    found = [Label(**{name: row[name] for name in _LABEL}) for row in rows]
    if len(found) < limit or not found:
        return found, None
    last = found[-1]
    return found, f"{last.ts!r}~{last.decision_id}~{last.source}"


def _fitting(connection: sa.Connection, query: sa.Select[Any], limit: int, max_bytes: int) -> int:
    """Of the first `limit` rows, how many fit, the first one in any case. Asked before the rows
    themselves, which may be a hundred times too much."""
    text = labels.c.conversation
    if connection.dialect.name == "postgresql":
        size = sa.func.octet_length(text)
    else:
        size = sa.func.length(sa.cast(text, sa.LargeBinary))
    total = 0
    for before, each in enumerate(
        connection.execute(query.with_only_columns(size).limit(limit)).scalars()
    ):
        total += each
        if before and total > max_bytes:
            return before
    return limit


def _parse(cursor: str) -> tuple[float, str, str]:
    ts, _, rest = cursor.partition("~")
    decision_id, _, source = rest.partition("~")
    try:
        return float(ts), decision_id, source
    except ValueError as exc:
        raise ValueError(f"not a cursor: {cursor!r}") from exc


def newest_labels(
    connection: sa.Connection, org: str | None, limit: int, characters: int
) -> list[Label]:
    """All labels of the newest conversations, those of one decision together: `limit` of them, or
    fewer, the last of which brings the sum of their texts to `characters`."""
    return list(_of_conversations(connection, org, limit, characters))


def _of_conversations(
    connection: sa.Connection, org: str | None, limit: int, characters: int
) -> Iterator[Label]:
    seen, size, last, cursor = 0, 0, "", None
    while True:
        page, cursor = list_labels(connection, org, _PAGE, cursor)
        for label in page:
            if label.decision_id != last:
                if size >= characters:
                    return
                seen, last = seen + 1, label.decision_id
            if seen > limit:
                return
            size += len(label.conversation)
            yield label
        if cursor is None:
            return


def trim(connection: sa.Connection, table: sa.Table, max_rows: int) -> int:
    """Delete rows beyond `max_rows`, the oldest of the organisations that have the most; how many
    went."""
    c = table.c
    if connection.execute(sa.select(c.ts).offset(max_rows).limit(1)).first() is None:
        return 0
    each = sa.select(c.org, sa.func.count()).group_by(c.org)
    rows = {org: int(count) for org, count in connection.execute(each)}
    places, gone = fair_share(list(rows.values()), max_rows), 0
    for org, count in rows.items():
        if count <= places:
            continue
        oldest = sa.select(c.ts).where(c.org == org).order_by(c.ts.desc()).offset(places).limit(1)
        over = table.delete().where(c.org == org, c.ts <= oldest.scalar_subquery())
        gone += int(connection.execute(over).rowcount)
    return gone


def fair_share(counts: Sequence[int], places: int) -> int:
    """The most that each may keep, so that all fit into `places`: who has less keeps all, and what
    that leaves is shared by the others."""
    share, left = 0, places
    ordered = sorted(counts)
    for at, count in enumerate(ordered):
        share = left // (len(ordered) - at)
        if count > share:
            return share
        left -= count
    return max(share, *ordered) if ordered else places


def delete(connection: sa.Connection, org: str | None, before: float | None) -> Deleted:
    """Delete what fits both conditions, conversations and comments included. What was said of a
    conversation goes with it, at whatever time it was said."""
    fits = {table: _fits(table, org, before) for table in (captures, labels, feedback)}
    # A label or comment that is being made of one of these conversations holds it, and is waited
    # for: what comes after that finds no conversation.
    held = sa.select(captures.c.decision_id).where(fits[captures]).with_for_update()
    connection.execute(held).all()
    of_these = [
        feedback.c.decision_id.in_(sa.select(table.c.decision_id).where(fits[table]))
        for table in (captures, labels)
    ]
    which = {feedback: sa.or_(fits[feedback], *of_these)} | {t: fits[t] for t in (captures, labels)}
    gone = {
        table: int(connection.execute(table.delete().where(where)).rowcount)
        for table, where in which.items()
    }
    connection.execute(uncaptured.delete().where(_fits(uncaptured, org, before)))
    return Deleted(labels=gone[labels], captures=gone[captures], feedback=gone[feedback])


def _fits(table: sa.Table, org: str | None, before: float | None) -> sa.ColumnElement[bool]:
    whose = sa.true() if org is None else table.c.org == org
    when = sa.true() if before is None else table.c.ts < before
    return sa.and_(whose, when)


def retain(connection: sa.Connection, before: float, max_rows: int) -> Deleted:
    """Delete what is older than `before`, and of each kind what is beyond `max_rows`."""
    gone = delete(connection, None, before)
    more = [trim(connection, table, max_rows) for table in (labels, captures, feedback)]
    trim(connection, uncaptured, max_rows)
    return Deleted(*(a + b for a, b in zip(msgspec.structs.astuple(gone), more, strict=True)))


def counts(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """How many rows there are, by source and by which side is labelled (`local`, `frontier`,
    `both`)."""
    c = labels.c
    both = sa.and_(c.local_ok.is_not(None), c.frontier_ok.is_not(None))
    side = sa.case((both, "both"), (c.local_ok.is_not(None), "local"), else_="frontier")
    query = sa.select(c.source, side.label("side"), sa.func.count()).group_by(c.source, "side")
    return {(source, name): int(count) for source, name, count in connection.execute(query)}
