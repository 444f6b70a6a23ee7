"""What the handlers of the admin API work on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from gateway.auth import KeyAdmin, Keyring, Principal
from gateway.ledger import Ledger
from gateway.policies import Policies
from gateway.records import Database, Head

Explain = Callable[[dict[str, Any], Principal | None], Awaitable[dict[str, Any]]]

ReadHeads = Callable[[], Awaitable[Mapping[str, Head]]]


class Backends(Protocol):
    def snapshot(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class AdminContext:
    """`heads` reads the chain heads that the store knows. `explain` decides a request without
    calling anyone; it raises GatewayError for a request that cannot be decided."""

    keyring: Keyring
    keys: KeyAdmin
    policies: Policies
    ledger: Ledger
    database: Database
    heads: ReadHeads
    backends: Backends
    explain: Explain


Context = NamedDependency[SkipValidation[AdminContext]]
