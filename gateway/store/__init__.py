"""The shared store (Redis or Valkey): the only package that talks to it."""

from __future__ import annotations

from gateway.store.client import Script, Store, StoreSettings
from gateway.store.embedded import EmbeddedStore
from gateway.store.errors import (
    StoreError,
    StoreFull,
    StoreLoading,
    StoreMoved,
    StoreReadOnly,
    StoreRefused,
    StoreScriptError,
    StoreTimeout,
    StoreUnavailable,
)

__all__ = [
    "EmbeddedStore",
    "Script",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreLoading",
    "StoreMoved",
    "StoreReadOnly",
    "StoreRefused",
    "StoreScriptError",
    "StoreSettings",
    "StoreTimeout",
    "StoreUnavailable",
]
