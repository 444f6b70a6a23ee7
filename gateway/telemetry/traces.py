"""Spans of calls to models, sent to an OTLP collector. Nothing here holds prompts or answers.

Only sampled calls make a span; all others get `NO_SPAN`, which costs nothing. Spans go through a
bounded queue that drops when full and is drained by a thread: a collector that hangs costs
neither time nor memory.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from gateway.config.errors import ConfigError
from gateway.config.model import TelemetryConfig
from gateway.telemetry import names as n
from gateway.telemetry.facts import AttemptFacts, SpanStart

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

QUEUE = 2048
EXPORT_TIMEOUT = 5.0
_OPERATIONS = {"completions": "text_completion"}


class Span(Protocol):
    """A call to a model that may be traced."""

    @property
    def traceparent(self) -> str:
        """The header to send upstream; empty when this call is not traced."""
        ...

    def end(self, facts: AttemptFacts) -> None: ...


class _NoSpan:
    __slots__ = ()
    traceparent = ""

    def end(self, facts: AttemptFacts) -> None:
        return None


NO_SPAN: Span = _NoSpan()


class _OpenSpan:
    __slots__ = ("_names", "_span")

    def __init__(self, span: OtelSpan, names: n.Names) -> None:
        self._span = span
        self._names = names

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, facts: AttemptFacts) -> None:
        from opentelemetry.trace import StatusCode

        span = self._span
        usage = facts.usage
        if usage is not None:
            span.set_attribute(n.USAGE_INPUT, usage.prompt)
            span.set_attribute(n.USAGE_OUTPUT, usage.completion)
            if usage.cached:
                span.set_attribute(n.USAGE_CACHE_READ, usage.cached)
            if usage.cache_write:
                span.set_attribute(self._names.usage_cache_write, usage.cache_write)
            if usage.reasoning:
                span.set_attribute(n.USAGE_REASONING, usage.reasoning)
            if usage.estimated:
                span.set_attribute(n.ESTIMATED, True)
        if facts.first_chunk is not None:
            span.set_attribute(n.RESPONSE_FIRST_CHUNK, facts.first_chunk)
        if facts.response_model:
            span.set_attribute(n.RESPONSE_MODEL, facts.response_model)
        if facts.finish:
            span.set_attribute(n.FINISH_REASONS, (facts.finish,))
        span.set_attribute(n.ATTEMPT_COST, facts.cost / 1_000_000_000)
        if facts.error:
            span.set_attribute(n.ERROR_TYPE, facts.error)
            span.set_status(StatusCode.ERROR)
        span.end()


class Traces:
    """`random` gives numbers in [0, 1): a call without `traceparent` is traced when it is below
    the configured share; with one, the caller's sampled flag decides. `exporter` replaces the
    OTLP exporter."""

    def __init__(
        self,
        settings: TelemetryConfig,
        names: n.Names,
        random: Callable[[], float],
        exporter: SpanExporter | None = None,
    ) -> None:
        self._settings = settings
        self._names = names
        self._random = random
        self._exporter = exporter
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    @property
    def on(self) -> bool:
        return self._tracer is not None

    def start(self, worker: str) -> None:
        """Raises ConfigError when an endpoint is configured and the exporter is not installed."""
        if not self._settings.otlp_endpoint:
            return
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        resource = Resource(
            {"service.name": self._settings.service_name, "service.instance.id": worker}
        )
        processor = BatchSpanProcessor(
            self._exporter or _otlp(self._settings.otlp_endpoint),
            max_queue_size=QUEUE,
        )
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("tollhouse")

    def shutdown(self) -> None:
        """Sends what is queued. Blocks while the collector does: call it in a daemon thread."""
        if self._provider is not None:
            self._provider.shutdown()
        self._provider = self._tracer = None

    def span(self, begin: SpanStart) -> Span:
        tracer = self._tracer
        if tracer is None:
            return NO_SPAN
        parent = _parse(begin.traceparent)
        sampled = parent[2] if parent else self._random() < self._settings.sample
        return self._open(tracer, begin, parent) if sampled else NO_SPAN

    def _open(self, tracer: Tracer, begin: SpanStart, parent: tuple[int, int, bool] | None) -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            TraceFlags,
            set_span_in_context,
        )

        context = Context()
        if parent is not None:
            remote = SpanContext(parent[0], parent[1], True, TraceFlags(TraceFlags.SAMPLED))
            context = set_span_in_context(NonRecordingSpan(remote), context)
        operation = _OPERATIONS.get(begin.operation, begin.operation)
        span = tracer.start_span(
            f"{operation} {begin.model}",
            context=context,
            kind=SpanKind.CLIENT,
            attributes=_attributes(begin, operation),
        )
        return _OpenSpan(span, self._names)


def _attributes(begin: SpanStart, operation: str) -> dict[str, str | int | bool | tuple[str, ...]]:
    attributes: dict[str, str | int | bool | tuple[str, ...]] = {
        n.OPERATION: operation,
        n.PROVIDER: begin.provider,
        n.REQUEST_MODEL: begin.model,
        n.REQUEST_STREAM: begin.stream,
        n.BACKEND: begin.backend,
        n.TIER: begin.tier,
        n.REASON: begin.reason,
        n.POLICY: begin.policy,
        n.POLICY_VERSION: begin.policy_version,
        n.RESIDENCY: begin.labels,
        n.ATTEMPT: begin.attempt,
    }
    if begin.server_address:
        attributes[n.SERVER_ADDRESS] = begin.server_address
        if begin.server_port is not None:
            attributes[n.SERVER_PORT] = begin.server_port
    return attributes


def _parse(header: str) -> tuple[int, int, bool] | None:
    """Trace id, span id and sampled flag of a W3C `traceparent`; None when it is not one."""
    parts = header.split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return None
    if parts[0] == "ff" or not all(set(part) <= _HEX for part in parts[:4]):
        return None
    trace, parent, flags = (int(part, 16) for part in parts[1:4])
    return (trace, parent, bool(flags & 1)) if trace and parent else None


_HEX = frozenset("0123456789abcdef")
OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
NO_OTLP = "traces need the extra `otlp`: install tollhouse[otlp], or remove the endpoint"


def _otlp(endpoint: str) -> SpanExporter:
    try:
        otlp = import_module(OTLP)
    except ImportError as exc:
        raise ConfigError("telemetry.otlp_endpoint", NO_OTLP) from exc
    url = endpoint.rstrip("/")
    if not url.endswith("/v1/traces"):
        url += "/v1/traces"
    exporter: SpanExporter = otlp.OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT)
    return exporter
