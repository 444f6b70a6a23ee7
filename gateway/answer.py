"""What goes back to the client besides the upstream's own bytes: headers and the last events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from backends.base import Usage
from gateway.cache import CachedAnswer
from gateway.errors import stream_error_event
from gateway.exchange import Attempt, Exchange
from gateway.ledger import Entered
from routers.types import NANO_USD_PER_USD

if TYPE_CHECKING:
    from gateway.attempts import Opened

Headers = list[tuple[bytes, bytes]]

DONE = b"data: [DONE]\n\n"
JSON_TYPE = (b"content-type", b"application/json")
SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

MAX_DROPPED = 32
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")

stream_error = stream_error_event


def base_headers(ex: Exchange) -> Headers:
    headers = [
        (b"x-request-id", ex.inbound.request_id.encode()),
        (b"x-tollhouse-decision-id", ex.decision_id.encode()),
    ]
    if ex.labels:
        headers.append((b"x-tollhouse-residency", ",".join(sorted(ex.labels)).encode()))
    return headers


def refusal_headers(ex: Exchange) -> Headers:
    """What a refused or failed request may know of itself, besides its id; of one that failed
    upstream the same as of an answer, for the last attempt."""
    if ex.attempts:
        return headers(ex, ex.attempts[-1], (), started=ex.started)[1:]
    found = base_headers(ex)[1:]
    found.append((b"x-tollhouse-attempts", str(len(ex.attempts)).encode()))
    return found + rate_headers(ex.entered)


def headers(ex: Exchange, attempt: Attempt, dropped: tuple[str, ...], *, started: float) -> Headers:
    """Headers of an answer from an upstream. The cost is there once it is known: before the
    body of a whole answer, but not before a stream."""
    candidate = attempt.candidate
    found = base_headers(ex)
    found += [
        (b"x-tollhouse-backend", candidate.backend.encode()),
        (b"x-tollhouse-model", candidate.model.encode()),
        (b"x-tollhouse-tier", candidate.tier.encode()),
        (b"x-tollhouse-reason", ex.decision.reason.encode() if ex.decision else b""),
        (b"x-tollhouse-cache", ex.cache.encode()),
        (b"x-tollhouse-attempts", str(len(ex.attempts)).encode()),
        (b"x-tollhouse-overhead-ms", b"%.2f" % ((perf_counter() - started - ex.waited) * 1000)),
    ]
    if ex.score is not None:
        found.append((b"x-tollhouse-score", score_text(ex).encode()))
    if not ex.inbound.stream:
        found.append((b"x-tollhouse-cost-usd", usd(ex.spent)))
    if dropped:
        found.append((b"x-tollhouse-dropped-params", dropped_names(dropped)))
    if ex.entered is not None:
        found += rate_headers(ex.entered)
    return found


def dropped_names(names: tuple[str, ...]) -> bytes:
    """The names of fields as one header value. They are the client's own text: at most 32 of those
    that are plain and short, then `...` when there are more."""
    shown = list(islice((name for name in names if _FIELD_NAME.fullmatch(name)), MAX_DROPPED))
    if len(shown) < len(names):
        shown.append("...")
    return ",".join(shown).encode()


def score_text(ex: Exchange) -> str:
    score = ex.score
    if score is None or score.gain is None:
        return score.unclassified or "unclassified" if score else ""
    return f"{score.gain:.3f}"


def usd(nano: int) -> bytes:
    return (b"%.9f" % (nano / NANO_USD_PER_USD)).rstrip(b"0").rstrip(b".") or b"0"


def rate_headers(entered: Entered | None) -> Headers:
    found: Headers = []
    if entered is None:
        return found
    for name, rate in ((b"requests", entered.requests), (b"tokens", entered.tokens)):
        if rate is not None:
            found += [
                (b"x-ratelimit-limit-" + name, str(rate.limit).encode()),
                (b"x-ratelimit-remaining-" + name, str(rate.remaining).encode()),
                (b"x-ratelimit-reset-" + name, b"%.3fs" % rate.reset),
            ]
    return found


def cached_headers(ex: Exchange, hit: CachedAnswer) -> Headers:
    found = base_headers(ex)
    found += [
        (b"x-tollhouse-backend", hit.backend.encode()),
        (b"x-tollhouse-model", hit.model.encode()),
        (b"x-tollhouse-tier", hit.tier.encode()),
        (b"x-tollhouse-reason", b"cache"),
        (b"x-tollhouse-cache", b"hit"),
        (b"x-tollhouse-attempts", b"0"),
        (b"x-tollhouse-cost-usd", b"0"),
        (b"x-tollhouse-overhead-ms", b"%.2f" % ((perf_counter() - ex.started - ex.waited) * 1000)),
    ]
    return found + rate_headers(ex.entered)


def replayed_events(hit: CachedAnswer, include_usage: bool) -> Iterator[bytes]:
    """The stored events as they were sent, less the usage event when it was not asked for."""
    for index, data in enumerate(hit.events):
        if include_usage or index not in hit.usage_only:
            yield b"data: " + data + b"\n\n"


def missing_usage(ex: Exchange, opened: Opened) -> bytes:
    """The usage event of a stream whose upstream sent none, once it has come to its end; nothing
    where there is none to be made."""
    usage = opened.attempt.usage
    if not ex.inbound.stream or opened.usage_sent or usage is None:
        return b""
    return _usage_event(ex, opened.attempt, usage)


_STREAMS = {
    "chat": ("chatcmpl", "chat.completion.chunk"),
    "completions": ("cmpl", "text_completion"),
}


def _usage_event(ex: Exchange, attempt: Attempt, usage: Usage) -> bytes:
    prefix, form = _STREAMS[ex.inbound.operation]
    return msgspec.json.encode(
        {
            "id": f"{prefix}-{ex.inbound.request_id}",
            "object": form,
            "created": int(ex.wall),
            "model": attempt.model or attempt.candidate.model,
            "choices": [],
            "usage": {
                "prompt_tokens": usage.prompt,
                "completion_tokens": usage.completion,
                "total_tokens": usage.prompt + usage.completion,
            },
        }
    )
