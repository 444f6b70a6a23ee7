"""One line per upstream attempt, one line per request. Neither holds any text of a prompt."""

from __future__ import annotations

import msgspec


class UsageRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="usage"):
    """One upstream attempt, or an answer from the cache. `attempt_id` is unique and makes filing
    idempotent. `ts`: seconds since the epoch by the store's clock (`Entered.at`): it decides which
    budget window the cost belongs to. `cost_nano`: nano-USD; negative only in a `corrected` record,
    which takes back a `lease_expired` one. `estimated`: tokens or cost were not reported by the
    upstream. `ms_first`: to the first content. `service_tier`: the upstream's, empty for the usual
    one. `unpriced`: what of the call has no known price (`service_tier`, `audio`, `web_search`,
    separated by commas), so that it may have cost more than `cost_nano`."""

    attempt_id: str
    request_id: str
    ts: float
    org: str
    decision_id: str = ""
    team: str = ""
    user: str = ""
    key_id: str = ""
    tags: tuple[str, ...] = ()
    policy: str = ""
    policy_version: int = 0
    backend: str = ""
    model: str = ""
    provider: str = ""
    tier: str = ""
    operation: str = "chat"
    attempt: int = 1
    outcome: str = "ok"
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost_nano: int = 0
    stream: bool = False
    ms_total: float = 0.0
    ms_first: float | None = None
    cache: str = ""
    service_tier: str = ""
    unpriced: str = ""


class RejectedCandidate(msgspec.Struct, frozen=True, array_like=True):
    candidate: str
    filter: str
    reason: str


class DecisionRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="decision"):
    """One request's decision: where it may go and why, and every candidate left out.

    `p_local_ok`, `p_frontier_ok` and `threshold` as in the score; `unclassified` names why there is
    no score. `target`: the promise that the threshold follows, empty for a fixed one; `gain`: what
    was held against it. `refusal`: the code of the error that the client got, None for a request
    that was not refused (records of earlier versions may hold the filter that left nobody, such as
    `capability`). `audit`: filed before the first upstream byte."""

    decision_id: str
    request_id: str
    ts: float
    org: str
    team: str = ""
    key_id: str = ""
    labels: tuple[str, ...] = ()
    policy: str = ""
    version: int = 0
    operation: str = "chat"
    requested_model: str = ""
    plan: tuple[str, ...] = ()
    rejected: tuple[RejectedCandidate, ...] = ()
    reason: str = ""
    refusal: str | None = None
    p_local_ok: float | None = None
    p_frontier_ok: float | None = None
    confidence: float | None = None
    domain: str | None = None
    language: str | None = None
    data_classes: tuple[str, ...] = ()
    router: str = ""
    unclassified: str | None = None
    threshold: float | None = None
    target: str = ""
    gain: float | None = None
    prompt_tokens: int = 0
    audit: bool = False


class FiledUsage(UsageRecord, frozen=True, tag_field="kind", tag="usage", omit_defaults=True):
    """A UsageRecord as it goes through the outbox: what is left at its default is left out."""


class FiledDecision(
    DecisionRecord, frozen=True, tag_field="kind", tag="decision", omit_defaults=True
):
    """A DecisionRecord as it goes through the outbox. It is filed, and chained, whole."""


Record = UsageRecord | DecisionRecord

encode_record = msgspec.json.Encoder().encode
