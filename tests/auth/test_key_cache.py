"""Keys in the memory of a worker: how many, which go first, and for how long none is unknown."""

from __future__ import annotations

from gateway.auth.cache import Entry, KeyCache
from gateway.auth.principal import KeyInfo, KeySpec, Principal


def entry(key_id: str, org: str = "acme") -> Entry:
    return Entry(b"hash", KeyInfo(key_id, KeySpec(org=org), "database"), Principal(key_id, org))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_key_that_was_not_used_longest_goes_first() -> None:
    cache = KeyCache(2, 2, 5.0, Clock())
    for key_id in "ab":
        cache.put(entry(key_id))
    assert cache.get("a") is not None
    cache.put(entry("c"))
    assert (len(cache), cache.get("b")) == (2, None)
    # So does one that was put anew.
    cache.put(entry("a", "other"))
    cache.put(entry("d"))
    found = cache.get("a")
    assert found is not None and found.principal.org == "other"
    assert cache.get("c") is None


def test_an_unknown_key_is_so_for_a_while_and_few_are_remembered() -> None:
    clock = Clock()
    cache = KeyCache(2, 2, 5.0, clock)
    cache.put_unknown("a")
    clock.now += 4.9
    assert cache.is_unknown("a")
    clock.now += 0.1
    assert not cache.is_unknown("a")
    for key_id in "bac":
        cache.put_unknown(key_id)
    assert [cache.is_unknown(key_id) for key_id in "bac"] == [False, True, True]


def test_a_key_that_is_found_or_changed_is_not_unknown_any_more() -> None:
    cache = KeyCache(4, 4, 5.0, Clock())
    for key_id in "abc":
        cache.put_unknown(key_id)
    cache.put(entry("a"))
    cache.drop("b")
    assert [cache.is_unknown(key_id) for key_id in "abc"] == [False, False, True]
    cache.drop("a")
    assert cache.get("a") is None
    cache.put(entry("d"))
    cache.forget_unknown()
    assert (len(cache), cache.is_unknown("c")) == (1, False)


def test_only_keys_that_are_still_there_are_renewed() -> None:
    cache = KeyCache(4, 4, 5.0, Clock())
    for key_id in "ab":
        cache.put(entry(key_id))
    read = {"a": None, "b": entry("b"), "c": entry("c")}
    cache.renew(read)
    assert [cache.get(key_id) for key_id in "abc"] == [None, read["b"], None]
