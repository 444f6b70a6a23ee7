"""The decision as a pure function: ordered filters, then an ordered plan.

::

    filtered = filter_candidates(active, need, candidates)
    score = await router.score(...) if needs_score(filtered) else None
    decision = plan(filtered, score, steer)

Filters run in the order residency, permission, capability, health, budget. Every rejected
candidate keeps the first filter it failed. Nothing is ever added back: a request that no
candidate may serve is refused, and the refusal names the filter that removed the last one.

`steer` is what holds the policy's promise (see `routers.steering`); without it the policy's own
threshold decides.
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


Force = Literal["", "weak", "strong"]


class Steer(msgspec.Struct, frozen=True):
    """What decides between the tiers for one request.

    A gain above `threshold` goes strong, and one equal to it where `ties` says so; budget pressure
    raises the threshold first. `force`: the promise is at its edge and decides alone, `strong` only
    while no pressure holds. `capped`: the key has had its share of strong calls. `target`: the
    promise in words, such as `share 0.3`.
    """

    threshold: float
    ties: bool = False
    force: Force = ""
    capped: bool = False
    target: str = ""

    def wants(self, gain: float, raised: float = 0.0) -> bool:
        """Whether a request of this gain is to go strong, the cap of its key left aside."""
        if self.force == "weak":
            return False
        if raised > 0.0:
            return gain > self.threshold + raised
        return (
            self.force == "strong"
            or gain > self.threshold
            or (self.ties and gain == self.threshold)
        )


class Odds(msgspec.Struct, frozen=True):
    """The probabilities that the first candidate of each tier answers acceptably."""

    weak: float
    strong: float

    @property
    def gain(self) -> float:
        return self.strong - self.weak


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


def odds(filtered: Filtered, score: Score | None) -> Odds | None:
    """What the score says of the candidates that would be tried first in each tier: a candidate
    with a model card is judged by it, others by their tier. None without a score, and for one that
    is less sure than the policy asks for."""
    if score is None or score.unclassified is not None:
        return None
    weak, strong = score.p_local_ok, score.p_frontier_ok
    if weak is None or strong is None:
        return None
    policy = filtered.active.policy
    if score.confidence is not None and score.confidence < policy.min_confidence:
        return None
    if score.p_ok:
        weak = score.p_ok.get(_first_of(filtered, policy.weak_tier), weak)
        strong = score.p_ok.get(_first_of(filtered, policy.strong_tier), strong)
    return Odds(weak, strong)


def steerable(filtered: Filtered) -> bool:
    """Whether the choice is open between the two tiers that a promise is about."""
    policy, in_play = filtered.active.policy, filtered.in_play
    return needs_score(filtered) and policy.weak_tier in in_play and policy.strong_tier in in_play


def plan(filtered: Filtered, score: Score | None = None, steer: Steer | None = None) -> Decision:
    """Order what is eligible: the chosen tier first, the others after it if the policy lets
    requests fall back. Within a tier: the policy's `prefer`, the operator's order, the cost."""
    active, need = filtered.active, filtered.need
    policy = active.policy
    shown = policy.route == "score" and (steer is not None or policy.target is None)
    if steer is None:
        steer = Steer(policy.threshold)
    found = odds(filtered, score) if policy.route == "score" else None
    raised = pressure(policy.pressure, need.budget_share_left)
    wanted, why = _wanted_tier(policy, found, steer, raised)
    if why == "unclassified" and score is not None and score.gain is not None:
        why = "low_confidence"
    refusal, needed = filtered.refusal, needs_score(filtered)
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
        threshold=steer.threshold + raised if shown else None,
        needs_score=needed,
        gain=found.gain if needed and found is not None else None,
        target=steer.target,
    )


def _wanted_tier(
    policy: Policy, found: Odds | None, steer: Steer, raised: float
) -> tuple[str, str]:
    if policy.route != "score":
        return (policy.weak_tier if policy.route == "weak" else policy.strong_tier), "policy"
    if found is None:
        return policy.unclassified, "unclassified"
    gain = found.gain
    above = gain > steer.threshold + raised
    strong = steer.wants(gain, raised)
    if strong and steer.capped:
        return policy.weak_tier, "key_share"
    # Where the promise overrules the threshold, it is the reason.
    why = "score_above" if strong else "score_below"
    return (
        policy.strong_tier if strong else policy.weak_tier
    ), why if strong == above else "target"


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


def _first_of(filtered: Filtered, tier: str) -> str:
    """The id of the candidate that is tried first in a tier; empty without one."""
    ordered = _order(filtered.active.policy, [tier], filtered.eligible)
    return ordered[0].id if ordered else ""


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
