"""The hash chain of decisions: one per org, numbered without gaps.

Row n holds sha256(hash of row n-1, then its own body as canonical JSON). Editing, deleting or
moving a row breaks it at that place. A cut tail is told by the head, which is kept in a table of
its own and in the store. Where the tables no longer lead to the store's head when the next row is
appended, the chain goes on, for no decision may be lost, and the store keeps the place as a Cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select, update

from gateway.records.database import insert_or_ignore, insert_rows
from gateway.records.schema import chain_heads, decision_records
from gateway.records.types import DecisionRecord

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(DecisionRecord).decode
_COPIED = ("decision_id", "org", "request_id", "ts", "team", "key_id", "policy", "reason")
_PAGE = 500


class Head(msgspec.Struct, frozen=True):
    """The last row of a chain; `seq` 0 is the beginning, before any row."""

    seq: int
    hash: str


class Cut(msgspec.Struct, frozen=True):
    """A head that the store knew and the tables no longer led to when the chain went on after row
    `resumed`."""

    head: Head
    resumed: int

    @property
    def seq(self) -> int:
        """The first row that is certainly another one than it was."""
        return min(self.head.seq, self.resumed + 1)

    def __str__(self) -> str:
        last, following = self.head.seq, self.resumed + 1
        if last < following:
            return f"row {last} was replaced before row {following} was filed"
        rows = f"rows {following} to {last} were" if last > following else f"row {last} was"
        return f"{rows} cut off before row {following} was filed"


class Witness(msgspec.Struct, frozen=True):
    """What the store knows of a chain: its head, and where it was cut; that stays for good."""

    head: Head | None = None
    cuts: tuple[Cut, ...] = ()


class Appended(msgspec.Struct, frozen=True):
    """The new head, and the cut that was found before it, if any."""

    head: Head
    cut: Cut | None = None


class ChainReport(msgspec.Struct, frozen=True):
    """`rows` were read; `problem` is None for a sound chain, else what is wrong at `seq`."""

    org: str
    rows: int
    head: Head
    seq: int | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


def genesis(org: str) -> Head:
    """What the first row of an org follows."""
    return Head(0, hashlib.sha256(b"tollhouse\0" + org.encode()).hexdigest())


def link(previous: str, body: str) -> str:
    return hashlib.sha256((previous + body).encode()).hexdigest()


def append_decisions(
    connection: Connection,
    org: str,
    records: Sequence[DecisionRecord],
    known_head: Head | None = None,
) -> Appended | None:
    """Chain those decisions of one org that are not in yet. Returns the new head, or None when
    there was nothing new. `known_head` is the store's, read before the transaction, so that the
    tables are never behind it. Needs a write transaction."""
    fresh = {record.decision_id: record for record in records}
    start = genesis(org)
    insert_or_ignore(connection, chain_heads, [{"org": org, "seq": start.seq, "hash": start.hash}])
    # The row lock keeps two writers on PostgreSQL from continuing the same head.
    row = connection.execute(
        select(chain_heads.c.seq, chain_heads.c.hash)
        .where(chain_heads.c.org == org)
        .with_for_update()
    ).one()
    ids = decision_records.c.decision_id
    for (known,) in connection.execute(select(ids).where(ids.in_(list(fresh)))):
        del fresh[known]
    if not fresh:
        return None
    cut = _cut(connection, org, Head(row.seq, row.hash), known_head)
    seq, previous = row.seq, row.hash
    rows = []
    for record in fresh.values():
        body = _encode(record).decode()
        seq += 1
        digest = link(previous, body)
        rows.append(_row(record, seq, previous, digest, body))
        previous = digest
    insert_rows(connection, decision_records, rows)
    connection.execute(
        update(chain_heads).where(chain_heads.c.org == org).values(seq=seq, hash=previous)
    )
    return Appended(Head(seq, previous), cut)


def _cut(connection: Connection, org: str, table_head: Head, known_head: Head | None) -> Cut | None:
    if known_head is None or known_head == table_head:
        return None
    if known_head.seq <= table_head.seq:
        query = select(decision_records.c.hash).where(
            decision_records.c.org == org, decision_records.c.seq == known_head.seq
        )
        if connection.execute(query).scalar() == known_head.hash:
            return None
    return Cut(known_head, table_head.seq)


def _row(
    record: DecisionRecord, seq: int, previous: str, digest: str, body: str
) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    return (
        record.decision_id,
        record.org,
        seq,
        previous,
        digest,
        record.request_id,
        record.ts,
        record.team,
        record.key_id,
        record.policy,
        record.reason,
        record.refusal,
        body,
    )


def verify_chain(
    connection: Connection, org: str | None = None, seen: Mapping[str, Witness] | None = None
) -> list[ChainReport]:
    """Check the chain of one org, or of all. `seen`: what the store says of each org's chain; read
    it before the transaction, so that the tables are never behind it."""
    seen = seen or {}
    known = {row.org: Head(row.seq, row.hash) for row in connection.execute(select(chain_heads))}
    orgs = set(known) | set(seen)
    orgs |= set(connection.execute(select(decision_records.c.org).distinct()).scalars())
    wanted = sorted(orgs) if org is None else [org]
    return [
        _verify(connection, name, known.get(name), seen.get(name, Witness())) for name in wanted
    ]


def _verify(
    connection: Connection, org: str, table_head: Head | None, seen: Witness
) -> ChainReport:
    store_head = seen.head
    last = genesis(org)
    for row in _rows(connection, org):
        problem = _check(row, last)
        if problem is None and store_head is not None and store_head.seq == row.seq:
            problem = None if store_head.hash == row.hash else "differs from the head in the store"
        if problem is not None:
            return ChainReport(org, last.seq, last, row.seq, problem)
        last = Head(row.seq, row.hash)
    if table_head is None:
        missing = "the head is missing" if last.seq else None
        if missing:
            return ChainReport(org, last.seq, last, last.seq, missing)
    elif table_head != last:
        problem = f"the chain ends at {last.seq}, its head says {table_head.seq}"
        return ChainReport(org, last.seq, last, last.seq + 1, problem)
    if store_head is not None and store_head.seq > last.seq:
        problem = f"the chain ends at {last.seq}, the store saw {store_head.seq}"
        return ChainReport(org, last.seq, last, last.seq + 1, problem)
    if seen.cuts:
        first, *more = sorted(seen.cuts, key=lambda cut: (cut.seq, cut.head.seq))
        problem = f"{first}, and {len(more)} more such" if more else str(first)
        return ChainReport(org, last.seq, last, first.seq, problem)
    return ChainReport(org, last.seq, last)


def _rows(connection: Connection, org: str) -> Iterator[Row[Any]]:
    # In pages by the number: a long chain is never in memory as a whole.
    seq = None
    while True:
        query = select(decision_records).where(decision_records.c.org == org)
        if seq is not None:
            query = query.where(decision_records.c.seq > seq)
        page = connection.execute(query.order_by(decision_records.c.seq).limit(_PAGE)).all()
        yield from page
        if len(page) < _PAGE:
            return
        seq = page[-1].seq


def _check(row: Row[Any], last: Head) -> str | None:
    if row.seq != last.seq + 1:
        return f"row {last.seq + 1} is missing"
    if row.prev_hash != last.hash:
        return "does not follow the row before it"
    if row.hash != link(row.prev_hash, row.body):
        return "the body was changed"
    try:
        record = _decode(row.body)
    except msgspec.MsgspecError:
        return "the body is not a decision"
    for name in (*_COPIED, "refusal"):
        if getattr(record, name) != getattr(row, name):
            return f"column {name} was changed"
    return None
