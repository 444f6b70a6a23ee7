"""The batcher with models that events control: nothing here measures time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from routers.onnx.batcher import Batcher, BatchLimits, DeadlinePassed, ModelFailed, QueueFull

LONG = 30.0
# Longer than a test may take.
FOREVER = 1e6


class Gate:
    """A model that says when it was entered, and answers when it is let."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()

    def __call__(self, batch: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(batch))
        self.threads.add(threading.get_ident())
        self.entered.release()
        assert self.release.acquire(timeout=LONG)
        return [value * 10 for value in batch]

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=LONG)


def double(batch: Sequence[int]) -> Sequence[int]:
    return [value * 2 for value in batch]


async def test_outputs_go_to_their_owners() -> None:
    batcher: Batcher[int, int] = Batcher(double, BatchLimits(max_batch=4, max_wait=0.001))
    found = await asyncio.gather(*(batcher.run(i, LONG) for i in range(50)))
    assert found == [2 * i for i in range(50)]
    await batcher.aclose()


async def test_items_that_wait_together_are_computed_together() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits(max_batch=8))
    first = asyncio.create_task(batcher.run(0, LONG))
    await gate.wait_entered()
    rest = [asyncio.create_task(batcher.run(i, LONG)) for i in range(1, 11)]
    await asyncio.sleep(0)
    for _ in range(3):
        gate.release.release()
    assert await asyncio.gather(first, *rest) == [i * 10 for i in range(11)]
    assert gate.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9, 10]]
    assert batcher.sizes == {1: 1, 8: 1, 2: 1}
    assert len(gate.threads) == 1
    assert threading.get_ident() not in gate.threads
    await batcher.aclose()


async def test_a_batch_waits_for_company_and_goes_when_full() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits(max_batch=3, max_wait=FOREVER))
    tasks = [asyncio.create_task(batcher.run(i, LONG)) for i in (0, 1)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(batcher.run(2, LONG)))
    gate.release.release()
    assert await asyncio.gather(*tasks) == [0, 10, 20]
    # The last one had company, so the next one waits for some.
    tasks = []
    for i in (3, 4, 5):
        tasks.append(asyncio.create_task(batcher.run(i, LONG)))
        await asyncio.sleep(0.01)
    gate.release.release()
    assert await asyncio.gather(*tasks) == [30, 40, 50]
    assert gate.batches == [[0, 1, 2], [3, 4, 5]]
    await batcher.aclose()


async def test_whoever_comes_alone_does_not_wait_for_company() -> None:
    batcher: Batcher[int, int] = Batcher(double, BatchLimits(max_batch=32, max_wait=FOREVER))
    for value in range(3):
        assert await batcher.run(value, LONG) == 2 * value
    assert batcher.sizes == {1: 3}
    await batcher.aclose()


async def test_a_batch_that_finds_no_company_goes_alone() -> None:
    batcher: Batcher[int, int] = Batcher(double, BatchLimits(max_batch=2, max_wait=0.001))
    assert await asyncio.gather(batcher.run(0, LONG), batcher.run(1, LONG)) == [0, 2]
    assert await batcher.run(21, LONG) == 42
    assert batcher.sizes == {2: 1, 1: 1}
    await batcher.aclose()


async def test_the_thread_that_was_warmed_is_the_one_that_serves() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits(max_batch=4))
    gate.release.release()
    await asyncio.to_thread(batcher.warm, [7, 8])
    gate.release.release()
    assert await batcher.run(1, LONG) == 10
    assert gate.batches == [[7, 8], [1]]
    assert len(gate.threads) == 1
    # Nobody asked for what it was warmed with.
    assert batcher.sizes == {1: 1}
    await batcher.aclose()


async def test_batch_size_one_never_batches() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits(max_batch=1))
    tasks = [asyncio.create_task(batcher.run(i, LONG)) for i in range(5)]
    for _ in range(5):
        gate.release.release()
    await asyncio.gather(*tasks)
    assert gate.batches == [[0], [1], [2], [3], [4]]
    await batcher.aclose()


async def test_a_late_output_is_dropped_and_the_next_item_served() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits())
    late = asyncio.create_task(batcher.run(1, 0.01))
    await gate.wait_entered()
    with pytest.raises(DeadlinePassed):
        await late
    following = asyncio.create_task(batcher.run(2, LONG))
    gate.release.release()
    gate.release.release()
    assert await following == 20
    await batcher.aclose()


async def test_an_abandoned_item_is_not_computed() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits())
    first = asyncio.create_task(batcher.run(1, LONG))
    await gate.wait_entered()
    abandoned = asyncio.create_task(batcher.run(2, LONG))
    last = asyncio.create_task(batcher.run(3, LONG))
    await asyncio.sleep(0)
    abandoned.cancel()
    gate.release.release()
    gate.release.release()
    assert list(await asyncio.gather(first, last)) == [10, 30]
    assert gate.batches == [[1], [3]]
    await batcher.aclose()


async def test_a_full_queue_refuses_and_abandoned_items_make_room() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits(queue=2))
    running = asyncio.create_task(batcher.run(0, LONG))
    await gate.wait_entered()
    waiting = [asyncio.create_task(batcher.run(i, LONG)) for i in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await batcher.run(3, LONG)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    late = asyncio.create_task(batcher.run(4, LONG))
    for _ in range(3):
        gate.release.release()
    assert list(await asyncio.gather(running, waiting[1], late)) == [0, 20, 40]
    await batcher.aclose()


async def test_a_stuck_model_refuses_at_once() -> None:
    now = 100.0
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits(), clock=lambda: now)
    stuck = asyncio.create_task(batcher.run(0, LONG))
    await gate.wait_entered()
    now = 103.0
    with pytest.raises(DeadlinePassed, match="stuck"):
        await batcher.run(1, 2.0)
    gate.release.release()
    assert await stuck == 0
    gate.release.release()
    assert await batcher.run(1, LONG) == 10
    await batcher.aclose()


async def test_a_raising_model_fails_its_batch_only() -> None:
    def model(batch: Sequence[int]) -> Sequence[int]:
        if 13 in batch:
            raise ValueError("unlucky")
        return batch

    batcher: Batcher[int, int] = Batcher(model, BatchLimits())
    with pytest.raises(ModelFailed, match="ValueError: unlucky"):
        await batcher.run(13, LONG)
    assert await batcher.run(14, LONG) == 14
    await batcher.aclose()


async def test_too_few_outputs_are_a_failure() -> None:
    batcher: Batcher[int, int] = Batcher(lambda batch: [], BatchLimits())
    with pytest.raises(ModelFailed):
        await batcher.run(1, LONG)
    await batcher.aclose()


async def test_closing_fails_whoever_waits() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits())
    tasks = [asyncio.create_task(batcher.run(i, LONG)) for i in range(3)]
    await gate.wait_entered()
    await batcher.aclose()
    gate.release.release()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [ModelFailed] * 3
    with pytest.raises(ModelFailed, match="closed"):
        await batcher.run(9, LONG)
    await batcher.aclose()


class Clock:
    """Stands still but for what a model says it took."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed:
    """A model that takes `cost` seconds of a clock, and notes the threads it ran in."""

    def __init__(self, clock: Clock, cost: float) -> None:
        self.clock, self.cost = clock, cost
        self.threads: list[int] = []

    def __call__(self, batch: Sequence[int]) -> Sequence[int]:
        self.threads.append(threading.get_ident())
        self.clock.now += self.cost
        if 13 in batch:
            raise ValueError("unlucky")
        return [value * 2 for value in batch]


async def test_a_quick_model_runs_where_it_is_asked_for_until_it_is_slow() -> None:
    clock = Clock()
    model = Timed(clock, 0.0005)
    batcher: Batcher[int, int] = Batcher(model, BatchLimits(at_once=0.002), clock)
    here = threading.get_ident()
    assert [await batcher.run(i, LONG) for i in range(4)] == [0, 2, 4, 6]
    # Nobody knows before the first call how long it will take.
    assert model.threads[0] != here
    assert model.threads[1:] == [here] * 3
    model.cost = 0.5
    for _ in range(20):
        assert await batcher.run(1, LONG) == 2
    slow = model.threads[4:]
    assert slow.count(here) < 9
    assert here not in slow[9:]
    model.cost = 0.0005
    for _ in range(20):
        await batcher.run(1, LONG)
    assert model.threads[-1] == here
    assert batcher.sizes == {1: 44}
    await batcher.aclose()


async def test_a_slow_model_never_runs_where_it_is_asked_for() -> None:
    clock = Clock()
    model = Timed(clock, 0.002)
    batcher: Batcher[int, int] = Batcher(model, BatchLimits(at_once=0.002), clock)
    for i in range(12):
        assert await batcher.run(i, LONG) == 2 * i
    assert threading.get_ident() not in model.threads
    await batcher.aclose()


async def test_without_a_limit_the_quickest_model_stays_in_its_thread() -> None:
    model = Timed(Clock(), 0.0)
    batcher: Batcher[int, int] = Batcher(model, BatchLimits(), model.clock)
    for i in range(5):
        await batcher.run(i, LONG)
    assert threading.get_ident() not in model.threads
    await batcher.aclose()


async def test_a_quick_model_has_the_same_errors() -> None:
    clock = Clock()
    model = Timed(clock, 0.0005)
    batcher: Batcher[int, int] = Batcher(model, BatchLimits(at_once=0.002), clock)
    assert await batcher.run(1, LONG) == 2
    with pytest.raises(ModelFailed, match="ValueError: unlucky"):
        await batcher.run(13, LONG)
    # Its output came, but later than it was waited for.
    with pytest.raises(DeadlinePassed):
        await batcher.run(1, 0.0001)
    model.cost = 1.0
    with pytest.raises(DeadlinePassed):
        await batcher.run(1, 0.5)
    assert model.threads[1:] == [threading.get_ident()] * 3
    await batcher.aclose()
    with pytest.raises(ModelFailed, match="closed"):
        await batcher.run(1, LONG)


async def test_a_quick_model_lets_those_who_wait_go_first() -> None:
    order: list[int] = []

    def model(batch: Sequence[int]) -> Sequence[int]:
        order.extend(batch)
        return batch

    batcher: Batcher[int, int] = Batcher(model, BatchLimits(at_once=60.0))
    # The first goes to the thread; the others come while it is under way.
    await asyncio.gather(*(batcher.run(i, LONG) for i in range(6)))
    assert order == [0, 1, 2, 3, 4, 5]
    await batcher.aclose()
