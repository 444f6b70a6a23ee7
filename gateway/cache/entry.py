"""A stored answer, and the rules for what may be stored and served."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backends.base import Usage

MAX_ENTRY_BYTES = 1_000_000
_COMPLETE = frozenset({"stop", "tool_calls", "function_call"})


class CachedAnswer(msgspec.Struct, frozen=True):
    """An answer as it was sent. `events`: the JSON of each event in order; exactly one without
    `stream`. `usage_only`: which of them are only for clients that asked for usage, as indexes.
    `created`: seconds since the epoch."""

    backend: str
    model: str
    tier: str
    stream: bool
    events: list[bytes]
    usage: Usage
    finish: str
    created: float
    usage_only: list[int]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CachedAnswer).decode


def encode_answer(answer: CachedAnswer, limit: int = MAX_ENTRY_BYTES) -> bytes | None:
    """The bytes to store; None when they would be more than `limit`."""
    if sum(map(len, answer.events)) > limit:
        return None
    packed = _encode(answer)
    return packed if len(packed) <= limit else None


def decode_answer(packed: bytes) -> CachedAnswer | None:
    """None for bytes of another version: a miss, never an error."""
    try:
        return _decode(packed)
    except msgspec.MsgspecError:
        return None


def cacheable(status: int, finishes: Sequence[str | None], *, truncated: bool = False) -> bool:
    """Whether an answer may be stored: status 200, whole, and every choice (its finish reason in
    `finishes`) ended by itself. For embeddings, which end for no reason, pass ("stop",)."""
    return (
        status == 200
        and not truncated
        and bool(finishes)
        and all(finish in _COMPLETE for finish in finishes)
    )


class CacheControl(msgspec.Struct, frozen=True):
    """`read`: may an answer be served from the cache; `write`: may the new one be stored.
    `max_age`: seconds an answer may be old, or stay, None without a limit (RFC 9111 5.2)."""

    read: bool = True
    write: bool = True
    max_age: int | None = None

    def serves(self, answer: CachedAnswer, now: float) -> bool:
        """Whether this stored answer is fresh enough for the request."""
        return self.read and (self.max_age is None or now - answer.created <= self.max_age)

    def ttl(self, policy_ttl: int) -> int:
        """Seconds to keep the new answer; 0 means not at all."""
        if not self.write:
            return 0
        return policy_ttl if self.max_age is None else min(policy_ttl, self.max_age)


_ANY = CacheControl()


def parse_cache_control(header: str | None) -> CacheControl:
    """A `Cache-Control` header, of a request or a response. `no-cache` reads nothing but stores,
    `no-store` and `private` do neither. Unknown directives are ignored; a malformed `max-age`
    counts as 0, which is the careful reading."""
    if not header:
        return _ANY
    read = write = True
    max_age: int | None = None
    for directive in header.lower().split(","):
        name, _, value = directive.strip().partition("=")
        name = name.strip()
        if name == "no-cache":
            read = False
        elif name in ("no-store", "private"):
            read = write = False
        elif name == "max-age":
            digits = value.strip().strip('"')
            age = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
            max_age = age if max_age is None else min(max_age, age)
    return CacheControl(read, write, max_age)
