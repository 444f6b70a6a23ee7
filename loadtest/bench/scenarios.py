"""The scenarios, and measuring one of them on one target."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import count
from typing import Literal

import msgspec

from loadtest.bench.load import Load, Outcome
from loadtest.bench.targets import ROOT, Target


class Scenario(msgspec.Struct, frozen=True):
    """`requests` is for a target of share 1. `per` is what CPU is divided by."""

    name: str
    about: str
    requests: int
    connections: int = 16
    text: Literal["padded", "same", "varied"] = "padded"
    chunks: int = 0
    gap_us: int = 0
    per: Literal["request", "chunk"] = "request"
    rounds: int | None = None


SCENARIOS = (
    Scenario("plain", "explicit model, 1.9 KB in, 1 KB out, never a cache hit", 3000),
    Scenario(
        "auto", "`auto`, scored by the router, short prompts, all different", 400, text="varied"
    ),
    Scenario("cache", "the same request again: exact cache hit", 3000, text="same"),
    Scenario(
        "stream",
        "SSE, 200 chunks 5 ms apart; CPU of the whole stream divided by its chunks",
        32,
        chunks=200,
        gap_us=5000,
        per="chunk",
    ),
    Scenario(
        "streams_500",
        "500 streams at once, 20 chunks 250 ms apart",
        500,
        connections=500,
        chunks=20,
        gap_us=250_000,
        per="chunk",
        rounds=1,
    ),
    Scenario(
        "streams_2000",
        "2,000 streams at once, 20 chunks 500 ms apart",
        2000,
        connections=2000,
        chunks=20,
        gap_us=500_000,
        per="chunk",
        rounds=1,
    ),
)


class Sample(msgspec.Struct, frozen=True):
    """One measurement. `cpu_us` is per request or per chunk, as the scenario says; None for the
    mock, whose CPU is not of interest. `rss_mb` is the largest process of the tree, after it."""

    target: str
    scenario: str
    cpu_us: float | None
    per_second: float
    latency_ms: list[float]
    delay_ms: list[float]
    rss_mb: float | None
    completed: int
    failed: int
    problems: list[str]


class Generator:
    """Runs loads, each in a process of its own, with numbers that never come twice."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._first = count(1_000_000, 100_000)

    def load(self, scenario: Scenario, target: Target, *, warm: bool = False) -> Load:
        # CPU is counted in ticks of 10 ms: what is cheap needs more requests to be seen exactly.
        share = target.share if scenario.rounds is None else 1.0
        requests = max(scenario.connections, round(scenario.requests * share))
        connections = scenario.connections
        if warm:
            connections = min(connections, 16)
            requests = max(connections, requests // 10 if scenario.connections <= 16 else 16)
        return Load(
            port=target.port,
            head=target.head(),
            model=target.models[scenario.name],
            requests=requests,
            connections=connections,
            first=7 if scenario.text == "same" else next(self._first),
            text=scenario.text,
            stream=bool(scenario.chunks),
            chunks=scenario.chunks,
            gap_us=scenario.gap_us,
            limit=self._limit,
        )

    def measure(self, scenario: Scenario, target: Target, *, warm: bool = False) -> Sample:
        load = self.load(scenario, target, warm=warm)
        process = target.process if target.name != "direct" else None
        with subprocess.Popen(
            [sys.executable, "-m", "loadtest.bench.client", json.dumps(msgspec.to_builtins(load))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                return _failed(scenario, target, "the load generator could not connect")
            before = process.cpu() if process else 0.0
            child.stdin.write("go\n")
            child.stdin.flush()
            line = child.stdout.readline()
            # What a request leaves behind (settlement, batched records) belongs to its cost.
            time.sleep(0.3)
            after = process.cpu() if process else 0.0
        if not line:
            return _failed(scenario, target, "the load generator ended early")
        outcome = msgspec.json.decode(line, type=Outcome)
        units = outcome.completed if scenario.per == "request" else outcome.chunks
        return Sample(
            target=target.name,
            scenario=scenario.name,
            cpu_us=(after - before) * 1e6 / units if process and units else None,
            per_second=units / outcome.seconds,
            latency_ms=outcome.latency_ms,
            delay_ms=outcome.delay_ms,
            rss_mb=max(process.memory().values()) if process else None,
            completed=outcome.completed,
            failed=outcome.failed,
            problems=outcome.problems,
        )


def _failed(scenario: Scenario, target: Target, problem: str) -> Sample:
    return Sample(target.name, scenario.name, None, 0.0, [], [], None, 0, 1, [problem])
