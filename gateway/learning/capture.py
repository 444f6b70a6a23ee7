"""Keeping conversations: a bounded queue on the path of a request, written out behind it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from gateway.config.model import LearningConfig
from gateway.exchange import Exchange
from gateway.learning import forgetting
from gateway.learning.consent import Consent, Look
from gateway.learning.types import Capture, Scored, Side, Uncaptured, WhyNot, conversation_of
from gateway.records import Database, RecordsError
from routers.text import opaque_content
from routers.types import Candidate, Policy

log = logging.getLogger("tollhouse.learning")

MAX_CONVERSATION = 256 << 10
# Characters of all that the model looks at: tools and their schemas too.
MAX_TEXT = 1 << 20
# Texts longer than this are not even looked at: about `MAX_CONVERSATION` in tokens.
_MAX_TOKENS = 64 << 10
_MAX_WAITING = 16 << 20
_INTERVAL_S = 0.5
_BATCH = 200
# Reasons that wait to be written; beyond that the oldest are forgotten.
_MAX_REASONS = 10_000


class _Waiting(msgspec.Struct, frozen=True):
    capture: Capture
    look: Look

    @property
    def size(self) -> int:
        return len(self.capture.conversation) + len(self.look.text)


class Captures:
    """`count` is told what became of each conversation that may be kept: `kept`, `too_long`,
    `opaque` (content that is no text), `dropped` (too many waited), `data_class` (the router's
    model saw one that is not listed), `failed` (the database), `deleted` (by an operator, while it
    waited).

    Losing one is harmless, so nothing here waits, and nothing is tried twice."""

    def __init__(
        self, settings: LearningConfig, database: Database, count: Callable[[str], None]
    ) -> None:
        self._max_rows = settings.max_rows
        self._consent = Consent(settings)
        self._database = database
        self._count = count
        self._waiting: deque[_Waiting] = deque()
        self._reasons: deque[Uncaptured] = deque(maxlen=_MAX_REASONS)
        self._bytes = 0
        self._writing = asyncio.Lock()

    def wants(self, ex: Exchange) -> bool:
        """Whether this request's conversation may be kept, as far as is known without a look."""
        return ex.inbound.operation != "embeddings" and _is_scored(ex) and self._consent.gives(ex)

    def add(self, ex: Exchange, by: Candidate, look: Look) -> None:
        """The request, which is wanted, was answered, whole, by this one."""
        if ex.need.prompt_tokens > _MAX_TOKENS:
            self._leave(ex.decision_id, ex.principal.org, ex.wall, "too_long")
            return
        if opaque_content(ex.inbound.body):
            self._leave(ex.decision_id, ex.principal.org, ex.wall, "opaque")
            return
        conversation = conversation_of(ex.inbound.body)
        if len(conversation) > MAX_CONVERSATION or len(look.text) > MAX_TEXT:
            self._leave(ex.decision_id, ex.principal.org, ex.wall, "too_long")
            return
        waiting = _Waiting(capture_of(ex, by, conversation), look)
        if self._bytes + waiting.size > _MAX_WAITING:
            self._count("dropped")
            return
        self._bytes += waiting.size
        self._waiting.append(waiting)

    def _leave(self, decision_id: str, org: str, ts: float, reason: WhyNot) -> None:
        """Not kept: what feedback is told of it."""
        self._count(reason)
        self._reasons.append(Uncaptured(decision_id, org, ts, reason))

    async def run(self) -> None:
        """For ever; cancel to end."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is waiting now and, seen by the router's model, may be kept."""
        async with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                size = sum(waiting.size for waiting in batch)
                self._bytes -= size
                allowed: list[Capture] = []
                held: list[Capture] = []
                try:
                    allowed, held = await asyncio.to_thread(self._sorted, batch)
                    kept = await self._database.write(
                        forgetting.add_captures, allowed, self._max_rows
                    )
                except asyncio.CancelledError:
                    # Written or not: it waits for the next flush, and twice is as good as once.
                    self._waiting.extendleft(reversed(batch))
                    self._bytes += size
                    raise
                except RecordsError as exc:
                    log.warning("%d conversations not kept: %s", len(allowed), exc)
                    outcomes = ["failed"] * len(allowed)
                else:
                    outcomes = ["kept"] * kept + ["deleted"] * (len(allowed) - kept)
                for outcome in outcomes:
                    self._count(outcome)
                for capture in held:
                    self._leave(capture.decision_id, capture.org, capture.ts, "data_class")
            await self._tell()

    async def _tell(self) -> None:
        """Write why conversations are not kept."""
        while self._reasons:
            batch = [self._reasons.popleft() for _ in range(min(_BATCH, len(self._reasons)))]
            try:
                await self._database.write(forgetting.add_uncaptured, batch, self._max_rows)
            except RecordsError as exc:
                log.info("why %d conversations are not kept is not written: %s", len(batch), exc)

    def _sorted(self, batch: Sequence[_Waiting]) -> tuple[list[Capture], list[Capture]]:
        """Those that may be kept, and those in which the model saw what may not. Blocking."""
        allowed: list[Capture] = []
        held: list[Capture] = []
        for waiting in batch:
            may = self._consent.labels(waiting.look.classes())
            (allowed if may else held).append(waiting.capture)
        return allowed, held


def capture_of(ex: Exchange, by: Candidate, conversation: str) -> Capture:
    scored = scored_of(ex)
    return Capture(
        decision_id=ex.decision_id,
        org=ex.principal.org,
        ts=ex.wall,
        conversation=conversation,
        side=side_of(ex.active.policy, by.tier),
        model=by.id,
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
