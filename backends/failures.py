"""What the log says of a replica that fails: when its breaker opens and when it closes again, and a
line a minute at most meanwhile. A thousand failed requests are not a thousand lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from backends.errors import BackendError
from backends.health import Breaker

log = logging.getLogger("tollhouse")

QUIET_S = 60.0


class Failures:
    """Of one replica, whose `breaker` has been told before this is. `clock` is monotonic."""

    def __init__(
        self, backend: str, replica: str, breaker: Breaker, clock: Callable[[], float]
    ) -> None:
        self._where = f"backend {backend} at {place(replica)}"
        self._breaker = breaker
        self._clock = clock
        self._said_at: float | None = None
        self._unsaid = 0
        self.left_alone = False

    def failed(self, error: BackendError) -> None:
        now = self._clock()
        if self._breaker.state != "closed":
            if not self.left_alone:
                self.left_alone = True
                log.warning(
                    "%s: %s; it is not asked for %g s, then one request at a time until it answers",
                    self._where,
                    reason(error),
                    self._breaker.pause,
                )
                self._said_at, self._unsaid = now, 0
        elif self._said_at is None or now - self._said_at >= QUIET_S:
            more = f", {self._unsaid} more since the last line" if self._unsaid else ""
            log.warning("%s: %s%s", self._where, reason(error), more)
            self._said_at, self._unsaid = now, 0
        else:
            self._unsaid += 1

    def succeeded(self) -> None:
        """To be told only while the replica is left alone."""
        if self._breaker.state == "closed":
            self.left_alone = False
            log.info("%s answers again", self._where)


def reason(error: BackendError) -> str:
    """The kind of failure with what is known of its cause. Never the upstream's own words: they may
    repeat the request's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"{error.kind} ({cause.strerror})"
        cause = cause.__cause__ or cause.__context__
    return error.kind if error.status is None else f"{error.kind} (status {error.status})"


def place(replica: str) -> str:
    """Host and port of a replica's URL, without the credentials that it may hold."""
    return urlsplit(replica).netloc.rpartition("@")[2] or replica
