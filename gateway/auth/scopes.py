"""From a key and the budgets around it to a principal: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.auth.principal import KeyInfo, Principal, ScopeInfo, Terms
from gateway.ledger import Budget, Limits, Scope


def principal_of(info: KeyInfo, scopes: Mapping[str, ScopeInfo]) -> Principal:
    """`scopes` are all that exist, by id."""
    spec = info.spec
    around = [found for id in scope_ids(info)[1:] if (found := scopes.get(id)) is not None]
    bound: list[Scope | None] = []
    fault = ""
    for id, terms in terms_around(info, scopes):
        try:
            bound.append(ledger_scope(id, terms))
        except ValueError as exc:
            fault = fault or f"{id} cannot be read: {exc}"
    return Principal(
        key_id=info.id,
        org=spec.org,
        team=spec.team,
        user=spec.user,
        labels=frozenset(spec.labels).union(*(scope.labels for scope in around)),
        policy=spec.policy,
        allow=spec.allow,
        tags=spec.tags,
        scopes=tuple(scope for scope in bound if scope is not None),
        expires=spec.expires,
        fault=fault,
    )


def terms_around(info: KeyInfo, scopes: Mapping[str, ScopeInfo]) -> list[tuple[str, Terms]]:
    """By scope id: the key's own terms, then those of its team and organisation that exist."""
    found = [(id, scopes[id].terms) for id in scope_ids(info)[1:] if id in scopes]
    return [(f"key:{info.id}", info.spec.terms), *found]


def unreadable_terms(scopes: Iterable[ScopeInfo]) -> dict[str, str]:
    """By id: what is wrong with those whose terms no ledger can keep."""
    found = {}
    for scope in scopes:
        try:
            ledger_scope(scope.id, scope.terms)
        except ValueError as exc:
            found[scope.id] = str(exc)
    return found


def scope_ids(info: KeyInfo) -> list[str]:
    """Of key, team and organisation, in this order."""
    team = [f"team:{info.spec.team}"] if info.spec.team else []
    return [f"key:{info.id}", *team, f"org:{info.spec.org}"]


def ledger_scope(id: str, terms: Terms) -> Scope | None:
    """None when there is neither a budget nor a limit. Raises ValueError for a budget that no
    ledger can keep: the database may hold one, from an earlier version or another hand."""
    budget = None if terms.budget is None else Budget(terms.budget, terms.window)
    limits = Limits(terms.requests_per_minute, terms.tokens_per_minute, terms.concurrency)
    bounded = limits != Limits()
    if budget is None and not bounded:
        return None
    return Scope(id, budget, limits if bounded else None)
