"""What may be cached, under which key, and single-flight."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Usage
from gateway.cache import (
    CacheControl,
    CachedAnswer,
    Flights,
    Partition,
    cache_key,
    cacheable,
    decode_answer,
    encode_answer,
    parse_cache_control,
)

PARTITION = Partition("acme", ("eu", "phi"), "default", 3, "chat", "auto")
BODY = {
    "model": "auto",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "temperature": 0,
}
ANSWER = CachedAnswer(
    "local", "tiny", "local", True, [b'{"a":1}', b'{"usage":{}}'], Usage(3, 4), "stop", 1000.0, [1]
)

leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(["messages", "model", "tools", "seed", "n", "stream", "temperature", "x"])
bodies = st.dictionaries(names, values, max_size=5)
labels = st.lists(st.sampled_from(["eu", "de", "phi"]), unique=True).map(sorted).map(tuple)
partitions = st.builds(
    Partition,
    org=st.sampled_from(["acme", "umbrella", "acme,"]),
    labels=labels,
    policy=st.sampled_from(["default", "strict"]),
    policy_version=st.integers(1, 3),
    operation=st.sampled_from(["chat", "completions"]),
    target=st.sampled_from(["auto", "local/tiny"]),
    extra=st.sampled_from(["", "key:a", "key:b"]),
)


def same(one: object, two: object) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values, and 0.0 and -0.0 are two."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and repr(one) == repr(two)


@given(partitions, bodies, partitions, bodies)
def test_keys_are_equal_exactly_where_everything_is(p1, b1, p2, b2):
    equal = p1 == p2 and same(b1, b2)
    assert (cache_key(p1, b1) == cache_key(p2, b2)) == equal


@given(bodies, names, values)
def test_changing_one_field_changes_the_key(body, name, value):
    changed = {**body, name: value}
    assert (cache_key(PARTITION, body) == cache_key(PARTITION, changed)) == same(body, changed)


@given(bodies)
def test_the_order_of_keys_does_not_count(body):
    assert cache_key(PARTITION, body) == cache_key(PARTITION, dict(reversed(body.items())))


@pytest.mark.parametrize(
    "field", ["user", "metadata", "stream_options", "store", "safety_identifier", "service_tier"]
)
def test_who_asks_does_not_count(field: str):
    assert cache_key(PARTITION, BODY) == cache_key(PARTITION, {**BODY, field: {"x": "y"}})


@pytest.mark.parametrize(
    "change",
    [
        {"stream": True},
        {"temperature": 0.1},
        {"tools": []},
        {"seed": 1},
        {"n": 2},
        {"an_unknown_field": None},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": list(reversed(BODY["messages"]))},
    ],
)
def test_what_may_change_the_answer_counts(change: dict[str, object]):
    assert cache_key(PARTITION, BODY) != cache_key(PARTITION, {**BODY, **change})


def test_labels_must_come_sorted():
    with pytest.raises(ValueError, match="sorted"):
        cache_key(Partition("acme", ("phi", "eu"), "p", 1, "chat", "auto"), BODY)


@pytest.mark.parametrize(
    ("status", "finishes", "truncated", "expected"),
    [
        (200, ("stop",), False, True),
        (200, ("tool_calls", "stop"), False, True),
        (200, ("function_call",), False, True),
        (200, ("length",), False, False),
        (200, ("stop", "content_filter"), False, False),
        (200, ("stop", None), False, False),
        (200, (), False, False),
        (200, ("stop",), True, False),
        (206, ("stop",), False, False),
        (500, ("stop",), False, False),
    ],
)
def test_only_whole_good_answers_are_kept(status, finishes, truncated, expected):
    assert cacheable(status, finishes, truncated=truncated) is expected


def test_an_answer_survives_storing():
    packed = encode_answer(ANSWER)
    assert packed is not None
    assert decode_answer(packed) == ANSWER
    assert decode_answer(packed[:-1]) is None
    assert decode_answer(b"\x01") is None


def test_a_large_answer_is_not_stored():
    assert encode_answer(ANSWER, limit=20) is None
    assert encode_answer(ANSWER, limit=10) is None


@pytest.mark.parametrize(
    ("header", "read", "write", "max_age"),
    [
        (None, True, True, None),
        ("", True, True, None),
        ("no-cache", False, True, None),
        ("No-Store", False, False, None),
        ("private", False, False, None),
        ("max-age=60", True, True, 60),
        ('no-cache , max-age="5"', False, True, 5),
        ("max-age=60, max-age=7", True, True, 7),
        ("max-age=-1", True, True, 0),
        ("max-age=many", True, True, 0),
        ("max-age", True, True, 0),
        ("s-maxage=3, immutable", True, True, None),
    ],
)
def test_cache_control(header, read, write, max_age):
    assert parse_cache_control(header) == CacheControl(read, write, max_age)


def test_max_age_bounds_serving_and_keeping():
    control = CacheControl(max_age=60)
    assert control.serves(ANSWER, 1060.0)
    assert not control.serves(ANSWER, 1060.1)
    assert control.ttl(3600) == 60
    assert CacheControl().ttl(3600) == 3600
    assert CacheControl(write=False).ttl(3600) == 0
    assert CacheControl().serves(ANSWER, 1e9)
    assert not CacheControl(read=False).serves(ANSWER, 1000.0)


async def test_followers_get_the_leaders_answer():
    flights = Flights()
    flight = flights.lead("k")
    assert flight is not None
    assert flights.lead("k") is None
    assert flights.lead("other") is not None
    followers = [asyncio.create_task(flights.follow("k", 30)) for _ in range(3)]
    await asyncio.sleep(0)
    with flight:
        flight.land(b"answer")
    assert await asyncio.gather(*followers) == [b"answer"] * 3
    assert len(flights) == 1
    assert flights.lead("k") is not None


async def test_a_failing_leader_sends_followers_on_their_way():
    flights = Flights()

    async def lead() -> None:
        flight = flights.lead("k")
        assert flight is not None
        with flight:
            await asyncio.sleep(0.01)
            raise RuntimeError("upstream")

    leader = asyncio.create_task(lead())
    await asyncio.sleep(0)
    assert await flights.follow("k", 30) is None
    with pytest.raises(RuntimeError):
        await leader
    assert len(flights) == 0


async def test_a_cancelled_or_impatient_follower_disturbs_nobody():
    flights = Flights()
    flight = flights.lead("k")
    assert flight is not None
    leaving, staying = (asyncio.create_task(flights.follow("k", 30)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await flights.follow("k", 0.001) is None
    flight.land(b"answer")
    assert await staying == b"answer"
    assert leaving.cancelled()
    assert await flights.follow("k", 1) is None
