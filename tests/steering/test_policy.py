"""Caps of keys, what is reported, and what outlives a worker or a version of the policy."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.decide import Odds
from routers.steering import PolicySteering
from routers.steering.keys import BURST, KeyCaps
from routers.types import Policy, Target

HARD, EASY = Odds(0.1, 0.9), Odds(0.9, 0.9)


@given(st.lists(st.booleans(), max_size=300), st.floats(0, 0.99))
def test_a_key_never_has_more_than_its_share_and_the_burst(asked, share):
    """Over every run of its requests, not only from the first on."""
    caps, strong = KeyCaps(share), []
    for wants in asked:
        goes = wants and not caps.full("k")
        caps.count("k", goes)
        strong.append(goes)
    for begin in range(0, len(strong), 17):
        for end in range(begin + 1, len(strong) + 1, 13):
            assert sum(strong[begin:end]) <= share * (end - begin) + BURST + 1e-9


def test_the_first_calls_of_a_key_are_free_and_then_its_share_is():
    caps = KeyCaps(0.1)
    goes = []
    for _ in range(1020):
        allowed = not caps.full("k")
        caps.count("k", allowed)
        goes.append(allowed)
    assert all(goes[:20])
    assert sum(goes) == pytest.approx(20 + 102, abs=1)


def test_buckets_of_keys_are_bounded():
    caps = KeyCaps(0.0, limit=3)
    for key in "abc":
        for _ in range(20):
            caps.count(key, True)
    assert all(caps.full(key) for key in "abc")
    caps.count("a", False)
    caps.count("d", True)  # b was quiet longest
    assert len(caps) == 3
    assert caps.full("a") and caps.full("c") and not caps.full("b")


def test_without_a_cap_nothing_is_kept():
    caps = KeyCaps(1.0)
    for number in range(100):
        caps.count(str(number), True)
    assert len(caps) == 0 and not caps.full("1")


def test_one_key_cannot_take_the_share_from_the_others():
    """Nine requests of ten come from a key whose every prompt looks hardest. The others still get
    what their gains earn."""
    rng = Random(1)
    share, capped = (
        Policy(target=Target(share=0.3)),
        Policy(target=Target(share=0.3), key_share=0.1),
    )
    won = {}
    for name, policy in (("open", share), ("capped", capped)):
        state, got, asked = PolicySteering("p", policy, None, "m"), 0, 0
        for _ in range(20_000):
            bad = rng.random() < 0.9
            odds = Odds(0.1, 0.95) if bad else Odds(0.9 - 0.5 * rng.random(), 0.9)
            steer = state.steer("bad" if bad else "good", odds)
            strong = steer.wants(odds.gain) and not steer.capped
            state.observe("bad" if bad else "good", odds, steer, strong)
            got += strong and not bad
            asked += not bad
        won[name] = got / asked
        if name == "capped":
            assert state.view().key_capped > 10_000
            assert state.realised().share < 0.3 + 0.01
    assert won["open"] < 0.1
    # With the cap the share has room for all others that gain.
    assert won["capped"] > 0.09


def test_what_is_reported_is_what_happened(traffic, replay, prices):
    policy = Policy(threshold=0.2)
    state = PolicySteering("p", policy, None, "m")
    assert state.realised().requests == 0 and state.realised().share is None
    requests, costs = traffic("hard", 5000, 1), prices(5000, 1)
    seen = replay(policy, requests, steering=state, costs=costs)[-2000:]
    view = state.view()
    assert view.target == "" and view.threshold == 0.2
    found = view.realised
    assert found.requests == 2000
    assert found.share == sum(one.strong for one in seen) / 2000
    assert found.usd_per_1000 == pytest.approx(sum(one.cost for one in seen) / 2e9)
    chosen = sum(one.odds.strong if one.strong else one.odds.weak for one in seen)
    assert found.quality == pytest.approx(chosen / sum(one.odds.strong for one in seen))
    assert all(one.strong == (one.odds.gain > 0.2) for one in seen)


@pytest.mark.parametrize(
    "target",
    [Target(share=0.3), Target(quality=0.95), Target(cost=3.0)],
    ids=["share", "quality", "cost"],
)
def test_a_new_worker_goes_on_where_the_old_one_was(traffic, replay, prices, target):
    policy, requests, costs = Policy(target=target), traffic("hard", 6000, 1), prices(6000, 1)
    whole = replay(policy, requests, costs=costs)
    first = PolicySteering("p", policy, None, "m")
    replay(policy, requests[:3000], steering=first, costs=costs)
    packed = first.snapshot()
    assert packed is not None
    second = PolicySteering("p", policy, None, "m")
    second.restore(packed)
    assert second.threshold == first.threshold
    later = replay(policy, requests[3000:], steering=second, costs=costs[3000:])
    same = sum(a.strong == b.strong for a, b in zip(whole[3000:], later, strict=True))
    assert same >= 0.99 * 3000


@pytest.mark.parametrize("changed", [0.95, 0.8], ids=["the same promise", "another"])
def test_calibration_rows_have_no_say_once_the_traffic_is_known(traffic, replay, drawn, changed):
    """The rows are of other requests than those that come. Whoever goes on from the gains seen
    decides as if there had been no rows."""
    policy, requests = Policy(target=Target(quality=0.95)), traffic("pair", 1050, 1)
    old = PolicySteering("p", policy, None, "m")
    replay(policy, requests[:1000], steering=old)
    packed = old.snapshot()
    assert packed is not None
    thresholds = []
    for rows in (drawn(2000, Random(1)), None):
        state = PolicySteering("p", policy, rows, "m")
        state.restore(packed)
        state.adopt(Policy(target=Target(quality=changed)))
        seen = replay(policy, requests[1000:], steering=state)
        thresholds.append([one.threshold for one in seen])
    assert thresholds[0] == thresholds[1]


def test_what_another_model_taught_is_not_taken_over(traffic, replay):
    policy = Policy(target=Target(share=0.3), threshold=0.33)
    old = PolicySteering("p", policy, None, "old")
    replay(policy, traffic("easy", 1000, 1), steering=old)
    new = PolicySteering("p", policy, None, "new")
    packed = old.snapshot()
    assert packed is not None
    new.restore(packed)
    assert new.threshold == 0.33


def test_a_new_version_with_the_same_promise_goes_on(traffic, replay):
    policy = Policy(target=Target(share=0.3), key_share=0.5)
    state = PolicySteering("p", policy, None, "m")
    replay(policy, traffic("hard", 1000, 1), steering=state)
    before = state.snapshot()
    state.adopt(Policy(target=Target(share=0.3), key_share=0.5, cache_ttl=5))
    assert state.snapshot() == before
    assert state.view().keys == 1


def test_a_new_promise_starts_from_the_gains_known(traffic, replay):
    requests = traffic("hard", 4000, 1)
    policy = Policy(target=Target(share=0.6))
    state = PolicySteering("p", policy, None, "m")
    replay(policy, requests[:2000], steering=state)
    changed = Policy(target=Target(share=0.1))
    state.adopt(changed)
    ordered = sorted(one.gain for one in requests)
    assert state.threshold == pytest.approx(ordered[3600], abs=0.05)
    seen = replay(changed, requests[2000:], steering=state)
    assert sum(one.strong for one in seen) / 2000 == pytest.approx(0.1, abs=0.01)
    state.adopt(Policy(threshold=0.25))
    assert state.threshold == 0.25 and state.snapshot() is None


def test_a_ticket_of_an_old_promise_does_not_disturb_the_new_one(traffic):
    state = PolicySteering("p", Policy(target=Target(cost=3.0)), None, "m")
    odds = traffic("hard", 1, 1)[0]
    ticket = state.observe("k", odds, state.steer("k", odds), True)
    state.adopt(Policy(target=Target(cost=5.0)))
    before = state.snapshot()
    ticket.settle(10**12)
    assert state.snapshot() == before
    assert state.realised().usd_per_1000 == pytest.approx(1e6)


def test_a_card_takes_no_certificate_from_a_promise_that_traffic_keeps():
    state = PolicySteering("p", Policy(target=Target(share=0.3)), None, "m")
    view = state.view("ward/special")
    assert (view.certified, view.uncertified, view.target) == (True, "", "share 0.3")
