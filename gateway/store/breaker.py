"""A circuit breaker for the store: a pure state machine, the clock is passed in."""

from __future__ import annotations

from collections.abc import Callable


class Breaker:
    """Opens after `threshold` failures in a row. While open, `wait` says in how many seconds a
    probe is due; a probe's success closes it, its failure keeps it open for another `open_s`.

    Callers never pay for a probe: `allows` stays false until a probe has succeeded.
    """

    __slots__ = ("_clock", "_failures", "_open_s", "_opened_at", "_threshold")

    def __init__(self, threshold: int, open_s: float, clock: Callable[[], float]) -> None:
        self._threshold = threshold
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None

    @property
    def allows(self) -> bool:
        return self._opened_at is None

    @property
    def wait(self) -> float:
        """Seconds until the next probe is due; 0 when it is due or the breaker is closed."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._open_s - self._clock())

    def success(self) -> None:
        self._failures = 0
        self._opened_at = None

    def failure(self) -> bool:
        """Count a failure. True when this one opened the breaker."""
        if self._opened_at is not None:
            self._opened_at = self._clock()
            return False
        self._failures += 1
        if self._failures < self._threshold:
            return False
        self._opened_at = self._clock()
        return True
