"""The path of a request. `Pipeline.serve` reads like the list in the architecture:

admit, label, candidates, exact cache, score, plan, reserve, record, call, settle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from time import perf_counter, time
from typing import Any

from backends.base import Operation
from backends.errors import BackendError
from gateway import admission, answer
from gateway.attempts import Caller, Opened
from gateway.cache import CachedAnswer, Flights, decode_answer, encode_answer
from gateway.cache.flight import Flight
from gateway.client import Client
from gateway.errors import GatewayError, from_upstream, rate_limited, unavailable
from gateway.exchange import Exchange
from gateway.inbound import new_id, parse, read_body, read_controls
from gateway.limits import Gate
from gateway.runtime import Runtime
from gateway.settlement import Settler
from routers.cards import apply_cards
from routers.decide import needs_score, plan

log = logging.getLogger("tollhouse")

# How long a request waits for an identical one before it goes on by itself.
FOLLOW_SECONDS = 30.0
# How long the last event of a failed stream may take to leave.
LAST_WORD_SECONDS = 1.0


class Pipeline:
    """Serves /v1 requests of one worker. `in_flight` counts the requests being served."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.settler = Settler(runtime)
        self._caller = Caller(runtime, self.settler)
        self._gate = Gate(runtime, self.settler)
        self._limit = runtime.config.server.max_body_mb << 20
        self._max = runtime.config.server.max_in_flight
        self._deadline = runtime.config.server.request_deadline
        self._max_entry = runtime.config.cache.max_entry_kb << 10
        self._flights = Flights()
        self._learning = runtime.learning
        self.in_flight = 0
        # By organisation: how many of them wait for the rest of a body. No limit counts these yet.
        self._sending: dict[str, int] = {}

    async def serve(
        self,
        operation: Operation,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """One request, from its headers to its last byte. The border where everything that can
        go wrong becomes an answer."""
        client = Client(receive, send, self._deadline)
        request_id = new_id("req_")
        self.in_flight += 1
        started = perf_counter()
        try:
            await self._run(operation, request_id, scope["headers"], client, started)
        except GatewayError as error:
            await self._refuse(client, operation, request_id, error, started)
        except asyncio.CancelledError:
            if client.gone:
                return
            if not client.late:
                # The worker is told to stop and its grace time is over.
                stopping = unavailable("shutting_down", "The gateway is shutting down.")
                await self._refuse(client, operation, request_id, stopping, started)
                raise
            late = GatewayError(
                504,
                "deadline_exceeded",
                "The request's deadline ran out.",
                type="api_error",
                retry=False,
            )
            await self._refuse(client, operation, request_id, late, started)
        except Exception as defect:
            # The border of a request: a defect here must neither leak its text to the client
            # nor end the connection without an answer.
            log.exception("request %s failed", request_id, exc_info=defect)
            failure = GatewayError(
                500,
                "internal_error",
                "The gateway failed to serve this request.",
                type="api_error",
                retry=False,
            )
            await self._refuse(client, operation, request_id, failure, started)
        finally:
            client.release()
            self.in_flight -= 1

    async def _run(
        self,
        operation: Operation,
        request_id: str,
        headers: list[tuple[bytes, bytes]],
        client: Client,
        started: float,
    ) -> None:
        if self.in_flight > self._max:
            raise unavailable("overloaded", "The gateway is at its limit of requests in flight.")
        controls = read_controls(headers)
        principal = await admission.authenticate(self.runtime, controls)
        await self._gate.turn_away(principal)
        raw = await self._body(client, headers, principal.org)
        if raw is None:
            return
        client.watch()
        inbound = parse(operation, raw, controls, request_id)
        ex = await admission.admit(self.runtime, inbound, principal, started, time())
        try:
            await self._answer(ex, client)
        except GatewayError as error:
            error.context = answer.refusal_headers(ex)
            self.settler.refused(ex, error)
            raise
        finally:
            # Whatever happened, what the ledger holds for this request is let go.
            self.settler.ensure(ex)

    async def _body(
        self, client: Client, headers: list[tuple[bytes, bytes]], org: str
    ) -> bytes | None:
        """As `read_body`. Of the requests that a worker may have in flight, one organisation may
        have half in bodies that are still on their way: sending them slowly costs it nothing, and
        would keep all others out. Raises GatewayError 429."""
        sending = self._sending.get(org, 0)
        if sending >= max(1, self._max // 2):
            raise rate_limited("Too many requests of this organisation are still being sent.", 1.0)
        self._sending[org] = sending + 1
        try:
            return await read_body(client.receive, headers, self._limit)
        finally:
            self._sending[org] -= 1
            if not self._sending[org]:
                del self._sending[org]

    async def _answer(self, ex: Exchange, client: Client) -> None:
        hit = await self._gate.enter(ex)
        admission.refuse_if_empty(ex)
        if hit is not None:
            await self._replay(ex, client, hit)
            return
        flight = ex.flight = self._flight(ex)
        if flight is None and ex.cache == "miss":
            hit = await self._follow(ex)
            if hit is not None:
                await self._replay(ex, client, hit)
                return
        with flight or nullcontext():
            await score_and_plan(self.runtime, ex)
            admission.refuse_if_empty(ex)
            await self._gate.reserve(ex)
            await self._call(ex, client)

    def _flight(self, ex: Exchange) -> Flight | None:
        """Leadership of an identical request; None when another leads or caching is off."""
        if ex.cache != "miss" or ex.cache_key is None:
            return None
        return self._flights.lead(f"{ex.principal.org}/{ex.cache_key}")

    async def _follow(self, ex: Exchange) -> CachedAnswer | None:
        """The answer of the identical request that is on its way in this worker."""
        began = perf_counter()
        raw = await self._flights.follow(f"{ex.principal.org}/{ex.cache_key}", FOLLOW_SECONDS)
        ex.waited += perf_counter() - began
        hit = decode_answer(raw) if raw is not None else None
        if hit is not None:
            ex.cache = "hit"
        return hit

    async def _call(self, ex: Exchange, client: Client) -> None:
        ex.sampled = self._learning.samples(ex)
        try:
            opened = await self._caller.open(ex)
        except BackendError as error:
            raise from_upstream(error, ex.failed_at(error)) from error
        try:
            answered = self._stream if ex.inbound.stream else self._whole
            await answered(ex, client, opened)
        finally:
            await opened.aclose()

    async def _complete(self, ex: Exchange, opened: Opened) -> bytes:
        """The answer came to its end: settle it, and keep it if it may be kept. Returns the usage
        event that the upstream left out of its stream, or nothing."""
        opened.complete()
        usage_event = answer.missing_usage(ex, opened)
        cached = opened.cached(ex, usage_event)
        value = encode_answer(cached, self._max_entry) if cached is not None else None
        await self.settler.settle(ex, value)
        if ex.flight is not None:
            ex.flight.land(value)
        self._learning.answered(ex, opened.attempt.candidate, opened.kept)
        return usage_event

    async def _whole(self, ex: Exchange, client: Client, opened: Opened) -> None:
        body = opened.first[-1].data
        await self._complete(ex, opened)
        headers = answer.headers(ex, opened.attempt, opened.dropped, started=ex.started)
        headers.append(answer.JSON_TYPE)
        self.settler.observe(ex, 200)
        await client.respond(200, headers, body)

    async def _stream(self, ex: Exchange, client: Client, opened: Opened) -> None:
        headers = answer.headers(ex, opened.attempt, opened.dropped, started=ex.started)
        headers.extend(answer.SSE_HEADERS)
        await client.start(200, headers)
        keep_usage = ex.inbound.include_usage
        try:
            for event in opened.first:
                if keep_usage or not event.usage_only:
                    await client.write(b"data: " + event.data + b"\n\n")
            async for event in opened.rest():
                if keep_usage or not event.usage_only:
                    await client.write(b"data: " + event.data + b"\n\n")
        except BackendError as error:
            opened.fail(error)
            await self.settler.settle(ex, None)
            shown = from_upstream(error)
            # The client had a 200 for its head; counted is what became of the request.
            self.settler.observe(ex, shown.status)
            await client.finish(answer.stream_error(shown))
            return
        usage_event = await self._complete(ex, opened)
        self.settler.observe(ex, 200)
        last = b"data: " + usage_event + b"\n\n" if usage_event and keep_usage else b""
        await client.finish(last + answer.DONE)

    async def _replay(self, ex: Exchange, client: Client, hit: CachedAnswer) -> None:
        if ex.decision is None:
            # The score was never needed; the record still says who could have answered.
            ex.decision = plan(ex.filtered, None)
        headers = answer.cached_headers(ex, hit)
        self.settler.replayed(ex, hit)
        self.settler.observe(ex, 200)
        if not ex.inbound.stream:
            await client.respond(200, [*headers, answer.JSON_TYPE], hit.events[0])
            return
        await client.start(200, [*headers, *answer.SSE_HEADERS])
        for data in answer.replayed_events(hit, ex.inbound.include_usage):
            await client.write(data)
        await client.finish(answer.DONE)

    async def _refuse(
        self,
        client: Client,
        operation: Operation,
        request_id: str,
        error: GatewayError,
        started: float,
    ) -> None:
        self.settler.observe_refusal(operation, error, perf_counter() - started)
        if client.gone:
            return
        if client.started:
            # A client that has stopped reading gets no last word.
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await client.finish(answer.stream_error(error))
            return
        headers = [*error.headers(), (b"x-request-id", request_id.encode())]
        await client.respond(error.status, headers, error.body())


async def score_and_plan(runtime: Runtime, ex: Exchange, *, count: bool = True) -> None:
    """Steps 5 and 6. The model is asked only when its answer can change the plan. `count`: the
    request is served, and counts for what its policy promises."""
    if ex.decision is not None:
        return
    if needs_score(ex.filtered):
        deadline = ex.active.policy.score_deadline_ms / 1000
        score = await runtime.router.score(admission.query(ex), deadline=deadline)
        ex.score = apply_cards(score, runtime.catalog.cards)
    runtime.steering.decide(ex, count=count)
