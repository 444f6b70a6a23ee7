"""What an answer says of itself by header."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from backends.base import Usage
from gateway.answer import dropped_names, rate_headers, replayed_events, score_text, usd
from gateway.cache import CachedAnswer
from gateway.ledger import Entered
from gateway.ledger.types import Rate
from routers.types import Score


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, b"0"),
        (1, b"0.000000001"),
        (450_000, b"0.00045"),
        (10_000_000_000, b"10"),
        (120_500_000_000, b"120.5"),
        (2**53 - 1, b"9007199.254740991"),
    ],
)
def test_money_is_exact_and_short(nano: int, text: bytes) -> None:
    assert usd(nano) == text


def test_limits_are_told_as_the_sdks_read_them() -> None:
    entered = Entered("ok", 0.0, requests=Rate(60, 59, 1.0), tokens=Rate(1000, 7, 59.58))
    ex: Any = SimpleNamespace(entered=entered)
    assert dict(rate_headers(ex.entered)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1.000s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"7",
        b"x-ratelimit-reset-tokens": b"59.580s",
    }
    ex.entered = Entered("ok", 0.0, tokens=Rate(1, 0, 0.0))
    assert [name for name, _ in rate_headers(ex.entered)] == [
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    ]
    ex.entered = None
    assert rate_headers(ex.entered) == []


def test_a_score_is_a_gain_or_the_reason_why_there_is_none() -> None:
    def told(score: Score | None) -> str:
        ex: Any = SimpleNamespace(score=score)
        return score_text(ex)

    assert told(Score(p_local_ok=0.9, p_frontier_ok=0.8594)) == "-0.041"
    assert told(Score(unclassified="deadline")) == "deadline"
    assert told(None) == ""


def test_names_that_are_told_are_plain_and_few() -> None:
    assert dropped_names(("seed", "a.b[0]-c")) == b"seed,a.b[0]-c"
    assert dropped_names(("seed", "x y", "\r\nset-cookie: a=b", "", "n" * 65)) == b"seed,..."
    assert dropped_names(("n" * 64,)) == b"n" * 64
    names = tuple(f"f{number}" for number in range(33))
    assert dropped_names(names[:32]) == ",".join(names[:32]).encode()
    assert dropped_names(names) == (",".join(names[:32]) + ",...").encode()


def test_a_stored_stream_is_told_with_its_usage_to_who_asks_for_it() -> None:
    events = [b"1", b"2", b"3"]
    hit = CachedAnswer("b", "m", "local", True, events, Usage(), "stop", 0.0, usage_only=[1])
    assert list(replayed_events(hit, True)) == [b"data: %b\n\n" % data for data in events]
    assert list(replayed_events(hit, False)) == [b"data: 1\n\n", b"data: 3\n\n"]
