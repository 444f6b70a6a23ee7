"""Single-flight: identical requests at the same time in one worker wait for one answer."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Flight:
    """The leader's part. `land` with the stored answer; whatever is not landed by the end of the
    `with` block (failed, refused, not cacheable) sends the followers on their own way."""

    __slots__ = ("_flights", "_future", "_key")

    def __init__(
        self,
        flights: dict[str, asyncio.Future[bytes | None]],
        key: str,
        future: asyncio.Future[bytes | None],
    ) -> None:
        self._flights = flights
        self._key = key
        self._future = future

    def land(self, answer: bytes | None) -> None:
        """Give the followers the encoded answer, or None. The first call counts."""
        if self._flights.get(self._key) is self._future:
            del self._flights[self._key]
        if not self._future.done():
            self._future.set_result(answer)

    def __enter__(self) -> Flight:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.land(None)


class Flights:
    """One per worker. Keys are cache keys with their org in front, so that a flight never crosses
    partitions."""

    def __init__(self) -> None:
        self._flights: dict[str, asyncio.Future[bytes | None]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def lead(self, key: str) -> Flight | None:
        """The leader's flight, or None when another leads: then `follow`."""
        if key in self._flights:
            return None
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._flights[key] = future
        return Flight(self._flights, key, future)

    async def follow(self, key: str, timeout_s: float) -> bytes | None:
        """The leader's answer; None when there is none, or not within `timeout_s`. A follower that
        is cancelled or gives up disturbs neither the leader nor the other followers."""
        future = self._flights.get(key)
        if future is None:
            return None
        done, _ = await asyncio.wait((future,), timeout=timeout_s)
        return future.result() if done else None
