"""What a promise of cost makes of requests that nobody answered, or another tier."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.exchange import Exchange
from gateway.steering import Steering
from routers.decide import Odds
from routers.steering import PolicySteering, Snapshot
from routers.types import Policy, Target
from tests.steering.test_gateway import states
from tests.support import Gateway, Upstream, config_for

USD = 3.0
HARD = Odds(0.2, 0.9)


def state_of(usd: float = USD, threshold: float = 0.0) -> PolicySteering:
    return PolicySteering("p", Policy(target=Target(cost=usd), threshold=threshold), None, "m")


def learnt(state: PolicySteering) -> Snapshot:
    found = state.snapshot()
    assert found is not None
    return found


@pytest.mark.parametrize("refused", [0.3, 0.9])
def test_refusals_do_not_let_the_others_cost_more(
    refused: float, traffic: Callable[..., list[Odds]], prices: Callable[..., list[tuple[int, int]]]
) -> None:
    """At the strong tier; those that are answered cost what was promised, and no more."""
    state, chance = state_of(), Random(1)
    paid: list[int] = []
    for odds, costs in zip(traffic("hard", 8000, 1), prices(8000, 1), strict=True):
        steer = state.steer("k", odds)
        strong = steer.wants(odds.gain)
        ticket = state.observe("k", odds, steer, strong)
        if strong and chance.random() < refused:
            ticket.drop()
        else:
            ticket.settle(costs[strong])
            paid.append(costs[strong])
    answered = paid[1000:]
    assert sum(answered) / len(answered) / 1e6 <= USD * 1.02
    assert learnt(state).costs[1] == pytest.approx(7e6, rel=0.25)
    last = paid[-2000:]
    assert state.realised().usd_per_1000 == pytest.approx(sum(last) / len(last) / 1e6)


def test_a_refusal_leaves_no_trace_in_the_money() -> None:
    state = state_of(threshold=-1.0)
    for at in range(60):
        state.observe("k", HARD, state.steer("k", HARD), True).settle(5_000_000 + at)
    before, realised = learnt(state), state.realised().usd_per_1000
    for strong in (True, False) * 10:
        state.observe("k", HARD, state.steer("k", HARD), strong).drop()
    assert learnt(state).costs == before.costs
    assert learnt(state).balance == pytest.approx(before.balance)
    assert state.realised().usd_per_1000 == realised


def test_refusals_at_the_start_do_not_make_a_tier_look_free() -> None:
    """Some calls may be open before any cost is known: those that were refused are open no more,
    nor are those that budget pressure turned away."""
    state = state_of(threshold=-1.0)
    for at in range(100):
        steer = state.steer("k", HARD)
        assert steer.wants(HARD.gain)
        if at % 2:
            state.observe("k", HARD, steer, True).drop()
        else:
            state.observe("k", HARD, steer, False).settle(0)
    assert learnt(state).costs[1:] == (0.0, 0)


def test_what_another_tier_answered_is_paid_but_not_learnt_from() -> None:
    state = state_of(threshold=-1.0)
    for _ in range(30):
        state.observe("k", HARD, state.steer("k", HARD), True).settle(4_000_000)
    before = learnt(state)
    for strong, cost in ((True, 0), (False, 9_000_000)):
        state.observe("k", HARD, state.steer("k", HARD), strong).settle(cost, elsewhere=True)
    assert learnt(state).costs == before.costs
    assert state.realised().usd_per_1000 == pytest.approx((30 * 4.0 + 9.0) / 32)


class Told:
    """A ticket that says what it was told."""

    def __init__(self, strong: bool) -> None:
        self.strong = strong
        self.told: list[Any] = []

    def settle(self, cost: int, *, elsewhere: bool) -> None:
        self.told.append((cost, elsewhere))

    def drop(self) -> None:
        self.told.append("dropped")


def tried(tier: str, *, begun: bool) -> Any:
    candidate = SimpleNamespace(tier=tier)
    return SimpleNamespace(candidate=candidate, first=1.0 if begun else None)


@pytest.mark.parametrize(
    ("strong", "attempts", "spent", "told"),
    [
        (True, [], 0, "dropped"),
        (True, [tried("frontier", begun=False)], 0, "dropped"),
        (False, [tried("local", begun=False)], 0, "dropped"),
        # Free, and left in the middle.
        (False, [tried("local", begun=True)], 0, (0, False)),
        # Timed out, and may have been worked on.
        (True, [tried("frontier", begun=False)], 7, (7, False)),
        (True, [tried("frontier", begun=False), tried("local", begun=True)], 7, (7, True)),
        (False, [tried("local", begun=False), tried("frontier", begun=True)], 9, (9, True)),
    ],
)
def test_what_counts_as_answered(strong: bool, attempts: list[Any], spent: int, told: Any) -> None:
    ticket = Told(strong)
    active = SimpleNamespace(policy=Policy(route="score"))
    ex = SimpleNamespace(ticket=ticket, attempts=attempts, spent=spent, active=active)
    steering = SimpleNamespace()
    for _ in range(2):
        Steering.settle(cast(Steering, steering), cast(Exchange, ex))
    assert ticket.told == [told]


POLICIES = """
[policy]
default = "cheap"
[policies.cheap]
target = { cost = 5.0 }
threshold = -1.0
cache_ttl = 0
detect = []
fallback = false
"""


def test_a_frontier_that_refuses_is_not_a_free_one(
    upstream: Upstream, serve: Callable[..., Gateway]
) -> None:
    config = config_for(upstream.url, extra=POLICIES)
    free = '"scripted:ok", input = 2.0'
    assert free in config
    server = serve(config.replace(free, '"scripted:status=400", input = 2.0'), keys=None)
    body = {"model": "auto", "messages": [{"role": "user", "content": "Prove it."}]}
    with server.client() as client, server.admin() as admin:
        for _ in range(30):
            assert client.post("/v1/chat/completions", json=body).status_code == 400
        found = states(admin)["cheap"]
    assert found["realised"]["requests"] == 30
    assert found["realised"]["usd_per_1000"] is None
    assert found["balance"] == pytest.approx(0.0, abs=1e-6)
