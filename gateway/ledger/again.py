"""Settling once more, after the store could not be reached."""

from __future__ import annotations

import asyncio

from gateway.ledger.ledger import Ledger
from gateway.ledger.types import Settlement
from gateway.store.errors import StoreError

_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)


async def settle_again(ledger: Ledger, settlement: Settlement) -> StoreError | None:
    """Tries for about a minute; the last error when that did not help. Raises LedgerError."""
    failed: StoreError | None = None
    for delay in _SECONDS:
        await asyncio.sleep(delay)
        try:
            await ledger.settle(settlement)
        except StoreError as exc:
            failed = exc
        else:
            return None
    return failed
