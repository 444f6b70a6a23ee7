"""The hash chain of decisions: one per org, numbered without gaps.

Row n holds sha256(hash of row n-1, then its own body as canonical JSON). Editing, deleting or
moving a row breaks it at that place. A cut tail is told by the head, which is kept in a table of
its own and in the store. Where the tables no longer lead to the store's head when the next row is
appended, the chain goes on, for no decision may be lost, and the store keeps the place as a Cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select, update

from gateway.records.database import Database, insert_or_ignore, insert_rows
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


async def verify_chain(
    database: Database, org: str | None = None, seen: Mapping[str, Witness] | None = None
) -> list[ChainReport]:
    """Check the chain of one org, or of all, each as far as it went when its turn came. `seen`:
    what the store says of each org's chain; read it before, so that the tables are never behind
    it. A page at a time, so that others who need the database get in between. Raises
    RecordsError."""
    seen = seen or {}
    wanted = [org] if org is not None else sorted(await database.read(_orgs) | set(seen))
    return [await _verify(database, name, seen.get(name, Witness())) for name in wanted]


class _Extent(msgspec.Struct, frozen=True):
    """What was there at one moment: the head, and the number of the last row."""

    head: Head | None
    last: int | None


async def _verify(database: Database, org: str, seen: Witness) -> ChainReport:
    store_head = seen.head
    extent = await database.read(_extent, org)
    table_head, end, last = extent.head, extent.last, genesis(org)
    while end is not None:
        found = await database.read(_follow, org, last, end, store_head)
        if isinstance(found, ChainReport):
            return found
        done = found == last or found.seq >= end
        last = found
        if done:
            break
    if table_head is None:
        if last.seq:
            return ChainReport(org, last.seq, last, last.seq, "the head is missing")
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


def _orgs(connection: Connection) -> set[str]:
    """Those with a head or a row. From org to org by the index: there are few of them, and the
    rows are many."""
    found = set(connection.execute(select(chain_heads.c.org)).scalars())
    first = select(func.min(decision_records.c.org))
    org = connection.execute(first).scalar()
    while org is not None:
        found.add(org)
        org = connection.execute(first.where(decision_records.c.org > org)).scalar()
    return found


def _extent(connection: Connection, org: str) -> _Extent:
    # One statement, hence one snapshot: on PostgreSQL a second one sees what was filed meanwhile.
    head = chain_heads.c
    last = select(func.max(decision_records.c.seq)).where(decision_records.c.org == org)
    seq, digest, end = connection.execute(
        select(
            select(head.seq).where(head.org == org).scalar_subquery(),
            select(head.hash).where(head.org == org).scalar_subquery(),
            last.scalar_subquery(),
        )
    ).one()
    return _Extent(None if seq is None else Head(seq, digest), end)


def _follow(
    connection: Connection, org: str, last: Head, end: int, store_head: Head | None
) -> Head | ChainReport:
    """The next page of rows up to number `end`: its last row, or what is wrong with the chain.
    `last` when there is none."""
    query = select(decision_records).where(
        decision_records.c.org == org, decision_records.c.seq <= end
    )
    if last.seq:
        query = query.where(decision_records.c.seq > last.seq)
    for row in connection.execute(query.order_by(decision_records.c.seq).limit(_PAGE)).all():
        problem = _check(row, last)
        if problem is None and store_head is not None and store_head.seq == row.seq:
            problem = None if store_head.hash == row.hash else "differs from the head in the store"
        if problem is not None:
            return ChainReport(org, last.seq, last, row.seq, problem)
        last = Head(row.seq, row.hash)
    return last


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
