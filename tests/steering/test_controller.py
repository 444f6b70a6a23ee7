"""What a policy promises is kept, whatever arrives."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.decide import ActivePolicy, Odds, Steer, filter_candidates, plan
from routers.steering import Calibration, PolicySteering
from routers.steering.aims import BAND
from routers.steering.controller import MAX_STEP
from routers.types import Candidate, Need, Policy, PressurePoint, Score, Target

KINDS = ("easy", "hard", "same", "pair", "worse")
POINTS = 0.02

gains = st.one_of(
    st.sampled_from((-1.0, -0.2, 0.0, 0.1, 0.1, 0.3, 1.0)), st.floats(-1, 1, allow_nan=False)
)
odds = st.builds(
    lambda gain, base: Odds(
        base * (1 - abs(gain)) + max(-gain, 0), base * (1 - abs(gain)) + max(gain, 0)
    ),
    gains,
    st.floats(0, 1),
)
runs = st.lists(st.lists(odds, min_size=1, max_size=4), min_size=1, max_size=8).map(
    lambda parts: [each for part in parts for each in part * 12]
)
targets = st.one_of(
    st.builds(Target, share=st.floats(0, 1)),
    st.builds(Target, quality=st.floats(0.5, 1)),
    st.builds(Target, cost=st.floats(0.1, 20)),
)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "kinds", [("easy", "hard"), ("hard", "easy"), ("same", "hard"), ("pair", "worse")]
)
def test_a_share_is_kept_in_every_window_through_a_shift(
    traffic, replay, worst_run, kinds, seed, share
):
    requests = [each for kind in kinds for each in traffic(kind, 10_000, seed)]
    seen = replay(Policy(target=Target(share=share)), requests)
    assert worst_run([one.strong for one in seen], share) <= POINTS


def test_a_share_goes_to_those_that_gain_most(traffic, replay):
    """Keeping the share must not cost what the share is for: of what the best choice of each half
    would gain over chance, nine tenths."""
    requests = traffic("easy", 10_000, 3) + traffic("hard", 10_000, 3)
    seen = replay(Policy(target=Target(share=0.3)), requests)
    for half in (seen[:10_000], seen[10_000:]):
        best = math.fsum(sorted((one.odds.gain for one in half), reverse=True)[:3000])
        chance = math.fsum(one.odds.gain for one in half) * 0.3
        got = math.fsum(one.odds.gain for one in half if one.strong)
        assert got - chance > 0.9 * (best - chance)


def test_a_share_of_equal_prompts_is_spread_evenly(traffic, replay):
    seen = replay(Policy(target=Target(share=0.25)), traffic("same", 4000, 1))
    strong = [at for at, one in enumerate(seen) if one.strong][200:]
    assert {b - a for a, b in pairwise(strong)} <= {3, 4, 5}
    assert not any(one.forced for one in seen[1000:])


@settings(max_examples=60, deadline=None)
@given(runs, st.floats(0, 1))
def test_a_share_is_bounded_for_any_sequence(requests, share):
    """The bound of the module's docstring, over every run of requests and not only long ones."""
    state, balance, low, high = (
        PolicySteering("p", Policy(target=Target(share=share)), None, "m"),
        0.0,
        0.0,
        0.0,
    )
    for each in requests:
        steer = state.steer("k", each)
        strong = steer.wants(each.gain)
        state.observe("k", each, steer, strong)
        balance += strong - share
        low, high = min(low, balance), max(high, balance)
    assert high - low <= 2 * (BAND + 1)


@settings(max_examples=60, deadline=None)
@given(runs, targets, st.lists(st.integers(0, 10**8), min_size=5, max_size=5))
def test_the_threshold_moves_in_bounded_steps(requests, target, costs):
    state = PolicySteering("p", Policy(target=target), None, "m")
    for at, each in enumerate(requests):
        before = state.threshold
        steer = state.steer("k", each)
        assert steer.threshold == before
        ticket = state.observe("k", each, steer, steer.wants(each.gain))
        ticket.settle(costs[at % 5])
        assert abs(state.threshold - before) <= MAX_STEP + 1e-12
        assert -1 <= state.threshold <= 1


@settings(max_examples=60, deadline=None)
@given(runs, targets, odds)
def test_asking_changes_nothing_and_more_gain_never_decides_against_strong(requests, target, extra):
    asked, silent = (PolicySteering("p", Policy(target=target), None, "m") for _ in range(2))
    for each in requests:
        first = asked.steer("k", extra)
        assert asked.steer("k", extra) == first
        # Monotone: at one and the same moment a larger gain is never worse off.
        steers = [
            (gain, asked.steer("k", Odds(0, gain)).wants(gain))
            for gain in (-0.5, 0.0, 0.1, 0.4, 1.0)
        ]
        assert steers == sorted(steers, key=lambda pair: (pair[1], pair[0]))
        steer, other = asked.steer("k", each), silent.steer("k", each)
        assert steer == other
        for state in (asked, silent):
            state.observe("k", each, steer, steer.wants(each.gain))
    assert asked.snapshot() == silent.snapshot()


@given(
    st.floats(-1, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from(("", "weak", "strong")),
    st.floats(0, 1),
)
def test_pressure_adds_to_the_threshold_and_only_ever_saves(
    threshold, p_local, p_best, ties, force, left
):
    steer = Steer(threshold, ties, force, target="share 0.3")
    policy = Policy(pressure=(PressurePoint(0.5, 0.2), PressurePoint(0.0, 1.0)))
    chat = frozenset({"chat"})
    pair = [
        Candidate("l", "m", "local", capabilities=chat),
        Candidate("f", "m", "frontier", capabilities=chat),
    ]
    score = Score(p_local_ok=p_local, p_frontier_ok=p_best)
    full, pressed = (
        plan(
            filter_candidates(ActivePolicy("p", 1, policy), Need(budget_share_left=at), pair),
            score,
            steer,
        )
        for at in (1.0, left)
    )
    raised = 0.4 * (1 - left) if left >= 0.5 else 0.2 + 1.6 * (0.5 - left)
    assert full.threshold == threshold
    assert pressed.threshold == pytest.approx(threshold + raised)
    assert full.target == pressed.target == "share 0.3"
    if pressed.plan[0].tier == "frontier":
        assert full.plan[0].tier == "frontier"


def test_what_pressure_saves_is_not_spent_elsewhere(traffic):
    """Half of the requests come under pressure. The others are decided as they would be without."""
    requests = traffic("hard", 8000, 4)
    pressed, free = (
        PolicySteering("p", Policy(target=Target(share=0.3)), None, "m") for _ in range(2)
    )
    turned = 0
    for at, each in enumerate(requests):
        steer = pressed.steer("k", each)
        assert steer == free.steer("k", each)
        raised = 0.2 if at % 2 else 0.0
        strong = steer.wants(each.gain, raised)
        turned += steer.wants(each.gain) and not strong
        pressed.observe("k", each, steer, strong)
        free.observe("k", each, steer, steer.wants(each.gain))
    assert turned > 200
    assert pressed.realised().share < 0.28
    assert free.realised().share == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("quality", [0.8, 0.95, 0.99, 1.0])
@pytest.mark.parametrize(
    "kinds", [("easy", "hard"), ("hard", "easy"), ("worse", "hard"), ("same", "pair")]
)
def test_a_quality_is_kept_in_every_window(traffic, replay, kinds, quality):
    requests = [each for kind in kinds for each in traffic(kind, 6000, 1)]
    seen = replay(Policy(target=Target(quality=quality)), requests)
    for begin in range(0, 10_001, 500):
        window = seen[begin : begin + 2000]
        got = math.fsum(one.odds.strong if one.strong else one.odds.weak for one in window)
        assert got / math.fsum(one.odds.strong for one in window) >= quality - 0.001


def test_a_quality_is_kept_with_few_strong_calls(traffic, replay):
    """Within two points of the smallest share that keeps it, chosen in hindsight."""
    requests = traffic("hard", 10_000, 2)
    seen = replay(Policy(target=Target(quality=0.95)), requests)
    allowed = 0.05 * math.fsum(one.strong for one in requests)
    kept, lost = 0, 0.0
    for gain in sorted(one.gain for one in requests):
        lost += gain
        if lost > allowed:
            break
        kept += 1
    assert sum(one.strong for one in seen) / 10_000 <= 1 - kept / 10_000 + 0.02


@pytest.mark.parametrize("usd", [1.0, 3.0])
@pytest.mark.parametrize(("late", "rise"), [(0, 2.5), (100, 2.5), (100, 0.4)])
def test_a_cost_is_kept(traffic, replay, prices, usd, late, rise):
    """At or under it over all, and in every window but for the noise of some strong calls; and the
    money that may be spent is spent."""
    requests = traffic("easy", 6000, 1) + traffic("hard", 6000, 1)
    seen = replay(
        Policy(target=Target(cost=usd)), requests, costs=prices(12_000, 5, rise), late=late
    )
    per_window = [
        sum(one.cost for one in seen[at : at + 2000]) / 2e9 for at in range(0, 12_000, 2000)
    ]
    assert sum(per_window) / len(per_window) <= usd
    assert max(per_window) <= usd * 1.1
    assert min(per_window[1:]) >= usd * 0.8


def test_a_cost_that_allows_everything_does_not_pay_for_worse_answers(traffic, replay, prices):
    requests = traffic("worse", 3000, 1) + traffic("hard", 3000, 1)
    seen = replay(Policy(target=Target(cost=100.0)), requests, costs=prices(6000, 1))
    assert not any(one.strong for one in seen[200:3000])
    assert all(one.strong for one in seen[4000:] if one.odds.gain > 0)


@pytest.mark.parametrize("usd", [3.2, 4.0, 5.0, 2.0])
def test_a_strong_tier_that_is_cheaper_is_not_saved_on(traffic, replay, usd):
    """A local tier on dear hardware beside a cheap frontier: saving means the frontier."""
    seen = replay(
        Policy(target=Target(cost=usd), threshold=0.1),
        traffic("easy", 6000, 1),
        costs=[(8_000_000, 3_000_000)] * 6000,
    )
    paid = sum(one.cost for one in seen[-2000:]) / 2e9
    # Below the price of the cheaper tier nothing is left but to take it always.
    assert paid <= max(usd, 3.0) + 0.05


def test_a_weak_tier_that_costs_more_than_allowed_gets_everything(traffic, replay):
    seen = replay(
        Policy(target=Target(cost=1.0)),
        traffic("hard", 3000, 1),
        costs=[(2_000_000, 9_000_000)] * 3000,
    )
    assert not any(one.strong for one in seen[500:])


def test_calls_that_never_settle_do_not_let_everything_through(traffic, replay):
    """Nothing is known of the costs while the first calls are on their way."""
    seen = replay(
        Policy(target=Target(cost=1.0), threshold=-1.0),
        traffic("hard", 500, 1),
        costs=[(0, 10**7)] * 500,
        late=500,
    )
    assert sum(one.strong for one in seen) <= 20


def test_promises_start_from_the_calibration_rows(drawn, traffic, replay):
    rows = drawn(2000, Random(1))
    ordered = sorted(rows.gain)
    share = PolicySteering("p", Policy(target=Target(share=0.3)), rows, "m")
    assert share.threshold == pytest.approx(ordered[1400], abs=0.01)
    quality = PolicySteering("p", Policy(target=Target(quality=0.95)), rows, "m")
    allowed, lost, at = 0.05 * math.fsum(rows.p_frontier), 0.0, 0
    while lost <= allowed:
        lost += ordered[at]
        at += 1
    assert quality.threshold == pytest.approx(ordered[at], abs=0.02)
    without = PolicySteering("p", Policy(target=Target(share=0.3), threshold=0.4), None, "m")
    assert without.threshold == 0.4
    seen = replay(Policy(target=Target(share=0.3)), traffic("hard", 300, 1), calibration=rows)
    assert sum(one.strong for one in seen) / 300 == pytest.approx(0.3, abs=0.06)


def test_rows_that_stand_in_for_traffic_leave_without_a_trend(drawn):
    """The last requests hold 512 gains; from then on each new one takes the place of a row."""
    rows = drawn(2000, Random(1))
    for number in (2000, 128, 97, 64, 33, 2, 1):
        few = Calibration(*(column[:number] for column in msgspec.structs.astuple(rows)))
        found = PolicySteering("p", Policy(target=Target(share=0.3)), few, "m").snapshot()
        assert found is not None
        seeds = found.gains
        assert len(seeds) == min(number, 128)
        assert set(seeds) <= {round(gain, 6) for gain in few.gain}
        assert len(set(seeds)) == len(seeds)
        middle = sorted(seeds)[len(seeds) // 2]
        for left in range(len(seeds) - 16, 0, -16):
            assert abs(sum(gain >= middle for gain in seeds[-left:]) - left / 2) <= 2


def test_conformal_mode_needs_rows_that_certify_the_rate(drawn, traffic, replay):
    policy = Policy(target=Target(violation=0.1))
    for rows in (None, Calibration(), drawn(20, Random(1))):
        state = PolicySteering("p", policy, rows, "m")
        assert not state.view().certified
        seen = replay(policy, traffic("worse", 20, 1), steering=state)
        assert all(one.strong for one in seen)
    state = PolicySteering("p", policy, drawn(2000, Random(1)), "m")
    assert state.view().certified
    before = state.threshold
    seen = replay(policy, traffic("hard", 3000, 1), steering=state)
    assert 0 < sum(one.strong for one in seen) < 3000
    assert state.threshold == before


@pytest.mark.parametrize("kinds", [("easy", "hard"), ("hard", "easy"), ("same", "hard")])
def test_several_workers_keep_the_share_together(traffic, worst_run, kinds):
    """Each keeps it over its own requests; nobody tells anybody anything. A shift pushes all of
    them the same way at once."""
    policy = Policy(target=Target(share=0.3))
    states = [PolicySteering("p", policy, None, "m", workers=4) for _ in range(4)]
    rng, decided = Random(1), []
    for each in [one for kind in kinds for one in traffic(kind, 10_000, 5)]:
        state = states[rng.randrange(4)]
        steer = state.steer("k", each)
        state.observe("k", each, steer, steer.wants(each.gain))
        decided.append(steer.wants(each.gain))
    assert worst_run(decided, 0.3) <= POINTS
