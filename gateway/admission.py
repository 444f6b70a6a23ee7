"""Steps 1 to 3: who asks, under which labels, and which candidates may serve it."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.prices import tier_name
from gateway.auth import AuthError, AuthUnavailable, Principal, TermsUnreadable
from gateway.catalog import UnknownModel
from gateway.errors import (
    GatewayError,
    bad_request,
    budget_exceeded,
    model_not_found,
    residency_refused,
    unauthenticated,
    unavailable,
)
from gateway.exchange import Exchange
from gateway.inbound import Controls, Inbound, new_id, output_field
from gateway.policies import UnknownPolicy
from gateway.runtime import Runtime
from routers.decide import ActivePolicy, Filtered, filter_candidates, needs_score, plan
from routers.residency import LabelError, audit_required, combine, residency_gap
from routers.text import all_text, needed_capabilities, opaque_content, turns_of
from routers.types import Candidate, Decision, Need, Operation, Policy, Query, Rejection


async def authenticate(runtime: Runtime, controls: Controls) -> Principal:
    """Raises GatewayError 401, or 503 when the keys cannot be looked up or what the key may spend
    cannot be read: neither must look like bad credentials."""
    try:
        return await runtime.keyring.authenticate(controls.token)
    except AuthUnavailable as exc:
        raise unavailable("keys_unavailable", "Keys cannot be checked right now.") from exc
    except TermsUnreadable as exc:
        raise unavailable("terms_unreadable", str(exc), retry_after=None) from exc
    except AuthError as exc:
        raise unauthenticated(str(exc)) from exc


async def admit(
    runtime: Runtime, inbound: Inbound, principal: Principal, started: float, wall: float
) -> Exchange:
    """Build the exchange: labels, needs, filtered candidates. Raises GatewayError."""
    own, active, explicit = _resolve(runtime, inbound, principal)
    policy, base = active.policy, own.policy
    same = base is policy
    text = all_text(inbound.body)
    found = await runtime.detector.detect(text, (policy,) if same else (policy, base))
    try:
        labels = combine(
            (*principal.labels, *policy.mandatory_labels, *base.mandatory_labels),
            inbound.controls.labels,
            (*found.labels, *_unread(inbound, policy, base)),
        )
    except LabelError as exc:
        raise bad_request(str(exc), "x-tollhouse-residency") from exc
    capabilities = needed_capabilities(inbound.body, inbound.operation)
    need = Need(
        operation=inbound.operation,
        labels=labels,
        capabilities=capabilities,
        prompt_tokens=await _count(runtime, inbound, principal, explicit),
        output_tokens=output_limit(inbound.body, inbound.operation),
        choices=choices(inbound.body, inbound.operation),
        explicit=explicit,
        allowed=principal.allow,
        max_cost=inbound.controls.max_cost,
        budget_share_left=runtime.catalog.share_left(principal),
        service_tier=tier_name(inbound.body.get("service_tier")),
    )
    candidates = runtime.catalog.candidates(need)
    listed = labels.intersection(base.labels)
    if same:
        filtered = filter_candidates(active, need, candidates)
    else:
        filtered = _within(base, listed, active, need, candidates)
    ex = Exchange(
        inbound=inbound,
        decision_id=new_id("dec_"),
        started=started,
        wall=wall,
        principal=principal,
        active=active,
        base=base,
        base_labels=listed,
        labels=labels,
        need=need,
        filtered=filtered,
        audit=bool(labels) and (audit_required(labels, policy) or audit_required(listed, base)),
        kinds=found.kinds,
    )
    if not needs_score(filtered):
        ex.decision = plan(filtered, None)
    return ex


def _within(
    base: Policy,
    labels: frozenset[str],
    active: ActivePolicy,
    need: Need,
    candidates: list[Candidate],
) -> Filtered:
    """The filters of a policy that the client chose, inside what the key's own policy asks of the
    labels it lists: a client may only tighten."""
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    for candidate in candidates:
        gap = residency_gap(candidate, labels, base)
        if gap is None:
            kept.append(candidate)
        else:
            rejected.append(Rejection(candidate.id, "residency", gap))
    filtered = filter_candidates(active, need, kept)
    if not rejected:
        return filtered
    refusal = filtered.refusal
    if not kept:
        refusal = "residency"
    return msgspec.structs.replace(
        filtered, rejected=(*rejected, *filtered.rejected), refusal=refusal
    )


def _resolve(
    runtime: Runtime, inbound: Inbound, principal: Principal
) -> tuple[ActivePolicy, ActivePolicy, str | None]:
    """The caller's own policy, the one to decide by, and the target that the model names, if any.
    Raises GatewayError."""
    try:
        named, explicit = runtime.catalog.resolve(inbound.model)
    except UnknownModel as exc:
        raise model_not_found(inbound.model) from exc
    header = inbound.controls.policy
    if named and header and named != header:
        raise bad_request("model and x-tollhouse-policy name different policies.", "model")
    asked = named or header
    bound = principal.policy
    if asked and bound and asked != bound:
        raise GatewayError(
            403,
            "policy_not_permitted",
            f"This key is bound to the policy {bound!r}.",
            type="permission_denied",
            param="model" if named else "x-tollhouse-policy",
            retry=False,
        )
    own = _own(runtime, bound)
    if not asked:
        return own, own, explicit
    try:
        return own, runtime.policies.get(asked), explicit
    except UnknownPolicy as exc:
        if named:
            raise model_not_found(inbound.model) from exc
        raise bad_request(f"There is no policy {asked[:64]!r}.", "x-tollhouse-policy") from exc


def _own(runtime: Runtime, bound: str) -> ActivePolicy:
    """The policy that the key is bound to, or the default. That it is missing is no mistake of the
    client's."""
    name = bound or runtime.config.policy.default
    try:
        return runtime.policies.get(name)
    except UnknownPolicy as exc:
        whose = "this key's policy" if bound else "the default policy"
        raise unavailable(
            "policy_unavailable", f"There is no policy {name!r}, {whose}.", retry_after=None
        ) from exc


def _unread(inbound: Inbound, *policies: Policy) -> tuple[str, ...]:
    """The labels of content that no detector can read (images, audio, files, token ids)."""
    labels = tuple(policy.opaque_label for policy in policies if policy.opaque_label)
    return labels if labels and opaque_content(inbound.body) else ()


async def _count(
    runtime: Runtime, inbound: Inbound, principal: Principal, explicit: str | None
) -> int:
    """Prompt tokens: as exact as can be where a budget depends on it, which costs more than the
    rest of the path; else an estimate that leans high."""
    counter = runtime.catalog.tokens
    model = runtime.catalog.counting_model(explicit)
    if any(scope.budget is not None for scope in principal.scopes):
        return (await counter.count_chat_async(inbound.body, model)).tokens
    return counter.estimate_chat(inbound.body, model).tokens


def output_limit(body: dict[str, Any], operation: str) -> int:
    """The most output tokens the client allows for one choice; 0 when it set no limit. Of two
    limits the larger counts: which one an engine reads is not known."""
    if operation == "embeddings":
        return 0
    return max(body.get("max_completion_tokens") or 0, body.get("max_tokens") or 0)


def choices(body: dict[str, Any], operation: str) -> int:
    """How many answers may be generated: for each prompt of a list, `n` or `best_of` of them."""
    if operation == "embeddings":
        return 1
    prompt = body.get("prompt") if operation == "completions" else None
    many = isinstance(prompt, list) and any(isinstance(item, str | list) for item in prompt)
    each = max(body.get("n") or 1, body.get("best_of") or 1)
    return each * (len(prompt) if many and isinstance(prompt, list) else 1)


def query(ex: Exchange) -> Query:
    body = ex.inbound.body
    tools = body.get("tools")
    return Query(
        turns=turns_of(body),
        tools=len(tools) if isinstance(tools, list) else 0,
        partition=ex.principal.org,
        prompt_tokens=ex.need.prompt_tokens,
    )


def refuse_if_empty(ex: Exchange) -> None:
    """Raises the GatewayError for a request that no candidate may serve."""
    if ex.decision is not None and ex.decision.refusal is not None:
        raise refusal(ex.decision, ex.inbound)


def refusal_code(decision: Decision, inbound: Inbound) -> str | None:
    """The code of the error that a client gets; None for a decision that is not refused."""
    return None if decision.refusal is None else refusal(decision, inbound).code


def refusal(decision: Decision, inbound: Inbound) -> GatewayError:
    """The answer to a request with an empty plan: it names the filter and its reason."""
    step, model = decision.refusal, inbound.model
    reasons = [r for r in decision.rejected if r.filter == step]
    why = f"{reasons[0].candidate}: {reasons[0].reason}" if reasons else "no backend is configured"
    if step == "residency":
        names = ", ".join(decision.labels)
        return residency_refused(
            f"No backend is allowed for the labels of this request ({names}). {why}."
        )
    if step == "budget":
        return budget_exceeded(f"The budget allows no backend for this request. {why}.")
    if step == "permission":
        return GatewayError(
            403,
            "model_not_permitted",
            f"This key may not use the model {model[:200]!r}.",
            type="permission_denied",
            param="model",
            retry=False,
        )
    if step == "capability":
        return _incapable([f"{r.candidate}: {r.reason}" for r in reasons], inbound)
    if step == "health":
        return unavailable("backends_unavailable", f"No backend is available. {why}.")
    if step == "unknown_model":
        return model_not_found(model)
    return unavailable("no_backend", "No backend is configured.", retry_after=None)


def _incapable(reasons: list[str], inbound: Inbound) -> GatewayError:
    """Told by the candidate that came nearest: one that would do for a smaller request says more
    than one of another kind."""
    why, param, code = reasons[0], "model", "unsupported_parameter"
    size = _first(reasons, "context window of ")
    output = _first(reasons, " output tokens, ")
    lacking = [reason for reason in reasons if ": lacks " in reason]
    if size is not None:
        why, param, code = size, _CONTENT[inbound.operation], "context_length_exceeded"
    elif output is not None:
        why = output
        param = output_field(inbound)
    elif lacking:
        why = min(lacking, key=len)
        missing = why.rpartition(": lacks ")[2].split(", ")
        param = _param(missing[0], inbound)
    return bad_request(f"No backend can serve this request. {why}.", param, code)


def _first(reasons: list[str], part: str) -> str | None:
    return next((reason for reason in reasons if part in reason), None)


_CONTENT: dict[Operation, str] = {
    "chat": "messages",
    "completions": "prompt",
    "embeddings": "input",
}
# The fields that may ask for a capability; what none of them does, the content did.
_FIELDS = {
    "tools": ("tools", "functions"),
    "json_object": ("response_format",),
    "json_schema": ("response_format",),
    "logprobs": ("logprobs", "top_logprobs"),
    "n": ("n", "best_of"),
    "audio": ("audio", "modalities"),
}


def _param(capability: str, inbound: Inbound) -> str:
    given = (f for f in _FIELDS.get(capability, ()) if inbound.body.get(f) is not None)
    return next(given, _CONTENT[inbound.operation])
