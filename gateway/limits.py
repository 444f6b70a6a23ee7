"""Steps 4 and 7: limits, exact cache and reservation, in as few round trips as the plan allows.

When the plan needs no score, one script does all three. Otherwise limits and cache come first,
the score after a miss, and the reservation once the plan is known.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from time import monotonic

import msgspec

from gateway.answer import rate_headers
from gateway.auth import Principal
from gateway.cache import CachedAnswer, Partition, cache_key, decode_answer
from gateway.errors import GatewayError, bad_request, budget_exceeded, rate_limited, unavailable
from gateway.exchange import Exchange
from gateway.inbound import output_field
from gateway.ledger import AmountTooLarge, Enter, Entered, LedgerError, Reserve, Short
from gateway.overlimit import OverLimit
from gateway.records import RecordsError
from gateway.runtime import Runtime
from gateway.settlement import Settler
from gateway.store.errors import StoreError, StoreTimeout
from routers.budget import usd
from routers.residency import cacheable
from routers.types import Candidate, Decision, Rejection

log = logging.getLogger("tollhouse")


class Gate:
    """Everything the ledger is asked before a call."""

    def __init__(self, runtime: Runtime, settler: Settler) -> None:
        self._runtime = runtime
        self._settler = settler
        self._lease = runtime.config.store.lease
        self._open = runtime.config.store.on_failure == "open"
        self._cache_on = runtime.config.cache.enabled
        self._over = OverLimit(monotonic)

    async def turn_away(self, principal: Principal) -> None:
        """Before a request is read: refuse it where one of its key's scopes was at a limit a moment
        ago and still is. Raises GatewayError 429."""
        if not self._over.has(principal.org, principal.scopes):
            return
        try:
            found = await self._runtime.ledger.peek(principal.org, principal.scopes)
        except StoreError:
            # What becomes of the request without a store is decided where its limits are taken.
            return
        if found.outcome == "limited":
            self._over.note(principal.org, found)
            error = limit_error(found)
            error.context = rate_headers(found)
            raise error

    async def enter(self, ex: Exchange) -> CachedAnswer | None:
        """Take the limits and look into the cache; reserve too when the plan is known.

        Returns the cached answer on a hit. Raises GatewayError: 429, 402, 503.
        """
        ex.cache_key = self._key(ex)
        decision = ex.decision
        request = self._enter(ex, decision)
        entered = await self._ask(ex, request)
        if entered is not None and entered.cached is not None:
            hit = self._fresh(ex, entered.cached)
            if hit is not None:
                ex.entered, ex.cache = entered, "hit"
                return hit
            # Too old for this client, or of an older format: go on without the cache.
            request = msgspec.structs.replace(request, cache_key=None, counted=True)
            entered = await self._ask(ex, request)
        if entered is not None and entered.outcome == "missing" and await self._rebuilt(ex):
            entered = await self._ask(ex, msgspec.structs.replace(request, cache_key=None))
        ex.entered = entered
        if entered is None:
            return None
        if entered.outcome == "limited":
            self._over.note(ex.principal.org, entered)
            raise limit_error(entered)
        self._settler.took(ex)
        if decision is not None and decision.refusal is None:
            self._reserved(ex, decision, entered)
        return None

    async def reserve(self, ex: Exchange) -> None:
        """Hold the worst case of the plan's first affordable candidate. Raises GatewayError."""
        decision = ex.decision
        assert decision is not None
        if ex.reserved or decision.refusal is not None or ex.entered is None:
            return
        entered = await self._hold(ex, self._reserve(ex, decision.plan, 0))
        self._reserved(ex, decision, entered)

    async def move(self, ex: Exchange, rest: tuple[Candidate, ...]) -> int:
        """Before another candidate is called: hold what it may cost on top of what failed
        attempts have cost. Returns the index in `rest` of the first affordable one.
        Raises GatewayError when none is, or the store is gone."""
        if ex.entered is None or ex.spent + rest[0].worst_cost <= ex.held:
            return 0
        entered = await self._hold(ex, self._reserve(ex, rest, ex.spent))
        self._check(ex, entered, rest)
        index = entered.index or 0
        ex.held = ex.spent + rest[index].worst_cost
        return index

    def _key(self, ex: Exchange) -> str | None:
        policy = ex.active.policy
        controls = ex.inbound.controls
        if ex.decision is not None and ex.decision.refusal is not None:
            return None
        if not self._cache_on or controls.cache.ttl(policy.cache_ttl) <= 0:
            return None
        if not cacheable(ex.labels, policy) or not cacheable(ex.base_labels, ex.base):
            return None
        ex.cache = "miss" if controls.cache.read else "bypass"
        partition = Partition(
            org=ex.principal.org,
            labels=tuple(sorted(ex.labels)),
            policy=ex.active.name,
            policy_version=ex.active.version,
            operation=ex.inbound.operation,
            target=ex.need.explicit or "auto",
            # A key that may use fewer models must not be served what others got from them.
            extra=",".join(ex.principal.allow),
        )
        return cache_key(partition, ex.inbound.body)

    def _enter(self, ex: Exchange, decision: Decision | None) -> Enter:
        if decision is not None and decision.refusal is not None:
            # It will be refused, but not before its limits have been taken.
            decision = None
        reserving = decision is not None
        read = ex.inbound.controls.cache.read and ex.cache_key is not None
        return Enter(
            org=ex.principal.org,
            request_id=ex.inbound.request_id,
            scopes=ex.principal.scopes,
            tokens=ex.need.prompt_tokens + ex.need.output_tokens * ex.need.choices,
            cache_key=ex.cache_key if read else None,
            costs=tuple([c.worst_cost for c in decision.plan]) if decision else None,
            lease_s=self._lease,
            audit=self._settler.audit_record(ex) if reserving and ex.audit else None,
            draft=self._settler.draft(ex, decision.plan[0]) if decision is not None else b"",
        )

    def _reserve(self, ex: Exchange, plan: tuple[Candidate, ...], booked: int) -> Reserve:
        audit = self._settler.audit_record(ex) if ex.audit and not ex.recorded else None
        return Reserve(
            org=ex.principal.org,
            request_id=ex.inbound.request_id,
            scopes=ex.principal.scopes,
            costs=tuple([c.worst_cost for c in plan]),
            lease_s=self._lease,
            audit=audit,
            draft=self._settler.draft(ex, plan[0]),
            booked=booked,
        )

    async def _rebuilt(self, ex: Exchange) -> bool:
        """Make the books of the principal's budgets anew from the records: the store has lost
        them, or has never had them."""
        try:
            await self._runtime.keyring.provision(ex.principal)
        except (LedgerError, StoreError, RecordsError) as exc:
            log.warning("the books of %s stay closed: %s", ex.principal.org, exc)
            return False
        return True

    async def _hold(self, ex: Exchange, request: Reserve) -> Entered:
        try:
            entered = await self._runtime.ledger.reserve(request)
            if entered.outcome == "missing" and await self._rebuilt(ex):
                entered = await self._runtime.ledger.reserve(request)
            return entered
        except StoreError as exc:
            raise self._down(ex) from exc
        except LedgerError as exc:
            raise refused(exc) from exc

    async def _ask(self, ex: Exchange, request: Enter) -> Entered | None:
        try:
            return await self._runtime.ledger.enter(request)
        except asyncio.CancelledError:
            # The client left; the script may have run, or will: settling at no cost undoes it.
            self._settler.took(ex)
            raise
        except LedgerError as exc:
            raise refused(exc) from exc
        except StoreError as exc:
            if isinstance(exc, StoreTimeout):
                # The script may have run, or may run late: settling at no cost undoes it.
                self._settler.took(ex)
            error = self._down(ex)
            if not self._open or ex.audit or self._bound(ex):
                raise error from exc
            ex.cache_key, ex.cache = None, "unavailable"
            return None

    def _bound(self, ex: Exchange) -> bool:
        return any(scope.budget is not None for scope in ex.principal.scopes)

    def _down(self, ex: Exchange) -> GatewayError:
        what = "The audit store" if ex.audit else "The store of limits and budgets"
        code = "audit_unavailable" if ex.audit else "store_unavailable"
        return unavailable(code, f"{what} does not answer.")

    def _fresh(self, ex: Exchange, raw: bytes) -> CachedAnswer | None:
        hit = decode_answer(raw)
        if hit is None or not ex.inbound.controls.cache.serves(hit, ex.wall):
            return None
        return hit

    def _check(self, ex: Exchange, entered: Entered, plan: tuple[Candidate, ...]) -> None:
        """Raises GatewayError for whatever keeps all of the plan from being called."""
        if entered.outcome == "limited":
            raise limit_error(entered)
        if entered.outcome == "missing":
            raise unavailable(
                "ledger_unavailable",
                f"The books of {entered.missing_scope} are not there; they are being rebuilt.",
            )
        if entered.outcome == "unaffordable":
            raise budget_error(entered.short, ex, min(c.worst_cost for c in plan))

    def _reserved(self, ex: Exchange, decision: Decision, entered: Entered) -> None:
        """Take note of what was reserved; candidates that were too dear leave the plan."""
        self._runtime.catalog.note_share(ex.principal, entered.share_left)
        if entered.outcome == "unaffordable":
            whose = entered.short.scope if entered.short is not None else ""
            ex.decision = priced_out(decision, len(decision.plan), whose)
        self._check(ex, entered, decision.plan)
        index = entered.index or 0
        ex.held = decision.plan[index].worst_cost
        ex.reserved = True
        ex.recorded = ex.audit
        if index:
            ex.decision = priced_out(decision, index)


def priced_out(decision: Decision, count: int, whose: str = "") -> Decision:
    """The decision without its first `count` candidates, which the budget cannot pay. `whose`: the
    scope of that budget, where it is known."""
    of = f" of {whose}" if whose else ""
    gone = tuple(
        Rejection(c.id, "budget", f"the budget{of} cannot pay its worst case")
        for c in decision.plan[:count]
    )
    rest = decision.plan[count:]
    return msgspec.structs.replace(
        decision,
        plan=rest,
        rejected=(*decision.rejected, *gone),
        reason="budget" if rest else "",
        refusal=None if rest else "budget",
    )


def refused(error: LedgerError) -> GatewayError:
    """What the ledger does not do: for a request whose lease ran out while its worker stood still,
    or for an amount that no budget can hold."""
    if isinstance(error, AmountTooLarge):
        return bad_request("The request may cost more than any budget can hold.", "max_tokens")
    return unavailable("lease_expired", "The request waited too long and lost its place.")


def budget_error(short: Short | None, ex: Exchange, worst: int) -> GatewayError:
    """`worst`: nano-USD that the cheapest candidate may cost. What is left is told of the key's own
    budget only: that of a team or an organisation would tell what its other keys have spent."""
    if short is None:
        return budget_exceeded("The budget does not pay the worst case of this request.")
    facts = [f"{usd(short.left)} left"] if short.scope.startswith("key:") else []
    if short.until is not None:
        facts.append(f"until {_moment(short.until)}")
    known = f" ({' '.join(facts)})" if facts else ""
    bounded = ex.inbound.operation != "embeddings" and short.left
    hint = f"; ask for fewer tokens ({output_field(ex.inbound)})" if bounded else ""
    return budget_exceeded(
        f"The budget of {short.scope}{known} does not pay the worst case of this request"
        f" ({usd(worst)}){hint}."
    )


def _moment(unix_s: float) -> str:
    """The day, or the second where it is not a day that begins then (UTC)."""
    at = datetime.fromtimestamp(unix_s, UTC)
    return f"{at:%Y-%m-%d}" if unix_s % 86_400 == 0 else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def limit_error(entered: Entered) -> GatewayError:
    what = {
        "requests": "requests per minute",
        "tokens": "tokens per minute",
        "concurrency": "concurrent requests",
    }[entered.limited_kind or "requests"]
    if entered.retry_after is None:
        # More than the limit holds at all: waiting would not help.
        return GatewayError(
            429,
            "rate_limit_exceeded",
            f"The request alone needs more than the limit of {what} of {entered.limited_scope}.",
            type="rate_limit_error",
            retry=False,
        )
    return rate_limited(
        f"The limit of {what} of {entered.limited_scope} is reached.", entered.retry_after
    )
