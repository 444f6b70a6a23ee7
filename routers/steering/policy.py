"""Everything that steers one policy: its controller, the caps of its keys, and what came of it."""

from __future__ import annotations

from collections import deque

import msgspec

from routers.decide import Odds, Steer
from routers.steering.aims import Charge
from routers.steering.calibration import Calibration
from routers.steering.controller import Fixed, Snapshot, Tracker, controller
from routers.steering.keys import KeyCaps
from routers.types import Policy

# Scored requests over which what was realised is reported.
REPORTED = 2000
NANO = 1_000_000_000


class Realised(msgspec.Struct, frozen=True):
    """Of the last `requests` scored ones: the share decided strong, the expected quality over
    that of the strong tier for all of them, and settled USD per 1,000 requests."""

    requests: int = 0
    share: float | None = None
    quality: float | None = None
    usd_per_1000: float | None = None


class SteeringView(msgspec.Struct, frozen=True):
    """The state of one policy in one worker. `threshold` before budget pressure. `balance`: how
    far the promise is behind, from -1 to 1 of what is tolerated. `certified` is false where a
    violation rate rests on nothing, and `uncertified` says why: without calibration rows for it
    everything goes strong; where a model card moves gains, the threshold is that of the rows, whose
    outcomes are of other models. `key_capped`: requests turned to the weak tier by their key's cap;
    `keys`: keys remembered for that."""

    policy: str
    target: str
    threshold: float
    balance: float
    certified: bool
    realised: Realised
    key_share: float
    key_capped: int
    keys: int
    uncertified: str = ""


class Ticket(msgspec.Struct, frozen=True):
    """A counted request whose cost is still to come."""

    steering: PolicySteering
    controller: Tracker | Fixed
    charge: Charge | None
    strong: bool

    def settle(self, cost: int, *, elsewhere: bool = False) -> None:
        """`cost` in nano-USD. `elsewhere`: another tier answered than was decided, so that the
        cost says nothing of that tier's calls."""
        self.steering.settled(self, cost, elsewhere)

    def drop(self) -> None:
        """Nobody answered, and nobody was paid."""
        self.steering.dropped(self)


class PolicySteering:
    """Of one policy in one worker; not thread-safe. `model`: identity of the router's model, whose
    gains these are. `workers`: how many workers there are. They share nothing: each keeps the
    promise over its own requests, so that all together keep it."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        calibration: Calibration | None,
        model: str,
        workers: int = 1,
    ) -> None:
        self.policy = policy
        self.model = model
        self._name = name
        self._calibration = calibration
        self._workers = workers
        self._controller: Tracker | Fixed = controller(policy, calibration, workers)
        self._caps = KeyCaps(policy.key_share)
        self._rows: deque[tuple[bool, float, float]] = deque()
        self._strong = 0
        self._chosen_sum = 0.0
        self._strong_sum = 0.0
        self._costs: deque[int] = deque()
        self._cost_sum = 0

    @property
    def threshold(self) -> float:
        return self._controller.threshold

    @property
    def target(self) -> str:
        return self._controller.steer(0.0).target

    def adopt(self, policy: Policy) -> None:
        """Another version of the policy. What was learnt stays; the controller goes on as long
        as the promise is the same."""
        before, self.policy = self.policy, policy
        if policy.key_share != before.key_share:
            self._caps = KeyCaps(policy.key_share)
        if (policy.target, policy.threshold) == (before.target, before.threshold):
            return
        old = self.snapshot(before)
        self._controller = controller(policy, self._calibration, self._workers)
        if old is not None:
            self.restore(old)

    def steer(self, key: str, odds: Odds) -> Steer:
        """What holds for a request of this key. Changes nothing."""
        found = self._controller.steer(odds.gain)
        if self._caps.full(key):
            return msgspec.structs.replace(found, capped=True)
        return found

    def observe(self, key: str, odds: Odds, steer: Steer, strong: bool) -> Ticket:
        """Count a decided request. `steer` is what decided it, `strong` how."""
        caps = self._caps
        capped = steer.capped and steer.wants(odds.gain)
        if capped and not strong:
            caps.hits += 1
        caps.count(key, strong)
        charge = self._controller.observe(odds, steer, capped)
        self._count(strong, odds.strong if strong else odds.weak, odds.strong)
        return Ticket(self, self._controller, charge, strong)

    def settled(self, ticket: Ticket, cost: int, elsewhere: bool) -> None:
        """The request of this ticket has cost so many nano-USD."""
        self._costs.append(cost)
        self._cost_sum += cost
        if len(self._costs) > REPORTED:
            self._cost_sum -= self._costs.popleft()
        if (waiting := self._waiting(ticket)) is not None:
            tracker, charge = waiting
            tracker.settled(charge, ticket.strong, cost, typical=not elsewhere)

    def dropped(self, ticket: Ticket) -> None:
        """The request of this ticket was not answered, and cost nothing."""
        if (waiting := self._waiting(ticket)) is not None:
            tracker, charge = waiting
            tracker.dropped(charge)

    def snapshot(self, policy: Policy | None = None) -> Snapshot | None:
        """None where there is nothing to learn."""
        target = (policy or self.policy).target
        if target is None or not isinstance(self._controller, Tracker):
            return None
        return self._controller.snapshot(target, self.model)

    def restore(self, found: Snapshot) -> None:
        """Go on from what another worker, or an earlier one, has learnt from the same model."""
        if isinstance(self._controller, Tracker) and found.model == self.model:
            self._controller.restore(found, found.target == self.policy.target)

    def view(self, carded: str = "") -> SteeringView:
        """`carded`: a candidate whose model card moves its gains, if there is one."""
        now = self._controller
        uncertified = "" if now.certified else "too few calibration rows"
        if now.certified and carded and now.promise.kind == "violation":
            uncertified = f"the model card of {carded} moves gains"
        balance = now.balance / now.aim.band if isinstance(now, Tracker) else 0.0
        return SteeringView(
            policy=self._name,
            target=self.target,
            threshold=round(now.threshold, 6),
            balance=round(balance, 4),
            certified=not uncertified,
            realised=self.realised(),
            key_share=self.policy.key_share,
            key_capped=self._caps.hits,
            keys=len(self._caps),
            uncertified=uncertified,
        )

    def realised(self) -> Realised:
        number, settled = len(self._rows), len(self._costs)
        if not number:
            return Realised()
        quality = self._chosen_sum / self._strong_sum if self._strong_sum > 0.0 else None
        cost = self._cost_sum / NANO * 1000 / settled if settled else None
        return Realised(number, self._strong / number, quality, cost)

    def _waiting(self, ticket: Ticket) -> tuple[Tracker, Charge] | None:
        # A controller that was replaced since has no use for what its own decisions cost.
        now = self._controller
        if ticket.charge is None or ticket.controller is not now or not isinstance(now, Tracker):
            return None
        return now, ticket.charge

    def _count(self, strong: bool, p_chosen: float, p_strong: float) -> None:
        self._rows.append((strong, p_chosen, p_strong))
        self._strong += strong
        self._chosen_sum += p_chosen
        self._strong_sum += p_strong
        if len(self._rows) > REPORTED:
            was_strong, chosen, best = self._rows.popleft()
            self._strong -= was_strong
            self._chosen_sum -= chosen
            self._strong_sum -= best
