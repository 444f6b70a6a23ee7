"""Step 9: try the plan in order until one candidate's answer has begun.

An answer counts as begun at its first semantic event. Until then a failure moves on, within the
bounds of the retry policy; afterwards whoever holds the Opened answer ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import random
from time import perf_counter

import msgspec

from backends.base import Call, Event, Reply, Timeouts, Usage
from backends.dialects.chat_reply import choices_asked
from backends.errors import (
    BackendError,
    ContextTooLong,
    FirstTokenTimeout,
    Untranslatable,
    UpstreamTimeout,
)
from backends.health import BREAKER_OPEN
from backends.prices import tier_name
from backends.rests import RESTING
from backends.retry import NextCandidate, Progress, Retry, RetryPolicy, next_step
from backends.tokens import estimate_completion
from gateway.cache import CachedAnswer, cacheable
from gateway.exchange import Attempt, Exchange
from gateway.inbound import new_id
from gateway.limits import Gate
from gateway.runtime import Runtime
from gateway.settlement import Settler
from gateway.telemetry import SpanStart
from routers.types import Candidate, Decision, Rejection

# Failures before a status after which the upstream may have worked, and charged, for the prompt.
# Once it said 200, it may have in any case.
_MAY_HAVE_CHARGED = (FirstTokenTimeout, UpstreamTimeout)


class Opened:
    """An answer that has begun: `first` are the events up to the first semantic one."""

    __slots__ = (
        "_events",
        "_ex",
        "_kept",
        "_reply",
        "_room",
        "_runtime",
        "_stated",
        "_stated_at",
        "_usage_only",
        "attempt",
        "first",
    )

    def __init__(self, runtime: Runtime, ex: Exchange, attempt: Attempt, reply: Reply) -> None:
        self._runtime = runtime
        self._ex = ex
        self._reply = reply
        self._events = reply.events()
        keeps = ex.cache_key is not None or ex.sampled
        self._room = runtime.config.cache.max_entry_kb << 10 if keeps else 0
        self._kept: list[bytes] = []
        self._stated: Usage | None = None
        self._stated_at = 0
        self._usage_only: list[int] = []
        self.attempt = attempt
        self.first: list[Event] = []

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._reply.dropped

    @property
    def usage_sent(self) -> bool:
        """Whether the upstream has reported its usage in an event of its own."""
        return bool(self._usage_only)

    async def begin(self) -> None:
        """Read up to the first semantic event. Raises BackendError."""
        began = perf_counter()
        async for event in self._events:
            self._note(event)
            self.first.append(event)
            # A whole answer is read to the end of its one event: a generator that is left in the
            # middle costs a task to clean up.
            if event.semantic and self._ex.inbound.stream:
                break
        self.attempt.first = perf_counter()
        self._ex.waited += self.attempt.first - began

    async def rest(self) -> AsyncIterator[Event]:
        async for event in self._events:
            self._note(event)
            yield event

    def _note(self, event: Event) -> None:
        self.attempt.text_bytes += event.text_bytes
        if event.usage is not None and event.usage != self._stated:
            self._stated, self._stated_at = event.usage, self.attempt.text_bytes
        if event.finish is not None:
            self.attempt.finish = event.finish
        if event.usage_only:
            self._usage_only.append(len(self._kept))
        if self._room > 0:
            self._room -= len(event.data)
            self._kept.append(event.data)

    def estimate(self) -> Usage:
        return Usage(
            prompt=self._ex.need.prompt_tokens,
            completion=estimate_completion(self.attempt.text_bytes),
            estimated=True,
        )

    def used(self) -> Usage:
        """What an answer that has not come to its end has used so far: as its upstream stated it,
        and an estimate of the text that came after that. An Anthropic stream states one output
        token at its beginning, and how many they were at its end."""
        stated = self._reply.usage
        if stated is None:
            return self.estimate()
        # What no event of the answer stated is newer than all of them.
        later = self.attempt.text_bytes - self._stated_at if stated == self._stated else 0
        if not later:
            return stated
        completion = stated.completion + estimate_completion(later)
        return msgspec.structs.replace(stated, completion=completion, estimated=True)

    def complete(self) -> None:
        """The answer came to its end."""
        attempt = self.attempt
        attempt.ended = perf_counter()
        attempt.outcome = "ok"
        attempt.model = self._reply.model
        attempt.usage = self._reply.usage or self.estimate()
        self._take_tier()
        self._runtime.catalog.bill(attempt)

    def take_usage(self) -> None:
        """Of an answer that does not come to its end."""
        self.attempt.usage = self.used()
        self._take_tier()

    def _take_tier(self) -> None:
        said = self._reply.service_tier
        if not said:
            return
        tier, catalog = tier_name(said), self._runtime.catalog
        target = catalog.target(self.attempt.candidate)
        if not catalog.asked_tier(target, self._ex.need):
            catalog.note_tier(target, tier)
        self.attempt.service_tier = tier

    def fail(self, error: BackendError) -> None:
        """The answer broke after it had begun."""
        self.take_usage()
        close(self._runtime, self.attempt, error)

    @property
    def kept(self) -> list[bytes] | None:
        """Every event so far, where they are kept and were not too large."""
        return self._kept if self._room > 0 else None

    def cached(self, ex: Exchange, usage_event: bytes) -> CachedAnswer | None:
        """The answer as the cache keeps it; None when it may not be kept. `usage_event`: what the
        upstream left out of its stream, or nothing."""
        attempt = self.attempt
        if ex.cache_key is None or self._room <= 0 or attempt.usage is None:
            return None
        if self._reply.malformed:
            return None
        if not cacheable(200, self._finishes(ex)):
            return None
        events, usage_only = self._kept, self._usage_only
        if usage_event:
            events, usage_only = [*events, usage_event], [len(events)]
        return CachedAnswer(
            backend=attempt.candidate.backend,
            model=attempt.candidate.model,
            tier=attempt.candidate.tier,
            stream=ex.inbound.stream,
            events=events,
            usage=attempt.usage,
            finish=attempt.finish or "",
            created=ex.wall,
            usage_only=usage_only,
        )

    def _finishes(self, ex: Exchange) -> tuple[str | None, ...]:
        """The finish reason of every choice; none at all when there are fewer than were asked
        for. Answers with several are read again for it."""
        if ex.inbound.operation == "embeddings":
            return ("stop",)
        asked = choices_asked(ex.inbound.body)
        if asked == 1:
            return (self.attempt.finish,)
        found = finishes(self._kept)
        return found if len(found) >= asked else ()

    async def aclose(self) -> None:
        await self._reply.aclose()
        if self.attempt.outcome == "open":
            self.attempt.outcome = "cancelled"
            self.attempt.ended = perf_counter()
            self.take_usage()
            self._runtime.catalog.bill(self.attempt)


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Choices(msgspec.Struct):
    choices: list[_Choice] | None = None


_choices = msgspec.json.Decoder(_Choices)


def finishes(events: list[bytes]) -> tuple[str | None, ...]:
    """The last finish reason of each choice, over all events of an answer; none at all when an
    event is not of the form, so that nothing is made of it."""
    found: dict[int, str | None] = {}
    for data in events:
        try:
            read = _choices.decode(data).choices or ()
        except msgspec.DecodeError:
            return ()
        for choice in read:
            found[choice.index] = choice.finish_reason or found.get(choice.index)
    return tuple(found.values())


def incapable(decision: Decision, at: int, param: str | None) -> Decision:
    """The decision without the candidate at this place of its plan, whose API has no place for
    what the request asks in `param`. Of that only the field itself is named: the rest of the path
    may be the client's own words."""
    gone = decision.plan[at]
    rest = decision.plan[:at] + decision.plan[at + 1 :]
    field = (param or "body").partition("[")[0].partition(".")[0]
    why = Rejection(gone.id, "capability", f"its API cannot carry the request's {field}")
    elsewhere = at == 0 and rest and rest[0].tier != gone.tier
    reason = "capability" if elsewhere else decision.reason
    return msgspec.structs.replace(
        decision,
        plan=rest,
        rejected=(*decision.rejected, why),
        reason=reason if rest else "",
        refusal=None if rest else "capability",
    )


def _sends(ex: Exchange) -> int:
    """How often this request was put on the wire so far."""
    return sum(a.error.sends if a.error is not None else 1 for a in ex.attempts)


def _beside(ex: Exchange) -> tuple[str, ...]:
    """What the request asks for that costs more than usual tokens do."""
    searches = ("web_search",) if ex.inbound.body.get("web_search_options") is not None else ()
    return ("audio", *searches) if "audio" in ex.need.capabilities else searches


def close(runtime: Runtime, attempt: Attempt, error: BackendError) -> None:
    """Book a failed attempt at its own cost."""
    attempt.ended = perf_counter()
    attempt.outcome = "error"
    attempt.error = error
    runtime.catalog.bill(attempt)


class Caller:
    """Drives attempts over a plan."""

    def __init__(self, runtime: Runtime, settler: Settler) -> None:
        self._runtime = runtime
        self._gate = Gate(runtime, settler)
        retry = runtime.config.retry
        self._policy = RetryPolicy(attempts=retry.attempts, patience=retry.max_wait)
        self._deadline = runtime.config.server.request_deadline

    async def open(self, ex: Exchange) -> Opened:
        """Raises the last BackendError when the plan is used up (of those that were asked, where
        there are any), or GatewayError when the next candidate cannot be paid."""
        at, here = 0, 0
        failed: BackendError | None = None
        self._runtime.catalog.retry_budget.request()
        while True:
            assert ex.decision is not None
            plan = ex.decision.plan
            here += 1
            attempt = self._attempt(ex, plan[at])
            try:
                return await self._try(ex, attempt)
            except Untranslatable as error:
                # Nobody was asked: neither an attempt nor a record, but one candidate less.
                ex.attempts.pop()
                ex.decision = incapable(ex.decision, at, error.param)
                plan = ex.decision.plan
                if at == len(plan):
                    raise failed or error from None
                at += await self._gate.move(ex, plan[at:])
                here = 0
            except BackendError as error:
                failed = error
                if error.code in (BREAKER_OPEN, RESTING):
                    # Nobody was asked: neither an attempt nor a record.
                    ex.attempts.pop()
                else:
                    self._failed(ex, attempt, error)
                following = self._next(ex, at, error)
                left = 0 if following is None else len(plan) - following
                progress = Progress(here, _sends(ex), left, self._left(ex))
                budget = self._runtime.catalog.retry_budget
                step = next_step(error, progress, self._policy, budget, random)
                if isinstance(step, Retry):
                    await self._wait(ex, step.delay)
                    following = at
                elif not isinstance(step, NextCandidate) or following is None:
                    raise
                following += await self._gate.move(ex, plan[following:])
                if following != at:
                    at, here = following, 0

    def _attempt(self, ex: Exchange, candidate: Candidate) -> Attempt:
        attempt = Attempt(new_id("att_"), len(ex.attempts) + 1, candidate, perf_counter())
        catalog = self._runtime.catalog
        attempt.service_tier = catalog.asked_tier(catalog.target(candidate), ex.need)
        attempt.beside = _beside(ex)
        ex.attempts.append(attempt)
        if self._runtime.telemetry.tracing:
            attempt.span = self._runtime.telemetry.span(self._span(ex, attempt))
        return attempt

    def _span(self, ex: Exchange, attempt: Attempt) -> SpanStart:
        target = self._runtime.catalog.target(attempt.candidate)
        return SpanStart(
            operation=ex.inbound.operation,
            provider=target.provider,
            backend=target.name,
            model=target.model,
            tier=target.tier,
            stream=ex.inbound.stream,
            server_address=target.address[0],
            server_port=target.address[1],
            reason=ex.decision.reason if ex.decision else "",
            policy=ex.active.name,
            policy_version=ex.active.version,
            labels=tuple(sorted(ex.labels)),
            attempt=attempt.number,
            traceparent=ex.inbound.controls.traceparent,
        )

    async def _try(self, ex: Exchange, attempt: Attempt) -> Opened:
        candidate = attempt.candidate
        target = self._runtime.catalog.target(candidate)
        call = Call(
            operation=ex.inbound.operation,
            model=target.upstream,
            body=ex.inbound.body,
            stream=ex.inbound.stream,
            timeouts=self._timeouts(ex, target.timeouts),
            request_id=ex.inbound.request_id,
            traceparent=attempt.span.traceparent,
            drop_params=target.drop_params,
        )
        began = perf_counter()
        try:
            reply = await target.backend.open(call)
        except asyncio.CancelledError:
            self._cancelled(ex, attempt)
            raise
        finally:
            ex.waited += perf_counter() - began
        opened = Opened(self._runtime, ex, attempt, reply)
        try:
            await opened.begin()
        except BackendError:
            opened.take_usage()
            await reply.aclose()
            raise
        except BaseException:
            # Cancelled, or a defect: the upstream must not go on working for nobody.
            await opened.aclose()
            raise
        return opened

    def _left(self, ex: Exchange) -> float:
        """Seconds until the request's deadline."""
        return self._deadline - (perf_counter() - ex.started)

    def _timeouts(self, ex: Exchange, base: Timeouts) -> Timeouts:
        left = self._left(ex)
        if left >= base.total:
            return base
        return Timeouts(base.connect, base.first_token, base.idle, max(left, 0.001))

    def _failed(self, ex: Exchange, attempt: Attempt, error: BackendError) -> None:
        if attempt.usage is None and isinstance(error, _MAY_HAVE_CHARGED):
            attempt.usage = Usage(prompt=ex.need.prompt_tokens, estimated=True)
        close(self._runtime, attempt, error)

    def _cancelled(self, ex: Exchange, attempt: Attempt) -> None:
        attempt.outcome = "cancelled"
        attempt.ended = perf_counter()
        attempt.usage = Usage(prompt=ex.need.prompt_tokens, estimated=True)
        self._runtime.catalog.bill(attempt)

    def _next(self, ex: Exchange, at: int, error: BackendError) -> int | None:
        """The next candidate worth asking after this error: after a context that was too long,
        one with a larger window, once."""
        assert ex.decision is not None
        plan = ex.decision.plan
        window = 0
        if isinstance(error, ContextTooLong):
            if any(isinstance(a.error, ContextTooLong) for a in ex.attempts[:-1]):
                return None
            window = plan[at].context_window
        for index in range(at + 1, len(plan)):
            if not window or plan[index].context_window > window:
                return index
        return None

    async def _wait(self, ex: Exchange, delay: float) -> None:
        began = perf_counter()
        await asyncio.sleep(delay)
        ex.waited += perf_counter() - began
