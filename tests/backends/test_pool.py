from __future__ import annotations

import logging
from collections import Counter
from random import Random

import msgspec
import pytest

from backends.base import Call, Event, Timeouts
from backends.errors import (
    BackendError,
    ConnectFailed,
    InvalidUpstreamRequest,
    Overloaded,
    RateLimited,
    StreamTruncated,
    Untranslatable,
)
from backends.pool import Pool, PoolSettings
from backends.rests import LONGEST_S, REFUSALS, UNSAID_S

CALL = Call("chat", "m", {}, True, Timeouts())


class FakeReply:
    model, usage, dropped, service_tier = "m", None, (), ""

    def __init__(self, backend: Fake) -> None:
        self.backend = backend
        self.closed = False

    async def events(self):
        self.backend.now[0] += self.backend.latency
        yield Event(b"{}", semantic=True)
        if self.backend.break_with is not None:
            raise self.backend.break_with
        yield Event(b"{}", semantic=True, finish="stop")

    async def aclose(self) -> None:
        self.closed = True


class Fake:
    def __init__(self, now, latency=0.1) -> None:
        self.now, self.latency = now, latency
        self.asked = 0
        self.error: BackendError | None = None
        self.break_with: BackendError | None = None
        self.closed = False

    name = "fake"

    async def open(self, call: Call) -> FakeReply:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return FakeReply(self)

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def now() -> list[float]:
    return [0.0]


def pool(now, **replicas) -> Pool:
    return Pool(PoolSettings("p"), replicas, lambda: now[0], Random(7))


async def use(target: Pool) -> str:
    try:
        reply = await target.open(CALL)
        try:
            return str(len([event async for event in reply.events()]))
        finally:
            await reply.aclose()
    except BackendError as exc:
        return exc.kind + (f":{exc.code}" if exc.code else "")


async def test_slow_replicas_get_less(now) -> None:
    fast, slow = Fake(now, 0.01), Fake(now, 1.0)
    target = pool(now, fast=fast, slow=slow)
    assert Counter([await use(target) for _ in range(100)]) == {"2": 100}
    assert slow.asked < 5 < fast.asked
    assert [state.in_flight for state in target.snapshot()] == [0, 0]


async def test_busy_replicas_get_less(now) -> None:
    target = pool(now, a=Fake(now), b=Fake(now), c=Fake(now))
    held = [await target.open(CALL) for _ in range(30)]
    assert all(8 <= state.in_flight <= 12 for state in target.snapshot())
    for reply in held:
        await reply.aclose()
        await reply.aclose()
    assert [state.in_flight for state in target.snapshot()] == [0, 0, 0]


async def test_an_ill_replica_is_left_alone_and_probed_once(now) -> None:
    ill, well = Fake(now), Fake(now)
    target = pool(now, ill=ill, well=well)
    ill.error = ConnectFailed("x")
    answers = Counter([await use(target) for _ in range(30)])
    assert answers["connect_failed"] == ill.asked == 5
    assert target.healthy
    assert {state.replica: state.breaker for state in target.snapshot()} == {
        "ill": "open",
        "well": "closed",
    }
    now[0] += 5
    ill.error = None
    assert await use(target) == "2"
    assert ill.asked == 6
    assert {state.breaker for state in target.snapshot()} == {"closed"}


async def test_with_all_breakers_open_nobody_is_asked(now) -> None:
    one = Fake(now)
    one.error = ConnectFailed("x")
    target = pool(now, one=one)
    for _ in range(5):
        await use(target)
    assert not target.healthy
    assert await use(target) == "upstream_overloaded:breaker_open"
    assert one.asked == 5
    now[0] += 5
    probe = await _hold(target, one)
    with pytest.raises(Overloaded):
        await target.open(CALL)
    await probe.aclose()
    assert target.healthy


async def _hold(target: Pool, fake: Fake):
    fake.error = None
    return await target.open(CALL)


async def test_the_requests_own_fault_says_nothing_of_health(now) -> None:
    one = Fake(now)
    one.error = InvalidUpstreamRequest("x")
    target = pool(now, one=one)
    assert {await use(target) for _ in range(20)} == {"invalid_request"}
    assert target.healthy


async def test_a_call_that_was_never_sent_is_no_probe(now) -> None:
    one = Fake(now)
    target = pool(now, one=one)
    one.error = ConnectFailed("x")
    for _ in range(5):
        await use(target)
    now[0] += 5
    one.error = Untranslatable("x")
    assert await use(target) == "unsupported_parameter"
    assert [state.breaker for state in target.snapshot()] == ["half_open"]
    one.error = None
    assert await use(target) == "2"
    assert [state.breaker for state in target.snapshot()] == ["closed"]


def of(model: str) -> Call:
    return msgspec.structs.replace(CALL, model=model)


async def ask(target: Pool, model: str) -> str:
    try:
        reply = await target.open(of(model))
    except RateLimited as exc:
        return f"{exc.code}:{exc.sends}:{exc.retry_after:g}"
    async for _ in reply.events():
        pass
    return "ok"


async def test_a_rate_limit_keeps_its_model_from_being_asked_and_is_no_ill_health(now) -> None:
    one = Fake(now, 0.0)
    target = pool(now, one=one)
    one.error = RateLimited("x", retry_after=20.0)
    with pytest.raises(RateLimited):
        await target.open(of("a"))
    one.error = None
    assert await ask(target, "a") == "rate_limit_in_force:0:20"
    assert await ask(target, "b") == "ok"
    assert one.asked == 2
    (state,) = target.snapshot()
    assert (target.healthy, state.breaker, state.rests) == (True, "closed", {"a": 20.0})
    now[0] += 20.0
    assert await ask(target, "a") == "ok"
    assert target.snapshot()[0].rests == {}


async def test_rate_limits_never_open_the_breaker(now) -> None:
    one = Fake(now, 0.0)
    target = pool(now, one=one)
    one.error = RateLimited("x")
    for _ in range(REFUSALS):
        with pytest.raises(RateLimited):
            await target.open(of("a"))
    assert await ask(target, "a") == f"rate_limit_in_force:0:{UNSAID_S:g}"
    one.error = None
    assert (target.healthy, await ask(target, "b")) == (True, "ok")
    now[0] += UNSAID_S
    assert await ask(target, "a") == "ok"


async def test_refusals_that_may_be_for_their_size_stop_nobody(now) -> None:
    one = Fake(now, 0.0)
    target = pool(now, one=one)
    for _ in range(5 * REFUSALS):
        one.error = RateLimited("x")
        with pytest.raises(RateLimited) as caught:
            await target.open(of("a"))
        assert caught.value.sends == 1
        one.error = None
        assert await ask(target, "a") == "ok"


async def test_no_rate_limit_lasts_longer_than_a_while(now) -> None:
    one = Fake(now, 0.0)
    target = pool(now, one=one)
    one.error = RateLimited("x", retry_after=86_400.0)
    with pytest.raises(RateLimited):
        await target.open(of("a"))
    one.error = None
    now[0] += LONGEST_S
    assert await ask(target, "a") == "ok"


async def test_another_replica_is_asked_while_one_rests(now) -> None:
    full, free = Fake(now), Fake(now)
    target = pool(now, full=full, free=free)
    full.error = RateLimited("x", retry_after=30.0)
    answers = Counter([await use(target) for _ in range(20)])
    assert answers == {"upstream_rate_limited": 1, "2": 19}
    assert full.asked == 1


async def test_a_probe_that_meets_a_rate_limit_has_found_an_answer(now) -> None:
    one = Fake(now, 0.0)
    target = pool(now, one=one)
    one.error = ConnectFailed("x")
    for _ in range(5):
        await use(target)
    now[0] += 5
    one.error = RateLimited("x", retry_after=1.0)
    assert await use(target) == "upstream_rate_limited"
    assert [state.breaker for state in target.snapshot()] == ["closed"]


async def test_a_broken_stream_is_a_failure_and_a_client_that_left_is_not(now) -> None:
    one = Fake(now)
    target = pool(now, one=one)
    for _ in range(10):
        reply = await target.open(CALL)
        async for _ in reply.events():
            break
        await reply.aclose()
    assert target.healthy
    one.break_with = StreamTruncated("x")
    for _ in range(5):
        await use(target)
    assert not target.healthy
    await target.aclose()
    assert one.closed


async def test_a_recovery_is_told_once(now, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tollhouse")
    replica = Fake(now)
    target = pool(now, only=replica)
    assert await use(target) == "2"
    for _ in range(2):
        replica.error = ConnectFailed("refused")
        for _ in range(5):
            await use(target)
        now[0] += 5
        replica.error = None
        assert [await use(target) for _ in range(3)] == ["2"] * 3
    told = [record.getMessage() for record in caplog.records]
    assert [line for line in told if "answers again" in line] == [
        "backend p at only answers again",
        "backend p at only answers again",
    ]
    assert sum("it is not asked for" in line for line in told) == 2
