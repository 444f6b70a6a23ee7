"""A client may only tighten: no policy it names and no header it repeats takes a label away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.admission import choices, output_limit
from gateway.inbound import read_controls
from tests.support import Gateway, Upstream, config_for

POLICIES = """
[policies.default]
mandatory_labels = ["house"]
detect = ["pii"]
cache_ttl = 60

[policies.default.labels.house]

[policies.default.labels.pii]
tiers = ["local"]
cache = false

[policies.research]
detect = []
route = "strong"

[policies.research.labels.house]

[policies.research.labels.pii]
"""
IBAN = "Pay to DE89 3704 0044 0532 0130 00 please."


@pytest.fixture
def gateway(serve: Callable[..., Gateway], upstream: Upstream) -> Gateway:
    return serve(config_for(upstream.url, extra=POLICIES))


def asked(text: str, model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def test_a_named_policy_does_not_undo_the_default(gateway: Gateway) -> None:
    with gateway.client() as client:
        free = client.post("/v1/chat/completions", json=asked("Hello", "auto:research"))
        held = client.post("/v1/chat/completions", json=asked(IBAN, "auto:research"))
        named = {"x-tollhouse-policy": "research"}
        refused = client.post(
            "/v1/chat/completions", json=asked(IBAN, "frontier/ok"), headers=named
        )
        again = client.post("/v1/chat/completions", json=asked(IBAN, "auto:research"))
    assert free.headers["x-tollhouse-tier"] == "frontier"
    assert free.headers["x-tollhouse-residency"] == "house"
    assert held.headers["x-tollhouse-tier"] == "local"
    assert held.headers["x-tollhouse-residency"] == "house,pii"
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "residency_not_available"
    assert "must be 'local'" in refused.json()["error"]["message"]
    # The default policy forbids caching under pii, so the other may not cache either.
    assert (held.headers["x-tollhouse-cache"], again.headers["x-tollhouse-cache"]) == ("off", "off")


def test_repeated_label_headers_are_one_list() -> None:
    lines = [(b"x-tollhouse-residency", b"phi"), (b"x-tollhouse-residency", b"eu")]
    assert read_controls(lines).labels == ("phi", "eu")
    stores = [(b"cache-control", b"no-store"), (b"x-tollhouse-cache", b"max-age=5")]
    found = read_controls(stores).cache
    assert (found.write, found.max_age) == (False, 5)


@pytest.mark.parametrize(
    ("body", "operation", "each", "count"),
    [
        ({"n": 8}, "chat", 0, 8),
        ({"max_tokens": 10, "best_of": 20, "n": 1}, "completions", 10, 20),
        ({"max_tokens": 10, "prompt": ["a", "b", "c"]}, "completions", 10, 3),
        ({"max_tokens": 10, "prompt": [1, 2, 3]}, "completions", 10, 1),
        ({"max_tokens": 8000, "max_completion_tokens": 1}, "chat", 8000, 1),
        ({"input": ["a", "b"]}, "embeddings", 0, 1),
    ],
)
def test_the_worst_case_counts_every_answer(
    body: dict[str, Any], operation: str, each: int, count: int
) -> None:
    assert output_limit(body, operation) == each
    assert choices(body, operation) == count
