"""One worker between many requests and one model.

Items wait in a bounded queue; one task takes them, alone or as a micro-batch, and runs the model
in one executor thread, so that the event loop does not compute and the model never runs twice at
once. Whoever waits past its deadline leaves: a result that comes later is dropped, and an item
whose owner has left before its turn is not computed at all.

A model may be so small that going to a thread and back costs as much as the model. One whose calls
have been shorter than a limit runs where it is asked for; as soon as they are longer, it goes back
to the thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import msgspec

I = TypeVar("I")  # noqa: E741  # item
O = TypeVar("O")  # noqa: E741  # output


class QueueFull(Exception):
    """The queue holds as many items as it may."""


class ModelFailed(Exception):
    """The model raised, or gave another number of outputs than it had inputs."""


class DeadlinePassed(Exception):
    """The item's deadline passed before its output was there."""


class BatchLimits(msgspec.Struct, frozen=True):
    """`max_wait` in seconds: how long a batch that is not full waits for company, where the last
    one had company too: whoever comes alone is not kept. It pays on a GPU only. `queue` counts the
    items that wait, without the batch that is being computed.
    `at_once` in seconds: a model whose calls usually take less runs on the event loop; 0 never."""

    max_batch: int = 1
    max_wait: float = 0.0
    queue: int = 64
    at_once: float = 0.0


# The usual time of a call is the median of so many last ones: a call that was interrupted by other
# processes does not count, and a model that has become slow is known as such after a few calls.
LAST = 9


class _Item(Generic[I, O]):
    __slots__ = ("future", "value")

    def __init__(self, value: I, future: asyncio.Future[O]) -> None:
        self.value = value
        self.future = future


class Batcher(Generic[I, O]):
    """`model` maps a batch to as many outputs, in order. It is called in the worker thread."""

    def __init__(
        self,
        model: Callable[[Sequence[I]], Sequence[O]],
        limits: BatchLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._clock = clock
        self._busy_since: float | None = None
        self._last_size = 1
        self._spent: deque[float] = deque(maxlen=LAST)
        self._limits = limits
        self._waiting: deque[_Item[I, O]] = deque()
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False
        self.sizes: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def warm(self, values: Sequence[I]) -> None:
        """Run the model once in the thread in which it will run: a GPU's library makes its handles
        by thread, which takes many times as long as a batch. Blocking. Raises what the model
        raises."""
        self._thread().submit(self._model, values).result()

    async def run(self, value: I, deadline: float) -> O:
        """The model's output for `value`, within `deadline` seconds.

        Raises QueueFull, DeadlinePassed or ModelFailed.
        """
        if self._closed:
            raise ModelFailed("the batcher is closed")
        if self._busy_since is not None and self._clock() - self._busy_since > deadline:
            # The call under way has already taken longer than this item may wait for its own.
            raise DeadlinePassed("the model is stuck")
        if self._is_quick():
            return self._run_here(value, deadline)
        if len(self._waiting) >= self._limits.queue:
            self._drop_abandoned()
        if len(self._waiting) >= self._limits.queue:
            raise QueueFull(f"{self._limits.queue} items wait already")
        wake = self._start()
        item: _Item[I, O] = _Item(value, asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        wake.set()
        try:
            async with asyncio.timeout(max(0.0, deadline)):
                return await item.future
        except TimeoutError as exc:
            raise DeadlinePassed(f"no output within {deadline} s") from exc

    def _is_quick(self) -> bool:
        """Whether the next item runs at once: the model is quick, and none is before it."""
        if self._busy_since is not None or self._waiting or not self._spent:
            return False
        return sorted(self._spent)[len(self._spent) // 2] < self._limits.at_once

    def _run_here(self, value: I, deadline: float) -> O:
        self.sizes[1] += 1
        start = self._clock()
        try:
            (output,) = self._model((value,))
        except Exception as exc:  # border: as in the worker, a model may raise anything
            raise ModelFailed(f"{type(exc).__name__}: {exc}") from exc
        finally:
            spent = self._clock() - start
            self._spent.append(spent)
        if spent > deadline:
            raise DeadlinePassed(f"no output within {deadline} s")
        return output

    def _timed(self, values: Sequence[I]) -> tuple[Sequence[O], float]:
        """The model's outputs and the seconds it took. Runs in the worker thread."""
        start = self._clock()
        outputs = self._model(values)
        return outputs, self._clock() - start

    async def aclose(self) -> None:
        """Fail whoever waits, and stop. A model call under way is not waited for."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._fail(list(self._waiting), ModelFailed("the batcher is closed"))
        self._waiting.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _start(self) -> asyncio.Event:
        # On first use rather than in the constructor: only now is there a running loop.
        if self._wake is None:
            self._wake = asyncio.Event()
            self._task = asyncio.create_task(self._work(self._wake, self._thread()))
        return self._wake

    def _thread(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="router-model")
        return self._executor

    def _drop_abandoned(self) -> None:
        alive = [item for item in self._waiting if not item.future.done()]
        self._waiting.clear()
        self._waiting.extend(alive)

    async def _work(self, wake: asyncio.Event, executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await wake.wait()
            batch = await self._collect(wake)
            if not batch:
                continue
            self.sizes[len(batch)] += 1
            self._last_size = len(batch)
            values = [item.value for item in batch]
            self._busy_since = self._clock()
            try:
                outputs, spent = await loop.run_in_executor(executor, self._timed, values)
                self._spent.append(spent)
                pairs = list(zip(batch, outputs, strict=True))
            except asyncio.CancelledError:
                self._fail(batch, ModelFailed("the batcher is closed"))
                raise
            except Exception as exc:  # border: whatever a model raises fails its batch only
                self._fail(batch, ModelFailed(f"{type(exc).__name__}: {exc}"))
                continue
            finally:
                self._busy_since = None
            for item, output in pairs:
                if not item.future.done():
                    item.future.set_result(output)

    async def _collect(self, wake: asyncio.Event) -> list[_Item[I, O]]:
        """The next batch, without the items whose owners have left."""
        batch: list[_Item[I, O]] = []
        self._take(batch)
        if self._limits.max_wait > 0 and batch and max(len(batch), self._last_size) > 1:
            try:
                async with asyncio.timeout(self._limits.max_wait):
                    while len(batch) < self._limits.max_batch:
                        wake.clear()
                        await wake.wait()
                        self._take(batch)
            except TimeoutError:
                pass  # the batch goes as it is
            except asyncio.CancelledError:
                self._fail(batch, ModelFailed("the batcher is closed"))
                raise
        if not self._waiting:
            wake.clear()
        return batch

    def _take(self, batch: list[_Item[I, O]]) -> None:
        while self._waiting and len(batch) < self._limits.max_batch:
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)

    @staticmethod
    def _fail(items: Sequence[_Item[I, O]], error: Exception) -> None:
        for item in items:
            if not item.future.done():
                item.future.set_exception(error)
