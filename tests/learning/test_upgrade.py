"""A database that an earlier version made: it is brought up to date, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from gateway.learning import repository
from gateway.learning.repository import Given
from gateway.learning.types import Capture, conversation_of, merge
from gateway.records import Database

MANY = 1000
# As version 1 made them.
VERSION = ("CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version))",)
TABLES = (
    """CREATE TABLE learning_captures (
    decision_id VARCHAR(64) NOT NULL, org VARCHAR(128) NOT NULL, ts DOUBLE PRECISION NOT NULL,
    conversation TEXT NOT NULL, side VARCHAR(8) NOT NULL, p_local_ok DOUBLE PRECISION,
    p_frontier_ok DOUBLE PRECISION, threshold DOUBLE PRECISION, artefact VARCHAR(256) NOT NULL,
    PRIMARY KEY (decision_id))""",
    """CREATE TABLE learning_labels (
    decision_id VARCHAR(64) NOT NULL, source VARCHAR(16) NOT NULL, org VARCHAR(128) NOT NULL,
    ts DOUBLE PRECISION NOT NULL, conversation TEXT NOT NULL, created DOUBLE PRECISION NOT NULL,
    local_ok DOUBLE PRECISION, frontier_ok DOUBLE PRECISION, p_local_ok DOUBLE PRECISION,
    p_frontier_ok DOUBLE PRECISION, threshold DOUBLE PRECISION, artefact VARCHAR(256) NOT NULL,
    PRIMARY KEY (decision_id, source))""",
    "CREATE INDEX ix_learning_captures_ts ON learning_captures (ts)",
    "CREATE INDEX ix_learning_labels_ts ON learning_labels (ts)",
)
# What a replica of version 1 writes, also when another one has brought the tables up to date.
CAPTURE = (
    "INSERT INTO learning_captures (decision_id, org, ts, conversation, side, artefact) "
    "VALUES (:id, 'acme', :ts, :conversation, 'weak', 'm/1')"
)
LABEL = (
    "INSERT INTO learning_labels (decision_id, source, org, ts, conversation, created, local_ok, "
    "artefact) VALUES (:id, 'shadow', 'acme', :ts, :conversation, 1.0, 0.5, 'm/1')"
)
CONVERSATION = conversation_of({"prompt": "hello"})


class Old:
    """A database of version 1 at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *statements: str, **values: Any) -> None:
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement), values)
        engine.dispose()

    def write(self, number: int, *statements: str) -> None:
        id = f"dec_{number}"
        self.run(*statements, id=id, ts=float(number), conversation=CONVERSATION)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            found = [tuple(row) for row in connection.execute(sa.text(query))]
        engine.dispose()
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
async def old(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Old]:
    if request.param == "sqlite":
        yield Old(f"sqlite:///{tmp_path}/records.db")
        return
    server = make_url(request.getfixturevalue("cluster"))
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE former"))
    yield Old(server.set(database="former").render_as_string())
    with admin.connect() as connection:
        connection.execute(sa.text("DROP DATABASE former WITH (FORCE)"))
    admin.dispose()


async def test_rows_of_before_stay_and_are_of_an_unknown_model(old: Old) -> None:
    old.run(*VERSION, "INSERT INTO schema_version VALUES (1)", *TABLES)
    old.write(1, CAPTURE)
    old.write(2, CAPTURE, LABEL)
    database = Database(old.url)
    await database.start()
    assert old.read("SELECT version FROM schema_version") == [(3,)]
    # A replica that still runs the former version, and one that runs this one.
    old.write(3, CAPTURE, LABEL)
    new = Capture(
        decision_id="dec_4",
        org="acme",
        ts=4.0,
        conversation=CONVERSATION,
        side="weak",
        model="home/m",
    )
    await database.write(repository.add_captures, [new], MANY)
    for id in ("dec_1", "dec_4"):
        given = Given(id, "key", "acme", 5.0, 1.0)
        assert await database.write(repository.give, given, MANY) == (False, "weak")
    found, _ = await database.read(repository.list_labels, None, 10)
    assert [(x.decision_id, x.source, x.local_ok, x.local_model) for x in found] == [
        ("dec_4", "feedback", 1.0, "home/m"),
        ("dec_3", "shadow", 0.5, None),
        ("dec_2", "shadow", 0.5, None),
        ("dec_1", "feedback", 1.0, None),
    ]
    assert [line.local_ok for line in merge(found)] == [1.0, 0.5, 0.5, 1.0]
    # What is deleted is deleted of both.
    gone = await database.write(repository.delete, "acme", None)
    assert (gone.labels, gone.captures) == (4, 4)
    await database.aclose()
    again = Database(old.url)
    await again.start()
    await again.aclose()
    assert old.read("SELECT version FROM schema_version") == [(3,)]


async def test_many_workers_may_begin_on_tables_of_before(old: Old) -> None:
    old.run(*VERSION, "INSERT INTO schema_version VALUES (1)", *TABLES)
    old.write(1, LABEL)
    workers = [Database(old.url) for _ in range(4)]
    await asyncio.gather(*(worker.start() for worker in workers))
    for worker in workers:
        found, _ = await worker.read(repository.list_labels, None, 10)
        assert [(x.decision_id, x.local_model) for x in found] == [("dec_1", None)]
        await worker.aclose()
    assert old.read("SELECT version FROM schema_version") == [(3,)]


async def test_tables_that_were_not_there_are_made_whole(old: Old) -> None:
    old.run(*VERSION, "INSERT INTO schema_version VALUES (1)")
    database = Database(old.url)
    await database.start()
    assert await database.read(repository.list_labels, None, 10) == ([], None)
    await database.aclose()
    assert old.read("SELECT local_model, frontier_model FROM learning_labels") == []
