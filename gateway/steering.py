"""Promises of policies, in one worker: decides with the threshold in force, counts what came of
it, and keeps what was learnt in the store.

Each worker steers its own requests and nothing else: one that keeps a share on every run of its
own requests needs no other to agree, and all together keep it too. What is stored is only where a
new worker starts from, and what the admin API shows of the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.exchange import Exchange
from gateway.learning import RouterSlot
from gateway.policies import Policies
from gateway.store import Store, StoreError
from gateway.telemetry import Telemetry, names
from gateway.telemetry.core import Rows
from routers.decide import ActivePolicy, odds, plan, steerable
from routers.drift import Drifting, DriftReport
from routers.steering import (
    Calibrated,
    Calibration,
    PolicySteering,
    Snapshot,
    SteeringView,
    promise,
)
from routers.types import Policy

log = logging.getLogger("tollhouse.steering")

SAVE_SECONDS = 15.0
_STATE = "th:steering:state:"
_VIEWS = "th:steering:views"
# A promise that nobody has used for a week starts anew.
_STATE_SECONDS = 7 * 86_400
# A worker that has not shown its state for this long is gone.
_VIEW_SECONDS = 45.0


class WorkerRouting(msgspec.Struct, frozen=True):
    """How one worker routes. `at`: when it said so, seconds since the epoch. `drift` is None
    without a reference in the router's artefact."""

    worker: str
    at: float
    model: str
    policies: tuple[SteeringView, ...]
    drift: DriftReport | None = None


_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(Snapshot).decode
_encode_view = msgspec.json.Encoder().encode
_decode_view = msgspec.json.Decoder(WorkerRouting).decode


@dataclass(frozen=True)
class Parts:
    """What steering works on. `carded`: a candidate of the policy whose model card moves its gains,
    or nothing. `workers`: how many of them this gateway runs."""

    policies: Policies
    slot: RouterSlot
    store: Store
    telemetry: Telemetry
    carded: Callable[[Policy], str]
    workers: int = 1


class Steering:
    """`clock`: seconds since the epoch."""

    def __init__(self, parts: Parts, clock: Callable[[], float]) -> None:
        self._policies = parts.policies
        self._slot = parts.slot
        self._store = parts.store
        self._telemetry = parts.telemetry
        self._carded = parts.carded
        self._worker = parts.telemetry.worker
        self._workers = parts.workers
        self._clock = clock
        self._states: dict[str, PolicySteering] = {}
        self._used: set[str] = set()

    def decide(self, ex: Exchange, *, count: bool) -> None:
        """Plan a request whose score is known. With `count` it is one of those that the promise
        is about, and its ticket waits for what it will cost; an explanation does not count."""
        found = odds(ex.filtered, ex.score)
        if found is None or ex.active.policy.route != "score":
            ex.decision = plan(ex.filtered, ex.score)
            return
        state = self._state(ex.active)
        key = ex.principal.key_id
        steer = state.steer(key, found)
        decision = ex.decision = plan(ex.filtered, ex.score, steer)
        if count and decision.plan and steerable(ex.filtered):
            strong = decision.plan[0].tier == ex.active.policy.strong_tier
            ex.ticket = state.observe(key, found, steer, strong)
            self._used.add(ex.active.name)
            if decision.reason == "key_share":
                self._telemetry.count(names.KEY_CAPPED, ex.active.name)

    def settle(self, ex: Exchange) -> None:
        """What a counted request has cost, once; nothing is counted for one that was refused or
        failed without any cost, before an answer had begun."""
        ticket, ex.ticket = ex.ticket, None
        if ticket is None:
            return
        last = ex.attempts[-1] if ex.attempts else None
        if last is None or (last.first is None and not ex.spent):
            ticket.drop()
            return
        strong = last.candidate.tier == ex.active.policy.strong_tier
        ticket.settle(ex.spent, elsewhere=strong != ticket.strong)

    async def start(self) -> None:
        """Go on from what earlier workers left. Without the store every promise starts from the
        artefact's calibration rows."""
        for active in self._policies.active():
            state = self._state(active)
            try:
                raw = await self._store.command("GET", _STATE + active.name)
                if raw is not None:
                    state.restore(_decode_state(raw))
            except StoreError as exc:
                log.warning("steering of %s starts anew: %s", active.name, exc)
            except msgspec.DecodeError as exc:
                # Written by another release.
                log.info("steering of %s starts anew: %s", active.name, exc)

    async def run(self) -> None:
        """Keep the state in the store, for ever. A background task."""
        while True:
            await self.save()
            await asyncio.sleep(SAVE_SECONDS)

    async def save(self) -> None:
        """Of the policies used since the last time. Losing it loses no promise, only the time to
        learn anew, so a store that is away is only noted."""
        used, self._used = self._used, set()
        try:
            for name in used:
                state = self._states[name].snapshot()
                if state is not None:
                    packed = _encode_state(state)
                    await self._store.command("SET", _STATE + name, packed, "EX", _STATE_SECONDS)
            await self._store.command("HSET", _VIEWS, self._worker, _encode_view(self.view()))
        except StoreError as exc:
            self._used |= used
            log.info("steering not saved: %s", exc)
        except asyncio.CancelledError:
            # The worker stops: it saves once more, and this is what is left to save.
            self._used |= used
            raise

    async def aclose(self) -> None:
        """Save, and be shown no more."""
        await self.save()
        try:
            await self._store.command("HDEL", _VIEWS, self._worker)
        except StoreError as exc:
            log.info("this worker is shown for %d s more: %s", _VIEW_SECONDS, exc)

    def view(self) -> WorkerRouting:
        """This worker's own."""
        for active in self._policies.active():
            self._state(active)
        return WorkerRouting(
            self._worker, self._clock(), self._slot.name, tuple(self._views()), self.drift()
        )

    async def views(self) -> list[WorkerRouting]:
        """Every worker's, this one's own as of now, by name; this one's alone while the store is
        away."""
        found = {self._worker: self.view()}
        try:
            flat = await self._store.command("HGETALL", _VIEWS)
            for name, raw in zip(flat[::2], flat[1::2], strict=True):
                other = self._fresh(raw)
                if other is None:
                    await self._store.command("HDEL", _VIEWS, name)
                elif other.worker != self._worker:
                    found[other.worker] = other
        except StoreError as exc:
            log.info("the steering of other workers is not known: %s", exc)
        return [found[name] for name in sorted(found)]

    def drift(self) -> DriftReport | None:
        router = self._slot.router
        return router.drift() if isinstance(router, Drifting) else None

    def gauges(self, telemetry: Telemetry) -> None:
        """What is read at each scrape."""
        telemetry.gauge(names.STEERING_THRESHOLD, lambda: self._rows(lambda v: v.threshold))
        telemetry.gauge(names.STEERING_SHARE, lambda: self._rows(lambda v: v.realised.share))
        telemetry.gauge(names.STEERING_QUALITY, lambda: self._rows(lambda v: v.realised.quality))
        telemetry.gauge(names.STEERING_COST, lambda: self._rows(lambda v: v.realised.usd_per_1000))
        telemetry.gauge(names.STEERING_BALANCE, lambda: self._rows(lambda v: v.balance))
        telemetry.gauge(names.STEERING_CERTIFIED, lambda: self._rows(lambda v: float(v.certified)))
        telemetry.gauge(names.STEERING_TARGET, self._target_rows)
        telemetry.gauge(names.ROUTER_DRIFT, self._drift_rows)

    def _rows(self, read: Callable[[SteeringView], float | None]) -> Rows:
        return [((v.policy,), value) for v in self._views() if (value := read(v)) is not None]

    def _views(self) -> list[SteeringView]:
        states = [self._states[name] for name in sorted(self._states)]
        return [state.view(self._carded(state.policy)) for state in states]

    def _target_rows(self) -> Rows:
        promises = {name: promise(state.policy) for name, state in self._states.items()}
        return [((name, p.kind), p.value) for name, p in sorted(promises.items())]

    def _drift_rows(self) -> Rows:
        report = self.drift()
        if report is None:
            return []
        found = {"gain": report.gain, "domain": report.domain, "embedding": report.embedding}
        return [((name,), value) for name, value in found.items() if value is not None]

    def _fresh(self, raw: bytes) -> WorkerRouting | None:
        try:
            found = _decode_view(raw)
        except msgspec.DecodeError:
            return None  # written by another release; its own worker shows it
        return found if self._clock() - found.at <= _VIEW_SECONDS else None

    def _state(self, active: ActivePolicy) -> PolicySteering:
        """Of the policy as it is in force, under the model that is loaded."""
        state = self._states.get(active.name)
        model = self._slot.identity
        if state is None or state.model != model:
            state = PolicySteering(
                active.name, active.policy, self._calibration(), model, self._workers
            )
            self._states[active.name] = state
        elif state.policy is not active.policy:
            state.adopt(active.policy)
        else:
            return state
        if uncertified := state.view(self._carded(active.policy)).uncertified:
            log.warning(
                "%s of policy %s is not certified: %s", state.target, active.name, uncertified
            )
        return state

    def _calibration(self) -> Calibration | None:
        router = self._slot.router
        return router.calibration if isinstance(router, Calibrated) else None
