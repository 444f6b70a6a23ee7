"""Calls that the gateway makes on its own account: paid from a budget of their own, recorded, and
never more than that budget allows.

The money is the gateway's: usage is filed under an organisation that no client can have. The
decision to send a conversation somewhere belongs to the organisation whose conversation it is: it
is in that organisation's records before the first byte leaves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import msgspec

from backends.base import Call, Timeouts, Usage
from backends.errors import BackendError, FirstTokenTimeout, UpstreamTimeout
from backends.prices import tier_name
from backends.tokens import estimate_completion
from gateway.auth.from_config import nano
from gateway.catalog import Catalog
from gateway.config.model import ShadowConfig
from gateway.exchange import Attempt
from gateway.inbound import new_id
from gateway.learning.answers import answer_text
from gateway.ledger import (
    Budget,
    Enter,
    Ledger,
    LedgerError,
    Scope,
    Settlement,
    settle_again,
)
from gateway.records import FiledDecision, FiledUsage, RecordsError, encode_record
from gateway.store import StoreError
from gateway.telemetry import Telemetry
from routers.decide import Filtered
from routers.types import Candidate

log = logging.getLogger("tollhouse.learning")

# No organisation of a client may have an "@" in its name.
ORG = "@shadow"
KEY = "shadow"
_LEASE_GRACE_S = 15.0
_MAY_HAVE_CHARGED = (FirstTokenTimeout, UpstreamTimeout)

Kind = Literal["shadow", "judge"]


class AskFailed(Exception):
    """`reason` is one of the outcomes that comparisons are counted by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Ask(msgspec.Struct, frozen=True):
    """One call. `of`: the decision whose answer is compared, `org` whose it is. `filtered`: how
    `candidate` came to be eligible."""

    kind: Kind
    of: str
    org: str
    candidate: Candidate
    filtered: Filtered
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Purse:
    """Raises AskFailed from `ask`, nothing else."""

    settings: ShadowConfig
    ledger: Ledger
    catalog: Catalog
    telemetry: Telemetry

    @property
    def scope(self) -> Scope:
        return Scope(f"key:{KEY}", Budget(nano(self.settings.max_usd_per_day), "day"))

    async def ask(self, ask: Ask) -> str:
        """The text of the answer. Reserves, records, calls, settles."""
        request_id, decision_id = new_id("req_"), new_id("dec_")
        attempt = Attempt(new_id("att_"), 1, ask.candidate, perf_counter())
        usage = self._usage(ask, attempt, request_id, decision_id)
        at = await self._enter(ask, request_id, usage)
        usage = msgspec.structs.replace(usage, ts=at)
        called = False
        try:
            await self._record(ask, request_id, decision_id, at)
            called = True
            return await self._call(ask, attempt, request_id)
        finally:
            await self._settle(ask, attempt, usage if called else None, request_id)

    async def _enter(self, ask: Ask, request_id: str, draft: FiledUsage) -> float:
        enter = Enter(
            org=ORG,
            request_id=request_id,
            scopes=(self.scope,),
            tokens=0,
            lease_s=self.settings.timeout + _LEASE_GRACE_S,
            costs=(ask.candidate.worst_cost,),
            draft=encode_record(msgspec.structs.replace(draft, estimated=True)),
        )
        try:
            entered = await self.ledger.enter(enter)
            if entered.outcome == "missing":
                await self.ledger.provision(ORG, self.scope)
                entered = await self.ledger.enter(enter)
        except (StoreError, LedgerError, RecordsError) as exc:
            # The script may have run: settling at no cost undoes it.
            await self._settle(ask, None, None, request_id)
            raise AskFailed("store", str(exc)) from exc
        except asyncio.CancelledError:
            # As above: else the sweeper would book a call that was never made.
            await self._settle(ask, None, None, request_id)
            raise
        if entered.outcome != "ok":
            raise AskFailed("budget" if entered.outcome == "unaffordable" else "store")
        return entered.at

    async def _record(self, ask: Ask, request_id: str, decision_id: str, at: float) -> None:
        """Into the records of the organisation, before anything is sent."""
        filtered = ask.filtered
        record = FiledDecision(
            decision_id=decision_id,
            request_id=request_id,
            ts=at,
            org=ask.org,
            labels=tuple(sorted(filtered.need.labels)),
            policy=filtered.active.name,
            version=filtered.active.version,
            requested_model=f"{ask.kind}:{ask.of}",
            plan=(ask.candidate.id,),
            reason=ask.kind,
            prompt_tokens=filtered.need.prompt_tokens,
            audit=True,
        )
        filed = Settlement(
            org=ask.org,
            request_id=request_id,
            scopes=(),
            cost=0,
            tokens=0,
            records=(encode_record(record),),
        )
        try:
            await self.ledger.settle(filed)
        except (StoreError, LedgerError) as exc:
            raise AskFailed("store", str(exc)) from exc

    async def _call(self, ask: Ask, attempt: Attempt, request_id: str) -> str:
        target = self.catalog.target(ask.candidate)
        base, limit = target.timeouts, self.settings.timeout
        call = Call(
            operation="chat",
            model=target.upstream,
            body=ask.body,
            stream=False,
            timeouts=Timeouts(base.connect, base.first_token, base.idle, min(base.total, limit)),
            request_id=request_id,
            drop_params=target.drop_params,
        )
        attempt.started = perf_counter()
        data: list[bytes] = []
        try:
            reply = await target.backend.open(call)
            attempt.connected = True
            try:
                async for event in reply.events():
                    attempt.text_bytes += event.text_bytes
                    data.append(event.data)
            finally:
                attempt.usage = reply.usage
                attempt.service_tier = tier_name(reply.service_tier)
                await reply.aclose()
        except BackendError as exc:
            attempt.outcome, attempt.error = "error", exc
            raise AskFailed(f"{ask.kind}_error", exc.kind) from exc
        except asyncio.CancelledError:
            attempt.outcome = "cancelled"
            raise
        attempt.outcome, attempt.model = "ok", reply.model
        text = answer_text(data)
        if text is None:
            raise AskFailed(f"{ask.kind}_no_text")
        return text

    async def _settle(
        self, ask: Ask, attempt: Attempt | None, usage: FiledUsage | None, request_id: str
    ) -> None:
        """Book what the call cost. For a call that was made this is tried again while the store is
        gone; after that, or where there was none, the lease runs out and the sweeper books the
        worst case: that errs on the side of the budget."""
        records: tuple[bytes, ...] = ()
        if attempt is not None and usage is not None:
            self._close(ask, attempt)
            records = (encode_record(msgspec.structs.replace(usage, **attempt.record())),)
            self._observe(attempt)
        settlement = Settlement(
            org=ORG,
            request_id=request_id,
            scopes=(self.scope,),
            cost=attempt.cost if attempt is not None else 0,
            tokens=0,
            records=records,
        )
        failed: StoreError | LedgerError | None = None
        try:
            await self.ledger.settle(settlement)
        except LedgerError as exc:
            failed = exc
        except StoreError as exc:
            log.warning("the cost of a %s call waits for the store: %s", ask.kind, exc)
            failed = await self._again(settlement) if records else exc
        if failed is not None:
            log.warning("the cost of a %s call waits for its lease: %s", ask.kind, failed)

    async def _again(self, settlement: Settlement) -> StoreError | LedgerError | None:
        try:
            return await settle_again(self.ledger, settlement)
        except LedgerError as exc:
            return exc

    def _close(self, ask: Ask, attempt: Attempt) -> None:
        attempt.ended = perf_counter()
        # A call that was cancelled may have been worked on as well as one that timed out.
        worked = attempt.connected or attempt.outcome in ("ok", "cancelled")
        worked = worked or isinstance(attempt.error, _MAY_HAVE_CHARGED)
        if attempt.usage is None and worked:
            attempt.usage = Usage(
                prompt=ask.filtered.need.prompt_tokens,
                completion=estimate_completion(attempt.text_bytes),
                estimated=True,
            )
        self.catalog.bill(attempt)

    def _usage(self, ask: Ask, attempt: Attempt, request_id: str, decision_id: str) -> FiledUsage:
        filtered = ask.filtered
        return FiledUsage(
            attempt_id=attempt.id,
            request_id=request_id,
            decision_id=decision_id,
            ts=time.time(),
            org=ORG,
            key_id=KEY,
            tags=(ask.kind, f"org:{ask.org}"),
            policy=filtered.active.name,
            policy_version=filtered.active.version,
            backend=ask.candidate.backend,
            model=ask.candidate.model,
            provider=self.catalog.target(ask.candidate).provider,
            tier=ask.candidate.tier,
            prompt_tokens=filtered.need.prompt_tokens,
            completion_tokens=filtered.need.output_tokens,
            outcome="lease_expired",
            cache="off",
        )

    def _observe(self, attempt: Attempt) -> None:
        provider = self.catalog.target(attempt.candidate).provider
        self.telemetry.attempt(attempt.facts("chat", provider, stream=False))
