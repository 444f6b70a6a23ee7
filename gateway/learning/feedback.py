"""`POST /v1/feedback`: what a client says of an answer it got."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from gateway.auth import Principal
from gateway.bodies import BadBody, decode_object
from gateway.config.model import LearningConfig
from gateway.errors import GatewayError, bad_request, rate_limited, unavailable
from gateway.learning import repository
from gateway.learning.consent import Consent
from gateway.learning.errors import UnknownDecision
from gateway.learning.lookup import Lookup
from gateway.learning.repository import Given
from gateway.learning.types import Side, WhyNot
from gateway.records import Database, DecisionRecord, RecordsError
from gateway.store import StoreError

log = logging.getLogger("tollhouse.learning")

MAX_COMMENT = 500
MAX_BODY = 64 << 10
_MAX_ID = 64
_AT_ONCE = 32
_AT_ONCE_EACH = 8
# A conversation is written a moment after its answer; a decision younger than this is waited for.
_FRESH_SECONDS = 5.0
_WAITS = (0.1, 0.2, 0.4, 0.8)
_WORDS = {"good": 1.0, "bad": 0.0}
_FIELDS = ("decision_id", "request_id", "outcome", "comment")

# Why feedback gives no training row: `capture_off` nothing is kept; `labels` the request carries
# a residency label that may not be kept; `refused` there was no answer; `cached` the answer is an
# older request's; `unscored` the router was not asked; `other_tier` neither the weak nor the
# strong tier answered; those of WhyNot, for a conversation that was not kept; `not_captured`
# it was dropped under load, could not be written, is deleted, or nothing is known of it any more.
Reason = (
    WhyNot
    | Literal["capture_off", "labels", "refused", "cached", "unscored", "other_tier"]
    | Literal["not_captured"]
)


class FeedbackInput(msgspec.Struct, frozen=True):
    """`outcome` in [0, 1]."""

    decision_id: str
    request_id: str
    outcome: float
    comment: str


class FeedbackAnswer(msgspec.Struct, frozen=True):
    """`replaced`: this key had said something of the decision before. `usable`: a training row
    came of it, else `reason` says why not. `label` is what was labelled. `comment_kept` is false
    for a comment that may not be kept, as the conversation may not."""

    decision_id: str
    request_id: str
    outcome: float
    replaced: bool
    usable: bool
    reason: Reason | None
    label: Literal["local_ok", "frontier_ok"] | None
    comment_kept: bool


def parse_feedback(raw: bytes) -> FeedbackInput:
    """Raises GatewayError (400) naming the field in `param`."""
    try:
        body = decode_object(raw)
    except BadBody as exc:
        raise bad_request(str(exc), exc.field) from exc
    for field in body:
        if field not in _FIELDS:
            raise bad_request(f"Unknown field; known: {', '.join(_FIELDS)}.", field[:_MAX_ID])
    decision_id, request_id = _id(body, "decision_id"), _id(body, "request_id")
    if not (decision_id or request_id):
        raise bad_request("decision_id or request_id is missing.", "decision_id")
    comment = body.get("comment")
    if comment is not None and not isinstance(comment, str):
        raise bad_request("comment must be a string.", "comment")
    if comment is not None and len(comment) > MAX_COMMENT:
        raise bad_request(f"comment has at most {MAX_COMMENT} characters.", "comment")
    # PostgreSQL stores no NUL in text.
    text = (comment or "").replace("\0", "\ufffd")
    return FeedbackInput(decision_id, request_id, _outcome(body), text)


def _id(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise bad_request(f"{name} must be a non-empty string.", name)
    if len(value) > _MAX_ID or not (value.isascii() and value.isprintable()):
        raise bad_request(f"{name} is not an id of this gateway.", name)
    return value


def _outcome(body: dict[str, Any]) -> float:
    value = body.get("outcome")
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise bad_request('outcome must be "good", "bad" or a number from 0 to 1.', "outcome")


class Feedback:
    """`flush` writes out what this worker has captured and not stored yet. `count` is told of
    each feedback: `good`, `bad` or `graded`, and whether it is usable."""

    def __init__(
        self,
        settings: LearningConfig,
        database: Database,
        lookup: Lookup,
        flush: Callable[[], Awaitable[None]],
        count: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._consent = Consent(settings)
        self._database = database
        self._lookup = lookup
        self._flush = flush
        self._count = count
        self._clock = clock
        # By organisation: one that speaks much must not keep the others from it.
        self._open: dict[str, int] = {}

    async def give(self, principal: Principal, given: FeedbackInput) -> FeedbackAnswer:
        """Raises GatewayError: 404 for an id that this organisation does not have, 429 when too
        many are being stored, 503 when that cannot be done now."""
        org = principal.org
        mine = self._open.get(org, 0)
        if mine >= _AT_ONCE_EACH or sum(self._open.values()) >= _AT_ONCE:
            raise rate_limited("Too much feedback at once.", 1.0)
        self._open[org] = mine + 1
        try:
            return await self._give(principal, given)
        except UnknownDecision as exc:
            named = "decision_id" if given.decision_id else "request_id"
            raise GatewayError(
                404, "decision_not_found", "There is no such decision.", param=named
            ) from exc
        except (RecordsError, StoreError) as exc:
            log.warning("feedback not stored: %s", exc)
            raise unavailable("feedback_unavailable", "Feedback cannot be stored now.") from exc
        finally:
            self._open[org] -= 1
            if not self._open[org]:
                del self._open[org]

    async def _give(self, principal: Principal, given: FeedbackInput) -> FeedbackAnswer:
        decision = await self._lookup.find(principal.org, given.decision_id, given.request_id)
        if decision is None:
            raise UnknownDecision
        reason = self._unusable(decision)
        # A comment is text about the conversation: it is kept only where that may be kept. What the
        # router's model saw in it is not in the decision, only whether it was kept.
        may = reason not in ("capture_off", "labels")
        with_text = decision.p_local_ok is not None
        row = Given(
            decision_id=decision.decision_id,
            key_id=principal.key_id,
            org=principal.org,
            ts=self._clock(),
            outcome=given.outcome,
            comment=given.comment if may else "",
            with_text=with_text,
            learn=reason is None,
        )
        if reason is None:
            await self._settle(decision)
        replaced, side = await self._database.write(repository.give, row, self._settings.max_rows)
        label = _label(side)
        if reason is None and label is None:
            reason = await self._missing(decision) if side is None else "other_tier"
        usable = reason is None
        word = {1.0: "good", 0.0: "bad"}.get(given.outcome, "graded")
        self._count(word, "yes" if usable else "no")
        return FeedbackAnswer(
            decision_id=decision.decision_id,
            request_id=decision.request_id,
            outcome=given.outcome,
            replaced=replaced,
            usable=usable,
            reason=reason,
            label=label if usable else None,
            comment_kept=may and not (with_text and side is None),
        )

    def _unusable(self, decision: DecisionRecord) -> Reason | None:
        """What the decision itself says; None when its conversation should be there."""
        if not self._settings.capture or not self._consent.org(decision.org):
            return "capture_off"
        if not self._consent.labels(decision.labels):
            return "labels"
        if decision.refusal:
            return "refused"
        if decision.reason == "cache":
            return "cached"
        if decision.p_local_ok is None or decision.p_frontier_ok is None:
            return "unscored"
        return None

    async def _missing(self, decision: DecisionRecord) -> Reason:
        """Why a conversation that might have been kept is not there."""
        known = await self._database.read(
            repository.why_uncaptured, decision.org, decision.decision_id
        )
        return known or "not_captured"

    async def _settle(self, decision: DecisionRecord) -> None:
        """Wait for the conversation of a decision that was made just now, by any worker. Should it
        come later still, its label is made when it comes."""
        await self._flush()
        for wait in (0.0, *_WAITS):
            if self._clock() - decision.ts > _FRESH_SECONDS:
                return
            await asyncio.sleep(wait)
            found = await self._database.read(
                repository.find_capture, decision.org, decision.decision_id
            )
            if found is not None or await self._missing(decision) != "not_captured":
                return


def _label(side: Side | None) -> Literal["local_ok", "frontier_ok"] | None:
    if side == "weak":
        return "local_ok"
    return "frontier_ok" if side == "strong" else None
