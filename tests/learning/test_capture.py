"""What waits to be written, and the words that come with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import sqlalchemy as sa

from gateway.auth import Principal
from gateway.config.model import LearningConfig
from gateway.exchange import Exchange
from gateway.learning.capture import MAX_TEXT, Captures
from gateway.learning.consent import Look
from gateway.learning.feedback import Feedback, FeedbackInput
from gateway.learning.forgetting import forget
from gateway.learning.lookup import Lookup
from gateway.learning.schema import captures, feedback, uncaptured
from gateway.records import Database, DecisionRecord, RecordsError, file_records
from gateway.store import Store
from routers.types import Candidate, Need, Policy, Score

ON = LearningConfig(capture=True)
SECRET = "the patient is called Mrs Miller"
HOME = Candidate("home", "m", "local")


def exchange(id: int) -> Exchange:
    """As far as capturing looks."""
    found = SimpleNamespace(
        decision_id=f"dec_{id}",
        wall=float(id),
        labels=frozenset(),
        need=Need(prompt_tokens=9),
        score=Score(p_local_ok=0.5, p_frontier_ok=0.75),
        decision=None,
        principal=SimpleNamespace(org="acme"),
        active=SimpleNamespace(policy=Policy()),
        inbound=SimpleNamespace(
            operation="chat", body={"messages": [{"role": "user", "content": SECRET}]}
        ),
    )
    return cast(Exchange, found)


def look(*seen: str) -> Look:
    return Look(SECRET, lambda _: frozenset(seen))


async def kept(database: Database) -> list[str]:
    query = sa.select(captures.c.decision_id).order_by(captures.c.ts)
    return await database.read(lambda c: list(c.execute(query).scalars()))


@pytest.mark.parametrize("running", [True, False])
async def test_a_flush_that_is_cancelled_loses_nothing(database: Database, running: bool) -> None:
    counted: list[str] = []
    waiting = Captures(ON, database, counted.append)
    for i in range(250):
        waiting.add(exchange(i), HOME, look())
    begun, go = threading.Event(), threading.Event()

    def busy(_: sa.Connection) -> None:
        begun.set()
        go.wait(30)

    if not running:
        # The one thread of the database is at something else.
        other = asyncio.create_task(database.read(busy))
        assert await asyncio.to_thread(begun.wait, 30)
    flush = asyncio.create_task(waiting.flush())
    # While the model looks at the first batch, or far enough to have handed it to the database.
    await asyncio.wait({flush}, timeout=0.0 if running else 0.05)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    go.set()
    if not running:
        await other
    await waiting.flush()
    assert await kept(database) == [f"dec_{i}" for i in range(250)]
    assert counted == ["kept"] * 250
    assert waiting._bytes == 0


async def test_what_is_deleted_while_it_waits_is_not_written(database: Database) -> None:
    counted: list[str] = []
    waiting = Captures(ON, database, counted.append)
    for i in (1, 2, 3):
        waiting.add(exchange(i), HOME, look())
    await database.write(forget, "acme", None, 2.5)
    await waiting.flush()
    assert await kept(database) == ["dec_3"]
    assert counted == ["kept", "deleted", "deleted"]
    assert waiting._bytes == 0


async def test_a_failing_database_puts_no_conversation_into_the_log(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.write(lambda c: c.exec_driver_sql("DROP TABLE learning_captures"))
    counted: list[str] = []
    waiting = Captures(ON, database, counted.append)
    waiting.add(exchange(1), HOME, look())
    await waiting.flush()
    assert counted == ["failed"]
    assert "not kept" in caplog.text
    assert "Miller" not in caplog.text
    with pytest.raises(RecordsError) as told:
        await database.read(lambda c: c.execute(sa.select(captures)))
    assert "learning_captures" in str(told.value)


async def test_what_the_model_sees_is_not_written(database: Database) -> None:
    counted: list[str] = []
    waiting = Captures(
        LearningConfig(capture=True, capture_labels=("pii",)), database, counted.append
    )
    for i, seen in enumerate([(), ("pii",), ("phi",), ("phi", "pii")]):
        waiting.add(exchange(i), HOME, look(*seen))
    await waiting.flush()
    assert await kept(database) == ["dec_0", "dec_1"]
    assert counted == ["kept", "kept", "data_class", "data_class"]


async def test_a_text_that_would_be_long_to_look_at_is_not_kept(database: Database) -> None:
    counted: list[str] = []
    waiting = Captures(ON, database, counted.append)
    waiting.add(exchange(1), HOME, Look("x" * (MAX_TEXT + 1), lambda _: frozenset()))
    await waiting.flush()
    assert (counted, await kept(database)) == (["too_long"], [])


@pytest.mark.parametrize(
    ("seen", "scored", "comment"),
    [((), True, "spot on"), (("phi",), True, ""), (("phi",), False, "spot on")],
)
async def test_what_the_model_saw_holds_the_comment_back_as_well(
    database: Database, store: Store, seen: tuple[str, ...], scored: bool, comment: str
) -> None:
    """The decision does not say what the model saw; without a score, no model looked."""
    waiting = Captures(ON, database, lambda _: None)
    if scored:
        waiting.add(exchange(1), HOME, look(*seen))
    p: dict[str, Any] = {"p_local_ok": 0.5, "p_frontier_ok": 0.75} if scored else {}
    record = DecisionRecord("dec_1", "req_1", 1.0, "acme", **p)
    await database.write(file_records, [record])
    spoken = Feedback(ON, database, Lookup(database, store), waiting.flush, lambda *_: None)
    given = FeedbackInput("dec_1", "", 1.0, "spot on")
    told = await spoken.give(Principal(key_id="k", org="acme"), given)
    found = await database.read(lambda c: c.execute(sa.select(feedback.c.comment)).scalar())
    assert found == comment
    assert told.comment_kept is bool(comment)
    reason = None if comment and scored else "data_class" if scored else "unscored"
    assert told.reason == reason


PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
WHY: dict[str, tuple[Any, Callable[[], Look]]] = {
    "data_class": (SECRET, lambda: look("phi")),
    "opaque": (PICTURE, look),
    "too_long": (SECRET, lambda: Look("x" * (MAX_TEXT + 1), lambda _: frozenset())),
}


@pytest.mark.parametrize("why", WHY)
async def test_feedback_says_why_there_is_no_row(
    database: Database, store: Store, why: str
) -> None:
    """Also in a worker that did not serve the request, and no longer once it is deleted."""
    serving = Captures(ON, database, lambda _: None)
    content, seen = WHY[why]
    asked = exchange(1)
    asked.inbound.body["messages"][0]["content"] = content
    serving.add(asked, HOME, seen())
    await serving.flush()
    record = DecisionRecord("dec_1", "req_1", 1.0, "acme", p_local_ok=0.5, p_frontier_ok=0.75)
    await database.write(file_records, [record])
    other = Captures(ON, database, lambda _: None)
    spoken = Feedback(ON, database, Lookup(database, store), other.flush, lambda *_: None)
    principal, given = Principal(key_id="k", org="acme"), FeedbackInput("dec_1", "", 1.0, "")
    assert (await spoken.give(principal, given)).reason == why
    await database.write(forget, "acme", None, 50.0)
    assert (await spoken.give(principal, given)).reason == "not_captured"
    serving.add(asked, HOME, seen())
    await serving.flush()
    assert (await spoken.give(principal, given)).reason == "not_captured"


async def test_no_more_reasons_are_kept_than_rows(database: Database) -> None:
    few = msgspec.structs.replace(ON, max_rows=3)
    waiting = Captures(few, database, lambda _: None)
    for i in range(8):
        waiting.add(exchange(i), HOME, look("phi"))
    await waiting.flush()
    query = sa.select(uncaptured.c.decision_id)
    left = await database.read(lambda c: sorted(c.execute(query).scalars()))
    assert left == ["dec_5", "dec_6", "dec_7"]
