from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backends.health import Breaker, BreakerSettings


class BreakerMachine(RuleBasedStateMachine):
    """A model that knows only the promises, not the way they are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.settings = BreakerSettings()
        self.breaker = Breaker(lambda: self.now, self.settings)
        self.calls: list[tuple[int, float]] = []
        self.probe: int | None = None
        self.opened_at: float | None = None

    def note(self, before: str) -> None:
        if before != "open" and self.breaker.state == "open":
            self.opened_at, self.probe = self.now, None
        if self.breaker.state == "closed":
            self.opened_at = self.probe = None

    @rule(seconds=st.floats(0.01, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        state, ready = self.breaker.state, self.breaker.ready
        ticket = self.breaker.allow()
        assert bool(ticket) == ready
        if state == "closed":
            assert ticket
        if state == "open":
            assert not ticket
        if state == "half_open":
            late = (
                self.probe is not None and self.now - self.probe_at >= self.settings.probe_seconds
            )
            assert bool(ticket) == (self.probe is None or late), "exactly one probe"
            if ticket:
                self.probe, self.probe_at = ticket, self.now
        if ticket:
            self.calls.append((ticket, self.now))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "abandon"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        ticket, _ = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        before = self.breaker.state
        getattr(self.breaker, outcome)(ticket)
        if before != "closed" and ticket != self.probe:
            assert self.breaker.state == before, "only the probe decides"
        elif before == "half_open" and outcome == "success":
            assert self.breaker.state == "closed"
        elif before == "half_open" and outcome == "failure":
            assert self.breaker.state == "open"
        elif outcome == "abandon" and ticket == self.probe:
            self.probe = None
        if outcome != "failure":
            assert not (before == "closed" and self.breaker.state != "closed")
        self.note(before)

    @invariant()
    def back_in_time(self) -> None:
        if self.opened_at is not None and self.now - self.opened_at > self.settings.max_seconds:
            assert self.breaker.state == "half_open"


TestBreakerMachine = BreakerMachine.TestCase


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failure(breaker.allow())


def test_opens_within_five_failures_and_comes_back() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert (breaker.state, breaker.allow()) == ("open", 0)
    waits = []
    for _ in range(5):
        start = now[0]
        while not breaker.ready:
            now[0] += 0.5
        waits.append(now[0] - start)
        fail(breaker, 1)
    assert waits == [5.0, 10.0, 20.0, 30.0, 30.0]
    now[0] += 30
    probe = breaker.allow()
    assert breaker.allow() == 0
    breaker.success(probe)
    assert breaker.state == "closed"
    fail(breaker, 5)
    now[0] += 5
    assert breaker.ready


def test_opens_on_half_of_a_window() -> None:
    breaker = Breaker(lambda: 0.0)
    for turn in range(20):
        assert breaker.state == "closed"
        ticket = breaker.allow()
        if turn % 2:
            breaker.failure(ticket)
        else:
            breaker.success(ticket)
    assert breaker.state == "open"


def test_after_a_recovery_the_window_begins_anew() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0], BreakerSettings(failures=100))
    fail(breaker, 20)
    assert breaker.state == "open"
    now[0] += 5
    breaker.success(breaker.allow())
    fail(breaker, 19)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
