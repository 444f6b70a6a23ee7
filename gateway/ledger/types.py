"""What goes into the ledger and what comes out. Money is an integer of nano-USD throughout."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.windows import MUST_BE, is_window

MAX_NANO = 2**53 - 1
Outcome = Literal["ok", "hit", "limited", "unaffordable", "missing"]


class Budget(msgspec.Struct, frozen=True):
    """At most `limit` nano-USD per `window` (see `gateway.windows`). Raises ValueError for what no
    ledger can keep."""

    limit: int
    window: str = "total"

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= MAX_NANO:
            raise ValueError(f"budget limit out of range: {self.limit}")
        if not is_window(self.window):
            raise ValueError(f"budget window {self.window[:64]!r} {MUST_BE}")


class Limits(msgspec.Struct, frozen=True):
    """None means no limit. Rates refill evenly and allow a burst of one minute's worth."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class Scope(msgspec.Struct, frozen=True):
    """Whose money or rate it is: `key:ID`, `team:NAME`, `user:NAME` or `org:NAME`."""

    id: str
    budget: Budget | None = None
    limits: Limits | None = None


class Enter(msgspec.Struct, frozen=True):
    """A request at the gate. `tokens`: estimate, corrected at settlement. `costs`: the worst cost
    of each candidate in the order of the plan, in nano-USD; None holds only the lease.
    `counted`: the request rates have counted it, when its stored answer was found.
    `lease_s`: seconds until the sweeper closes a request that is neither renewed nor settled.
    `draft`: JSON of the UsageRecord to file when that happens (needed with `costs`).
    `audit`: JSON of the DecisionRecord to file together with the reservation."""

    org: str
    request_id: str
    scopes: tuple[Scope, ...]
    tokens: int
    lease_s: float
    cache_key: str | None = None
    counted: bool = False
    costs: tuple[int, ...] | None = None
    draft: bytes = b""
    audit: bytes | None = None


class Reserve(msgspec.Struct, frozen=True):
    """Money for a request that has entered. Replaces what it holds. `booked`: what all of its
    attempts so far have really cost, in nano-USD."""

    org: str
    request_id: str
    scopes: tuple[Scope, ...]
    costs: tuple[int, ...]
    lease_s: float
    draft: bytes
    audit: bytes | None = None
    booked: int = 0


class Settlement(msgspec.Struct, frozen=True):
    """What a request really used. `cost`: of all its attempts together. `records`: JSON of its
    usage and decision records. `cache_ttl` in seconds. `entered`: `Entered.at` of the request: its
    answer is not kept where the cached answers were deleted since."""

    org: str
    request_id: str
    scopes: tuple[Scope, ...]
    cost: int
    tokens: int
    records: tuple[bytes, ...]
    cache_key: str | None = None
    cache_value: bytes | None = None
    cache_ttl: int = 0
    entered: float = 0.0


class Rate(msgspec.Struct, frozen=True):
    """For the `x-ratelimit-*` headers. `reset`: seconds until everything is available again."""

    limit: int
    remaining: int
    reset: float


class Short(msgspec.Struct, frozen=True):
    """The budget that pays least of a request. `left`: nano-USD that the request might hold there.
    `until`: when its window ends, in seconds since the epoch; None for a "total" window."""

    scope: str
    left: int
    until: float | None = None


class Entered(msgspec.Struct, frozen=True):
    """`index` into the costs. `requests` and `tokens`: the tightest scope. `left`: nano-USD of the
    tightest budget after this step, `share_left` in [0, 1] the least share of any budget; both
    None without a budget. `missing_scope` names a budget without a ledger key (its `left` counts
    as 0): provision it. `short` comes with "unaffordable". `retry_after`: seconds; None for what
    will never fit.
    `at`: the store's clock in seconds, which decides the window: use it as the records' `ts`."""

    outcome: Outcome
    at: float
    index: int | None = None
    cached: bytes | None = None
    limited_scope: str | None = None
    limited_kind: Literal["requests", "tokens", "concurrency"] | None = None
    retry_after: float | None = None
    requests: Rate | None = None
    tokens: Rate | None = None
    left: int | None = None
    share_left: float | None = None
    missing_scope: str | None = None
    short: Short | None = None


class Settled(msgspec.Struct, frozen=True):
    """What is left afterwards, as in Entered. `duplicate`: this was settled before."""

    left: int | None = None
    share_left: float | None = None
    missing_scope: str | None = None
    duplicate: bool = False


class Balance(msgspec.Struct, frozen=True):
    """`window_start` and `window_end` in seconds since the epoch; None for a "total" window."""

    spent: int
    held: int
    limit: int
    window_start: float | None
    window_end: float | None
