"""Synthetic traffic, and a replay of it through one policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import pytest

from routers.decide import Odds
from routers.steering import Calibration, PolicySteering
from routers.types import Policy

Costs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Seen:
    """One request: how it was decided, its odds, and the threshold after it."""

    strong: bool
    odds: Odds
    threshold: float
    forced: bool
    cost: int


@lru_cache(maxsize=32)
def _traffic(kind: str, number: int, seed: int) -> tuple[Odds, ...]:
    rng = Random(f"{kind}-{seed}")
    found = []
    for _ in range(number):
        if kind == "same":
            weak, strong = 0.7, 0.9
        elif kind == "pair":
            weak, strong = (0.85, 0.9) if rng.random() < 0.7 else (0.3, 0.9)
        elif kind == "worse":
            strong = 0.6
            weak = strong + rng.random() * 0.3
        elif kind == "hard":
            strong = rng.betavariate(8, 3)
            weak = strong * rng.betavariate(5, 3)
        else:
            strong = rng.betavariate(12, 1)
            weak = strong * (1 - rng.betavariate(1, 20))
        found.append(Odds(weak, strong))
    return tuple(found)


@pytest.fixture
def traffic() -> Callable[..., list[Odds]]:
    """Requests of one kind: `easy` and `hard` differ in how much the strong tier gains, `same` is
    one prompt over and over, `pair` two of them, `worse` is what the strong tier is worse at."""

    def make(kind: str, number: int, seed: int) -> list[Odds]:
        # Many tests ask for the same requests, and drawing them takes as long as deciding them.
        return list(_traffic(kind, number, seed))

    return make


@pytest.fixture
def replay() -> Callable[..., list[Seen]]:
    """Decides requests one by one, as a worker does. `costs`: of each request in the weak and the
    strong tier, nano-USD; they are settled `late` requests after the decision."""

    def run(
        policy: Policy,
        requests: Sequence[Odds],
        *,
        steering: PolicySteering | None = None,
        calibration: Calibration | None = None,
        costs: Costs | None = None,
        late: int = 0,
        key: Callable[[int], str] = lambda _: "k",
    ) -> list[Seen]:
        state = steering or PolicySteering("p", policy, calibration, "m")
        found, waiting = [], []
        for at, odds in enumerate(requests):
            steer = state.steer(key(at), odds)
            strong = steer.wants(odds.gain) and not steer.capped
            cost = costs[at][strong] if costs is not None else 0
            waiting.append((state.observe(key(at), odds, steer, strong), cost))
            if len(waiting) > late:
                ticket, due = waiting.pop(0)
                ticket.settle(due)
            found.append(Seen(strong, odds, state.threshold, bool(steer.force), cost))
        for ticket, due in waiting:
            ticket.settle(due)
        return found

    return run


@pytest.fixture
def prices() -> Callable[..., list[tuple[int, int]]]:
    """Costs in nano-USD: about 0.20 USD per 1,000 weak calls, 7 USD per 1,000 strong ones, with a
    long tail of dear ones; `rise` makes the second half dearer."""

    def make(number: int, seed: int, rise: float = 1.0) -> list[tuple[int, int]]:
        rng, spread = Random(seed), 0.8
        found = []
        for at in range(number):
            size = rng.lognormvariate(-spread * spread / 2, spread)
            dear = rise if at >= number // 2 else 1.0
            found.append((round(2e5 * size), round(7e6 * dear * size)))
        return found

    return make


@pytest.fixture
def drawn() -> Callable[..., Calibration]:
    """Calibration rows whose outcomes happen with the probabilities predicted."""

    def draw(number: int, rng: Random) -> Calibration:
        local, frontier, local_ok, frontier_ok = [], [], [], []
        for _ in range(number):
            strong = rng.betavariate(8, 3)
            weak = strong * rng.betavariate(5, 3)
            luck = rng.random()
            local.append(weak)
            frontier.append(strong)
            # Who answers a hard question mostly answers an easy one: the same luck for both.
            local_ok.append(float(luck < weak))
            frontier_ok.append(float(luck < strong))
        gain = tuple(f - p for f, p in zip(frontier, local, strict=True))
        return Calibration(gain, tuple(local), tuple(frontier), tuple(local_ok), tuple(frontier_ok))

    return draw


@pytest.fixture
def worst_run() -> Callable[[Sequence[float], float], float]:
    """The largest deviation of the mean from a target over every window of 2,000, also those that
    begin in the middle."""

    def measure(values: Sequence[float], target: float, size: int = 2000) -> float:
        total = math.fsum(values[:size])
        worst = abs(total / size - target)
        for at in range(size, len(values)):
            total += values[at] - values[at - size]
            worst = max(worst, abs(total / size - target))
        return worst

    return measure
