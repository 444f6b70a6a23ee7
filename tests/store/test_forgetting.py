"""Deleting the cached answers of an org, against a real server."""

from __future__ import annotations

import pytest

from gateway.ledger import Enter, Ledger, Settlement
from gateway.store import Store


class Cache:
    """Requests that keep an answer, or ask for one."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def ask(self, org: str, id: str, key: str) -> tuple[bytes | None, float]:
        request = Enter(org, id, (), 0, 60.0, cache_key=key)
        entered = await self.ledger.enter(request)
        return entered.cached, entered.at

    async def keep(self, org: str, id: str, key: str, at: float, value: bytes = b"text") -> None:
        kept = Settlement(org, id, (), 0, 0, (), key, value, 600, entered=at)
        await self.ledger.settle(kept)

    async def fill(self, org: str, count: int) -> None:
        for i in range(count):
            _, at = await self.ask(org, f"{org}-{i}", f"k{i}")
            await self.keep(org, f"{org}-{i}", f"k{i}", at)

    async def hit(self, org: str, id: str, key: str) -> bool:
        return (await self.ask(org, id, key))[0] is not None


@pytest.fixture
def cache(ledger: Ledger) -> Cache:
    return Cache(ledger)


async def test_the_answers_of_one_org_go(cache: Cache, store: Store, clock):
    # More than one step of a scan, among the keys of another org whose name begins alike.
    await cache.fill("acme", 1200)
    await cache.fill("acme2", 3)
    assert await cache.ledger.forget("acme") == 1200
    keys = await store.command("KEYS", "th:{acme*}:x:*")
    assert sorted(keys) == [b"th:{acme2}:x:k0", b"th:{acme2}:x:k1", b"th:{acme2}:x:k2"]
    assert await cache.ledger.forget("acme") == 0
    assert not await cache.hit("acme", "again", "k0")
    assert await cache.hit("acme2", "again", "k0")


async def test_the_answers_of_all_orgs_go_and_nothing_else(cache: Cache, store: Store, make):
    scope = make.scope("org:acme", 1000)
    await cache.ledger.provision("acme", scope)
    await cache.fill("acme", 3)
    await cache.fill("umbrella", 4)
    before = set(await store.command("KEYS", "*"))
    answers = {key for key in before if b":x:" in key}
    assert await cache.ledger.forget(None) == 7
    fences = {b"th:{acme}:f", b"th:{umbrella}:f"}
    assert set(await store.command("KEYS", "*")) == (before - answers) | fences
    assert await cache.ledger.balance("acme", scope) is not None


@pytest.mark.parametrize("org", ["acme", None])
async def test_an_answer_under_way_is_not_kept_afterwards(cache: Cache, clock, org: str | None):
    _, at = await cache.ask("acme", "early", "k")
    clock.now += 1
    await cache.ledger.forget(org)
    clock.now += 1
    await cache.keep("acme", "early", "k", at)
    found, later = await cache.ask("acme", "late", "k")
    assert found is None
    await cache.keep("acme", "late", "k", later)
    assert await cache.hit("acme", "last", "k")


async def test_a_request_that_never_entered_keeps_nothing_afterwards(cache: Cache):
    await cache.ledger.forget("acme")
    await cache.keep("acme", "unknown", "k", 0.0)
    assert not await cache.hit("acme", "next", "k")


async def test_another_orgs_answers_under_way_are_kept(cache: Cache, clock):
    _, at = await cache.ask("umbrella", "early", "k")
    await cache.ledger.forget("acme")
    await cache.keep("umbrella", "early", "k", at)
    assert await cache.hit("umbrella", "next", "k")


@pytest.mark.parametrize("org", ["*", "a*", "{x}", "", "a b", "x" * 129])
async def test_a_pattern_is_no_org(cache: Cache, org: str):
    await cache.fill("acme", 1)
    with pytest.raises(ValueError, match="not a usable org name"):
        await cache.ledger.forget(org)
    assert await cache.hit("acme", "next", "k0")
