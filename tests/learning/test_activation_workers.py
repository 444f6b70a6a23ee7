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

    def worker(
        artefact: Open = plain,
        configured: Callable[[], Router] = lambda: Named("configured"),
        first: Router | None = None,
    ) -> tuple[Activation, RouterSlot]:
        slot = RouterSlot(first or Named("configured"))
        loaders = Loaders(
            configured=configured,
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


def failing_once(error: Exception, then: Open) -> Open:
    left = [error]

    def load(folder: Path) -> Router:
        if left:
            raise left.pop()
        return then(folder)

    return load


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("no thread")])
async def test_a_failure_of_any_kind_is_told_and_can_be_mended(
    make: Make, error: Exception
) -> None:
    healthy, _ = make()
    lacking, slot = make(failing_once(error, plain))
    for each in (healthy, lacking):
        await each.start()
    await healthy.activate("new", "admin")
    problem = f"{type(error).__name__}: {error}"
    await until(lambda: lacking.active.problem == problem)
    assert (lacking.active.name, lacking.active.loaded) == ("new", False)
    assert (slot.name, lacking.directory) == ("configured", None)
    await healthy.activate("new", "admin")
    await until(lambda: lacking.active.loaded)
    assert (slot.name, lacking.active.problem) == ("new", None)
    # And it hears of what comes after.
    await healthy.activate("old", "admin")
    await until(lambda: slot.name == "old")


async def test_a_worker_starts_with_an_artefact_that_fails(make: Make) -> None:
    healthy, _ = make()
    await healthy.start()
    await healthy.activate("new", "admin")
    started, slot = make(failing_once(MemoryError(), plain))
    await started.start()
    assert (started.active.loaded, slot.name) == (False, "configured")


async def test_where_the_configured_one_fails_too_the_former_goes_on(make: Make) -> None:
    def configured() -> Router:
        return load(Path("configured"))

    load = failing_once(MemoryError("no room"), plain)
    healthy, _ = make()
    lacking, slot = make(configured=configured)
    for each in (healthy, lacking):
        await each.start()
    await healthy.activate("new", "admin")
    await until(lambda: slot.name == "new")
    await healthy.rollback("new", "admin")
    await until(lambda: lacking.active.problem == "MemoryError: no room")
    assert (lacking.active.name, lacking.active.loaded) == ("configured", False)
    assert slot.name == "new"
    assert lacking.directory is not None and lacking.directory.name == "new"
    assert (await healthy.activate("configured", "admin")).loaded
    await until(lambda: lacking.active.loaded)
    assert slot.name == "configured"


async def test_while_it_is_loaded_nobody_says_that_it_runs(make: Make) -> None:
    opening, go = threading.Event(), threading.Event()

    def slowly(folder: Path) -> Router:
        opening.set()
        go.wait(20)
        return Named(folder.name)

    healthy, _ = make()
    slow, slot = make(slowly)
    for each in (healthy, slow):
        await each.start()
    await healthy.activate("new", "admin")
    assert await asyncio.to_thread(opening.wait, 20)
    assert (slow.active.name, slow.active.loaded) == ("new", False)
    assert (slow.active.problem, slot.name) == ("it is being loaded", "configured")
    go.set()
    await until(lambda: slow.active.loaded)
    assert (slow.active.problem, slot.name) == (None, "new")


async def test_an_old_router_that_cannot_be_closed_stops_nothing(make: Make) -> None:
    class Stuck(Named):
        async def aclose(self) -> None:
            raise RuntimeError("it is stuck")

    worker, slot = make(first=Stuck("configured"))
    await worker.start()
    assert (await worker.activate("old", "admin")).loaded
    assert (await worker.activate("new", "admin")).loaded
    assert slot.name == "new"
