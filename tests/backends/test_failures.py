"""What the log says of failures: enough to find them, and not a line for each."""

from __future__ import annotations

import logging

import pytest

from backends.errors import ConnectFailed, FirstTokenTimeout, UpstreamFailed
from backends.failures import QUIET_S, Failures, place, reason
from backends.health import Breaker, BreakerSettings


class Log:
    """One replica that fails and answers, and the lines that come of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture, **settings: float) -> None:
        self.now = 1000.0
        self.breaker = Breaker(lambda: self.now, BreakerSettings(**settings))  # type: ignore[arg-type]  # one of them counts
        self.failures = Failures("a", "http://u:p@host:1/v1", self.breaker, lambda: self.now)
        self._caplog = caplog
        caplog.set_level(logging.INFO, "tollhouse")

    def fail(self) -> None:
        self.breaker.failure(self.breaker.allow())
        self.failures.failed(FirstTokenTimeout("late"))

    def answer(self) -> None:
        self.breaker.success(self.breaker.allow())
        if self.failures.left_alone:
            self.failures.succeeded()

    @property
    def lines(self) -> list[str]:
        return [f"{r.levelname} {r.getMessage()}" for r in self._caplog.records]


def test_what_fails_now_and_then_has_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    for _ in range(60):
        log.now += 2.0
        log.fail()
        log.answer()
        log.answer()
    said = "WARNING backend a at host:1: first_token_timeout"
    more = f", {int(QUIET_S / 2) - 1} more since the last line"
    assert log.lines == [said, said + more]


def test_a_breaker_is_told_when_it_opens_and_when_it_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Log(caplog)
    for _ in range(5):
        log.fail()
    # Every probe fails for an hour.
    for _ in range(120):
        log.now += 30.0
        log.fail()
    log.now += 30.0
    log.answer()
    log.answer()
    said = "WARNING backend a at host:1: first_token_timeout"
    assert log.lines == [
        said,
        said + "; it is not asked for 5 s, then one request at a time until it answers",
        "INFO backend a at host:1 answers again",
    ]


def test_the_cause_is_the_systems_and_never_the_upstreams_words() -> None:
    error = ConnectFailed("cannot connect to the upstream")
    error.__cause__ = RuntimeError("All connection attempts failed")
    error.__cause__.__context__ = ConnectionRefusedError(111, "Connection refused")
    assert reason(error) == "connect_failed (Connection refused)"
    assert (
        reason(UpstreamFailed("you wrote: my secret", status=500)) == "upstream_error (status 500)"
    )
    assert reason(FirstTokenTimeout("late")) == "first_token_timeout"


@pytest.mark.parametrize(
    ("replica", "shown"),
    [
        ("https://api.example.com/v1", "api.example.com"),
        ("http://user:word@10.0.0.1:8000/v1", "10.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("scripted", "scripted"),
    ],
)
def test_a_place_has_no_credentials(replica: str, shown: str) -> None:
    assert place(replica) == shown
