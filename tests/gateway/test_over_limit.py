"""A key over its limit is refused before its request is read: over the real server, and what a look
at the limits takes."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.auth import new_key
from gateway.ledger import Enter, Ledger, Limits, Scope, Settlement
from gateway.overlimit import OverLimit
from gateway.store import Store
from tests.faults.scene import Raw, chat
from tests.support import Gateway, Upstream, config_for

KEYS = """
requests_per_minute = 2

[[keys]]
key = "${FEW_TOKENS}"
tokens_per_minute = 3000
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Any:
    keys = {"main": new_key(), "few_tokens": new_key()}
    folder = tmp_path_factory.mktemp("limited")
    server = Gateway(folder, config_for(upstream.url, extra=KEYS), keys=keys)
    yield server
    server.stop()


def limit_headers(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith("x-ratelimit-limit")}


async def test_a_key_over_its_limit_is_refused_before_its_body_is_there(limited: Gateway) -> None:
    async with limited.async_client() as client:
        answers = [await client.post("/v1/chat/completions", json=chat(f"{i}")) for i in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    first, second = (answer.json()["error"] for answer in answers[2:])
    assert first == second
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in answers[2:])
    assert limit_headers(answers[2]) == limit_headers(answers[3]) != set()
    raw = await Raw.connect(limited)
    raw.writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: 5000000\r\n"
        f"authorization: Bearer {limited.keys['main']}\r\n\r\n".encode()
    )
    async with asyncio.timeout(20):
        assert await raw.head() == 429
    await raw.close()


async def test_a_smaller_request_still_finds_its_place(limited: Gateway) -> None:
    async with limited.async_client(limited.keys["few_tokens"]) as client:
        asked = [chat(text, max_tokens=most) for text, most in (("a", 2000), ("b", 2000), ("c", 9))]
        found = [await client.post("/v1/chat/completions", json=body) for body in asked]
    assert found[0].status_code == 200
    assert found[-1].status_code == 200


def enter(request_id: str, scope: Scope, tokens: int = 10) -> Enter:
    return Enter("acme", request_id, (scope,), tokens, 60.0)


@pytest.mark.parametrize(
    "limits", [Limits(requests_per_minute=2), Limits(tokens_per_minute=20), Limits(concurrency=2)]
)
async def test_a_look_says_what_entering_says_and_takes_nothing(
    store: Store, limits: Limits
) -> None:
    ledger = Ledger(store, lambda: 1_800_000_000.0)
    scope = Scope("key:abc", limits=limits)
    for number in range(2):
        for _ in range(5):
            assert (await ledger.peek("acme", (scope,))).outcome == "ok"
        assert (await ledger.enter(enter(f"r{number}", scope))).outcome == "ok"
    looked = await ledger.peek("acme", (scope,))
    entered = await ledger.enter(enter("r2", scope, 1))
    assert looked == entered
    assert looked.outcome == "limited"
    await ledger.settle(Settlement("acme", "r0", (scope,), 0, 0, ()))
    again = await ledger.peek("acme", (scope,))
    assert again.outcome == ("limited" if limits.requests_per_minute else "ok")


async def test_only_scopes_that_were_refused_lately_are_asked_about(store: Store) -> None:
    now = 100.0
    over = OverLimit(lambda: now)
    ledger = Ledger(store, lambda: 1_800_000_000.0)
    scope = Scope("team:red", limits=Limits(requests_per_minute=1))
    await ledger.enter(enter("r0", scope))
    over.note("acme", await ledger.enter(enter("r1", scope)))
    key = Scope("key:abc")
    assert over.has("acme", (key, scope))
    assert not over.has("acme", (key,))
    assert not over.has("other", (key, scope))
    now += 61
    assert not over.has("acme", (key, scope))


async def test_a_request_too_large_for_its_limit_says_nothing_of_the_next(store: Store) -> None:
    over = OverLimit(lambda: 0.0)
    ledger = Ledger(store, lambda: 1_800_000_000.0)
    scope = Scope("key:abc", limits=Limits(tokens_per_minute=5))
    over.note("acme", await ledger.enter(enter("r0", scope)))
    assert not over.has("acme", (scope,))
