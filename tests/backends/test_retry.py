from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends import errors
from backends.errors import (
    ConnectFailed,
    ContentFiltered,
    FatalError,
    FirstTokenTimeout,
    InvalidValue,
    Overloaded,
    RateLimited,
    RetryableError,
    StreamTruncated,
    Untranslatable,
    UpstreamFailed,
)
from backends.retry import (
    Fail,
    NextCandidate,
    Progress,
    Retry,
    RetryBudget,
    RetryPolicy,
    next_step,
)

ERRORS = [cls for name in errors.__all__ if not (cls := getattr(errors, name)).__subclasses__()]


def step(error, here=1, total=1, left=1, time_left=60.0, budget=None, random=0.5):
    progress = Progress(here, total, left, time_left)
    budget = budget or RetryBudget(lambda: 0.0)
    return next_step(error, progress, RetryPolicy(), budget, lambda: random)


def test_what_each_kind_of_error_leads_to() -> None:
    assert step(UpstreamFailed("x")) == Retry(0.05)
    assert step(UpstreamFailed("x"), here=2, total=2) == NextCandidate()
    assert step(UpstreamFailed("x"), here=2, total=2, left=0) == Retry(0.1)
    assert step(ConnectFailed("x"), here=3, total=3) == Fail("attempts")
    assert step(RateLimited("x", retry_after=2.0)) == Retry(2.05)
    assert step(RateLimited("x", retry_after=3.0), random=0.0) == Retry(3.0)
    assert step(RateLimited("x", retry_after=3.1)) == NextCandidate()
    assert step(RateLimited("x", retry_after=20.0)) == NextCandidate()
    assert step(RateLimited("x", retry_after=20.0), left=0) == Fail("candidates")
    assert step(FirstTokenTimeout("x")) == NextCandidate()
    assert step(StreamTruncated("x")) == NextCandidate()
    assert step(FirstTokenTimeout("x"), left=0) == Fail("candidates")
    assert step(ContentFiltered("x")) == Fail("fatal")
    assert step(InvalidValue("x")) == Fail("fatal")
    assert step(Untranslatable("x")) == NextCandidate()
    assert step(Untranslatable("x"), left=0) == Fail("candidates")
    assert step(Overloaded("x", code="breaker_open")) == NextCandidate()
    assert step(Overloaded("x", code="breaker_open"), left=0) == Fail("candidates")
    assert step(RateLimited("x", retry_after=2.0), time_left=1.0) == NextCandidate()
    assert step(RateLimited("x", retry_after=2.0), time_left=1.0, left=0) == Fail("deadline")
    # What begins at the deadline ends after it.
    late = RateLimited("x", retry_after=2.0)
    assert step(late, time_left=2.0, left=0, random=0.0) == Fail("deadline")
    assert step(FirstTokenTimeout("x"), time_left=0.0) == Fail("deadline")


def test_the_budget_stops_retries_but_not_failover() -> None:
    budget = RetryBudget(lambda: 0.0, floor=1)
    assert step(UpstreamFailed("x"), budget=budget) == Retry(0.05)
    assert step(UpstreamFailed("x"), budget=budget) == NextCandidate()
    assert step(UpstreamFailed("x"), budget=budget, left=0) == Fail("budget")


@given(st.lists(st.sampled_from(ERRORS), min_size=1), st.integers(0, 3), st.floats(0, 0.999))
def test_a_request_makes_three_attempts_at_most(kinds, left, random) -> None:
    here = total = 0
    for kind in kinds * 4:
        here, total = here + 1, total + 1
        verdict = step(kind("x"), here, total, left, random=random)
        if issubclass(kind, FatalError):
            assert verdict == Fail("fatal")
        if isinstance(verdict, Fail):
            break
        if isinstance(verdict, Retry):
            assert issubclass(kind, RetryableError)
            assert 0 <= verdict.delay <= 2.0
        else:
            assert left > 0
            left, here = left - 1, 0
    assert total <= 3


@given(
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(0, 3)), min_size=1, max_size=400),
    st.integers(1, 20),
)
def test_retries_stay_within_a_tenth_of_the_requests(load, floor) -> None:
    now = [0.0]
    budget = RetryBudget(lambda: now[0], floor=floor)
    retries = 0
    for pause, wanted in load:
        now[0] += pause
        budget.request()
        retries += sum(budget.spend() for _ in range(wanted))
    allowance = floor + 0.1 * len(load) + floor * now[0] / 60
    assert retries <= allowance + 1e-6


def test_ten_requests_pay_for_a_retry() -> None:
    budget = RetryBudget(lambda: 0.0, floor=1)
    assert [budget.spend() for _ in range(2)] == [True, False]
    for _ in range(31):
        budget.request()
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]


def test_a_quiet_gateway_gets_its_floor_back() -> None:
    now = [0.0]
    budget = RetryBudget(lambda: now[0], floor=2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    now[0] = 60
    assert [budget.spend() for _ in range(3)] == [True, True, False]
