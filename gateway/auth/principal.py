"""Whom a key stands for, and what an administrator may know of a key."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.ledger import Scope


class Principal(msgspec.Struct, frozen=True):
    """What the pipeline needs to know of the caller.

    `key_id` is the public part of the key and may be logged. `labels` are mandatory: the union of
    what organisation, team and key carry. `policy` is empty when the key is not bound to one.
    `allow` are patterns of `backend/model`, empty means all. `scopes` are key, team and
    organisation in this order, only those that have a budget or a limit. `expires` is in seconds
    since the epoch. `fault`: `SCOPE cannot be read: WHY` for terms around the key that no ledger
    can keep; then nobody knows what it may spend, and it opens nothing.
    """

    key_id: str = ""
    org: str = "default"
    team: str = ""
    user: str = ""
    labels: frozenset[str] = frozenset()
    policy: str = ""
    allow: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = ()
    expires: float | None = None
    fault: str = ""


class Terms(msgspec.Struct, frozen=True):
    """Budget and limits of a key, a team or an organisation. `budget` is nano-USD per `window`:
    see `gateway.windows`."""

    budget: int | None = None
    window: str = "month"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class KeySpec(msgspec.Struct, frozen=True):
    """What a key is made with. `expires` is in seconds since the epoch."""

    org: str = "default"
    team: str = ""
    user: str = ""
    labels: tuple[str, ...] = ()
    policy: str = ""
    allow: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    terms: Terms = Terms()
    expires: float | None = None


Source = Literal["config", "database"]


class KeyInfo(msgspec.Struct, frozen=True):
    """A key without its secret. Times are seconds since the epoch; `created` is 0 for a key from
    the configuration file."""

    id: str
    spec: KeySpec
    source: Source
    created: float = 0.0
    created_by: str = ""
    revoked: float | None = None

    def state(self, now: float) -> Literal["active", "revoked", "expired"]:
        if self.revoked is not None:
            return "revoked"
        if self.spec.expires is not None and self.spec.expires <= now:
            return "expired"
        return "active"


class ScopeInfo(msgspec.Struct, frozen=True):
    """Budget, limits and mandatory labels of `org:NAME` or `team:NAME`."""

    id: str
    source: Source
    labels: tuple[str, ...] = ()
    terms: Terms = Terms()
