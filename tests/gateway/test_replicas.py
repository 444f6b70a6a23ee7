"""Replicas share a store. What is scraped from one is that one's alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import httpx

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
