"""Step 10: book what a request cost, file its records, store its answer, tell telemetry.

Settling runs in a task of its own, so that neither a client that leaves nor a worker that drains
cuts it short. While the store is gone it is tried again; if the worker dies first, the lease
expires and the sweeper books the worst case.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

from gateway.admission import refusal_code
from gateway.cache import CachedAnswer
from gateway.errors import GatewayError
from gateway.exchange import Attempt, Exchange
from gateway.inbound import new_id
from gateway.ledger import LedgerError, Settlement, settle_again
from gateway.records import FiledDecision, FiledUsage, RejectedCandidate, encode_record
from gateway.runtime import Runtime
from gateway.store.errors import StoreError
from gateway.telemetry import RequestFacts, names
from routers.types import Candidate

log = logging.getLogger("tollhouse")

# Refusals that never got as far as a decision are counted, not recorded: a flood of them must
# not fill the records.
_UNRECORDED = frozenset({400, 401, 404, 413, 429})
# While the store is gone, so many requests that cost nothing wait to have their records filed: each
# takes some 5 kB, and a store that is away refuses as many requests as clients send.
MAX_WAITING = 5_000


class Settler:
    """Owns the tasks that settle."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ledger = runtime.ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[str, str] = {}
        self._told_unpriced: set[tuple[str, tuple[str, ...]]] = set()
        self._waiting = 0

    @property
    def pending(self) -> int:
        return len(self._tasks)

    def held(self) -> dict[str, list[str]]:
        """Request ids that hold a lease, by organisation: what must be renewed."""
        found: dict[str, list[str]] = {}
        for request_id, org in self._held.items():
            found.setdefault(org, []).append(request_id)
        return found

    def took(self, ex: Exchange) -> None:
        """The ledger holds a lease for this request from now on."""
        self._held[ex.inbound.request_id] = ex.principal.org

    async def settle(self, ex: Exchange, value: bytes | None) -> None:
        """Settle and wait for it: when the client has its last byte, the books are settled."""
        if ex.settled or not self._owes(ex):
            return
        ex.settled = True
        settlement = self._settlement(ex, value)
        try:
            await self._book(settlement, ex)
        except asyncio.CancelledError:
            # The client left in the middle. Settling once more is harmless if it was done.
            self._spawn(self._book(settlement, ex))
            raise

    def ensure(self, ex: Exchange) -> None:
        """Settle whatever has not been settled, without waiting."""
        if not ex.settled and self._owes(ex):
            ex.settled = True
            self._spawn(self._book(self._settlement(ex, None), ex))
        # Whatever became of the request, by now it is known what it has cost.
        self._runtime.steering.settle(ex)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _owes(self, ex: Exchange) -> bool:
        return ex.inbound.request_id in self._held or bool(ex.attempts)

    def _settlement(self, ex: Exchange, value: bytes | None) -> Settlement:
        self._observe_attempts(ex)
        records = [encode_record(self._usage(ex, attempt)) for attempt in ex.attempts]
        if not ex.recorded and ex.decision is not None:
            records.append(encode_record(self.decision(ex)))
        return Settlement(
            org=ex.principal.org,
            request_id=ex.inbound.request_id,
            scopes=ex.principal.scopes,
            cost=ex.spent,
            tokens=_tokens(ex),
            records=tuple(records),
            cache_key=ex.cache_key if value is not None else None,
            cache_value=value,
            cache_ttl=ex.inbound.controls.cache.ttl(ex.active.policy.cache_ttl),
            entered=ex.entered.at if ex.entered is not None else 0.0,
        )

    async def _book(self, settlement: Settlement, ex: Exchange) -> None:
        try:
            settled = await self._ledger.settle(settlement)
        except StoreError as exc:
            log.warning("settlement of %s waits for the store: %s", settlement.request_id, exc)
            self._spawn(self._again(settlement))
            return
        except Exception:
            # Trying again would not help. Not renewed, the lease runs out, and the sweeper books
            # the worst case, flagged.
            self._held.pop(settlement.request_id, None)
            raise
        self._held.pop(settlement.request_id, None)
        self._runtime.catalog.note_share(ex.principal, settled.share_left)

    async def _again(self, settlement: Settlement) -> None:
        try:
            failed = await settle_again(self._ledger, settlement)
        finally:
            self._held.pop(settlement.request_id, None)
        if failed is not None:
            # The lease has expired by now or will: the sweeper books the worst case, flagged.
            log.error("settlement of %s given up: %s", settlement.request_id, failed)
            self._lost(settlement, "too_long")

    def _lost(self, settlement: Settlement, reason: str) -> None:
        for _ in settlement.records:
            self._runtime.telemetry.count(names.RECORDS_LOST, reason)

    def refused(self, ex: Exchange, error: GatewayError) -> None:
        """File the decision of a request that was refused before any call."""
        if ex.attempts or ex.settled or error.status in _UNRECORDED or ex.recorded:
            return
        if ex.decision is None:
            return
        ex.settled = True
        self._spawn_records(ex, (encode_record(self.decision(ex, error.code or "")),))

    def replayed(self, ex: Exchange, hit: CachedAnswer) -> None:
        """File the records of an answer from the cache. It cost nothing."""
        ex.settled = True
        usage = FiledUsage(
            **self._common(ex),
            attempt_id=new_id("att_"),
            backend=hit.backend,
            model=hit.model,
            provider="",
            tier=hit.tier,
            attempt=0,
            outcome="ok",
            prompt_tokens=hit.usage.prompt,
            completion_tokens=hit.usage.completion,
            cached_tokens=hit.usage.cached,
            cache_write_tokens=hit.usage.cache_write,
            reasoning_tokens=hit.usage.reasoning,
            estimated=hit.usage.estimated,
            ms_total=(perf_counter() - ex.started) * 1000,
        )
        self._spawn_records(ex, (encode_record(usage), encode_record(self.decision(ex))))

    def _spawn_records(self, ex: Exchange, records: tuple[bytes, ...]) -> None:
        settlement = Settlement(
            org=ex.principal.org,
            request_id=ex.inbound.request_id,
            scopes=(),  # it cost nothing, and what it holds the ledger knows
            cost=0,
            tokens=0,
            records=records,
        )
        self._spawn(self._file(settlement))

    async def _file(self, settlement: Settlement) -> None:
        try:
            await self._ledger.settle(settlement)
        except StoreError as exc:
            # One that may hold a lease is not left to the sweeper, which books the worst case.
            if self._waiting < MAX_WAITING or settlement.request_id in self._held:
                log.warning("records of %s wait for the store: %s", settlement.request_id, exc)
                self._spawn(self._file_again(settlement))
            else:
                self._lost(settlement, "too_many")
        finally:
            self._held.pop(settlement.request_id, None)

    async def _file_again(self, settlement: Settlement) -> None:
        self._waiting += 1
        try:
            await self._again(settlement)
        finally:
            self._waiting -= 1

    def draft(self, ex: Exchange, first: Candidate) -> bytes:
        """The usage record that the sweeper files when this worker dies during the call."""
        return encode_record(
            FiledUsage(
                **self._common(ex),
                attempt_id=new_id("att_"),
                backend=first.backend,
                model=first.model,
                provider="",
                tier=first.tier,
                attempt=max(1, len(ex.attempts)),
                outcome="lease_expired",
                estimated=True,
                prompt_tokens=ex.need.prompt_tokens,
                completion_tokens=ex.need.output_tokens * ex.need.choices,
            )
        )

    def audit_record(self, ex: Exchange) -> bytes:
        return encode_record(self.decision(ex))

    def decision(self, ex: Exchange, refusal: str = "") -> FiledDecision:
        decision = ex.decision
        assert decision is not None
        score = ex.score
        return FiledDecision(
            decision_id=ex.decision_id,
            request_id=ex.inbound.request_id,
            ts=self._ts(ex),
            org=ex.principal.org,
            team=ex.principal.team,
            key_id=ex.principal.key_id,
            labels=decision.labels,
            policy=decision.policy,
            version=decision.policy_version,
            operation=ex.inbound.operation,
            requested_model=ex.inbound.model[:256],
            plan=tuple([c.id for c in decision.plan]),
            rejected=tuple(
                [RejectedCandidate(r.candidate, r.filter, r.reason) for r in decision.rejected]
            ),
            reason="cache" if ex.cache == "hit" else decision.reason,
            refusal=refusal or refusal_code(decision, ex.inbound),
            p_local_ok=score.p_local_ok if score else None,
            p_frontier_ok=score.p_frontier_ok if score else None,
            confidence=score.confidence if score else None,
            unclassified=score.unclassified if score else None,
            domain=score.domain if score else None,
            language=score.language if score else None,
            data_classes=ex.kinds,
            router=score.model if score else "",
            threshold=decision.threshold,
            target=decision.target,
            gain=decision.gain,
            prompt_tokens=ex.need.prompt_tokens,
            audit=ex.audit,
        )

    def _common(self, ex: Exchange) -> dict[str, Any]:
        principal = ex.principal
        return {
            "request_id": ex.inbound.request_id,
            "decision_id": ex.decision_id,
            "ts": self._ts(ex),
            "org": principal.org,
            "team": principal.team,
            "user": principal.user,
            "key_id": principal.key_id,
            "tags": (*principal.tags, *ex.inbound.controls.tags),
            "policy": ex.active.name,
            "policy_version": ex.active.version,
            "operation": ex.inbound.operation,
            "stream": ex.inbound.stream,
            "cache": ex.cache,
        }

    def _ts(self, ex: Exchange) -> float:
        """The store's clock decides the budget's window, so the records carry it too."""
        return ex.entered.at if ex.entered is not None else ex.wall

    def _usage(self, ex: Exchange, attempt: Attempt) -> FiledUsage:
        target = self._runtime.catalog.target(attempt.candidate)
        return FiledUsage(
            **self._common(ex),
            **attempt.record(),
            attempt_id=attempt.id,
            backend=attempt.candidate.backend,
            model=attempt.candidate.model,
            provider=target.provider,
            tier=attempt.candidate.tier,
            attempt=attempt.number,
        )

    def observe(self, ex: Exchange, status: int) -> None:
        """Tell telemetry of a request that got an answer."""
        telemetry = self._runtime.telemetry
        last = ex.attempts[-1] if ex.attempts else None
        now = perf_counter()
        usage = last.usage if last is not None else None
        candidate = last.candidate if last is not None else None
        first = last.first if last is not None and ex.inbound.stream else None
        telemetry.request(
            RequestFacts(
                operation=ex.inbound.operation,
                status=status,
                seconds=now - ex.started,
                overhead=self._overhead(ex, now),
                tier=candidate.tier if candidate else "",
                backend=candidate.backend if candidate else "",
                model=candidate.model if candidate else "",
                reason=ex.decision.reason if ex.decision else "",
                cache=ex.cache,
                first_token=None if first is None else first - ex.started,
                output_tokens=usage.completion if usage else 0,
                score=ex.score.us / 1e6 if ex.score else None,
            )
        )

    def _overhead(self, ex: Exchange, now: float) -> float:
        """Seconds in the gateway itself: of a stream, until its first content."""
        last = ex.attempts[-1] if ex.attempts else None
        if ex.inbound.stream and last is not None and last.first is not None:
            return last.first - ex.started - ex.waited
        return now - ex.started - ex.waited

    def _observe_attempts(self, ex: Exchange) -> None:
        catalog, telemetry = self._runtime.catalog, self._runtime.telemetry
        for attempt in ex.attempts:
            provider = catalog.target(attempt.candidate).provider
            facts = attempt.facts(ex.inbound.operation, provider, stream=ex.inbound.stream)
            telemetry.attempt(facts)
            attempt.span.end(facts)
            if attempt.unpriced:
                self._tell_unpriced(attempt)

    def _tell_unpriced(self, attempt: Attempt) -> None:
        """In the log, once for each model and kind; each usage record says so."""
        known = (attempt.candidate.id, attempt.unpriced)
        if known in self._told_unpriced:
            return
        self._told_unpriced.add(known)
        tier = f" ({attempt.service_tier})" if "service_tier" in attempt.unpriced else ""
        log.warning(
            "%s: no price is known for %s%s; such calls may cost more than is booked for them",
            *(attempt.candidate.id, ", ".join(attempt.unpriced), tier),
        )

    def observe_refusal(self, operation: str, error: GatewayError, seconds: float) -> None:
        self._runtime.telemetry.request(
            RequestFacts(
                operation=operation,
                status=error.status,
                seconds=seconds,
                overhead=seconds,
                refused=error.code or error.type,
            )
        )

    async def drain(self, seconds: float = 10.0) -> None:
        """Wait for what is being settled."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def renew(self, lease: float) -> None:
        """Prolong the leases of everything in flight, for ever. A background task."""
        while True:
            await asyncio.sleep(lease / 3)
            for org, ids in self.held().items():
                try:
                    await self._ledger.renew(org, ids, lease)
                except (StoreError, LedgerError) as exc:
                    log.warning("leases of %s not renewed: %s", org, exc)


def _tokens(ex: Exchange) -> int:
    used = [a.usage for a in ex.attempts if a.usage is not None]
    return sum(u.prompt + u.completion for u in used)
