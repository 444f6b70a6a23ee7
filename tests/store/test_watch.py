"""Changes reach a worker also after a time without the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from gateway.changes import Watch
from gateway.records import RecordsError
from gateway.store import Store


class Source:
    """A counter of changes in a database that may be away."""

    def __init__(self) -> None:
        self.version = 1
        self.away = False
        self.told: list[str | None] = []

    async def read(self) -> int:
        if self.away:
            raise RecordsError("the database is away")
        return self.version

    async def changed(self, item: str | None) -> None:
        await self.read()
        self.told.append(item)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - the log has no event
            await asyncio.sleep(0.02)


async def test_what_changed_while_the_database_was_away_is_read_when_it_is_back(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tollhouse")
    source = Source()
    watch = Watch("keys", store, source.read, source.changed, (RecordsError,))

    def said(words: str) -> int:
        return sum(words in record.getMessage() for record in caplog.records)

    await watch.start()
    try:
        source.away = True
        await until(lambda: said("keys are not watched") == 1)
        # The change itself was made by another worker, whose message comes all the same.
        source.version = 2
        await watch.announce(2, "key-1")
        assert source.told == []
        await asyncio.sleep(1.2)
        assert said("keys are not watched") == 1
        source.away = False
        await until(lambda: source.told == [None])
        await until(lambda: said("keys are watched again") == 1)
        source.version = 3
        await watch.announce(3, "key-2")
        assert source.told == [None, "key-2"]
    finally:
        await watch.aclose()


async def test_a_gap_in_the_messages_means_that_anything_may_have_changed(store: Store) -> None:
    source = Source()
    watch = Watch("keys", store, source.read, source.changed, (RecordsError,))
    await watch.announce(1, "one")
    await watch.announce(3, "three")
    await watch.announce(2, "late")
    await watch.announce(3, "again")
    assert source.told == ["one", None]
