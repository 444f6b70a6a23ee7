"""The faults that a scripted upstream can play, chosen by the model's name.

`scripted:ok`, `scripted:latency=200ms,tokens=60,chunk=5ms`, `scripted:status=429,times=1`: items
after the colon are separated by commas. Numbers of seconds may carry `ms` or `s`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec

__all__ = ["STREAM_FAULTS", "Plan", "Script", "parse_plan"]

How = Literal["fin", "rst", "noterm"]

# Faults inside an answer whose status is 200.
STREAM_FAULTS = frozenset(
    {"malformed", "nodone", "nofinish", "twodone", "error200", "html", "wrongtype", "bigevent"}
    | {"nul", "badutf8", "toolindex", "nousage", "negusage", "hugeusage"}
)


class Plan(msgspec.Struct, frozen=True):
    """What to do with one request. Times are in seconds.

    Pace: `latency` before the headers, `first_token` between headers and content, `chunk` between
    two pieces, `tokens` to produce (None: as the content needs).
    Before an answer: `status` with `retry_after`, `reset` (RST before headers), `hang` (accept,
    never answer), `context`, `filtered`, `redirect`; `flap`: fails and works in turn, for that
    many seconds each. `times`: only the first so many requests of this model name are hit.
    Inside an answer: `cut` after that many pieces by `how`, `stall` for that long after `after`
    pieces, or one of STREAM_FAULTS in `fault`.
    """

    latency: float = 0.0
    first_token: float = 0.0
    chunk: float = 0.0
    tokens: int | None = None
    status: int = 200
    retry_after: float | None = None
    times: int | None = None
    reset: bool = False
    hang: bool = False
    context: bool = False
    filtered: bool = False
    redirect: bool = False
    flap: float | None = None
    cut: int | None = None
    how: How = "fin"
    stall: float | None = None
    after: int = 0
    fault: str | None = None

    @property
    def healthy(self) -> Plan:
        """The same pace without the fault."""
        return Plan(self.latency, self.first_token, self.chunk, self.tokens)


_FLAGS = {
    "reset": "reset",
    "hang": "hang",
    "context": "context",
    "filter": "filtered",
    "redirect": "redirect",
}
_SECONDS = frozenset(("latency", "first_token", "chunk", "retry_after", "flap", "stall"))
_COUNTS = frozenset(("tokens", "status", "times", "cut", "after"))


@lru_cache(maxsize=1024)
def parse_plan(model: str) -> Plan:
    """The plan of a model name; one without a colon means `ok`.

    Raises ValueError, naming the item, for one that is not known.
    """
    _, _, text = model.partition(":")
    values: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals and key in _FLAGS:
            values[_FLAGS[key]] = True
        elif not equals and key in STREAM_FAULTS:
            values["fault"] = key
        elif equals and key in _SECONDS:
            values[key] = _seconds(item, value)
        elif equals and key in _COUNTS and value.isdigit():
            values[key] = int(value)
        elif key == "how" and value in ("fin", "rst", "noterm"):
            values["how"] = value
        elif item != "ok":
            raise ValueError(f"unknown item in a scripted model's name: {item!r}")
    return Plan(**values)  # type: ignore[arg-type]  # each key was matched to its field above


def _seconds(item: str, value: str) -> float:
    scale = 0.001 if value.endswith("ms") else 1.0
    try:
        seconds = float(value.removesuffix("ms").removesuffix("s")) * scale
    except ValueError as exc:
        raise ValueError(f"not a number of seconds: {item!r}") from exc
    if not 0 <= seconds < 1e6:
        raise ValueError(f"not a sensible number of seconds: {item!r}")
    return seconds


class Script:
    """Plans over time: counts requests for `times`, and watches the clock for `flap`.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked: dict[str, int] = {}
        self._first: dict[str, float] = {}

    def plan(self, model: str) -> Plan:
        """The plan for the next request of this model name. Raises ValueError as parse_plan."""
        plan = parse_plan(model)
        if plan.times is not None:
            asked = self._asked.get(model, 0)
            self._asked[model] = asked + 1
            if asked >= plan.times:
                return plan.healthy
        if plan.flap is not None:
            elapsed = self._clock() - self._first.setdefault(model, self._clock())
            if plan.flap and int(elapsed / plan.flap) % 2:
                return plan.healthy
            return msgspec.structs.replace(plan, status=503 if plan.status == 200 else plan.status)
        return plan

    def reset(self) -> None:
        self._asked.clear()
        self._first.clear()
