"""The instruments of one worker: what an attempt and a request add to them."""

from __future__ import annotations

from gateway.telemetry.aggregate import OTHER, Counter, Family, Histogram, counters, histograms
from gateway.telemetry.facts import AttemptFacts, RequestFacts
from gateway.telemetry.names import (
    COST,
    ERRORS,
    FIRST_TOKEN,
    OVERHEAD,
    PER_TOKEN,
    REFUSED,
    REQUEST_DURATION,
    REQUESTS,
    ROUTER_SECONDS,
    Metric,
    Names,
)

NANO = 1_000_000_000
_OPERATIONS = {"completions": "text_completion"}


class _Call:
    """The series of one (operation, provider, backend, model, tier), looked up once."""

    __slots__ = ("cost", "duration", "first_chunk", "inputs", "labels", "outputs", "totals")

    def __init__(
        self,
        labels: tuple[str, ...],
        duration: Histogram,
        first_chunk: Histogram,
        tokens: tuple[Histogram, Histogram],
        totals: tuple[Counter, Counter] | None,
        cost: Counter,
    ) -> None:
        self.labels = labels
        self.duration = duration
        self.first_chunk = first_chunk
        self.inputs, self.outputs = tokens
        self.totals = totals
        self.cost = cost


class _Served:
    """The series of one (operation, model, tier), looked up once."""

    __slots__ = ("duration", "first_token", "per_token")

    def __init__(self, duration: Histogram, first_token: Histogram, per_token: Histogram) -> None:
        self.duration = duration
        self.first_token = first_token
        self.per_token = per_token


class Measures:
    """`models` are the configured (backend, model) pairs; any other is counted as `_other`.
    `limit` bounds the series of every instrument. Not thread-safe: one event loop writes."""

    def __init__(
        self, names: Names, models: frozenset[tuple[str, str]] = frozenset(), limit: int = 1000
    ) -> None:
        self._names = names
        self._limit = limit
        self._models = models
        self._histograms: dict[str, Family[Histogram]] = {}
        self._counters: dict[str, Family[Counter]] = {}
        self._calls: dict[tuple[str, str, str, str, str], _Call] = {}
        self._served: dict[tuple[str, str, str, str], _Served] = {}
        self._overhead = self._histogram(OVERHEAD)
        self._router = self._histogram(ROUTER_SECONDS)
        self._requests = self._counter(REQUESTS)
        self._refused = self._counter(REFUSED)
        self._errors = self._counter(ERRORS)
        self._cost = self._counter(COST)

    def configure(self, models: frozenset[tuple[str, str]]) -> None:
        """Other models from now on; what was counted stays."""
        self._models = models
        self._calls.clear()
        self._served.clear()

    def families(self) -> list[Family[Counter] | Family[Histogram]]:
        return [*self._histograms.values(), *self._counters.values()]

    def attempt(self, facts: AttemptFacts) -> None:
        key = (facts.operation, facts.provider, facts.backend, facts.model, facts.tier)
        call = self._calls.get(key) or self._find_call(key)
        if facts.error:
            duration = self._histogram(self._names.duration)
            duration.at(*call.labels, facts.error).record(facts.seconds)
            self._errors.at(call.labels[3], facts.error).value += 1
        else:
            call.duration.record(facts.seconds)
        if facts.first_chunk is not None:
            call.first_chunk.record(facts.first_chunk)
        usage = facts.usage
        if usage is not None:
            call.inputs.record(usage.prompt)
            call.outputs.record(usage.completion)
            if call.totals is not None:
                call.totals[0].value += usage.prompt
                call.totals[1].value += usage.completion
        if facts.cost:
            call.cost.value += facts.cost / NANO

    def request(self, facts: RequestFacts) -> None:
        key = (facts.operation, facts.backend, facts.model, facts.tier)
        served = self._served.get(key) or self._find_served(key)
        served.duration.record(facts.seconds)
        if facts.first_token is not None:
            served.first_token.record(facts.first_token)
            if facts.output_tokens > 1:
                after = facts.seconds - facts.first_token
                served.per_token.record(after / (facts.output_tokens - 1))
        self._overhead.at(facts.tier, facts.cache).record(facts.overhead)
        status = f"{facts.status // 100}xx"
        self._requests.at(facts.tier, facts.reason, facts.cache, status).value += 1
        if facts.refused:
            self._refused.at(facts.refused).value += 1
        if facts.score is not None:
            self._router.at().record(facts.score)

    def count(self, metric: Metric, *labels: str) -> None:
        """One more of a counter of `names.COUNTERS`; label values in the metric's order."""
        self._counter(metric).at(*labels).value += 1

    def _find_call(self, key: tuple[str, str, str, str, str]) -> _Call:
        operation, provider, backend, model, tier = key
        known = (backend, model) in self._models
        if not known:
            provider = backend = model = tier = OTHER
        labels = (_OPERATIONS.get(operation, operation), provider, model, backend)
        names = self._names
        totals = None
        if names.input_total is not None and names.output_total is not None:
            totals = (
                self._counter(names.input_total).at(*labels, "unknown"),
                self._counter(names.output_total).at(*labels, "unknown"),
            )
        call = _Call(
            labels,
            self._histogram(names.duration).at(*labels, ""),
            self._histogram(names.first_chunk).at(*labels),
            self._tokens(labels),
            totals,
            self._cost.at(backend, model, tier),
        )
        if known:
            self._calls[key] = call
        return call

    def _tokens(self, labels: tuple[str, ...]) -> tuple[Histogram, Histogram]:
        names = self._names
        if names.token_usage is not None:
            usage = self._histogram(names.token_usage)
            return usage.at(*labels, "input"), usage.at(*labels, "output")
        assert names.input_tokens is not None
        assert names.output_tokens is not None
        return (
            self._histogram(names.input_tokens).at(*labels),
            self._histogram(names.output_tokens).at(*labels),
        )

    def _find_served(self, key: tuple[str, str, str, str]) -> _Served:
        operation, backend, model, tier = key
        known = (backend, model) in self._models or not (backend or model)
        if not known:
            model = tier = OTHER
        labels = (_OPERATIONS.get(operation, operation), model, tier)
        served = _Served(
            self._histogram(REQUEST_DURATION).at(*labels),
            self._histogram(FIRST_TOKEN).at(*labels),
            self._histogram(PER_TOKEN).at(*labels),
        )
        if known:
            self._served[key] = served
        return served

    def _histogram(self, metric: Metric) -> Family[Histogram]:
        found = self._histograms.get(metric.name)
        if found is None:
            found = self._histograms[metric.name] = histograms(metric, self._limit)
        return found

    def _counter(self, metric: Metric) -> Family[Counter]:
        found = self._counters.get(metric.name)
        if found is None:
            found = self._counters[metric.name] = counters(metric, self._limit)
        return found
