"""The router of a worker, which may be replaced while requests are being scored."""

from __future__ import annotations

import asyncio
import logging

from routers.base import Router, identity
from routers.types import Query, Score

log = logging.getLogger("tollhouse.learning")


class _Held:
    """A router and how many calls it is in the middle of."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.identity = identity(router)
        self.calls = 0
        self.idle = asyncio.Event()
        self.retired = False

    def leave(self) -> None:
        self.calls -= 1
        if self.retired and not self.calls:
            self.idle.set()


class RouterSlot:
    """A Router that passes everything on to the one in place. `swaps` counts replacements."""

    def __init__(self, router: Router) -> None:
        self._held = _Held(router)
        self.swaps = 0

    @property
    def router(self) -> Router:
        """The one in place. Ask it for facts; score through the slot, which counts the calls."""
        return self._held.router

    @property
    def name(self) -> str:
        return self._held.router.name

    @property
    def identity(self) -> str:
        """What tells the model in place from others, also from one of its name."""
        return self._held.identity

    async def score(self, query: Query, *, deadline: float) -> Score:
        held = self._held
        held.calls += 1
        try:
            return await held.router.score(query, deadline=deadline)
        finally:
            held.leave()

    def detect(self, text: str) -> frozenset[str]:
        return self._held.router.detect(text)

    async def swap(self, router: Router) -> None:
        """From now on `router` scores. Returns when the old one has ended its last call and is
        closed; should that fail, the log says so."""
        old, self._held = self._held, _Held(router)
        self.swaps += 1
        old.retired = True
        if old.calls:
            await old.idle.wait()
        try:
            await old.router.aclose()
        except Exception:
            # Nobody asks it any more: the new one is in place, and whoever put it there goes on.
            log.exception("router %s was not closed", old.router.name)

    def stats(self) -> dict[str, object]:
        """Counters of the router in place, empty for one that has none."""
        stats = getattr(self._held.router, "stats", None)
        return dict(stats()) if stats is not None else {}

    def describe(self) -> dict[str, object]:
        return self._held.router.describe()

    async def aclose(self) -> None:
        await self._held.router.aclose()
