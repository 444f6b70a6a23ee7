"""A circuit breaker: passive health, from the outcome of real calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

__all__ = ["BREAKER_OPEN", "Breaker", "BreakerSettings", "BreakerState"]

# The `code` of the error when a breaker refused and nobody was asked.
BREAKER_OPEN = "breaker_open"
BreakerState = Literal["closed", "open", "half_open"]


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Opens after `failures` in a row, or when at least `ratio` of the last `window` outcomes are
    failures. Stays open for `open_seconds`, doubled after each failed probe up to `max_seconds`.
    A probe that reports nothing for `probe_seconds` is given up, and another may go."""

    failures: int = 5
    window: int = 20
    ratio: float = 0.5
    open_seconds: float = 5.0
    max_seconds: float = 30.0
    probe_seconds: float = 60.0


class Breaker:
    """closed -> open -> half_open -> closed, or back to open.

    Ask `allow` before a call; it gives a ticket, which `success`, `failure` or `abandon` (the call
    said nothing about health: it was cancelled) hands back. Half open, exactly one call is let
    through. Calls that began before the breaker opened no longer count.
    `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float], settings: BreakerSettings | None = None) -> None:
        self._clock = clock
        self._settings = settings or BreakerSettings()
        self._outcomes: list[bool] = []
        self._in_a_row = 0
        self._open_until: float | None = None
        self._open_for = self._settings.open_seconds
        self._tickets = 0
        self._counts_from = 1
        self._probe = 0
        self._probe_at = 0.0

    @property
    def state(self) -> BreakerState:
        if self._open_until is None:
            return "closed"
        return "half_open" if self._clock() >= self._open_until else "open"

    @property
    def pause(self) -> float:
        """Seconds from its opening to the next probe."""
        return self._open_for

    @property
    def ready(self) -> bool:
        """Whether `allow` would say yes; asking changes nothing."""
        if self._open_until is None:
            return True
        now = self._clock()
        if now < self._open_until:
            return False
        return not self._probe or now - self._probe_at >= self._settings.probe_seconds

    def allow(self) -> int:
        """A ticket (above 0) when a call may go now, else 0. Half open, the call is the probe."""
        if not self.ready:
            return 0
        self._tickets += 1
        if self._open_until is not None:
            self._probe = self._tickets
            self._probe_at = self._clock()
        return self._tickets

    def success(self, ticket: int) -> None:
        if self._open_until is not None:
            if ticket == self._probe:
                self._close()
        elif ticket >= self._counts_from:
            self._in_a_row = 0
            self._remember(False)

    def failure(self, ticket: int) -> None:
        if self._open_until is not None:
            if ticket == self._probe:
                self._open_for = min(self._open_for * 2, self._settings.max_seconds)
                self._trip()
        elif ticket >= self._counts_from:
            self._in_a_row += 1
            self._remember(True)
            full = len(self._outcomes) == self._settings.window
            ill = full and sum(self._outcomes) >= self._settings.ratio * self._settings.window
            if ill or self._in_a_row >= self._settings.failures:
                self._trip()

    def abandon(self, ticket: int) -> None:
        if ticket == self._probe:
            self._probe = 0

    def _remember(self, failed: bool) -> None:
        self._outcomes.append(failed)
        if len(self._outcomes) > self._settings.window:
            del self._outcomes[0]

    def _trip(self) -> None:
        self._open_until = self._clock() + self._open_for
        self._probe = 0

    def _close(self) -> None:
        self._open_until = None
        self._probe = 0
        self._open_for = self._settings.open_seconds
        self._in_a_row = 0
        self._outcomes.clear()
        self._counts_from = self._tickets + 1
