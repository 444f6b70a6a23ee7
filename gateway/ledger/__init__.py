"""Budgets, rate limits and leases, kept in the store by atomic scripts."""

from __future__ import annotations

from gateway.ledger.again import settle_again
from gateway.ledger.errors import (
    AmountTooLarge,
    CannotProvision,
    DuplicateRequest,
    LeaseExpired,
    LedgerError,
)
from gateway.ledger.ledger import Books, Ledger, is_org
from gateway.ledger.sweeper import Sweeper
from gateway.ledger.types import (
    MAX_NANO,
    Balance,
    Budget,
    Enter,
    Entered,
    Limits,
    Rate,
    Reserve,
    Scope,
    Settled,
    Settlement,
    Short,
)

__all__ = [
    "MAX_NANO",
    "AmountTooLarge",
    "Balance",
    "Books",
    "Budget",
    "CannotProvision",
    "DuplicateRequest",
    "Enter",
    "Entered",
    "LeaseExpired",
    "Ledger",
    "LedgerError",
    "Limits",
    "Rate",
    "Reserve",
    "Scope",
    "Settled",
    "Settlement",
    "Short",
    "Sweeper",
    "is_org",
    "settle_again",
]
