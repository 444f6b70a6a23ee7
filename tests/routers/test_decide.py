"""The decision as a pure function, against an oracle written another way."""

from __future__ import annotations

import fnmatch
from itertools import pairwise
from random import Random
from typing import Literal

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from routers.decide import (
    FILTERS,
    ActivePolicy,
    Steer,
    decide,
    filter_candidates,
    matches,
    needs_score,
    plan,
    steerable,
)
from routers.render import render, to_dict
from routers.types import (
    Candidate,
    Decision,
    Need,
    Policy,
    PressurePoint,
    Requirement,
    Score,
    Target,
)

TIERS = ("local", "frontier", "edge")
CAPS = ("chat", "completions", "embeddings", "tools", "vision", "json_schema")
LABELS = ("eu", "de", "phi", "pii", "never")
VALUES = ("eu", "us", "de")


def subsets(names: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(names))


def some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), max_size=3).map(tuple)


facts = st.dictionaries(
    st.sampled_from(("jurisdiction", "retention")), st.sampled_from(VALUES), max_size=2
)
requirements = st.builds(
    Requirement,
    facts=st.dictionaries(st.sampled_from(("jurisdiction", "retention")), some(VALUES), max_size=2),
    tiers=some(TIERS),
)
candidates = st.lists(
    st.builds(
        Candidate,
        backend=st.sampled_from(("a", "b", "c", "d")),
        model=st.sampled_from(("m", "n")),
        tier=st.sampled_from(TIERS),
        facts=facts,
        capabilities=st.one_of(st.just(frozenset(CAPS)), subsets(CAPS)),
        context_window=st.sampled_from((0, 100, 1000)),
        max_output=st.sampled_from((0, 50, 500)),
        worst_cost=st.sampled_from((0, 1, 50, 500)),
        healthy=st.sampled_from((True, True, False)),
        order=st.integers(0, 3),
    ),
    max_size=7,
    unique_by=lambda c: c.id,
)
needs = st.builds(
    Need,
    operation=st.sampled_from(("chat", "completions", "embeddings")),
    labels=st.one_of(st.just(frozenset()), subsets(LABELS)),
    capabilities=st.one_of(st.just(frozenset()), subsets(CAPS)),
    prompt_tokens=st.sampled_from((0, 60, 900)),
    output_tokens=st.sampled_from((0, 45, 200)),
    explicit=st.sampled_from((None, None, None, "a/m", "b/n", "zz/top")),
    allowed=some(("*", "a/*", "*/m", "b/n", "c*")),
    max_cost=st.sampled_from((None, None, 0, 40, 400)),
    budget_left=st.sampled_from((None, None, 0, 40, 400)),
    budget_share_left=st.one_of(st.none(), st.floats(0, 1)),
)
points = st.builds(PressurePoint, left=st.floats(0, 1), raise_by=st.floats(0, 1))
policies = st.builds(
    Policy,
    threshold=st.floats(-0.5, 0.5),
    pressure=st.lists(points, max_size=3).map(tuple),
    unclassified=st.sampled_from(TIERS),
    min_confidence=st.sampled_from((0.0, 0.0, 0.5)),
    route=st.sampled_from(("score", "score", "weak", "strong")),
    labels=st.dictionaries(st.sampled_from(LABELS[:-1]), requirements),
    fallback=st.booleans(),
    prefer=some(("b/*", "*/n", "d/m")),
).map(lambda policy: ActivePolicy("p", 7, policy))
shares = st.floats(0, 1)
scores = st.one_of(
    st.none(),
    st.builds(Score, unclassified=st.sampled_from(("deadline", "model_missing"))),
    st.builds(Score, p_local_ok=shares, p_frontier_ok=shares, confidence=shares),
)


def admitted(policy: Policy, labels: frozenset[str], candidate: Candidate) -> bool:
    """The oracle for residency: the set of allowed pairs, asked for by membership."""
    if labels - policy.labels.keys():
        return False
    wanted = {
        (label, fact, frozenset(values))
        for label in labels
        for fact, values in policy.labels[label].facts.items()
    }
    tiers = [set(policy.labels[label].tiers) or set(TIERS) for label in labels]
    return set(TIERS).intersection(*tiers) >= {candidate.tier} and all(
        {candidate.facts.get(fact)} <= values for _, fact, values in wanted
    )


def failing(policy: Policy, need: Need, c: Candidate) -> list[str]:
    """The oracle for all filters: the names of every one that the candidate fails, in order."""
    cost, limits = c.worst_cost, [need.max_cost, need.budget_left]
    verdicts = {
        "residency": admitted(policy, need.labels, c),
        "permission": not need.allowed
        or any(fnmatch.fnmatchcase(c.id, pattern) for pattern in need.allowed),
        "capability": {need.operation, *need.capabilities} <= c.capabilities
        and (c.max_output or 10**9) >= need.output_tokens
        and (c.context_window or 10**9) >= need.output_tokens + need.prompt_tokens,
        "health": c.healthy,
        "budget": cost == 0 or all(limit is None or limit >= cost for limit in limits),
    }
    return [name for name in FILTERS if not verdicts[name]]


def assert_nothing_forbidden(
    active: ActivePolicy, need: Need, all_of: list[Candidate], score: Score | None
) -> None:
    decision = decide(active, need, all_of, score)
    considered = [c for c in all_of if need.explicit in (None, c.id)]
    for candidate in decision.plan:
        assert candidate in considered
        assert admitted(active.policy, need.labels, candidate)
        assert failing(active.policy, need, candidate) == []
    first = {c.id: failing(active.policy, need, c) for c in considered}
    assert {r.candidate: r.filter for r in decision.rejected} == {
        name: failed[0] for name, failed in first.items() if failed
    }
    assert all(r.reason for r in decision.rejected)


def assert_refusal_is_named(
    active: ActivePolicy, need: Need, all_of: list[Candidate], score: Score | None
) -> None:
    decision = decide(active, need, all_of, score)
    assert bool(decision.plan) == (decision.refusal is None) == bool(decision.reason)
    if decision.plan:
        return
    left = [c for c in all_of if need.explicit in (None, c.id)]
    if not left:
        assert decision.refusal == ("unknown_model" if need.explicit else "no_backend")
        return
    for name in FILTERS:
        left = [c for c in left if name not in failing(active.policy, need, c)]
        if not left:
            assert decision.refusal == name
            return
    # Something was eligible, in a tier that the policy forbids as a fallback from an outage.
    assert decision.refusal == "health"
    assert not active.policy.fallback and need.explicit is None


@settings(max_examples=200, deadline=None)
@given(policies, needs, candidates, scores)
def test_no_filter_is_passed_by_and_every_refusal_names_its_reason(
    active: ActivePolicy, need: Need, all_of: list[Candidate], score: Score | None
) -> None:
    assert_nothing_forbidden(active, need, all_of, score)
    assert_refusal_is_named(active, need, all_of, score)


@settings(max_examples=100, deadline=None)
@given(policies, needs, candidates, scores, st.sampled_from(LABELS))
def test_a_label_more_never_admits_more(
    active: ActivePolicy, need: Need, all_of: list[Candidate], score: Score | None, label: str
) -> None:
    tighter = msgspec.structs.replace(need, labels=need.labels | {label})
    before = filter_candidates(active, need, all_of)
    after = filter_candidates(active, tighter, all_of)
    assert set(c.id for c in after.eligible) <= set(c.id for c in before.eligible)
    if active.policy.fallback:
        assert {c.id for c in plan(after, score).plan} <= {c.id for c in plan(before, score).plan}


@settings(max_examples=100, deadline=None)
@given(policies, needs, candidates, scores, scores)
def test_when_no_score_is_needed_every_score_gives_the_same_plan(
    active: ActivePolicy,
    need: Need,
    all_of: list[Candidate],
    one: Score | None,
    other: Score | None,
) -> None:
    filtered = filter_candidates(active, need, all_of)
    if not needs_score(filtered):
        left, right = plan(filtered, one), plan(filtered, other)
        assert (left.plan, left.reason, left.refusal) == (right.plan, right.reason, right.refusal)
    else:
        assert len(filtered.in_play) > 1


@settings(max_examples=100, deadline=None)
@given(policies, needs, candidates, scores, st.randoms(use_true_random=False))
def test_the_order_in_which_candidates_are_listed_does_not_matter(
    active: ActivePolicy, need: Need, all_of: list[Candidate], score: Score | None, random: object
) -> None:
    shuffled = list(all_of)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = decide(active, need, all_of, score), decide(active, need, shuffled, score)
    assert [c.id for c in one.plan] == [c.id for c in other.plan]
    assert (one.reason, one.refusal) == (other.reason, other.refusal)
    assert decide(active, need, all_of, score) == one
    assert to_dict(one) == to_dict(decide(active, need, all_of, score))
    assert (one.plan[0].id if one.plan else "refused") in render(one)


@settings(max_examples=100, deadline=None)
@given(policies, needs, candidates, scores)
def test_plans_are_ordered_by_tier_then_preference(
    active: ActivePolicy, need: Need, all_of: list[Candidate], score: Score | None
) -> None:
    decision = decide(active, need, all_of, score)
    tiers = [c.tier for c in decision.plan]
    runs = [tier for at, tier in enumerate(tiers) if at == 0 or tiers[at - 1] != tier]
    assert len(runs) == len(set(runs))
    if not active.policy.fallback:
        assert len(runs) <= 1
    for left, right in pairwise(decision.plan):
        if left.tier == right.tier and not active.policy.prefer:
            assert (left.order, left.worst_cost) <= (right.order, right.worst_cost)


def world(rng: Random) -> tuple[ActivePolicy, Need, list[Candidate], Score | None]:
    """The same space as the strategies above, drawn a hundred times faster."""

    def pick(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(rng.choices(names, k=rng.randint(0, 3)))

    def fact_values() -> dict[str, tuple[str, ...]]:
        return {"jurisdiction": pick(VALUES)} if rng.random() < 0.7 else {"retention": ("eu",)}

    labels = {
        label: Requirement(fact_values(), pick(TIERS))
        for label in LABELS[:-1]
        if rng.random() < 0.8
    }
    policy = Policy(
        labels=labels,
        route=rng.choice(("score", "score", "weak", "strong")),
        unclassified=rng.choice(TIERS),
        fallback=rng.random() < 0.5,
        prefer=pick(("b/*", "*/n", "d/m")),
    )
    need = Need(
        labels=frozenset(rng.sample(LABELS, rng.choice((0, 0, 1, 1, 2)))),
        capabilities=frozenset(rng.sample(CAPS, rng.choice((0, 0, 0, 1)))),
        prompt_tokens=rng.choice((0, 60, 60, 900)),
        output_tokens=rng.choice((0, 30, 200)),
        explicit=rng.choice((*[None] * 8, "a/m", "b/n")),
        allowed=pick(("*", "a/*", "*/m", "b/n", "c*")) if rng.random() < 0.3 else (),
        budget_left=rng.choice((None, None, 0, 40, 400)),
    )
    names = [(backend, model) for backend in "abcd" for model in "mn"]
    offered = [
        Candidate(
            backend=backend,
            model=model,
            tier=rng.choice(TIERS),
            facts={
                fact: rng.choice(VALUES)
                for fact in ("jurisdiction", "retention")
                if rng.random() < 0.8
            },
            capabilities=frozenset(CAPS if rng.random() < 0.7 else rng.sample(CAPS, 4)),
            context_window=rng.choice((0, 100, 1000)),
            max_output=rng.choice((0, 50, 500)),
            worst_cost=rng.choice((0, 0, 50, 500)),
            healthy=rng.random() < 0.8,
            order=rng.randint(0, 3),
        )
        for backend, model in rng.sample(names, rng.randint(0, 8))
    ]
    score = rng.choice((None, HARD, EASY, Score(unclassified="deadline")))
    return ActivePolicy("p", 7, policy), need, offered, score


def test_thousands_of_worlds_keep_both_promises() -> None:
    rng = Random(20261123)
    answered = labelled = 0
    for _ in range(6000):
        active, need, offered, score = world(rng)
        assert_nothing_forbidden(active, need, offered, score)
        assert_refusal_is_named(active, need, offered, score)
        planned = bool(decide(active, need, offered, score).plan)
        answered += planned
        labelled += planned and bool(need.labels)
    assert answered > 1000
    assert labelled > 200


ALL = frozenset(CAPS)
LOCAL = Candidate(backend="vllm", model="m", tier="local", capabilities=ALL)
PAID = Candidate(backend="openai", model="g", tier="frontier", capabilities=ALL, worst_cost=100)
PLAIN = ActivePolicy("default", 1, Policy(labels={"eu": Requirement({"jurisdiction": ("eu",)})}))
HARD = Score(p_local_ok=0.1, p_frontier_ok=0.9)
EASY = Score(p_local_ok=0.9, p_frontier_ok=0.95)


@pytest.mark.parametrize(
    ("need", "offered", "score", "reason", "first"),
    [
        (Need(), (LOCAL, PAID), HARD, "score_above", "openai/g"),
        (Need(), (LOCAL, PAID), EASY, "score_below", "vllm/m"),
        (Need(), (LOCAL, PAID), None, "unclassified", "openai/g"),
        (Need(budget_left=99), (LOCAL, PAID), HARD, "budget", "vllm/m"),
        (Need(), (LOCAL,), HARD, "only_candidate", "vllm/m"),
        (Need(explicit="vllm/m"), (LOCAL, PAID), HARD, "explicit", "vllm/m"),
        (Need(max_cost=99), (LOCAL, PAID), HARD, "budget", "vllm/m"),
        (Need(allowed=("vllm/*",)), (LOCAL, PAID), HARD, "permission", "vllm/m"),
    ],
)
def test_reasons(
    need: Need, offered: tuple[Candidate, ...], score: Score | None, reason: str, first: str
) -> None:
    decision = decide(PLAIN, need, offered, score)
    assert (decision.reason, decision.plan[0].id) == (reason, first)


@pytest.mark.parametrize(
    ("confidence", "reason", "first", "gain"),
    [
        (0.3, "score_above", "openai/g", 0.8),
        (0.29, "low_confidence", "vllm/m", None),
        # A router that does not say how sure it is.
        (None, "score_above", "openai/g", 0.8),
    ],
)
def test_a_score_that_is_not_sure_enough_leaves_it_to_the_policy(
    confidence: float | None, reason: str, first: str, gain: float | None
) -> None:
    policy = Policy(unclassified="local", min_confidence=0.3)
    score = msgspec.structs.replace(HARD, confidence=confidence)
    decision = decide(ActivePolicy("p", 1, policy), Need(), (LOCAL, PAID), score)
    assert (decision.reason, decision.plan[0].id) == (reason, first)
    assert decision.gain == (None if gain is None else pytest.approx(gain))
    told = "not sure enough (gain +0.800, confidence 0.290)"
    assert (told in render(decision)) == (reason == "low_confidence")
    # Where only one tier is left, nothing is left to be unsure of.
    alone = decide(ActivePolicy("p", 1, policy), Need(), (PAID,), score)
    assert alone.reason == "only_candidate"


def test_an_explicit_name_is_subject_to_every_filter() -> None:
    over = decide(PLAIN, Need(explicit="openai/g", budget_left=1), (LOCAL, PAID))
    assert (over.refusal, over.plan, len(over.rejected)) == ("budget", (), 1)
    labelled = decide(PLAIN, Need(explicit="openai/g", labels=frozenset({"eu"})), (LOCAL, PAID))
    assert labelled.refusal == "residency"
    assert "jurisdiction is not stated" in labelled.rejected[0].reason


def test_without_fallback_an_outage_does_not_move_requests_to_another_tier() -> None:
    down = Candidate(backend="vllm", model="m", tier="local", capabilities=ALL, healthy=False)
    weak = ActivePolicy("default", 1, Policy(route="weak", fallback=False))
    assert decide(weak, Need(), (down, PAID)).refusal == "health"
    assert decide(weak, Need(), (LOCAL, PAID)).plan == (LOCAL,)


def test_the_router_is_asked_only_where_a_choice_is_open() -> None:
    down = Candidate(backend="vllm", model="m", tier="local", capabilities=ALL, healthy=False)
    gone = msgspec.structs.replace(PAID, healthy=False)

    def asked(*offered: Candidate, fallback: bool) -> bool:
        active = ActivePolicy("default", 1, Policy(fallback=fallback))
        return needs_score(filter_candidates(active, Need(), offered))

    assert asked(LOCAL, PAID, fallback=True)
    assert not asked(down, PAID, fallback=True)
    # Without fallback the score says whether this request must wait for the tier that is down.
    assert asked(down, PAID, fallback=False)
    assert not asked(down, gone, fallback=False)


def test_a_promise_is_about_choices_between_its_own_two_tiers() -> None:
    edge = msgspec.structs.replace(PAID, backend="edge", tier="edge")

    def counts(*offered: Candidate, route: Literal["score", "weak"] = "score") -> bool:
        active = ActivePolicy("default", 1, Policy(route=route))
        return steerable(filter_candidates(active, Need(), offered))

    assert counts(LOCAL, PAID) and counts(LOCAL, PAID, edge)
    assert not counts(LOCAL, edge)
    assert not counts(PAID, edge)
    assert not counts(LOCAL, PAID, route="weak")


@pytest.mark.parametrize(("gain", "wanted"), [(0.5, False), (0.5 + 1e-9, True)])
@pytest.mark.parametrize("ties", [False, True])
def test_under_pressure_a_tie_saves(gain: float, wanted: bool, ties: bool) -> None:
    assert Steer(0.25, ties).wants(gain, 0.25) == wanted


@example("ab*ba", "aba")
@example("a*b*b", "ab")
@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_patterns_match_as_the_shell_does(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


CHAT = frozenset({"chat"})
TWO_TIERS = (
    Candidate("l", "small", "local", capabilities=CHAT, order=1),
    Candidate("l", "large", "local", capabilities=CHAT, order=0),
    Candidate("f", "new", "frontier", capabilities=CHAT, order=1),
    Candidate("f", "old", "frontier", capabilities=CHAT, order=0),
)
SCORE = Score(p_local_ok=0.5, p_frontier_ok=0.8)


def two_tiers(policy: Policy, score: Score, steer: Steer | None = None) -> Decision:
    return plan(filter_candidates(ActivePolicy("p", 1, policy), Need(), TWO_TIERS), score, steer)


def test_the_gain_is_that_of_the_candidates_tried_first() -> None:
    cards = {"l/small": 0.1, "l/large": 0.7, "f/new": 0.99, "f/old": 0.75}
    with_cards = msgspec.structs.replace(SCORE, p_ok=cards)
    assert two_tiers(Policy(), SCORE).gain == pytest.approx(0.3)
    assert two_tiers(Policy(), with_cards).gain == pytest.approx(0.05)
    assert two_tiers(Policy(prefer=("f/new",)), with_cards).gain == pytest.approx(0.29)
    only_local = msgspec.structs.replace(SCORE, p_ok={"l/large": 0.7})
    assert two_tiers(Policy(), only_local).gain == pytest.approx(0.1)
    assert two_tiers(Policy(), with_cards).reason == "score_below"
    assert two_tiers(Policy(), SCORE).reason == "score_above"


@pytest.mark.parametrize(
    ("steer", "tier", "reason"),
    [
        (Steer(0.2), "frontier", "score_above"),
        (Steer(0.4), "local", "score_below"),
        (Steer(0.8 - 0.5, ties=True), "frontier", "target"),
        (Steer(0.8 - 0.5), "local", "score_below"),
        (Steer(0.2, force="weak"), "local", "target"),
        (Steer(0.4, force="weak"), "local", "score_below"),
        (Steer(0.4, force="strong"), "frontier", "target"),
        (Steer(0.2, capped=True), "local", "key_share"),
        (Steer(0.4, capped=True), "local", "score_below"),
        (Steer(0.4, force="strong", capped=True), "local", "key_share"),
    ],
)
def test_what_steers_a_request_is_its_reason(steer: Steer, tier: str, reason: str) -> None:
    decision = two_tiers(Policy(), SCORE, msgspec.structs.replace(steer, target="share 0.3"))
    assert (decision.plan[0].tier, decision.reason) == (tier, reason)
    assert (decision.threshold, decision.target) == (steer.threshold, "share 0.3")


@pytest.mark.parametrize(
    ("steer", "tier", "reason"),
    [
        (Steer(0.1), "frontier", "score_above"),
        (Steer(0.25), "local", "score_below"),
        (Steer(0.25, force="strong"), "local", "score_below"),
        (Steer(0.1, force="weak"), "local", "target"),
    ],
)
def test_under_pressure_the_raised_threshold_is_the_reason(
    steer: Steer, tier: str, reason: str
) -> None:
    policy = Policy(pressure=(PressurePoint(0.5, 0.1),))
    need = Need(budget_share_left=0.5)
    filtered = filter_candidates(ActivePolicy("p", 1, policy), need, TWO_TIERS)
    decision = plan(filtered, SCORE, steer)
    assert (decision.plan[0].tier, decision.reason) == (tier, reason)
    assert decision.threshold == pytest.approx(steer.threshold + 0.1)


def test_a_promise_without_its_threshold_shows_none() -> None:
    assert two_tiers(Policy(target=Target(share=0.3)), SCORE).threshold is None
    assert two_tiers(Policy(), SCORE).threshold == 0.1
