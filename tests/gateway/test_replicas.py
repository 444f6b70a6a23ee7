"""Replicas share a store. What is scraped from one is that one's alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import httpx
import redis

from gateway.auth import new_key
from gateway.store import EmbeddedStore
from tests.support import PLAIN, Gateway, Upstream, config_for

SECONDS = 20.0


def workers(gateway: Gateway) -> set[str]:
    text = httpx.get(f"{gateway.url}/metrics", timeout=30, **PLAIN).text
    return set(re.findall(r'worker="([^"]+)"', text))


def both(gateway: Gateway) -> set[str]:
    """The names of its two workers, as soon as each has published."""
    deadline = time.monotonic() + SECONDS
    while len(found := workers(gateway)) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def lags(gateway: Gateway) -> list[float]:
    text = httpx.get(f"{gateway.url}/metrics", timeout=30, **PLAIN).text
    return [float(value) for value in re.findall(r"(?m)^tollhouse_outbox_lag\S* (\S+)$", text)]


def test_no_worker_goes_on_telling_of_records_that_were_filed(
    serve: Callable[..., Gateway], upstream: Upstream, valkey: EmbeddedStore
) -> None:
    config = config_for(upstream.url) + f'\n[store]\nurl = "{valkey.url}"\n'
    gateway = serve(config, workers=2)
    both(gateway)
    with redis.Redis.from_url(valkey.url) as store, gateway.client() as client:
        # Nobody files meanwhile. Each scrape has a connection of its own: both workers are asked.
        store.set("th:lock:drainer", "the test", px=600_000)
        body = {"model": "local/ok", "messages": [{"role": "user", "content": "hi"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert [max(lags(gateway)) for _ in range(40)][-1] > 0
        time.sleep(3.0)  # each has published what it last told
        store.delete("th:lock:drainer")
        deadline = time.monotonic() + SECONDS
        while store.xlen("th:{default}:o") and time.monotonic() < deadline:
            time.sleep(0.1)
    assert lags(gateway) == [0.0]
    reply = httpx.get(f"{gateway.url}/metrics", timeout=30, **PLAIN)
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_scrape_has_the_workers_of_one_replica(
    serve: Callable[..., Gateway], upstream: Upstream, valkey: EmbeddedStore
) -> None:
    config = config_for(upstream.url) + f'\n[store]\nurl = "{valkey.url}"\n'
    keys = {"main": new_key()}
    first, second = (serve(config, keys=keys, workers=2) for _ in range(2))
    here, there = both(first), both(second)
    # Long enough for each to have seen what the other published.
    time.sleep(3.0)
    assert (here, there) == (workers(first), workers(second))
    assert (len(here), len(there)) == (2, 2)
    assert not here & there
