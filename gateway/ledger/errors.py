"""What the ledger refuses to do.

    LedgerError
    |-- LeaseExpired      the request holds no lease any more (swept, settled or never entered)
    |-- DuplicateRequest  a request id that has entered or was settled before
    |-- AmountTooLarge    not exact in the store's arithmetic, or negative
    `-- CannotProvision   the ledger key cannot be made now; the scope stays closed

Failures of the store itself are StoreError and pass through.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Any refusal of the ledger that is not an ordinary outcome."""


class LeaseExpired(LedgerError):
    """The request holds no lease. It must not call anyone."""


class DuplicateRequest(LedgerError):
    """The request id is taken."""


class AmountTooLarge(LedgerError):
    """An amount below zero or of 2**53 nano-USD (about nine million USD) and more."""


class CannotProvision(LedgerError):
    """Records of the scope cannot be summed, or kept changing while they were."""
