"""The key of an answer: everything that may change it, inside the request's partition."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

# Fields that name the caller or ask about delivery and never reach the model's input. Every other
# field counts, known or not. `stream_options` decides only which events the gateway passes on.
_VOLATILE = frozenset(
    {"metadata", "safety_identifier", "store", "stream_options", "user", "service_tier"}
)
_encode = msgspec.json.Encoder(order="deterministic").encode


class Partition(msgspec.Struct, frozen=True, array_like=True):
    """Answers are shared only where all of this is equal. `labels` sorted. `target`: the alias or
    `backend/model` that the request resolved to. `extra`: anything else that sets requests apart,
    such as the key, where answers must not be shared within an org."""

    org: str
    labels: tuple[str, ...]
    policy: str
    policy_version: int
    operation: str
    target: str
    extra: str = ""


def cache_key(partition: Partition, body: Mapping[str, Any]) -> str:
    """32 hex digits. Bodies that differ only in the order of their keys share one; order within
    lists counts. JSON is the canonical form: 1, 1.0, true and "1" all differ."""
    if partition.labels != tuple(sorted(partition.labels)):
        raise ValueError("labels of a partition must be sorted")
    kept = {name: value for name, value in body.items() if name not in _VOLATILE}
    return blake2b(_encode((partition, kept)), digest_size=16).hexdigest()
