from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config.model import TelemetryConfig
from gateway.telemetry import Telemetry

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="session")
def make() -> Callable[..., Telemetry]:
    def build(worker: str = "1", environ: dict[str, str] | None = None) -> Telemetry:
        telemetry = Telemetry(TelemetryConfig(), worker, environ=environ or {})
        telemetry.models([("openai", "gpt-x"), ("llama", "tiny")])
        return telemetry

    return build


@pytest.fixture(scope="session")
def parse() -> Callable[[bytes], Samples]:
    """Reads an exposition with Prometheus' own parser: samples by name and sorted labels."""

    def read(text: bytes) -> Samples:
        found: Samples = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in found, f"{key} twice"
                found[key] = sample.value
        return found

    return read
