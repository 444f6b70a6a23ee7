"""The exact cache: what may be kept, under which key, and who waits for whom.

Answers are stored and read by the ledger's scripts, in the round trips that are made anyway.
"""

from __future__ import annotations

from gateway.cache.entry import (
    MAX_ENTRY_BYTES,
    CacheControl,
    CachedAnswer,
    cacheable,
    decode_answer,
    encode_answer,
    parse_cache_control,
)
from gateway.cache.flight import Flights
from gateway.cache.key import Partition, cache_key

__all__ = [
    "MAX_ENTRY_BYTES",
    "CacheControl",
    "CachedAnswer",
    "Flights",
    "Partition",
    "cache_key",
    "cacheable",
    "decode_answer",
    "encode_answer",
    "parse_cache_control",
]
