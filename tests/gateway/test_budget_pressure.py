"""A budget that runs out raises the threshold, for as long as there is one."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from tests.support import Gateway, Upstream, config_for

POLICY = """
[policies.default]
threshold = -1.0
cache_ttl = 0
pressure = [{ left = 1.0, raise_by = 2.0 }]
"""
ASKED = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}


def tier(client: httpx.Client) -> str:
    return client.post("/v1/chat/completions", json=ASKED).headers["x-tollhouse-tier"]


def test_the_pressure_ends_with_the_budget(
    serve: Callable[..., Gateway], upstream: Upstream
) -> None:
    gateway = serve(config_for(upstream.url, extra=POLICY))
    with gateway.client() as client, gateway.admin() as admin:
        path = "/budgets/org:default"
        assert tier(client) == "frontier"
        admin.put(path, json={"budget_usd": 5.0, "window": "total"}).raise_for_status()
        tier(client)
        assert tier(client) == "local"
        admin.put(path, json={}).raise_for_status()
        assert tier(client) == "frontier"
        admin.put(path, json={"requests_per_minute": 1000}).raise_for_status()
        assert tier(client) == "frontier"
