"""What to do after a failed attempt: pure arithmetic, no waiting."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from backends.errors import BackendError, FatalError, RetryableError
from backends.health import BREAKER_OPEN
from backends.rests import RESTING

__all__ = ["Fail", "NextCandidate", "Progress", "Retry", "RetryBudget", "RetryPolicy", "next_step"]


class RetryPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`attempts` upstream attempts for one request in all, over every candidate. The delay before
    the n-th retry is uniform in [0, min(`cap`, `base` * 2^(n-1))] seconds ("full jitter"); an
    upstream's own `retry_after` is waited for when it is at most `patience` seconds."""

    attempts: int = 3
    base: float = 0.1
    cap: float = 2.0
    patience: float = 3.0


class RetryBudget:
    """Caps retries at a share of the requests, so that an outage is not made worse by them.

    A token bucket: each request adds `share`, each retry takes 1. `floor` tokens are
    there at the start and come back over `refill` seconds, so that a quiet gateway may retry too.
    `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        share: float = 0.1,
        floor: float = 10.0,
        refill: float = 60.0,
    ) -> None:
        self._clock = clock
        self._share = share
        self._floor = floor
        self._rate = floor / refill
        self._tokens = floor
        self._at = clock()

    def request(self) -> None:
        """Count a new request (its first attempt)."""
        self._refill()
        self._tokens = min(self._tokens + self._share, max(self._floor * 10, 1.0))

    def spend(self) -> bool:
        """Take a token for one more attempt; False when there is none."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _refill(self) -> None:
        now = self._clock()
        elapsed, self._at = max(now - self._at, 0.0), now
        if self._tokens < self._floor:
            self._tokens = min(self._tokens + elapsed * self._rate, self._floor)


class Progress(msgspec.Struct, frozen=True):
    """`here`: attempts made at this candidate; `total`: at all of them; `candidates_left`: after
    this one; `time_left`: seconds until the request's deadline."""

    here: int
    total: int
    candidates_left: int
    time_left: float = float("inf")


class Retry(msgspec.Struct, frozen=True):
    """The same candidate again, after `delay` seconds."""

    delay: float


class NextCandidate(msgspec.Struct, frozen=True):
    """The next candidate of the plan, at once."""


class Fail(msgspec.Struct, frozen=True):
    """No more attempts. `reason`: `fatal`, `attempts`, `candidates`, `budget` or `deadline`."""

    reason: str


def next_step(
    error: BackendError,
    progress: Progress,
    policy: RetryPolicy,
    budget: RetryBudget,
    random: Callable[[], float],
) -> Retry | NextCandidate | Fail:
    """What to do after `error`. `random` gives uniform numbers in [0, 1).

    A retryable error is retried at the same candidate once, or for as long as attempts are left
    when there is no other; what may spill goes to the next candidate; what is fatal fails.
    A broken stream counts as spillable: call this only before the answer is committed.
    A Retry takes a token of `budget`; moving on takes none, because the candidate that failed is
    kept from further harm by its breaker or by what its rate limit says. A candidate whose breaker
    is open, or whose rate limit is still in force, was not even asked: do not count it in the
    `total` of `progress`.
    """
    if isinstance(error, FatalError):
        return Fail("fatal")
    if progress.total >= policy.attempts:
        return Fail("attempts")
    if progress.time_left <= 0:
        return Fail("deadline")
    others = progress.candidates_left > 0
    delay = _retry_delay(error, progress, policy, random)
    if delay is None:
        return NextCandidate() if others else Fail("candidates")
    if delay < progress.time_left and budget.spend():
        return Retry(delay)
    if others:
        return NextCandidate()
    return Fail("deadline" if delay >= progress.time_left else "budget")


def _retry_delay(
    error: BackendError, progress: Progress, policy: RetryPolicy, random: Callable[[], float]
) -> float | None:
    """Seconds to wait for the same candidate, or None when it should not be asked again."""
    if not isinstance(error, RetryableError) or error.code == BREAKER_OPEN:
        return None
    wait = error.retry_after or 0.0
    if wait > policy.patience:
        return None
    if error.code == RESTING and (progress.candidates_left or progress.here > policy.attempts):
        return None
    # With others left, the last attempt is theirs.
    if progress.candidates_left and (progress.here >= 2 or policy.attempts - progress.total < 2):
        return None
    ceiling = min(policy.cap, policy.base * 2.0 ** max(progress.here - 1, 0))
    return wait + random() * ceiling
