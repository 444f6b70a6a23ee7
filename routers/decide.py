"""The decision as a pure function: ordered filters, then an ordered plan.

::

    filtered = filter_candidates(active, need, candidates)
    score = await router.score(...) if needs_score(filtered) else None
    decision = plan(filtered, score)

Filters run in the order residency, permission, capability, health, budget. Every rejected
candidate keeps the first filter it failed. Nothing is ever added back: a request that no
candidate may serve is refused, and the refusal names the filter that removed the last one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from routers.budget import budget_gap, pressure
from routers.residency import residency_gap
from routers.types import Candidate, Decision, Need, Policy, Rejection, Score

FilterName = Literal["residency", "permission", "capability", "health", "budget"]

FILTERS: tuple[FilterName, ...] = ("residency", "permission", "capability", "health", "budget")
_RESIDENCY, _PERMISSION, _CAPABILITY, _HEALTH, _BUDGET = range(5)

UNKNOWN_MODEL = "unknown_model"
NO_BACKEND = "no_backend"


class ActivePolicy(msgspec.Struct, frozen=True):
    """A policy with the name and version under which it is in force."""

    name: str
    version: int
    policy: Policy


class Filtered(msgspec.Struct, frozen=True):
    """What the filters left, before a score.

    `removed` gives, for each tier that lost candidates, the last filter that took one.
    `in_play` are the tiers between which a choice is still open: those with an eligible
    candidate and, where the policy forbids fallback, those kept out by health alone, so that
    an outage does not move a request to a tier which the policy would not have chosen.
    """

    active: ActivePolicy
    need: Need
    eligible: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]
    removed: dict[str, FilterName]
    in_play: frozenset[str]
    refusal: str | None = None


def decide(
    active: ActivePolicy, need: Need, candidates: Iterable[Candidate], score: Score | None = None
) -> Decision:
    """Filter and plan in one step. Without a score that is needed, the policy's `unclassified`
    tier is used and the decision says `needs_score`."""
    return plan(filter_candidates(active, need, candidates), score)


def filter_candidates(
    active: ActivePolicy, need: Need, candidates: Iterable[Candidate]
) -> Filtered:
    """Apply the filters in order.

    A request that names its model considers that candidate alone; the others are not rejected,
    they were never asked for. When the name matches none the refusal is `unknown_model`, and
    `no_backend` when there is nothing to consider at all.
    """
    policy, explicit = active.policy, need.explicit
    labels = sorted(need.labels)
    eligible: list[Candidate] = []
    rejected: list[Rejection] = []
    removed: dict[str, int] = {}
    last = -1
    for candidate in candidates:
        if explicit is not None and candidate.id != explicit:
            continue
        gap = _first_gap(policy, need, labels, candidate)
        if gap is None:
            eligible.append(candidate)
            continue
        stage, reason = gap
        rejected.append(Rejection(candidate.id, FILTERS[stage], reason))
        if stage > removed.get(candidate.tier, -1):
            removed[candidate.tier] = stage
        last = max(last, stage)
    refusal: str | None = None
    if not eligible:
        nothing = UNKNOWN_MODEL if need.explicit is not None else NO_BACKEND
        refusal = FILTERS[last] if last >= 0 else nothing
    in_play = {candidate.tier for candidate in eligible}
    if not policy.fallback and need.explicit is None:
        in_play.update(tier for tier, stage in removed.items() if stage == _HEALTH)
    return Filtered(
        active,
        need,
        tuple(eligible),
        tuple(rejected),
        {tier: FILTERS[stage] for tier, stage in removed.items()},
        frozenset(in_play),
        refusal,
    )


def _first_gap(
    policy: Policy, need: Need, labels: list[str], candidate: Candidate
) -> tuple[int, str] | None:
    if labels:
        reason = residency_gap(candidate, labels, policy)
        if reason is not None:
            return _RESIDENCY, reason
    allowed = need.allowed
    if allowed and _first_match(allowed, candidate) == len(allowed):
        return _PERMISSION, "the key may not use it"
    reason = _capability_gap(need, candidate)
    if reason is not None:
        return _CAPABILITY, reason
    if not candidate.healthy:
        return _HEALTH, "its circuit breaker is open"
    cost = candidate.worst_cost
    reason = budget_gap(cost, need.max_cost, need.budget_left) if cost > 0 else None
    return None if reason is None else (_BUDGET, reason)


def _capability_gap(need: Need, candidate: Candidate) -> str | None:
    """A `context_window` or `max_output` of 0 is unknown and not checked: the upstream says."""
    has = candidate.capabilities
    if need.operation not in has:
        return f"does not serve {need.operation}"
    if not need.capabilities <= has:
        return "lacks " + ", ".join(sorted(need.capabilities - has))
    if 0 < candidate.max_output < need.output_tokens:
        return f"gives at most {candidate.max_output} output tokens, {need.output_tokens} asked"
    if 0 < candidate.context_window < need.prompt_tokens + need.output_tokens:
        return (
            f"context window of {candidate.context_window} tokens is too small for "
            f"{need.prompt_tokens} prompt + {need.output_tokens} output"
        )
    return None


def matches(pattern: str, name: str) -> bool:
    """Whether `name` fits `pattern`, in which `*` stands for any text, also none. Linear."""
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last):
        return False
    if not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def needs_score(filtered: Filtered) -> bool:
    """Whether a score can change the plan. When false, every score gives the same plan."""
    return (
        filtered.refusal is None
        and filtered.active.policy.route == "score"
        and len(filtered.in_play) > 1
    )


def plan(filtered: Filtered, score: Score | None = None) -> Decision:
    """Order what is eligible: the chosen tier first, the others after it if the policy lets
    requests fall back. Within a tier: the policy's `prefer`, the operator's order, the cost."""
    active, need = filtered.active, filtered.need
    policy = active.policy
    threshold = None
    if policy.route == "score":
        threshold = policy.threshold + pressure(policy.pressure, need.budget_share_left)
    wanted, why = _wanted_tier(policy, score, threshold)
    refusal = filtered.refusal
    ordered: tuple[Candidate, ...] = ()
    reason = ""
    if refusal is None:
        tiers = _tier_order(policy, wanted, filtered)
        ordered = _order(policy, tiers, filtered.eligible)
        if not ordered:
            refusal = "health"
        else:
            reason = _reason(filtered, wanted, why, ordered[0].tier)
    return Decision(
        plan=ordered,
        rejected=filtered.rejected,
        reason=reason,
        refusal=refusal,
        policy=active.name,
        policy_version=active.version,
        labels=tuple(sorted(need.labels)),
        score=score,
        threshold=threshold,
        needs_score=needs_score(filtered),
    )


def _wanted_tier(policy: Policy, score: Score | None, threshold: float | None) -> tuple[str, str]:
    if threshold is None:
        return (policy.weak_tier if policy.route == "weak" else policy.strong_tier), "policy"
    gain = None if score is None or score.unclassified is not None else score.gain
    if gain is None:
        return policy.unclassified, "unclassified"
    if gain > threshold:
        return policy.strong_tier, "score_above"
    return policy.weak_tier, "score_below"


def _tier_order(policy: Policy, wanted: str, filtered: Filtered) -> list[str]:
    in_play = filtered.in_play
    if len(in_play) == 1:
        return list(in_play)
    known = (wanted, policy.weak_tier, policy.strong_tier)
    others = sorted(in_play.difference(known))
    tiers = [tier for tier in dict.fromkeys((*known, *others)) if tier in in_play]
    return tiers if policy.fallback else tiers[:1]


def _order(
    policy: Policy, tiers: list[str], eligible: tuple[Candidate, ...]
) -> tuple[Candidate, ...]:
    if len(eligible) == 1:
        return eligible if eligible[0].tier in tiers else ()
    prefer = policy.prefer
    keyed = [
        (
            tiers.index(c.tier),
            _first_match(prefer, c),
            c.order,
            c.worst_cost,
            c.backend,
            c.model,
            at,
        )
        for at, c in enumerate(eligible)
        if c.tier in tiers
    ]
    keyed.sort()
    return tuple([eligible[key[-1]] for key in keyed])


def _first_match(patterns: tuple[str, ...], candidate: Candidate) -> int:
    """The index of the first pattern that fits, or their number when none does."""
    if patterns:
        name = candidate.id
        for at, pattern in enumerate(patterns):
            if matches(pattern, name):
                return at
    return len(patterns)


def _reason(filtered: Filtered, wanted: str, why: str, tier: str) -> str:
    """One word for why the first candidate is first."""
    if filtered.need.explicit is not None:
        return "explicit"
    policy = filtered.active.policy
    if policy.route == "score" and len(filtered.in_play) == 1:
        gone = [FILTERS.index(step) for t, step in filtered.removed.items() if t != tier]
        if gone:
            return FILTERS[max(gone)]
        return "only_candidate" if len(filtered.eligible) == 1 else "policy"
    if tier == wanted:
        return why
    return filtered.removed.get(wanted, "policy")
