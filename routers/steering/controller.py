"""Controllers: how a threshold follows a promise.

A `Tracker` has two parts. Feed-forward: from the gains of the last requests it reads the threshold
that would have kept the promise on them (an online quantile). Feedback: a `balance` adds up by how
much the promise was missed so far; it pulls the share aimed at towards none or all as it nears the
edge of its `band`, as the online step of adaptive conformal inference does (Gibbs and Candes 2021,
arXiv 2106.00170), but with a wall: at the edge the decision is forced. So the balance is bounded
whatever arrives, and with it the error of every run of n requests:

    |realised share - target| <= 2 * (BAND + workers) / n      (2 points for n = 2,000, 4 workers)

for any sequence of gains, shifted, tied or hostile. The threshold itself moves by at most
`MAX_STEP` for each scored request, so that no single request swings it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from routers.decide import Force, Odds, Steer
from routers.steering.aims import Aim, Charge, CostAim, QualityAim, aim_for
from routers.steering.calibration import Calibration
from routers.steering.conformal import conformal_threshold
from routers.steering.window import GainWindow
from routers.types import Policy, Target

WINDOW = 512
# Fewer gains than this say nothing: the policy's own threshold holds.
MIN_ROWS = 32
# How many calibration rows stand in for traffic at the start; real requests push them out.
SEEDS = 128
MAX_STEP = 0.05
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0

Kind = Literal["threshold", "share", "quality", "cost", "violation"]


class Snapshot(msgspec.Struct, frozen=True):
    """What a controller has learnt, for the one that comes after it. `model`: identity of the
    router's model; gains of another one mean something else."""

    target: Target
    model: str
    threshold: float
    balance: float
    gains: tuple[float, ...]
    strong: tuple[float, ...]
    costs: tuple[float, float, int] = (0.0, 0.0, 0)


class Promise(NamedTuple):
    kind: Kind
    value: float

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"


def promise(policy: Policy) -> Promise:
    """What the policy promises; without a target, its fixed threshold."""
    target = policy.target
    if target is not None:
        if target.share is not None:
            return Promise("share", target.share)
        if target.quality is not None:
            return Promise("quality", target.quality)
        if target.cost is not None:
            return Promise("cost", target.cost)
        if target.violation is not None:
            return Promise("violation", target.violation)
    return Promise("threshold", policy.threshold)


class Fixed:
    """A threshold that traffic does not move: the policy's own, or that of conformal mode.
    Without calibration rows that certify the rate asked for, everything goes strong."""

    def __init__(self, policy: Policy, calibration: Calibration | None) -> None:
        what = promise(policy)
        self.promise = what
        self.threshold = policy.threshold
        self.certified = True
        if what.kind == "violation":
            found = None
            if calibration is not None:
                rows = calibration
                # What will be counted, not what is expected: on as many requests as there are rows.
                found = conformal_threshold(
                    rows.gain, rows.local_ok, rows.frontier_ok, alpha=what.value, fresh=rows.rows
                )
            self.certified = found is not None
            self.threshold = -1.0 if found is None else found
        force: Force = "" if self.certified else "strong"
        target = "" if what.kind == "threshold" else str(what)
        self._steer = Steer(self.threshold, force=force, target=target)

    def steer(self, gain: float) -> Steer:
        return self._steer

    def observe(self, odds: Odds, steer: Steer, capped: bool) -> None:
        return None


class Tracker:
    """Follows a share, a quality or a cost. Deterministic: the same requests in the same order
    give the same decisions. Where gains tie at the threshold (the same prompt over and over),
    error diffusion sends the right share of them to the strong tier."""

    def __init__(self, policy: Policy, calibration: Calibration | None, workers: int) -> None:
        what = promise(policy)
        self.promise = what
        self.threshold = policy.threshold
        self.balance = 0.0
        self.certified = True
        self._start = policy.threshold
        self._aim: Aim = aim_for(what.kind, what.value, workers)
        self._window = GainWindow(WINDOW)
        self._share = 0.0
        self._carry = 0.0
        self._text = str(what)
        for gain, p_strong in _seeds(calibration):
            self._window.push(gain, p_strong)
        self._begin()

    @property
    def aim(self) -> Aim:
        return self._aim

    def steer(self, gain: float) -> Steer:
        """What holds for a request of this gain. Changes nothing."""
        force = self._aim.force(self.balance, gain)
        ties = not force and gain == self.threshold and self._carry + self._tie(gain) >= 1.0
        return Steer(self.threshold, ties, force, target=self._text)

    def observe(self, odds: Odds, steer: Steer, capped: bool) -> Charge | None:
        """Count one scored request as its `steer` decided it, before budget pressure: what pressure
        turns away is not taken back elsewhere. A request that its key's cap turned away counts,
        but its gain does not: nobody raises the threshold for others by asking too much."""
        gain = odds.gain
        strong = not capped and steer.wants(gain)
        if not capped:
            if not steer.force and gain == self.threshold:
                self._carry += self._tie(gain) - (1.0 if strong else 0.0)
                self._carry = min(1.0, max(0.0, self._carry))
            self._window.push(gain, odds.strong)
        charge = self._aim.charge(odds, strong, capped)
        self._add(charge.error)
        self._move()
        return charge if charge.open else None

    def settled(self, charge: Charge, strong: bool, cost: int, typical: bool) -> None:
        """The request of this charge has cost so many nano-USD."""
        self._add(self._aim.settled(charge, strong, cost, typical))

    def dropped(self, charge: Charge) -> None:
        """The request of this charge was not answered, and cost nothing."""
        self._add(self._aim.dropped(charge))

    def snapshot(self, target: Target, model: str) -> Snapshot:
        rows = self._window.rows()
        aim = self._aim
        return Snapshot(
            target=target,
            model=model,
            threshold=self.threshold,
            balance=self.balance,
            gains=tuple(round(gain, 6) for gain, _ in rows),
            strong=tuple(round(p, 6) for _, p in rows),
            costs=aim.known() if isinstance(aim, CostAim) else (0.0, 0.0, 0),
        )

    def restore(self, found: Snapshot, same_target: bool) -> None:
        """Go on from there. With another target the gains are still those of this traffic, but
        what was owed under the old promise is not owed under the new one."""
        self._window = GainWindow(WINDOW)
        for gain, p_strong in zip(found.gains, found.strong, strict=False):
            self._window.push(gain, p_strong)
        if isinstance(self._aim, CostAim):
            self._aim.learn(found.costs)
        elif isinstance(self._aim, QualityAim):
            self._aim.replan()
        self._begin()
        if same_target:
            self.threshold = found.threshold
            self.balance = 0.0
            self._add(found.balance)

    def _begin(self) -> None:
        aimed = self._aimed()
        if aimed is not None:
            self.threshold = aimed

    def _add(self, error: float) -> None:
        least, most = self._aim.limits
        self.balance = min(most, max(least, self.balance + error))

    def _move(self) -> None:
        aimed = self._aimed()
        if aimed is not None:
            gap = aimed - self.threshold
            # Where it can be reached it is reached exactly: gains that tie with it must be seen.
            far = abs(gap) > MAX_STEP
            self.threshold = self.threshold + math.copysign(MAX_STEP, gap) if far else aimed

    def _aimed(self) -> float | None:
        """The threshold that the window and the balance ask for."""
        window = self._window
        if len(window) < MIN_ROWS:
            return None
        share = self._aim.share(window, self.balance, self._start)
        self._share = share
        if share <= 0.0:
            return 1.0
        if share >= 1.0:
            return self._aim.floor
        return max(self._aim.floor, window.upper(share))

    def _tie(self, gain: float) -> float:
        return self._window.tie_share(gain, self._share)


Controller = Fixed | Tracker


def controller(policy: Policy, calibration: Calibration | None, workers: int) -> Controller:
    kind = promise(policy).kind
    if kind in ("threshold", "violation"):
        return Fixed(policy, calibration)
    return Tracker(policy, calibration, workers)


def _seeds(calibration: Calibration | None) -> list[tuple[float, float]]:
    """Rows spread evenly over the gains, in an order in which every run of them is spread so too:
    the first to leave the window take no part of the gains with them."""
    if calibration is None or calibration.rows == 0:
        return []
    rows = sorted(zip(calibration.gain, calibration.p_frontier, strict=True))
    number = min(SEEDS, len(rows))
    spread = [rows[(2 * at + 1) * len(rows) // (2 * number)] for at in range(number)]
    # Steps of the golden ratio are spread from the first on; coprime, they meet every row.
    stride = round(GOLDEN * number)
    while math.gcd(stride, number) > 1:
        stride += 1
    return [spread[at * stride % number] for at in range(number)]
