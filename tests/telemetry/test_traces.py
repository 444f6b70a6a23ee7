from __future__ import annotations

import importlib.util
import threading

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from backends.base import Usage
from gateway.config.errors import ConfigError
from gateway.config.model import TelemetryConfig
from gateway.telemetry import NO_SPAN, AttemptFacts, SpanStart, Telemetry, names
from gateway.telemetry.traces import QUEUE, Traces

ENDPOINT = TelemetryConfig(otlp_endpoint="http://127.0.0.1:4318", sample=0.5)
BEGIN = SpanStart(
    "chat",
    "openai",
    "azure-eu",
    "gpt-x",
    tier="frontier",
    stream=True,
    server_address="api.example.eu",
    server_port=443,
    reason="score_above",
    policy="default",
    policy_version=3,
    labels=("eu",),
    attempt=2,
)
FACTS = AttemptFacts(
    "chat",
    "openai",
    "azure-eu",
    "gpt-x",
    0.5,
    first_chunk=0.2,
    usage=Usage(prompt=10, completion=5, cached=4, cache_write=2, reasoning=3),
    cost=1_500_000_000,
    response_model="gpt-x-2026",
    finish="stop",
)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collected(SpanExporter):
    def __init__(self) -> None:
        self.spans = []

    def export(self, spans):
        self.spans += spans
        return SpanExportResult.SUCCESS


class Hanging(SpanExporter):
    """A collector that takes the first batch and never answers until released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Event()

    def export(self, spans):
        self.entered.set()
        self.release.wait(30)
        return SpanExportResult.FAILURE


def traces(exporter, settings=ENDPOINT, spelling=names.V1_41, number=0.0):
    built = Traces(settings, spelling, lambda: number, exporter)
    built.start("w1")
    return built


def one(exporter, built):
    built.shutdown()
    [span] = exporter.spans
    return span


def test_a_call_becomes_a_client_span_without_content():
    exporter = Collected()
    built = traces(exporter)
    built.span(BEGIN).end(FACTS)
    span = one(exporter, built)
    assert span.name == "chat gpt-x"
    assert span.kind is SpanKind.CLIENT
    assert span.parent is None
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-x-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.2,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "server.address": "api.example.eu",
        "server.port": 443,
        "tollhouse.backend": "azure-eu",
        "tollhouse.tier": "frontier",
        "tollhouse.reason": "score_above",
        "tollhouse.policy": "default",
        "tollhouse.policy.version": 3,
        "tollhouse.residency": ("eu",),
        "tollhouse.attempt": 2,
        "tollhouse.cost.usd": 1.5,
    }
    assert span.resource.attributes["service.name"] == "tollhouse"
    assert span.resource.attributes["service.instance.id"] == "w1"


def test_an_error_is_marked():
    exporter = Collected()
    built = traces(exporter)
    built.span(BEGIN).end(AttemptFacts("chat", "p", "b", "m", 1.0, error="upstream_timeout"))
    span = one(exporter, built)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "upstream_timeout"


def test_the_newer_spelling_names_cache_writes():
    exporter = Collected()
    built = traces(exporter, spelling=names.LATEST)
    built.span(BEGIN).end(FACTS)
    assert one(exporter, built).attributes["gen_ai.usage.cache_write.input_tokens"] == 2


def with_parent(header: str) -> SpanStart:
    return SpanStart("completions", "openai", "b", "m", traceparent=header)


def test_the_callers_trace_goes_on_and_reaches_upstream():
    exporter = Collected()
    built = traces(exporter, number=0.99)
    span = built.span(with_parent(f"00-{TRACE}-{PARENT}-01"))
    sent = span.traceparent
    span.end(FACTS)
    seen = one(exporter, built)
    assert seen.name == "text_completion m"
    assert f"{seen.parent.span_id:016x}" == PARENT
    assert sent == f"00-{TRACE}-{seen.context.span_id:016x}-01"


def test_the_callers_unsampled_trace_is_not_traced():
    built = traces(Collected(), number=0.0)
    assert built.span(with_parent(f"00-{TRACE}-{PARENT}-00")) is NO_SPAN
    built.shutdown()


@pytest.mark.parametrize(
    "header",
    [
        "x",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}_-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
    ],
)
def test_a_broken_traceparent_counts_as_none(header):
    exporter = Collected()
    built = traces(exporter, number=0.4)
    built.span(with_parent(header)).end(FACTS)
    assert one(exporter, built).parent is None


def test_sampling_takes_the_configured_share():
    built = traces(Collected(), number=0.5)
    assert built.span(BEGIN) is NO_SPAN
    built.shutdown()


async def test_without_an_endpoint_there_is_no_span():
    telemetry = Telemetry(TelemetryConfig(sample=1.0), "1", environ={})
    await telemetry.start()
    span = telemetry.span(BEGIN)
    span.end(FACTS)
    assert span is NO_SPAN
    assert span.traceparent == ""
    await telemetry.shutdown()


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter") is not None
    and importlib.util.find_spec("opentelemetry.exporter.otlp") is not None,
    reason="the extra `otlp` is installed",
)
async def test_a_missing_exporter_is_a_config_error():
    telemetry = Telemetry(ENDPOINT, "1", environ={})
    with pytest.raises(ConfigError, match=r"telemetry\.otlp_endpoint: .*tollhouse\[otlp\]"):
        await telemetry.start()


async def test_a_hanging_collector_blocks_neither_calls_nor_the_exit(monkeypatch):
    monkeypatch.setattr("gateway.telemetry.core.SHUTDOWN_GRACE", 0.05)
    exporter = Hanging()
    built = Traces(ENDPOINT, names.V1_41, lambda: 0.0, exporter)
    telemetry = Telemetry(ENDPOINT, "1", environ={}, traces=built)
    await telemetry.start()
    try:
        for _ in range(QUEUE * 2):
            telemetry.span(BEGIN).end(FACTS)
        assert exporter.entered.wait(10)
        for _ in range(QUEUE * 2):
            telemetry.span(BEGIN).end(FACTS)
        await telemetry.shutdown()
        assert not exporter.release.is_set()
    finally:
        exporter.release.set()
