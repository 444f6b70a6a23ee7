"""From a key and the budgets around it to a principal: pure."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.auth.principal import KeyInfo, Principal, ScopeInfo, Terms
from gateway.ledger import Budget, Limits, Scope


def principal_of(info: KeyInfo, scopes: Mapping[str, ScopeInfo]) -> Principal:
    """`scopes` are all that exist, by id."""
    spec = info.spec
    around = [found for id in scope_ids(info)[1:] if (found := scopes.get(id)) is not None]
    own = ledger_scope(f"key:{info.id}", spec.terms)
    bound = [own, *(ledger_scope(scope.id, scope.terms) for scope in around)]
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
    )


def scope_ids(info: KeyInfo) -> list[str]:
    """Of key, team and organisation, in this order."""
    team = [f"team:{info.spec.team}"] if info.spec.team else []
    return [f"key:{info.id}", *team, f"org:{info.spec.org}"]


def ledger_scope(id: str, terms: Terms) -> Scope | None:
    """None when there is neither a budget nor a limit."""
    budget = None if terms.budget is None else Budget(terms.budget, terms.window)
    limits = Limits(terms.requests_per_minute, terms.tokens_per_minute, terms.concurrency)
    bounded = limits != Limits()
    if budget is None and not bounded:
        return None
    return Scope(id, budget, limits if bounded else None)
