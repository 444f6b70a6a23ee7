"""The cap on the share of one key, to the request."""

from __future__ import annotations

import math

import pytest

from routers.steering.keys import BURST, KeyCaps


def asks(caps: KeyCaps, key: str, count: int, wants: bool = True) -> int:
    """How many of so many requests go strong."""
    strong = 0
    for _ in range(count):
        won = wants and not caps.full(key)
        caps.count(key, won)
        strong += won
    return strong


@pytest.mark.parametrize("share", [0.0, 0.125, 0.5, 0.75])
@pytest.mark.parametrize("count", [1, 20, 21, 100, 1000])
def test_who_always_wants_gets_the_burst_and_the_share(share: float, count: int) -> None:
    assert asks(KeyCaps(share), "a", count) == min(count, math.floor(BURST + share * count))


def test_what_was_not_used_is_kept_up_to_the_burst() -> None:
    caps = KeyCaps(0.5)
    asks(caps, "a", 100)
    asks(caps, "a", 10, wants=False)
    assert asks(caps, "a", 5) == 5
    asks(caps, "a", 1000, wants=False)
    assert asks(caps, "a", 100) == BURST + 50


def test_a_share_of_all_caps_nothing_and_remembers_nobody() -> None:
    caps = KeyCaps(1.0)
    assert asks(caps, "a", 100) == 100
    assert len(caps) == 0


def test_the_key_that_was_quiet_longest_is_forgotten() -> None:
    caps = KeyCaps(0.0, limit=2)
    for key in "aba":
        asks(caps, key, 20)
    asks(caps, "c", 1)
    assert (len(caps), caps.full("a"), caps.full("b")) == (2, True, False)
