"""Metrics and traces. The only package that knows OpenTelemetry."""

from gateway.telemetry.core import Telemetry
from gateway.telemetry.exposition import MEDIA_TYPE, merge
from gateway.telemetry.facts import AttemptFacts, RequestFacts, SpanStart
from gateway.telemetry.traces import NO_SPAN, Span

__all__ = [
    "MEDIA_TYPE",
    "NO_SPAN",
    "AttemptFacts",
    "RequestFacts",
    "Span",
    "SpanStart",
    "Telemetry",
    "merge",
]
