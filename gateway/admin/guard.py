"""Who may call the admin API, and which query parameters it takes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.params import QueryParameter

from gateway.admin.problems import FieldError, Refusal

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], None]

# Who wrote something, for the log of changes; there is one admin token so far.
ACTOR = "admin"


def require_token(admin_token: str) -> Guard:
    """Refuses everything without `Authorization: Bearer <admin_token>`. An empty token opens
    nothing."""
    # Hashing first makes the comparison independent of the length of what was sent.
    expected = hashlib.sha256(admin_token.encode()).digest() if admin_token else None

    def check(connection: Connection, handler: BaseRouteHandler) -> None:
        values = connection.headers.getall("authorization", [])
        scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
        presented = hashlib.sha256(token.strip().encode("utf-8", "replace")).digest()
        if (
            expected is None
            or scheme.lower() != "bearer"
            or not hmac.compare_digest(presented, expected)
        ):
            raise Refusal(
                401,
                "The admin API needs its own token: 'Authorization: Bearer ...'.",
                headers={"www-authenticate": 'Bearer realm="admin"'},
            )

    return check


def refuse_unknown_query(connection: Connection, handler: BaseRouteHandler) -> None:
    """A misspelt filter must not silently give everything."""
    known = {
        name
        for name, field in handler.parsed_fn_signature.parameters.items()
        if isinstance(field.kwarg_definition, QueryParameter)
    }
    given = [name for name, _ in connection.query_params.multi_items()]
    errors = [FieldError(name, "unknown query parameter") for name in given if name not in known]
    errors += [FieldError(name, "given more than once") for name in known if given.count(name) > 1]
    if errors:
        raise Refusal(400, "The request is not valid.", tuple(errors))
