"""Keeping conversations: a bounded queue on the path of a request, written out behind it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from gateway.config.model import LearningConfig
from gateway.exchange import Exchange
from gateway.learning import forgetting
from gateway.learning.consent import Consent
from gateway.learning.types import Capture, Scored, Side, conversation_of
from gateway.records import Database, RecordsError
from routers.text import opaque_content
from routers.types import Policy

log = logging.getLogger("tollhouse.learning")

MAX_CONVERSATION = 256 << 10
# Texts longer than this are not even looked at: about `MAX_CONVERSATION` in tokens.
_MAX_TOKENS = 64 << 10
_MAX_WAITING = 16 << 20
_INTERVAL_S = 0.5
_BATCH = 200


class Captures:
    """`count` is told what became of each conversation that may be kept: `kept`, `too_long`,
    `opaque` (content that is no text), `dropped` (too many waited), `failed` (the database),
    `deleted` (by an operator, while it waited).

    Losing one is harmless, so nothing here waits, and nothing is tried twice."""

    def __init__(
        self, settings: LearningConfig, database: Database, count: Callable[[str], None]
    ) -> None:
        self._max_rows = settings.max_rows
        self._consent = Consent(settings)
        self._database = database
        self._count = count
        self._waiting: deque[Capture] = deque()
        self._bytes = 0
        self._writing = asyncio.Lock()

    def add(self, ex: Exchange, tier: str) -> None:
        """The request was answered, whole, by this tier."""
        if (
            ex.inbound.operation == "embeddings"
            or not _is_scored(ex)
            or not self._consent.gives(ex)
        ):
            return
        if ex.need.prompt_tokens > _MAX_TOKENS:
            self._count("too_long")
            return
        if opaque_content(ex.inbound.body):
            self._count("opaque")
            return
        conversation = conversation_of(ex.inbound.body)
        if len(conversation) > MAX_CONVERSATION:
            self._count("too_long")
            return
        if self._bytes + len(conversation) > _MAX_WAITING:
            self._count("dropped")
            return
        self._bytes += len(conversation)
        self._waiting.append(capture_of(ex, tier, conversation))

    async def run(self) -> None:
        """For ever; cancel to end."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is waiting now."""
        async with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                size = sum(len(capture.conversation) for capture in batch)
                self._bytes -= size
                try:
                    kept = await self._database.write(
                        forgetting.add_captures, batch, self._max_rows
                    )
                except asyncio.CancelledError:
                    # Written or not: it waits for the next flush, and twice is as good as once.
                    self._waiting.extendleft(reversed(batch))
                    self._bytes += size
                    raise
                except RecordsError as exc:
                    log.warning("%d conversations not kept: %s", len(batch), exc)
                    outcomes = ["failed"] * len(batch)
                else:
                    outcomes = ["kept"] * kept + ["deleted"] * (len(batch) - kept)
                for outcome in outcomes:
                    self._count(outcome)


def capture_of(ex: Exchange, tier: str, conversation: str) -> Capture:
    scored = scored_of(ex)
    return Capture(
        decision_id=ex.decision_id,
        org=ex.principal.org,
        ts=ex.wall,
        conversation=conversation,
        side=side_of(ex.active.policy, tier),
        p_local_ok=scored.p_local_ok,
        p_frontier_ok=scored.p_frontier_ok,
        threshold=scored.threshold,
        artefact=scored.artefact,
    )


def scored_of(ex: Exchange) -> Scored:
    score, decision = ex.score, ex.decision
    return Scored(
        p_local_ok=score.p_local_ok if score else None,
        p_frontier_ok=score.p_frontier_ok if score else None,
        threshold=decision.threshold if decision else None,
        artefact=score.model if score else "",
    )


def side_of(policy: Policy, tier: str) -> Side:
    if tier == policy.weak_tier:
        return "weak"
    return "strong" if tier == policy.strong_tier else ""


def _is_scored(ex: Exchange) -> bool:
    return ex.score is not None and ex.score.gain is not None
