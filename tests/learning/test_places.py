"""The places of conversations, labels and feedback: no organisation fills those of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth import Principal
from gateway.config.model import LearningConfig
from gateway.errors import GatewayError
from gateway.learning import repository
from gateway.learning.feedback import Feedback, FeedbackInput
from gateway.learning.repository import fair_share
from gateway.learning.schema import feedback
from gateway.records import Database, DecisionRecord
from tests.learning.conftest import Learner, Start


def decision(learner: Learner, key: str) -> str:
    reply = learner.chat(f"Tell me of {key}", key=key)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-tollhouse-decision-id"]


def test_one_organisation_does_not_displace_the_labels_of_another(learn: Start) -> None:
    learner = learn("[learning]\ncapture = true\nmax_rows = 4\n")
    theirs = decision(learner, "stranger")
    said = learner.feedback({"decision_id": theirs, "outcome": "good"}, key="stranger")
    assert said.json()["usable"] is True
    mine = [decision(learner, "main") for _ in range(8)]
    for id in mine:
        learner.feedback({"decision_id": id, "outcome": "bad"})
    rows = learner.labels()
    assert Counter(row["org"] for row in rows) == {"acme": 3, "rival": 1}
    assert {row["decision_id"] for row in rows} == {theirs, *mine[-3:]}


@settings(max_examples=300, deadline=None, database=None)
@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=8), places=st.integers(1, 120))
def test_places_are_shared_fairly(counts: list[int], places: int) -> None:
    share = fair_share(counts, places)
    kept = [min(count, share) for count in counts]
    assert sum(kept) <= places
    # Nobody loses a row while there is a place for it, but for less than one each.
    assert kept == counts or sum(min(count, share + 1) for count in counts) > places


async def test_ties_and_many_organisations_stay_within_the_places(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/t.db")
    await database.start()
    rows = [(f"org{i % 5}", float(i // 10)) for i in range(100)]

    def fill(connection: sa.Connection) -> int:
        values = [
            dict(decision_id=f"dec_{i}", key_id="k", org=org, ts=ts, outcome=1.0, comment="")
            for i, (org, ts) in enumerate(rows)
        ]
        connection.execute(sa.insert(feedback), values)
        return repository.trim(connection, feedback, 30)

    gone = await database.write(fill)
    query = sa.select(feedback.c.org, sa.func.min(feedback.c.ts), sa.func.count())
    left = await database.read(lambda c: c.execute(query.group_by(feedback.c.org)).all())
    assert gone == 100 - sum(row[2] for row in left) >= 70
    assert {row[0]: row[1] for row in left} == {f"org{i}": 7.0 for i in range(5)}
    await database.aclose()


class Stuck:
    """Decisions that are looked up without end."""

    def __init__(self) -> None:
        self.asked = 0

    async def find(self, org: str, decision_id: str, request_id: str) -> DecisionRecord | None:
        self.asked += 1
        if org == "acme":
            await asyncio.Event().wait()
        return None


async def test_feedback_of_one_organisation_does_not_keep_out_that_of_another() -> None:
    stuck, nothing = Stuck(), LearningConfig()

    async def flush() -> None: ...

    spoken = Feedback(nothing, None, stuck, flush, lambda *_: None)  # type: ignore[arg-type]
    given = FeedbackInput("dec_1", "", 1.0, "")
    waiting = [asyncio.create_task(spoken.give(Principal(org="acme"), given)) for _ in range(20)]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    errors = [task.exception() for task in done]
    assert [error.status for error in errors if isinstance(error, GatewayError)] == [429] * 12
    with pytest.raises(GatewayError) as caught:
        await spoken.give(Principal(org="rival"), given)
    assert caught.value.status == 404
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert spoken._open == {}
