"""Several replicas of one backend behind one name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random

import msgspec

from backends.base import Backend, Call, Event, Reply, Usage
from backends.errors import (
    BackendError,
    ChoicesMissing,
    ContextTooLong,
    FatalError,
    Overloaded,
    RateLimited,
    UpstreamModelMissing,
)
from backends.failures import Failures
from backends.health import BREAKER_OPEN, Breaker, BreakerSettings, BreakerState
from backends.rests import RESTING, Rests

__all__ = ["Pool", "PoolSettings", "ReplicaState"]

# The request's own fault: the replica is well. So it is with a rate limit, which its `Rests` keep.
_NOT_ILL = (FatalError, ContextTooLong, UpstreamModelMissing, ChoicesMissing)
_DECAY = 0.2


class PoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`name` is the backend's; `breaker` applies to each replica."""

    name: str
    breaker: BreakerSettings = BreakerSettings()


class ReplicaState(msgspec.Struct, frozen=True):
    """`latency`: seconds to the first semantic event, an exponential mean; None before any.
    `rests`: by upstream model, the seconds for which a rate limit keeps it from being asked."""

    replica: str
    in_flight: int
    latency: float | None
    breaker: BreakerState
    rests: dict[str, float] = {}


class _Replica:
    def __init__(
        self, name: str, backend: Backend, breaker: Breaker, failures: Failures, rests: Rests
    ) -> None:
        self.name = name
        self.backend = backend
        self.breaker = breaker
        self.rests = rests
        self._failures = failures
        self.in_flight = 0
        self.latency: float | None = None

    def load(self) -> float:
        return (self.in_flight + 1) * (self.latency if self.latency is not None else 0.001)

    def succeeded(self, ticket: int) -> None:
        self.breaker.success(ticket)
        if self._failures.left_alone:
            self._failures.succeeded()

    def limited(self, ticket: int, model: str, error: RateLimited) -> None:
        self.succeeded(ticket)
        self.rests.refused(model, error.retry_after)
        self._failures.failed(error)

    def failed(self, ticket: int, error: BackendError) -> None:
        self.breaker.failure(ticket)
        self._failures.failed(error)

    def observe(self, seconds: float) -> None:
        before = self.latency
        self.latency = seconds if before is None else before + _DECAY * (seconds - before)


class Pool:
    """A Backend that picks, of two random replicas, the one with less to do.

    `replicas` maps a label (shown to operators) to a Backend. A replica whose breaker is open is
    not asked; with all of them open, `open` raises Overloaded at once. So it is with the model of a
    call that is over a replica's rate limit: RateLimited, with the seconds until it is not.
    `clock` is monotonic.
    """

    def __init__(
        self,
        settings: PoolSettings,
        replicas: Mapping[str, Backend],
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._name = settings.name
        self._clock = clock
        self._random = random
        self._replicas = [
            self._replica(name, backend, settings) for name, backend in replicas.items()
        ]

    def _replica(self, name: str, backend: Backend, settings: PoolSettings) -> _Replica:
        breaker = Breaker(self._clock, settings.breaker)
        failures = Failures(settings.name, name, breaker, self._clock)
        return _Replica(name, backend, breaker, failures, Rests(self._clock))

    @property
    def name(self) -> str:
        return self._name

    @property
    def replicas(self) -> tuple[str, ...]:
        """Their labels."""
        return tuple(replica.name for replica in self._replicas)

    @property
    def healthy(self) -> bool:
        """Whether some replica would take a call now (a half-open one: as its probe)."""
        return any(replica.breaker.ready for replica in self._replicas)

    def snapshot(self) -> list[ReplicaState]:
        return [
            ReplicaState(r.name, r.in_flight, r.latency, r.breaker.state, r.rests.now())
            for r in self._replicas
        ]

    async def open(self, call: Call) -> Reply:
        replica = self._pick(call.model)
        ticket = replica.breaker.allow() if replica is not None else 0
        if replica is None or not ticket:
            raise Overloaded(f"no replica of {self._name} is healthy", code=BREAKER_OPEN)
        watch = _Watch(replica, ticket, call.model, self._clock)
        try:
            return _PoolReply(await replica.backend.open(call), watch)
        except BackendError as exc:
            if exc.sends:
                watch.failed(exc)
            else:
                # Nobody was asked: a probe has shown nothing, and must be given back.
                watch.abandoned()
            raise
        except BaseException:
            # Cancelled, or a defect: says nothing of the replica, but its probe must be given back.
            watch.abandoned()
            raise

    async def aclose(self) -> None:
        await asyncio.gather(*(replica.backend.aclose() for replica in self._replicas))

    def _pick(self, model: str) -> _Replica | None:
        awake = [replica for replica in self._replicas if not replica.rests.left(model)]
        if not awake:
            raise _Resting(
                f"the rate limit of {self._name} is still in force",
                status=429,
                code=RESTING,
                retry_after=min(replica.rests.left(model) for replica in self._replicas),
            )
        if len(self._replicas) == 1:
            return awake[0]
        ready = [replica for replica in awake if replica.breaker.ready]
        # A replica that waits for its probe gets one before the busy ones get more.
        probes = [replica for replica in ready if replica.breaker.state == "half_open"]
        if probes:
            return probes[0]
        if len(ready) < 2:
            return ready[0] if ready else None
        return min(self._two(ready), key=_Replica.load)

    def _two(self, ready: Sequence[_Replica]) -> list[_Replica]:
        return self._random.sample(ready, 2)


class _Resting(RateLimited):
    sends = 0


class _Watch:
    """One call's report to its replica, made exactly once."""

    __slots__ = ("_clock", "_model", "_open", "_replica", "_started", "_ticket", "_timed")

    def __init__(
        self, replica: _Replica, ticket: int, model: str, clock: Callable[[], float]
    ) -> None:
        self._replica = replica
        self._ticket = ticket
        self._model = model
        self._clock = clock
        self._started = clock()
        self._open = True
        self._timed = False
        replica.in_flight += 1

    def semantic(self) -> None:
        if not self._timed:
            self._timed = True
            self._replica.observe(self._clock() - self._started)

    def succeeded(self) -> None:
        if self._end():
            self._replica.rests.answered(self._model)
            self._replica.succeeded(self._ticket)

    def failed(self, error: BackendError) -> None:
        if self._end():
            if isinstance(error, RateLimited):
                self._replica.limited(self._ticket, self._model, error)
            elif isinstance(error, _NOT_ILL):
                self._replica.succeeded(self._ticket)
            else:
                self._replica.failed(self._ticket, error)

    def abandoned(self) -> None:
        if self._end():
            if self._timed:
                self._replica.succeeded(self._ticket)
            else:
                self._replica.breaker.abandon(self._ticket)

    def _end(self) -> bool:
        ended, self._open = self._open, False
        if ended:
            self._replica.in_flight -= 1
        return ended


class _PoolReply:
    def __init__(self, reply: Reply, watch: _Watch) -> None:
        self._reply = reply
        self._watch = watch

    @property
    def model(self) -> str | None:
        return self._reply.model

    @property
    def usage(self) -> Usage | None:
        return self._reply.usage

    @property
    def service_tier(self) -> str:
        return self._reply.service_tier

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._reply.dropped

    @property
    def malformed(self) -> int:
        return self._reply.malformed

    async def events(self) -> AsyncIterator[Event]:
        watch = self._watch
        timed = False
        try:
            async for event in self._reply.events():
                if event.semantic and not timed:
                    timed = True
                    watch.semantic()
                yield event
        except BackendError as exc:
            watch.failed(exc)
            raise
        else:
            watch.succeeded()

    async def aclose(self) -> None:
        self._watch.abandoned()
        await self._reply.aclose()
