"""One request on its way through the pipeline: what each step learnt, for the steps after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from backends.base import Usage
from backends.errors import BackendError
from gateway.auth import Principal
from gateway.cache.flight import Flight
from gateway.inbound import Inbound
from gateway.ledger import Entered
from gateway.telemetry import NO_SPAN, AttemptFacts, Span
from routers.decide import ActivePolicy, Filtered
from routers.steering import Ticket
from routers.types import Candidate, Decision, Need, Policy, Score

_NO_USAGE = Usage()


@dataclass(slots=True)
class Attempt:
    """One try at one candidate. Times are `perf_counter` seconds, `cost` nano-USD. `finish`: the
    finish reason of the first choice. `service_tier`: the one that was asked for, then the one
    that the upstream says it served in. `beside`: what the request asks for that costs more than
    usual tokens do, `audio` or `web_search`. `unpriced`: for what of it no price is known."""

    id: str
    number: int
    candidate: Candidate
    started: float
    first: float | None = None
    ended: float | None = None
    outcome: str = "open"
    error: BackendError | None = None
    model: str | None = None
    finish: str | None = None
    usage: Usage | None = None
    text_bytes: int = 0
    cost: int = 0
    service_tier: str = ""
    beside: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()
    connected: bool = False
    span: Span = NO_SPAN

    def record(self) -> dict[str, Any]:
        """Fields of a `UsageRecord`: how it went and what it used."""
        used = self.usage or _NO_USAGE
        first, ended = self.first, self.ended or perf_counter()
        return {
            "outcome": self.outcome,
            "error": self.error.kind if self.error else "",
            "prompt_tokens": used.prompt,
            "completion_tokens": used.completion,
            "cached_tokens": used.cached,
            "cache_write_tokens": used.cache_write,
            "reasoning_tokens": used.reasoning,
            "estimated": used.estimated,
            "cost_nano": self.cost,
            "service_tier": self.service_tier,
            "unpriced": ",".join(self.unpriced),
            "ms_total": (ended - self.started) * 1000,
            "ms_first": None if first is None else (first - self.started) * 1000,
        }

    def facts(self, operation: str, provider: str, *, stream: bool) -> AttemptFacts:
        """What telemetry is told when it is over. `provider` runs the candidate's backend."""
        first = self.first if stream else None
        return AttemptFacts(
            operation=operation,
            provider=provider,
            backend=self.candidate.backend,
            model=self.candidate.model,
            seconds=(self.ended or perf_counter()) - self.started,
            first_chunk=None if first is None else first - self.started,
            usage=self.usage,
            error=self.error.kind if self.error else "",
            cost=self.cost,
            tier=self.candidate.tier,
            response_model=self.model or "",
            finish=self.finish or "",
        )


@dataclass(slots=True)
class Exchange:
    """`held` is what the ledger holds for the request, in nano-USD. `entered` is set once the
    ledger knows the request. `base` is the policy that holds for the key when the client names
    none, and `base_labels` the labels that it lists: what it asks of them holds as well.
    `flight`: others wait for this answer. `sampled`: the answer's events are kept for a comparison
    behind it. `ticket`: a promise counts the request and waits for its cost."""

    inbound: Inbound
    decision_id: str
    started: float
    wall: float
    principal: Principal
    active: ActivePolicy
    base: Policy
    base_labels: frozenset[str]
    labels: frozenset[str]
    need: Need
    filtered: Filtered
    audit: bool
    kinds: tuple[str, ...] = ()
    score: Score | None = None
    decision: Decision | None = None
    cache_key: str | None = None
    cache: str = "off"
    entered: Entered | None = None
    attempts: list[Attempt] = field(default_factory=list)
    held: int = 0
    reserved: bool = False
    flight: Flight | None = None
    sampled: bool = False
    ticket: Ticket | None = None
    recorded: bool = False
    settled: bool = False
    waited: float = 0.0

    def failed_at(self, error: BackendError) -> str:
        """The backend whose attempt ended with this error; empty when nobody was asked."""
        found = (a.candidate.backend for a in self.attempts if a.error is error)
        return next(found, "")

    @property
    def spent(self) -> int:
        return sum(attempt.cost for attempt in self.attempts)
