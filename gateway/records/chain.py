"""The hash chain of decisions: one per org, numbered without gaps.

Row n holds sha256(hash of row n-1, then its own body as canonical JSON). Editing, deleting or
moving a row breaks it at that place. A cut tail is told by the head, which is kept in a table of
its own and in the store. Where the tables no longer lead to the store's head when the next row is
appended, the chain goes on, for no decision may be lost, and the store keeps the place as a Cut.

Retention deletes the oldest rows. Those that are left follow the last one that is gone, which is
kept in a table of its own, and the store knows how far retention may have come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, Table, func, select, update

from gateway.records.database import Database, insert_or_ignore, insert_rows
from gateway.records.schema import chain_heads, chain_starts, decision_records
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
    """What the store knows of a chain: its head, where it was cut, which stays for good, and the
    last row that retention may have deleted; None where it has deleted none."""

    head: Head | None = None
    cuts: tuple[Cut, ...] = ()
    start: Head | None = None

    def allows(self, start: Head) -> bool:
        """Whether retention may have deleted the rows up to this one. Who knows nothing of a chain
        can deny nothing."""
        if self.start is None:
            return start.seq == 0 or self.head is None
        return start.seq < self.start.seq or start == self.start


ReadChains = Callable[[], Awaitable[Mapping[str, Witness]]]


class Appended(msgspec.Struct, frozen=True):
    """The new head, and the cut that was found before it, if any. `start`: where the store knew no
    head, the last row that retention has deleted, if any."""

    head: Head
    cut: Cut | None = None
    start: Head | None = None


class ChainReport(msgspec.Struct, frozen=True):
    """`rows` were read; `problem` is None for a sound chain, else what is wrong at `seq`. The first
    `deleted` rows are gone: by retention, where the chain is sound."""

    org: str
    rows: int
    head: Head
    seq: int | None = None
    problem: str | None = None
    deleted: int = 0

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
    gone = start_of(connection, org) if known_head is None else None
    return Appended(Head(seq, previous), cut, gone)


def _cut(connection: Connection, org: str, table_head: Head, known_head: Head | None) -> Cut | None:
    if known_head is None or known_head == table_head:
        return None
    # Retention deletes no row after the store's head: it is there, or the last that is gone.
    if known_head.seq <= table_head.seq:
        query = select(decision_records.c.hash).where(
            decision_records.c.org == org, decision_records.c.seq == known_head.seq
        )
        there = connection.execute(query).scalar() == known_head.hash
        if there or start_of(connection, org) == known_head:
            return None
    return Cut(known_head, table_head.seq)


def start_of(connection: Connection, org: str) -> Head | None:
    """The last row that retention has deleted; None while the first one is there."""
    start = chain_starts.c
    row = connection.execute(select(start.seq, start.hash).where(start.org == org)).first()
    return None if row is None else Head(row.seq, row.hash)


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
    database: Database, org: str | None = None, chains: ReadChains | None = None
) -> list[ChainReport]:
    """Check the chain of one org, or of all, each as far as it went when its turn came. `chains`
    reads what the store says of each org's chain; None: look at the tables alone. A page at a time,
    so that others who need the database get in between. Raises RecordsError, and as `chains`."""
    # Before the tables, so that these are never behind its heads.
    seen = await chains() if chains is not None else {}
    wanted = [org] if org is not None else sorted(await database.read(_orgs) | set(seen))
    reports = []
    for name in wanted:
        witness = seen.get(name, Witness())
        walked = await _walk(database, name, witness.head)
        gone = walked.start if isinstance(walked, _Walked) else None
        if chains is not None and gone is not None and not witness.allows(gone):
            # Retention may have gone on since: it tells the store before it deletes.
            later = (await chains()).get(name, Witness())
            witness = msgspec.structs.replace(witness, start=later.start)
        reports.append(_judge(name, walked, witness))
    return reports


class _Extent(msgspec.Struct, frozen=True):
    """What was there at one moment: the head, the number of the last row, and what was deleted."""

    head: Head | None
    last: int | None
    start: Head | None


class _Walked(msgspec.Struct, frozen=True):
    """How far a chain was followed, from the row after `start` to `last`. `table_head`: where its
    head was when that began."""

    start: Head
    last: Head
    table_head: Head | None = None


async def _walk(database: Database, org: str, store_head: Head | None) -> _Walked | ChainReport:
    """To the end that it has now; a report where something is wrong on the way."""
    extent = await database.read(_extent, org)
    start = extent.start or genesis(org)
    walked, end = _Walked(start, start, extent.head), extent.last
    while end is not None:
        found = await database.read(_follow, org, walked, end, store_head)
        if isinstance(found, ChainReport):
            return found
        done = found == walked or found.last.seq >= end
        walked = found
        if done:
            break
    return walked


def _judge(org: str, walked: _Walked | ChainReport, seen: Witness) -> ChainReport:
    """What the ends of the rows, and what the store knows, say of a chain that was followed."""
    if isinstance(walked, ChainReport):
        return walked
    start, last, table_head, store_head = walked.start, walked.last, walked.table_head, seen.head
    sound = ChainReport(org, last.seq - start.seq, last, deleted=start.seq)

    def broken(seq: int, problem: str) -> ChainReport:
        return msgspec.structs.replace(sound, seq=seq, problem=problem)

    if table_head is None:
        if last.seq:
            return broken(last.seq, "the head is missing")
    elif table_head != last:
        problem = f"the chain ends at {last.seq}, its head says {table_head.seq}"
        return broken(last.seq + 1, problem)
    if not seen.allows(start):
        known = 0 if seen.start is None else seen.start.seq
        says = f"those up to {known}" if known else "none"
        problem = f"rows up to {start.seq} were cut off, retention has deleted {says}"
        return broken(min(known + 1, start.seq), problem)
    if store_head is not None and store_head.seq > last.seq:
        return broken(last.seq + 1, f"the chain ends at {last.seq}, the store saw {store_head.seq}")
    if store_head is not None and store_head.seq == start.seq and store_head != start:
        return broken(start.seq, "differs from the head in the store")
    if seen.cuts:
        first, *more = sorted(seen.cuts, key=lambda cut: (cut.seq, cut.head.seq))
        problem = f"{first}, and {len(more)} more such" if more else str(first)
        return broken(first.seq, problem)
    return sound


def _orgs(connection: Connection) -> set[str]:
    """Those with a head or a row."""
    heads = set(connection.execute(select(chain_heads.c.org)).scalars())
    return heads.union(orgs_in(connection, decision_records))


def orgs_in(connection: Connection, table: Table) -> list[str]:
    """Of a table that an index has by org. From org to org: there are few of them, and the rows are
    many."""
    found: list[str] = []
    first = select(func.min(table.c.org))
    org = connection.execute(first).scalar()
    while org is not None:
        found.append(org)
        org = connection.execute(first.where(table.c.org > org)).scalar()
    return found


def _extent(connection: Connection, org: str) -> _Extent:
    # One statement, hence one snapshot: on PostgreSQL a second one sees what was filed meanwhile.
    head, start = chain_heads.c, chain_starts.c
    last = select(func.max(decision_records.c.seq)).where(decision_records.c.org == org)
    seq, digest, end, start_seq, start_hash = connection.execute(
        select(
            select(head.seq).where(head.org == org).scalar_subquery(),
            select(head.hash).where(head.org == org).scalar_subquery(),
            last.scalar_subquery(),
            select(start.seq).where(start.org == org).scalar_subquery(),
            select(start.hash).where(start.org == org).scalar_subquery(),
        )
    ).one()
    return _Extent(
        None if seq is None else Head(seq, digest),
        end,
        None if start_seq is None else Head(start_seq, start_hash),
    )


def _follow(
    connection: Connection, org: str, walked: _Walked, end: int, store_head: Head | None
) -> _Walked | ChainReport:
    """The next page of rows up to number `end`: how far it led, or what is wrong with the chain.
    `walked` itself when there is none."""
    last = walked.last
    rows = connection.execute(next_rows(org, last, _PAGE, end)).all()
    if not rows or rows[0].seq != last.seq + 1:
        # Asked after the rows: where retention was faster, they go on from there.
        start = start_of(connection, org)
        if start is not None and start.seq > last.seq:
            return msgspec.structs.replace(walked, start=start, last=start)
    for row in rows:
        problem = check_row(row, last)
        if problem is None and store_head is not None and store_head.seq == row.seq:
            problem = None if store_head.hash == row.hash else "differs from the head in the store"
        if problem is not None:
            read, gone = last.seq - walked.start.seq, walked.start.seq
            return ChainReport(org, read, last, row.seq, problem, gone)
        last = Head(row.seq, row.hash)
    return msgspec.structs.replace(walked, last=last)


def next_rows(org: str, last: Head, limit: int, end: int | None = None) -> Select[Any]:
    """The rows of a chain after `last`, up to number `end`, in their order."""
    rows = decision_records.c
    query = select(decision_records).where(rows.org == org)
    if last.seq:
        query = query.where(rows.seq > last.seq)
    if end is not None:
        query = query.where(rows.seq <= end)
    return query.order_by(rows.seq).limit(limit)


def check_row(row: Row[Any], last: Head) -> str | None:
    """What is wrong with a row that should follow `last`; None where nothing is."""
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
