"""What the handlers of the admin API work on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from gateway.auth import KeyAdmin, Keyring, Principal
from gateway.learning import Learning
from gateway.ledger import Ledger
from gateway.policies import Policies
from gateway.records import Database, ReadChains
from gateway.steering import WorkerRouting

Explain = Callable[[dict[str, Any], Principal | None], Awaitable[dict[str, Any]]]

Rewrite = Callable[[], Awaitable[bool]]
ReadRouting = Callable[[], Awaitable[list[WorkerRouting]]]


class Backends(Protocol):
    def snapshot(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class AdminContext:
    """`chains` reads what the store knows of the hash chains. `explain` decides a request without
    calling anyone; it raises GatewayError for a request that cannot be decided. `learning`
    is None where nothing learns. `routing` reads how each worker routes.
    `rewrite` frees the files of the gateway's own store of what was deleted; None where the store
    is another's."""

    keyring: Keyring
    keys: KeyAdmin
    policies: Policies
    ledger: Ledger
    database: Database
    chains: ReadChains
    backends: Backends
    explain: Explain
    routing: ReadRouting
    learning: Learning | None = None
    rewrite: Rewrite | None = None


Context = NamedDependency[SkipValidation[AdminContext]]
