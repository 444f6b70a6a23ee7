"""What is kept, for how long, and how much of it: on SQLite, and on PostgreSQL where it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from gateway.learning import forgetting, repository
from gateway.learning.repository import Deleted, Given
from gateway.learning.schema import captures, deletions, feedback, labels
from gateway.learning.types import Capture, Label, Side, conversation_of
from gateway.records import Database

MANY = 1000


def empty(connection: sa.Connection) -> None:
    repository.delete(connection, None, None)
    connection.execute(deletions.delete())


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/records.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("cluster")
    database = Database(url)
    await database.start()
    yield database
    await database.write(empty)
    await database.aclose()


def capture(id: int, *, org: str = "acme", side: Side = "weak", ts: float | None = None) -> Capture:
    return Capture(
        decision_id=f"dec_{id}",
        org=org,
        ts=float(id) if ts is None else ts,
        conversation=conversation_of({"prompt": f"text {id}"}),
        side=side,
        p_local_ok=0.5,
        p_frontier_ok=0.75,
        threshold=0.15,
        artefact="m/1",
        model={"weak": "home/m", "strong": "ohio/m", "": "edge/m"}[side],
    )


def given(id: int, outcome: float, *, org: str = "acme", key: str = "k", ts: float = 0.0) -> Given:
    return Given(f"dec_{id}", key, org, ts or float(id), outcome, "a comment")


async def count(database: Database, table: sa.Table) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return int(await database.read(lambda c: c.execute(query).scalar_one()))


async def test_a_label_is_made_whichever_comes_first(database: Database) -> None:
    assert await database.write(repository.give, given(1, 0.0), MANY) == (False, None)
    await database.write(repository.add_captures, [capture(1), capture(2, side="strong")], MANY)
    assert await database.write(repository.give, given(2, 1.0), MANY) == (False, "strong")
    found, _ = await database.read(repository.list_labels, None, 10)
    assert [(x.decision_id, x.local_ok, x.frontier_ok) for x in found] == [
        ("dec_2", None, 1.0),
        ("dec_1", 0.0, None),
    ]
    assert (found[0].p_frontier_ok, found[0].threshold, found[0].artefact) == (0.75, 0.15, "m/1")
    assert [(x.local_model, x.frontier_model) for x in found] == [
        (None, "ohio/m"),
        ("home/m", None),
    ]
    # Captured twice (a worker that was slow to hear of its success): the first stays.
    await database.write(repository.add_captures, [capture(1, side="strong")], MANY)
    assert await database.write(repository.give, given(1, 1.0), MANY) == (True, "weak")


async def test_another_tier_and_another_org_give_no_label(database: Database) -> None:
    await database.write(repository.add_captures, [capture(1, side=""), capture(2)], MANY)
    assert await database.write(repository.give, given(1, 1.0), MANY) == (False, "")
    assert await database.write(repository.give, given(2, 1.0, org="rival"), MANY) == (False, None)
    assert await count(database, labels) == 0


async def test_a_comment_may_need_its_conversation(database: Database) -> None:
    def comments(c: sa.Connection) -> dict[str, str]:
        rows = c.execute(sa.select(feedback.c.decision_id, feedback.c.comment))
        return {id: comment for id, comment in rows}

    await database.write(repository.add_captures, [capture(1)], MANY)
    for id in (1, 2):
        said = msgspec.structs.replace(given(id, 1.0), with_text=True)
        await database.write(repository.give, said, MANY)
    await database.write(repository.give, given(3, 1.0), MANY)
    assert await database.read(comments) == {
        "dec_1": "a comment",
        "dec_2": "",
        "dec_3": "a comment",
    }


async def test_feedback_that_nothing_may_be_learnt_from_makes_no_label(database: Database) -> None:
    def outcomes(c: sa.Connection) -> list[tuple[str, float]]:
        rows = c.execute(sa.select(feedback.c.decision_id, feedback.c.outcome))
        return sorted((id, outcome) for id, outcome in rows)

    await database.write(repository.add_captures, [capture(1), capture(2)], MANY)
    await database.write(repository.give, given(2, 1.0), MANY)
    for id in (1, 2):
        said = msgspec.structs.replace(given(id, 0.0), learn=False)
        assert await database.write(repository.give, said, MANY) == (id == 2, None)
    assert await database.read(outcomes) == [("dec_1", 0.0), ("dec_2", 0.0)]
    found, _ = await database.read(repository.list_labels, None, 10)
    assert [(x.decision_id, x.local_ok) for x in found] == [("dec_2", 1.0)]


@pytest.fixture
async def two(cluster: str) -> AsyncIterator[tuple[Database, Database]]:
    """Two workers on one PostgreSQL."""
    both = Database(cluster), Database(cluster)
    for each in both:
        await each.start()
    yield both
    await both[0].write(empty)
    for each in both:
        await each.aclose()


class Held:
    """Does `work` in a transaction that ends when it is told to."""

    def __init__(self, database: Database, work: Callable[[sa.Connection], object]) -> None:
        self._done, self._go = threading.Event(), threading.Event()

        def transaction(connection: sa.Connection) -> None:
            work(connection)
            self._done.set()
            self._go.wait(30)

        self._task = asyncio.create_task(database.write(transaction))

    async def before(self, database: Database, work: Callable[[sa.Connection], object]) -> None:
        """Begin `work` in the middle of the transaction, then let that end."""
        assert await asyncio.to_thread(self._done.wait, 30)
        second = asyncio.create_task(database.write(work))
        # Long enough for one that does not wait to have ended; it is right either way.
        await asyncio.wait({second}, timeout=0.5)
        self._go.set()
        await self._task
        await second


@pytest.mark.parametrize("feedback_first", [True, False])
async def test_a_conversation_and_its_feedback_do_not_miss_each_other(
    two: tuple[Database, Database], feedback_first: bool
) -> None:
    def comes(connection: sa.Connection) -> None:
        repository.add_captures(connection, [capture(1), capture(2)], MANY)

    def said(connection: sa.Connection) -> None:
        repository.give(connection, given(1, 1.0), MANY)

    first, second = (said, comes) if feedback_first else (comes, said)
    await Held(two[0], first).before(two[1], second)
    found, _ = await two[0].read(repository.list_labels, None, 10)
    assert [label.decision_id for label in found] == ["dec_1"]


async def test_a_label_in_the_making_is_deleted_too(two: tuple[Database, Database]) -> None:
    await two[0].write(repository.add_captures, [capture(1)], MANY)
    making = Held(two[0], lambda c: repository.give(c, given(1, 1.0), MANY))
    await making.before(two[1], lambda c: repository.delete(c, "acme", None))
    for table in (captures, labels):
        assert await count(two[0], table) == 0


async def remaining(database: Database, table: sa.Table) -> list[str]:
    query = sa.select(table.c.decision_id).order_by(table.c.ts)
    return list(await database.read(lambda c: c.execute(query).scalars().all()))


def compared(id: int, *, org: str = "acme") -> Label:
    found = msgspec.structs.asdict(capture(id, org=org))
    found.pop("side")
    model = found.pop("model")
    return Label(**found, source="shadow", created=99.0, local_ok=1.0, local_model=model)


async def test_what_was_deleted_does_not_come_back(database: Database) -> None:
    async def come() -> None:
        """As from the memory of a worker: two organisations, and words of feedback before them."""
        for org, first in (("acme", 0), ("rival", 10)):
            ids = range(first, first + 6)
            await database.write(repository.give, given(first, 1.0, org=org), MANY)
            batch = [capture(i, org=org) for i in ids]
            await database.write(forgetting.add_captures, batch, MANY)
            for i in ids:
                await database.write(forgetting.add_label, compared(i, org=org), MANY)

    await database.write(forgetting.forget, "acme", 2.0, 50.0)
    await come()
    await database.write(forgetting.forget, "acme", 1.0, 50.0)
    assert await remaining(database, captures) == [
        f"dec_{i}" for i in (*range(2, 6), *range(10, 16))
    ]
    assert await database.write(forgetting.forget, "rival", None, 12.5) == Deleted(7, 6, 1)
    await database.write(forgetting.forget, None, 4.0, 50.0)
    await come()
    for table in (captures, labels):
        left = set(await remaining(database, table))
        assert sorted(left) == ["dec_13", "dec_14", "dec_15", "dec_4", "dec_5"]
    # Of requests that come after it, nothing is deleted, whatever time it names.
    await database.write(forgetting.forget, None, 4e9, 50.0)
    assert await count(database, captures) == 0
    late = [capture(49), capture(50)]
    assert await database.write(forgetting.add_captures, late, MANY) == 1
    assert await remaining(database, captures) == ["dec_50"]


@pytest.mark.parametrize("deletion_first", [True, False])
async def test_a_deletion_and_a_conversation_do_not_miss_each_other(
    two: tuple[Database, Database], deletion_first: bool
) -> None:
    def comes(connection: sa.Connection) -> None:
        forgetting.add_captures(connection, [capture(1)], MANY)
        forgetting.add_label(connection, compared(2), MANY)

    def goes(connection: sa.Connection) -> None:
        forgetting.forget(connection, "acme", None, 9.0)

    first, second = (goes, comes) if deletion_first else (comes, goes)
    await Held(two[0], first).before(two[1], second)
    for table in (captures, labels):
        assert await count(two[0], table) == 0


async def test_the_oldest_go_beyond_the_cap(database: Database) -> None:
    for start in range(0, 30, 10):
        batch = [capture(i) for i in range(start, start + 10)]
        await database.write(repository.add_captures, batch, 12)
    assert await count(database, captures) == 12
    kept = await database.read(
        lambda c: set(c.execute(sa.select(captures.c.decision_id)).scalars())
    )
    assert kept == {f"dec_{i}" for i in range(18, 30)}
    for i in range(18, 30):
        await database.write(repository.give, given(i, 1.0), 5)
    assert await count(database, labels) == 5
    assert await count(database, feedback) == 5


async def test_what_is_too_old_goes_whole(database: Database) -> None:
    await database.write(repository.add_captures, [capture(i) for i in range(10)], MANY)
    for i in range(10):
        await database.write(repository.give, given(i, 1.0), MANY)
    gone = await database.write(repository.retain, 4.0, MANY)
    assert gone == Deleted(labels=4, captures=4, feedback=4)
    found, _ = await database.read(repository.list_labels, None, 100)
    assert min(x.ts for x in found) == 4.0
    assert await database.write(repository.retain, 4.0, 3) == Deleted(3, 3, 3)
    assert await database.write(repository.retain, 4.0, 3) == Deleted(0, 0, 0)


async def test_deletion_by_org_and_by_time(database: Database) -> None:
    for org, first in (("acme", 0), ("rival", 10)):
        batch = [capture(i, org=org) for i in range(first, first + 4)]
        await database.write(repository.add_captures, batch, MANY)
        for i in range(first, first + 4):
            await database.write(repository.give, given(i, 1.0, org=org), MANY)
    assert await database.write(repository.delete, "acme", 2.0) == Deleted(2, 2, 2)
    assert await database.write(repository.delete, "rival", None) == Deleted(4, 4, 4)
    found, _ = await database.read(repository.list_labels, None, 100)
    assert [x.decision_id for x in found] == ["dec_3", "dec_2"]


async def test_words_of_a_conversation_go_with_it_however_late_they_came(
    database: Database,
) -> None:
    async def put(ids: range, org: str = "acme") -> None:
        await database.write(repository.add_captures, [capture(i, org=org) for i in ids], MANY)
        for i in ids:
            for key in ("first", "second"):
                said = given(i, 1.0, org=org, key=key, ts=90.0)
                await database.write(repository.give, said, MANY)

    await put(range(4))
    await put(range(10, 12), "rival")
    # Of these, one is left as a label only, and one has neither conversation nor label.
    await database.write(lambda c: c.execute(captures.delete().where(captures.c.ts == 1.0)))
    await database.write(repository.give, given(5, 1.0, ts=90.0), MANY)
    assert await database.write(repository.delete, "acme", 2.0) == Deleted(2, 1, 4)
    assert set(await remaining(database, feedback)) == {
        "dec_2",
        "dec_3",
        "dec_5",
        "dec_10",
        "dec_11",
    }
    assert await database.write(repository.retain, 3.0, MANY) == Deleted(1, 1, 2)
    assert set(await remaining(database, feedback)) == {"dec_3", "dec_5", "dec_10", "dec_11"}
    # By its own time what belongs to nothing else.
    await database.write(repository.delete, "acme", 91.0)
    assert set(await remaining(database, feedback)) == {"dec_10", "dec_11"}


async def test_words_in_the_making_are_deleted_too(two: tuple[Database, Database]) -> None:
    await two[0].write(repository.add_captures, [capture(1)], MANY)
    making = Held(two[0], lambda c: repository.give(c, given(1, 1.0, ts=90.0), MANY))
    await making.before(two[1], lambda c: repository.delete(c, None, 2.0))
    for table in (captures, labels, feedback):
        assert await count(two[0], table) == 0


async def test_a_page_is_bounded_by_its_bytes(database: Database) -> None:
    # Two bytes a character, so that characters would count half.
    sizes = {0: 10, 1: 400, 2: 10, 3: 10, 4: 10, 5: 2000}
    for i, size in sizes.items():
        text = conversation_of({"prompt": "ж" * size})
        label = msgspec.structs.replace(compared(i), conversation=text)
        await database.write(repository.put_label, label, MANY)
    pages: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await database.read(repository.list_labels, None, 3, cursor, 700)
        pages.append("".join(label.decision_id[-1] for label in page))
        if cursor is None:
            break
    # More than a page by itself; as many rows as were asked for; no more bytes; the rest.
    assert pages == ["5", "432", "1", "0"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_pages_lose_nothing_and_keep_decisions_together(
    database: Database, size: int
) -> None:
    for i in range(6):
        # Times that are alike, and both sources for every other one.
        base = msgspec.structs.asdict(capture(i, ts=float(i // 3)))
        del base["side"], base["model"]
        for source in ("feedback", "shadow") if i % 2 else ("shadow",):
            made = Label(**base, source=source, created=9.0, local_ok=1.0)
            await database.write(repository.put_label, made, MANY)
    seen: list[tuple[str, str]] = []
    cursor: str | None = None
    while True:
        page, cursor = await database.read(repository.list_labels, None, size, cursor)
        seen += [(x.decision_id, x.source) for x in page]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 9
    assert [id for id, _ in seen] == sorted((id for id, _ in seen), reverse=True)
    newest = await database.read(repository.newest_labels, None, 2, 10_000)
    assert {x.decision_id for x in newest} == {"dec_5", "dec_4"}
    assert len(newest) == 3
    one = len(newest[0].conversation)
    for characters, ids in ((1, "5"), (2 * one, "5"), (2 * one + 1, "54"), (3 * one + 1, "543")):
        newest = await database.read(repository.newest_labels, None, 6, characters)
        assert [x.decision_id[-1] for x in newest if x.source == "shadow"] == list(ids)
    assert await database.read(repository.counts) == {
        ("feedback", "local"): 3,
        ("shadow", "local"): 6,
    }


async def test_nothing_of_what_was_deleted_stays_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "records.db"

    async def change(work: Callable[[sa.Connection], object]) -> bytes:
        database = Database(f"sqlite:///{path}")
        await database.start()
        await database.write(work)
        await database.aclose()
        return path.read_bytes()

    # Long enough for pages of its own, which come free when it goes.
    conversation = conversation_of({"prompt": "Mrs Ratched of ward 7. " * 2000})
    gone = msgspec.structs.replace(capture(1), conversation=conversation)
    before = await change(lambda c: repository.add_captures(c, [gone, capture(2)], MANY))
    assert b"Ratched" in before and b"text 2" in before
    after = await change(lambda c: repository.delete(c, None, 2.0))
    assert b"text 2" in after and b"Ratched" not in after
