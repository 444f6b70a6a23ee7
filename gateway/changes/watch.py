"""Tells a worker that keys or policies were changed by another one, within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.store import Store, StoreError

log = logging.getLogger("tollhouse.watch")

POLL_S = 0.5


class Watch:
    """Follows one topic in two ways: messages through the store, which come at once, and a
    version counter in the database, read every half second in case a message was lost or the
    store is down. The counter rises in the same transaction as the change it stands for.

    `changed(item)` is awaited with the id of what changed, or with None when anything may have.
    It is never called twice at the same time.
    """

    def __init__(
        self,
        topic: str,
        store: Store,
        read_version: Callable[[], Awaitable[int]],
        changed: Callable[[str | None], Awaitable[None]],
        failures: tuple[type[Exception], ...],
    ) -> None:
        self._topic = topic
        self._store = store
        self._read_version = read_version
        self._changed = changed
        self._failures = failures
        self._seen = 0
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._reachable = True

    async def start(self) -> None:
        """Raises what `read_version` raises."""
        self._seen = await self._read_version()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]

    async def aclose(self) -> None:
        tasks, self._tasks = self._tasks, []
        waiting = set(tasks)
        while waiting:
            # The store's client may swallow a cancellation that comes while it connects.
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=0.2)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def announce(self, version: int, item: str) -> None:
        """After a change of `item` was committed as `version`: here and in every worker."""
        try:
            await self._apply(version, item)
        except self._failures as exc:
            # It is committed; the next poll applies it here.
            log.warning("%s could not be read again: %s", self._topic, exc)
        try:
            await self._store.publish(f"{self._topic}:{version}:{item}")
        except StoreError as exc:
            log.warning("%s change told by the database only: %s", self._topic, exc)

    async def check(self) -> None:
        """Compare the counter once. Raises what `read_version` raises."""
        version = await self._read_version()
        async with self._lock:
            if version != self._seen:
                await self._changed(None)
                self._seen = version

    async def _apply(self, version: int, item: str) -> None:
        async with self._lock:
            if version <= self._seen:
                return
            # A gap means that an earlier message has not come: then anything may have changed.
            await self._changed(item if version == self._seen + 1 else None)
            self._seen = version

    async def _listen(self) -> None:
        prefix = f"{self._topic}:"
        async for payload in self._store.events():
            try:
                if payload is None:
                    await self._check_quietly()
                    continue
                text = payload.decode("utf-8", "replace")
                version, _, item = text.removeprefix(prefix).partition(":")
                if text.startswith(prefix) and version.isdigit():
                    await self._apply(int(version), item)
            except self._failures as exc:
                log.warning("%s could not be read again: %s", self._topic, exc)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._check_quietly()

    async def _check_quietly(self) -> None:
        try:
            await self.check()
        except self._failures as exc:
            # What is cached goes on working while the database is away; said once, not each time.
            if self._reachable:
                log.warning(
                    "%s are not watched, the database does not answer: %s", self._topic, exc
                )
            self._reachable = False
        else:
            if not self._reachable:
                log.warning("%s are watched again", self._topic)
            self._reachable = True
