"""The decision without a call: the same steps as a request takes, up to the plan and what of it the
budgets can pay now. Nothing is taken, held or counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.admission import admit, refusal_code
from gateway.auth import Principal
from gateway.compose import Resolved, compose
from gateway.config import Config
from gateway.errors import unavailable
from gateway.exchange import Exchange
from gateway.inbound import Controls, new_id, parse
from gateway.ledger import Balance, Scope
from gateway.limits import priced_out
from gateway.pipeline import score_and_plan
from gateway.runtime import Runtime
from gateway.store.errors import StoreError
from routers.render import render, to_dict
from routers.types import Decision

if TYPE_CHECKING:
    from gateway.app import Worker

Explain = Callable[[dict[str, Any], Principal | None], Awaitable[dict[str, Any]]]


def explainer(worker: Worker) -> Explain:
    """For the admin API of a running worker."""

    async def explain(request: dict[str, Any], principal: Principal | None) -> dict[str, Any]:
        principal = principal or Principal()
        budgets = await _budgets(worker.runtime, principal)
        return await explain_request(worker.runtime, request, principal, budgets=budgets)

    return explain


class Left(msgspec.Struct, frozen=True):
    """What one budget has left for further calls: nano-USD, and its share of the whole, 0 to 1."""

    scope: str
    nano: int
    share: float


async def _budgets(runtime: Runtime, principal: Principal) -> tuple[Left, ...]:
    """Of each budget that binds the principal. Raises GatewayError 503 when the store does not
    answer: a request could not be told more."""
    found = []
    for scope in principal.scopes:
        if scope.budget is None:
            continue
        try:
            balance = await runtime.ledger.balance(principal.org, scope)
        except StoreError as exc:
            raise unavailable(
                "store_unavailable", "The store of limits and budgets does not answer."
            ) from exc
        found.append(_left(scope, balance))
    return tuple(found)


def _left(scope: Scope, balance: Balance | None) -> Left:
    """A budget without books is whole: the first request makes them."""
    limit = scope.budget.limit if scope.budget is not None else 0
    nano = limit if balance is None else limit - balance.spent - balance.held
    return Left(scope.id, nano, max(nano, 0) / limit if limit else 0.0)


async def explain_request(
    runtime: Runtime,
    request: dict[str, Any],
    principal: Principal,
    labels: tuple[str, ...] = (),
    policy: str = "",
    budgets: tuple[Left, ...] = (),
) -> dict[str, Any]:
    """`request` is the body of a chat completion. The answer holds the whole decision and a
    readable `text`; its `refusal` is the code of the error, as in the records. `budgets`: what is
    left of those that bind. Raises GatewayError for a request that is not valid."""
    controls = Controls(labels=labels, policy=policy)
    operation = "embeddings" if "input" in request and "messages" not in request else "chat"
    if "prompt" in request and "messages" not in request:
        operation = "completions"
    inbound = parse(operation, msgspec.json.encode(request), controls, new_id("req_"))  # type: ignore[arg-type]  # one of the three literals
    ex = await admit(runtime, inbound, principal, perf_counter(), time())
    if budgets:
        _press(ex, min(left.share for left in budgets))
    await score_and_plan(runtime, ex, count=False)
    assert ex.decision is not None
    decided = _affordable(ex.decision, budgets)
    ex.decision = msgspec.structs.replace(decided, refusal=refusal_code(decided, inbound))
    found = to_dict(ex.decision)
    found["cards"] = _cards(runtime, ex.decision)
    found["text"] = "\n".join([render(ex.decision), *_card_lines(found["cards"], ex.decision)])
    found["kinds"] = list(ex.kinds)
    return found


def _press(ex: Exchange, share: float) -> None:
    """Plan by what is left now; a worker that has not served the key knows nothing of it."""
    ex.need = msgspec.structs.replace(ex.need, budget_share_left=share)
    ex.filtered = msgspec.structs.replace(ex.filtered, need=ex.need)


def _affordable(decision: Decision, budgets: tuple[Left, ...]) -> Decision:
    """The decision as the reservation would leave it."""
    if not budgets or not decision.plan:
        return decision
    tightest = min(budgets, key=lambda left: left.nano)
    payable = (c.worst_cost <= max(tightest.nano, 0) for c in decision.plan)
    count = next((at for at, pays in enumerate(payable) if pays), len(decision.plan))
    return priced_out(decision, count, tightest.scope) if count else decision


def _cards(runtime: Runtime, decision: Decision) -> dict[str, str | None]:
    """The model card of each planned candidate in words; None for one judged by its tier."""
    cards = runtime.catalog.cards
    return {c.id: cards[c.id].describe() if c.id in cards else None for c in decision.plan}


def _card_lines(cards: dict[str, str | None], decision: Decision) -> list[str]:
    known = {target: card for target, card in cards.items() if card is not None}
    if not known:
        return []
    width = max(map(len, known))
    odds = decision.score.p_ok if decision.score is not None else {}
    lines = ["", "model cards"]
    for target, card in known.items():
        ok = f"ok {odds[target]:.3f}  " if target in odds else ""
        lines.append(f"{target.ljust(width)}  {ok}{card}")
    return lines


async def explain_offline(
    config: Config,
    request: dict[str, Any],
    *,
    principal: Principal | None = None,
    labels: tuple[str, ...] = (),
    policy: str = "",
) -> dict[str, Any]:
    """The same without a running gateway, store or database: health and budgets are taken as
    good."""
    composition = compose(Resolved(config=config, worker="explain"))
    try:
        return await explain_request(
            composition.runtime, request, principal or Principal(), labels, policy
        )
    finally:
        await composition.runtime.catalog.aclose()
        await composition.runtime.router.aclose()
