from __future__ import annotations

from gateway.auth.cache import Entry, KeyCache
from gateway.auth.principal import KeyInfo, KeySpec, Principal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def entry(key_id: str) -> Entry:
    return Entry(b"", KeyInfo(key_id, KeySpec(), "database"), Principal(key_id))


def test_the_least_recently_used_key_goes_first() -> None:
    cache = KeyCache(2, 2, 1.0, Clock())
    cache.put(entry("a"))
    cache.put(entry("b"))
    assert cache.get("a") is not None
    cache.put(entry("c"))
    assert [e.info.id for e in cache.entries()] == ["a", "c"]
    assert cache.get("b") is None


def test_unknown_ids_are_forgotten_in_time_and_bounded() -> None:
    clock = Clock()
    cache = KeyCache(2, 2, 5.0, clock)
    for key_id in "abc":
        cache.put_unknown(key_id)
    assert [cache.is_unknown(key_id) for key_id in "abc"] == [False, True, True]
    cache.drop("c")
    assert not cache.is_unknown("c")
    clock.now = 5.0
    assert not cache.is_unknown("b")


def test_a_key_that_was_made_is_not_unknown_any_more() -> None:
    cache = KeyCache(2, 2, 5.0, Clock())
    cache.put_unknown("a")
    cache.put(entry("a"))
    assert not cache.is_unknown("a")
