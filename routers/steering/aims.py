"""What a promise counts, and what share of strong calls it asks for.

Every aim keeps a balance near 0. It says by how much one decision moves the balance, which share
the window and the balance ask for, and when the balance forces a decision.

======= ============================================= ===================================
aim     the balance adds up, for each scored request  at the edge of the band
======= ============================================= ===================================
share   1 if strong, less the share promised          no more strong calls, or only those
quality the gain forgone if weak, less what the       every request that gains goes strong
        promise lets go
cost    what it cost, less what the promise allows    no more strong calls
======= ============================================= ===================================

What nobody answered, and nobody was paid for, has no part in a promise of cost: each refusal would
let the others cost more, and a tier that refuses would look cheap.

Share is a cap and a target at once: the realised share is held to it from both sides. Quality and
cost are held from one side: a threshold below 0 would pay for answers that are no better.

A shift of the traffic moves the balances of all workers the same way at once. So that they keep
the promise together, each has its part of the band.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from routers.decide import Force, Odds
from routers.steering.window import GainWindow

# Scored requests by which the realised share may run ahead of the promise, or behind it: of all
# workers together, and of one at the least.
BAND = 16.0
BAND_LEAST = 3.0
# Mean strong calls by whose cost the spending may run ahead of the promise. A narrower band shakes
# the threshold with every dear answer: 8 kept 92 % of the gain that 24 keeps 97 % of.
COST_BAND = 24.0
COST_BAND_LEAST = 8.0
# Expected good answers by which the realised quality may run behind the promise: so many, or so
# many for each unit of quality that may be lost, but never less than one request may take.
QUALITY_BAND = 3.0
QUALITY_BAND_PER_LOSS = 60.0
QUALITY_BAND_LEAST = 0.3
# Aimed at a little inside the promise, so that noise does not break it.
QUALITY_MARGIN = 0.95
COST_MARGIN = 0.97
# Settled strong calls before their mean cost is believed; so many may be open until then.
COSTS_KNOWN = 20
COSTS_OPEN = 16
# The mean cost of a tier forgets at this rate.
COST_MEMORY = 200


class Charge(msgspec.Struct, frozen=True):
    """What a decision added to the balance. `open`: its cost is still to be settled, against the
    `expected` cost in nano-USD. `strong`: as it was charged; budget pressure may send it elsewhere
    yet."""

    error: float
    open: bool = False
    expected: float = 0.0
    strong: bool = False


class Aim(Protocol):
    """`band`: the balance from which decisions are forced. `limits`: the balance stays within;
    what lies past them was brought about by something else, and is forgiven. `floor`: the lowest
    threshold. `capped`: the key's cap decided, not the aim. `typical`: the cost is that of a call
    as it was decided, not of another tier's that stood in. `dropped`: there was no call after all.
    Both say by how much the balance moves."""

    @property
    def band(self) -> float: ...

    @property
    def limits(self) -> tuple[float, float]: ...

    @property
    def floor(self) -> float: ...

    def charge(self, odds: Odds, strong: bool, capped: bool) -> Charge: ...

    def settled(self, charge: Charge, strong: bool, cost: int, typical: bool) -> float: ...

    def dropped(self, charge: Charge) -> float: ...

    def share(self, window: GainWindow, balance: float, start: float) -> float: ...

    def force(self, balance: float, gain: float) -> Force: ...


class ShareAim:
    """At most, and about, this share of the scored requests goes strong."""

    floor = -1.0

    def __init__(self, share: float, workers: int = 1) -> None:
        self._target = share
        self.band = max(BAND / workers, BAND_LEAST)
        self.limits = (-self.band - 1.0, self.band + 1.0)

    def charge(self, odds: Odds, strong: bool, capped: bool) -> Charge:
        return Charge((1.0 if strong else 0.0) - self._target)

    def settled(self, charge: Charge, strong: bool, cost: int, typical: bool) -> float:
        return 0.0

    def dropped(self, charge: Charge) -> float:
        return 0.0

    def share(self, window: GainWindow, balance: float, start: float) -> float:
        return _less(self._target, balance / self.band)

    def force(self, balance: float, gain: float) -> Force:
        if balance >= self.band or self._target <= 0.0:
            return "weak"
        return "strong" if balance <= -self.band or self._target >= 1.0 else ""


class QualityAim:
    """At least this share of the strong tier's expected quality, with as few strong calls as
    that takes: mean probability of a good answer from the chosen tier, over that of the strong."""

    floor = 0.0

    def __init__(self, quality: float, workers: int = 1) -> None:
        band = min(QUALITY_BAND, QUALITY_BAND_PER_LOSS * (1.0 - quality)) / workers
        self.band = max(QUALITY_BAND_LEAST, band)
        self.limits = (-self.band, 2.0 * self.band)
        self._loss = (1.0 - quality) * QUALITY_MARGIN
        self._every = 0
        self._planned = 1.0

    def replan(self) -> None:
        """The window is another one: what was planned from the old says nothing."""
        self._every = 0

    def charge(self, odds: Odds, strong: bool, capped: bool) -> Charge:
        if capped:
            # Others need not make up for what a cap costs: it would let one key raise the price.
            return Charge(0.0)
        return Charge((0.0 if strong else odds.gain) - self._loss * odds.strong)

    def settled(self, charge: Charge, strong: bool, cost: int, typical: bool) -> float:
        return 0.0

    def dropped(self, charge: Charge) -> float:
        return 0.0

    def share(self, window: GainWindow, balance: float, start: float) -> float:
        if self._every % 16 == 0:
            # Walks the whole window; it hardly changes from one request to the next.
            self._planned = window.share_for_loss(self._loss * window.mean_strong)
        self._every += 1
        return _less(self._planned, -balance / self.band)

    def force(self, balance: float, gain: float) -> Force:
        return "strong" if balance >= self.band and gain > 0.0 else ""


class CostAim:
    """At most this many USD for 1,000 scored requests, with as much quality as that buys. Where the
    strong tier is the cheaper one, more of it is both."""

    floor = 0.0

    def __init__(self, usd: float, workers: int = 1) -> None:
        self._calls = max(COST_BAND / workers, COST_BAND_LEAST)
        self._allowed = usd * 1e6 * COST_MARGIN  # nano-USD for one request
        self._weak = 0.0
        self._strong = 0.0
        self._weak_settled = 0
        self._settled = 0
        self._open = 0

    @property
    def band(self) -> float:
        return self._calls * max(self._allowed, self._strong)

    @property
    def limits(self) -> tuple[float, float]:
        # A debt is paid back, within reason; savings do not pile up.
        return -self.band, 4.0 * self.band

    def known(self) -> tuple[float, float, int]:
        """Mean cost of a weak and of a strong call, nano-USD, and how many strong were settled."""
        return self._weak, self._strong, self._settled

    def learn(self, known: tuple[float, float, int]) -> None:
        self._weak, self._strong, self._settled = known
        self._weak_settled = COST_MEMORY if self._weak else 0

    def charge(self, odds: Odds, strong: bool, capped: bool) -> Charge:
        expected = self._strong if strong else self._weak
        if strong:
            self._open += 1
        return Charge(expected - self._allowed, True, expected, strong)

    def settled(self, charge: Charge, strong: bool, cost: int, typical: bool) -> float:
        if charge.strong:
            self._open -= 1
        if typical:
            self._learn(strong, cost)
        return cost - charge.expected

    def dropped(self, charge: Charge) -> float:
        if charge.strong:
            self._open -= 1
        return -charge.error

    def _learn(self, strong: bool, cost: int) -> None:
        if strong:
            self._settled += 1
            self._strong += (cost - self._strong) / min(self._settled, COST_MEMORY)
        else:
            self._weak_settled += 1
            self._weak += (cost - self._weak) / min(self._weak_settled, COST_MEMORY)

    def share(self, window: GainWindow, balance: float, start: float) -> float:
        if self._strong_is_cheaper():
            return 1.0
        return _less(self._planned(window, start), balance / self.band)

    def _strong_is_cheaper(self) -> bool:
        return self._settled >= COSTS_KNOWN and self._strong < self._weak

    def _planned(self, window: GainWindow, start: float) -> float:
        if self._settled < COSTS_KNOWN:
            return window.share_above(start)
        if self._strong <= self._weak:
            return 1.0 if self._strong <= self._allowed else 0.0
        share = (self._allowed - self._weak) / (self._strong - self._weak)
        return min(1.0, max(0.0, share))

    def force(self, balance: float, gain: float) -> Force:
        unknown = self._settled < COSTS_KNOWN
        if unknown and self._open >= COSTS_OPEN:
            return "weak"
        if balance < self.band:
            return ""
        # Where weak calls alone cost too much, a few strong ones tell whether those cost less.
        asks = unknown and self._weak > self._allowed and gain > 0.0
        return "strong" if asks or self._strong_is_cheaper() else "weak"


def aim_for(kind: str, value: float, workers: int) -> Aim:
    """`workers`: how many keep the promise, each over its own requests."""
    if kind == "share":
        return ShareAim(value, workers)
    if kind == "quality":
        return QualityAim(value, workers)
    return CostAim(value, workers)


def _less(share: float, pull: float) -> float:
    """`share` scaled towards 0 for a pull of 0 to 1, towards 1 for a pull of 0 to -1."""
    if pull >= 0.0:
        return share * (1.0 - min(pull, 1.0))
    return share + (1.0 - share) * min(-pull, 1.0)
