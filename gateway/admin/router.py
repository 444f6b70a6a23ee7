"""The admin API as one router of the application."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from litestar import Router
from litestar.di import Provide
from litestar.openapi.spec import Components, SecurityScheme

from gateway.admin import budgets, cache, keys, learning, policies, records, system
from gateway.admin.context import AdminContext, Explain
from gateway.admin.guard import refuse_unknown_query, require_token
from gateway.admin.problems import EXCEPTION_HANDLERS
from gateway.admin.request import AdminRequest
from gateway.auth import KeyAdmin
from gateway.records import Witnesses
from gateway.store.embedded import rewrite_file

if TYPE_CHECKING:
    from gateway.runtime import Runtime

PATH = "/admin/v1"
MAX_BODY = 1 << 20
SCHEME = "adminToken"

# For the application's OpenAPIConfig(components=...): the routes refer to it by name.
COMPONENTS = Components(security_schemes={SCHEME: SecurityScheme(type="http", scheme="bearer")})


def admin_router(runtime: Callable[[], Runtime], explain: Explain, admin_token: str) -> Router:
    """`runtime` is called once the application has started. An empty `admin_token` refuses
    everybody."""

    def context() -> AdminContext:
        found = runtime()
        return AdminContext(
            keyring=found.keyring,
            keys=KeyAdmin(found.keyring, found.database),
            policies=found.policies,
            ledger=found.ledger,
            database=found.database,
            chains=Witnesses(found.store).seen,
            backends=found.catalog,
            explain=explain,
            routing=found.steering.views,
            learning=found.learning,
            rewrite=None if found.config.store.url else partial(rewrite_file, found.store),
        )

    return router_for(context, admin_token)


def router_for(context: Callable[[], AdminContext], admin_token: str) -> Router:
    """The same over any context."""
    return Router(
        path=PATH,
        route_handlers=[
            *policies.HANDLERS,
            *keys.HANDLERS,
            *budgets.HANDLERS,
            *cache.HANDLERS,
            *records.HANDLERS,
            *system.HANDLERS,
            *learning.HANDLERS,
        ],
        guards=[require_token(admin_token), refuse_unknown_query],
        dependencies={"context": Provide(context, sync_to_thread=False)},
        exception_handlers=EXCEPTION_HANDLERS,
        request_class=AdminRequest,
        request_max_body_size=MAX_BODY,
        response_headers={"cache-control": "no-store"},
        tags=["admin"],
        security=[{SCHEME: []}],
    )
