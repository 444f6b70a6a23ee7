"""Budgets: what is spent and held, and the terms of teams and organisations."""

from __future__ import annotations

import asyncio

from litestar import get, put
from litestar.params import JSONBody

from gateway.admin.context import Context
from gateway.admin.fields import Cursor, Limit, Name
from gateway.admin.guard import ACTOR
from gateway.admin.keys import key_page
from gateway.admin.problems import Refusal, invalid
from gateway.admin.views import (
    BudgetPage,
    BudgetView,
    ScopeInput,
    ScopeView,
    budget_view,
    field_error,
    scope_view,
    unreadable_view,
)
from gateway.auth import ScopeInfo
from gateway.auth.rules import Invalid, is_scope_id
from gateway.auth.scopes import ledger_scope, terms_around
from gateway.ledger import Scope


@get("/budgets", summary="The books of every budget")
async def list_budgets(context: Context, limit: Limit = 100, cursor: Cursor = None) -> BudgetPage:
    """Page by page of the keys. The books of a team or an organisation are listed with its keys,
    so they may be on several pages."""
    infos, following = await key_page(context, limit, cursor)
    scopes = context.keyring.scopes()
    now = context.keyring.clock()
    wanted: dict[tuple[str, str], Scope] = {}
    unreadable: dict[tuple[str, str], BudgetView] = {}
    for info in infos:
        if info.state(now) != "active":
            continue
        org = info.spec.org
        for id, terms in terms_around(info, scopes):
            try:
                scope = ledger_scope(id, terms)
            except ValueError as exc:
                unreadable[org, id] = unreadable_view(org, id, terms, str(exc))
            else:
                if scope is not None and scope.budget is not None:
                    wanted[org, id] = scope
    balances = await asyncio.gather(
        *(context.ledger.balance(org, scope) for (org, _), scope in wanted.items())
    )
    items = [
        budget_view(org, scope.id, scope.budget, balance)
        for ((org, _), scope), balance in zip(wanted.items(), balances, strict=True)
        if scope.budget is not None
    ]
    shown = [scope_view(scopes[id]) for id in sorted(scopes)]
    return BudgetPage([*items, *unreadable.values()], shown, following)


@put("/budgets/{scope_id:str}", summary="Set the terms of a team or an organisation")
async def put_budget(context: Context, scope_id: Name, data: JSONBody[ScopeInput]) -> ScopeView:
    """`scope_id` is `org:NAME` or `team:NAME`; everything left out is taken away, but for `labels`:
    where there are any, they must be given again, or `[]` to take them away (400). Terms that come
    from the configuration file cannot be changed here (409)."""
    if not is_scope_id(scope_id):
        raise invalid("scope_id", "must be org:NAME or team:NAME")
    info = ScopeInfo(scope_id, "database", data.labels or (), data.terms())
    try:
        said = data.labels is not None
        return scope_view(await context.keys.put_scope(info, ACTOR, labels_said=said))
    except Invalid as exc:
        raise Refusal(400, "The request is not valid.", (field_error(exc),)) from exc


HANDLERS = (list_budgets, put_budget)
