"""Backends, explanations and the log of changes."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get, post
from litestar.params import JSONBody

from gateway.admin.context import AdminContext, Context
from gateway.admin.fields import Cursor, Limit, check_key_id
from gateway.admin.problems import FieldError, Refusal, invalid
from gateway.admin.views import BackendList, ChangePage, ChangeView, ExplainInput, RoutingList
from gateway.auth import Principal
from gateway.auth.rules import Invalid, check_labels
from gateway.changes import list_changes
from gateway.errors import GatewayError
from gateway.policies import UnknownPolicy


@get("/backends", summary="Backends with their models and health")
async def list_backends(context: Context) -> BackendList:
    return BackendList(context.backends.snapshot())


@post("/explain", status_code=200, summary="Decide a request without calling any model")
async def explain(context: Context, data: JSONBody[ExplainInput]) -> dict[str, Any]:
    """The decision: the plan, every rejected candidate with its reason, and the facts used."""
    principal = await _principal(context, data)
    try:
        return await context.explain(data.request, principal)
    except GatewayError as exc:
        path = f"request.{exc.param}" if exc.param else "request"
        # What is wrong is the request asked about, whatever it would be answered itself.
        status = 400 if exc.status < 500 else 503
        raise Refusal(status, exc.message, (FieldError(path, exc.message),)) from exc


@get("/routing", summary="What policies promise, what was kept, and how far traffic has drifted")
async def routing(context: Context) -> RoutingList:
    """Of every worker that has said so within the last 45 seconds. Each keeps its promises over
    its own requests; thresholds differ a little from one to the other."""
    return RoutingList(await context.routing())


@get("/changes", summary="Who changed what, newest first")
async def changes(context: Context, limit: Limit = 100, cursor: Cursor = None) -> ChangePage:
    if cursor is not None and not _is_change(cursor):
        raise invalid("cursor", "not a cursor of this list")
    before = None if cursor is None else int(cursor)
    found = await context.database.read(lambda c: list_changes(c, before, limit + 1))
    items = [ChangeView(**msgspec.structs.asdict(entry)) for entry in found[:limit]]
    return ChangePage(items, str(items[-1].id) if len(found) > limit else None)


HANDLERS = (list_backends, explain, routing, changes)


def _is_change(cursor: str) -> bool:
    """The id of a line, which the database counts in 32 bits."""
    return cursor.isascii() and cursor.isdigit() and len(cursor) <= 10 and int(cursor) < 2**31


async def _principal(context: AdminContext, data: ExplainInput) -> Principal | None:
    try:
        check_labels(data.labels)
    except Invalid as exc:
        raise invalid(exc.field, exc.message) from exc
    if data.policy:
        try:
            context.policies.get(data.policy)
        except UnknownPolicy as exc:
            raise invalid("policy", str(exc)) from exc
    if not (data.key or data.labels or data.policy):
        return None
    principal: Principal | None = Principal()
    if data.key:
        principal = await context.keyring.principal(check_key_id(data.key))
    if principal is None:
        raise invalid("key", "no active key with this public id")
    return msgspec.structs.replace(
        principal,
        labels=principal.labels.union(data.labels),
        policy=data.policy or principal.policy,
    )
