"""The decision without a call: the same steps as a request takes, up to the plan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.admission import admit
from gateway.auth import Principal
from gateway.compose import Resolved, compose
from gateway.config import Config
from gateway.inbound import Controls, new_id, parse
from gateway.pipeline import score_and_plan
from gateway.runtime import Runtime
from routers.render import render, to_dict
from routers.types import Decision

if TYPE_CHECKING:
    from gateway.app import Worker

Explain = Callable[[dict[str, Any], Principal | None], Awaitable[dict[str, Any]]]


def explainer(worker: Worker) -> Explain:
    """For the admin API of a running worker."""

    async def explain(request: dict[str, Any], principal: Principal | None) -> dict[str, Any]:
        return await explain_request(worker.runtime, request, principal or Principal())

    return explain


async def explain_request(
    runtime: Runtime,
    request: dict[str, Any],
    principal: Principal,
    labels: tuple[str, ...] = (),
    policy: str = "",
) -> dict[str, Any]:
    """`request` is the body of a chat completion. The answer holds the whole decision and a
    readable `text`. Raises GatewayError for a request that would be refused as malformed."""
    controls = Controls(labels=labels, policy=policy)
    operation = "embeddings" if "input" in request and "messages" not in request else "chat"
    if "prompt" in request and "messages" not in request:
        operation = "completions"
    inbound = parse(operation, msgspec.json.encode(request), controls, new_id("req_"))  # type: ignore[arg-type]  # one of the three literals
    ex = await admit(runtime, inbound, principal, perf_counter(), time())
    await score_and_plan(runtime, ex, count=False)
    assert ex.decision is not None
    found = to_dict(ex.decision)
    found["cards"] = _cards(runtime, ex.decision)
    found["text"] = "\n".join([render(ex.decision), *_card_lines(found["cards"], ex.decision)])
    found["kinds"] = list(ex.kinds)
    return found


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
