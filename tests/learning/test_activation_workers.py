"""Activations that meet: at the start of a worker, and in one that could not follow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.learning import Loaders, RouterSlot
from gateway.learning.activation import Activation
from gateway.records import Database
from gateway.store import Store
from routers.base import FixedRouter, Router
from routers.onnx.manifest import ArtefactError
from routers.types import Score
from tests.learning.test_activation_cards import finished

Open = Callable[[Path], Router]
Make = Callable[..., tuple[Activation, RouterSlot]]


class Named(FixedRouter):
    def __init__(self, name: str) -> None:
        super().__init__(Score())
        self._called = name

    @property
    def name(self) -> str:
        return self._called


def plain(folder: Path) -> Router:
    return Named(folder.name)


@pytest.fixture
async def make(tmp_path: Path, database: Database, store: Store) -> AsyncIterator[Make]:
    made: list[Activation] = []

    def worker(artefact: Open = plain) -> tuple[Activation, RouterSlot]:
        slot = RouterSlot(Named("configured"))
        loaders = Loaders(
            configured=lambda: Named("configured"),
            configured_cards=dict,
            artefact=artefact,
            cards=lambda _: {},
            use_cards=lambda _: None,
        )
        found = Activation(slot, database, store, tmp_path, loaders)
        made.append(found)
        return found, slot

    for name in ("old", "new"):
        await finished(database, name)
    yield worker
    for found in made:
        await found.aclose()


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass")


async def test_a_start_does_not_overtake_what_is_activated_meanwhile(make: Make) -> None:
    first, _ = make()
    await first.start()
    await first.activate("old", "admin")
    opening, go = threading.Event(), threading.Event()

    def slowly(folder: Path) -> Router:
        if folder.name == "old":
            opening.set()
            go.wait(20)
        return Named(folder.name)

    second, slot = make(slowly)
    starting = asyncio.create_task(second.start())
    assert await asyncio.to_thread(opening.wait, 20)
    await first.activate("new", "admin")
    # Time to hear of it and, were it not for the start, to follow.
    for _ in range(75):
        await asyncio.sleep(0 if slot.name == "new" else 0.02)
    go.set()
    await starting
    await until(lambda: second.active.name == "new")
    await asyncio.sleep(0.1)
    assert slot.name == "new"


async def test_activating_again_reaches_the_worker_that_could_not_load_it(make: Make) -> None:
    whole = False

    def broken(folder: Path) -> Router:
        if not whole:
            raise ArtefactError("heads.json", "is not here yet")
        return Named(folder.name)

    healthy, _ = make()
    lacking, slot = make(broken)
    for each in (healthy, lacking):
        await each.start()
    since = (await healthy.activate("new", "admin")).since
    await until(lambda: lacking.active.problem is not None)
    assert (lacking.active.loaded, slot.name) == (False, "configured")
    whole = True
    # The request to try again lands on a worker that has nothing to mend.
    assert (await healthy.activate("new", "admin")).since == since
    await until(lambda: lacking.active.loaded)
    assert slot.name == "new"
    back = await lacking.rollback("new", "admin")
    assert (back.name, slot.name) == ("configured", "configured")
