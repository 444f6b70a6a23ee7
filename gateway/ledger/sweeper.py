"""The background task that closes leases of workers that are gone."""

from __future__ import annotations

import asyncio
import logging

from gateway.ledger.ledger import Ledger
from gateway.store import StoreError
from gateway.store.lock import Lock

_log = logging.getLogger(__name__)
_BATCH = 100


class Sweeper:
    """Run in every worker: the lock lets one of them sweep at a time."""

    def __init__(self, ledger: Ledger, lock: Lock, *, interval_s: float = 1.0) -> None:
        self._ledger = ledger
        self._lock = lock
        self._interval_s = interval_s

    async def run(self) -> None:
        """For ever; cancel to end."""
        try:
            while True:
                try:
                    if await self._lock.hold():
                        await self.sweep_once()
                except StoreError as exc:
                    # Leases stay held meanwhile, which errs on the side of the budget.
                    _log.warning("sweep failed: %s", exc)
                await asyncio.sleep(self._interval_s)
        finally:
            await self._lock.release()

    async def sweep_once(self) -> int:
        """Close what has expired, in all orgs. Returns how many leases that were."""
        count = 0
        for org in await self._ledger.orgs():
            while expired := await self._ledger.sweep(org, _BATCH):
                count += len(expired)
                _log.warning("%d leases expired in %s", len(expired), org)
                if len(expired) < _BATCH:
                    break
        return count
