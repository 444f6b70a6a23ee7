"""Rate limits of an upstream: which of its models not to ask for a while. That is no ill
health: one that limits the rate does answer."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["RESTING", "Rests"]

# The `code` of the error when a rate limit was still in force and nobody was asked.
RESTING = "rate_limit_in_force"
# An upstream's limit may be raised meanwhile: it is asked again after so long, whatever it said.
LONGEST_S = 60.0
# Without a Retry-After one refusal may be for its size alone; so many in a row are for all.
REFUSALS = 5
UNSAID_S = 5.0


class Rests:
    """Of one replica, by model, as providers count them. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._refused: dict[str, int] = {}

    def refused(self, model: str, retry_after: float | None) -> None:
        """The upstream answered 429. `retry_after`: seconds, None when it did not say."""
        if retry_after is None:
            self._refused[model] = self._refused.get(model, 0) + 1
            if self._refused[model] < REFUSALS:
                return
            retry_after = UNSAID_S
        self._refused.pop(model, None)
        until = self._clock() + min(retry_after, LONGEST_S)
        self._until[model] = max(until, self._until.get(model, until))

    def answered(self, model: str) -> None:
        """The upstream took a call."""
        if self._refused:
            self._refused.pop(model, None)

    def left(self, model: str) -> float:
        """Seconds until the model may be asked again; 0 when it may be now."""
        until = self._until.get(model)
        if until is None:
            return 0.0
        left = until - self._clock()
        if left > 0:
            return left
        del self._until[model]
        return 0.0

    def now(self) -> dict[str, float]:
        """Seconds left of each model that rests."""
        return {model: left for model in list(self._until) if (left := self.left(model))}
