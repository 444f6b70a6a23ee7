"""Spans of calls as the gateway makes them, from a request to its settlement."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.admission import admit
from gateway.attempts import Caller
from gateway.auth import Principal
from gateway.compose import Resolved, build_catalog, compose
from gateway.config import parse_config
from gateway.inbound import Controls, parse
from gateway.settlement import Settler
from gateway.telemetry import Telemetry, names
from gateway.telemetry.traces import Traces

CONFIG = """
[router]
artefact = "heuristic"
[telemetry]
otlp_endpoint = "http://127.0.0.1:9"
sample = 1.0
[backends.here]
provider = "scripted"
tier = "local"
models.m = { upstream = "scripted:tokens=3" }
[backends.there]
provider = "vllm"
tier = "local"
base_url = "https://user:pass@models.example:8443/v1"
models.m = {}
[backends.plain]
provider = "vllm"
tier = "local"
base_url = "http://models.example/v1"
models.m = {}
[backends.several]
provider = "vllm"
tier = "local"
base_url = ["http://one.example/v1", "http://two.example/v1"]
models.m = {}
"""


class Collected(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[Any] = []

    def export(self, spans: Iterable[Any]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize("stream", [False, True])
async def test_the_span_says_why_the_answer_ended(stream: bool) -> None:
    config = parse_config(CONFIG, {})
    exporter = Collected()
    traces = Traces(config.telemetry, names.V1_41, lambda: 0.0, exporter)
    traces.start("w")
    composition = compose(Resolved(config=config, worker="w"))
    telemetry = Telemetry(config.telemetry, "w", traces=traces)
    runtime = dataclasses.replace(composition.runtime, telemetry=telemetry)
    body = {"model": "here/m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    inbound = parse("chat", msgspec.json.encode(body), Controls(), "req_1")
    try:
        ex = await admit(runtime, inbound, Principal(), time.perf_counter(), time.time())
        settler = Settler(runtime)
        opened = await Caller(runtime, settler).open(ex)
        async for _ in opened.rest():
            pass
        opened.complete()
        settler._observe_attempts(ex)
    finally:
        await runtime.catalog.aclose()
        await runtime.router.aclose()
        traces.shutdown()
    (span,) = exporter.spans
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert span.attributes["tollhouse.backend"] == "here"
    assert "server.address" not in span.attributes


def test_a_backend_with_one_address_is_named_by_it() -> None:
    catalog = build_catalog(parse_config(CONFIG, {}), {}, None)  # type: ignore[arg-type]
    assert {target.name: target.address for target in catalog.targets} == {
        "here": ("", None),
        "there": ("models.example", 8443),
        "plain": ("models.example", 80),
        "several": ("", None),
    }
