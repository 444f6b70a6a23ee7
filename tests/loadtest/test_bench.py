"""The benchmark's own parts: what it counts as an answer, and its arithmetic."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from loadtest.bench import mock, report
from loadtest.bench.client import main
from loadtest.bench.load import Load, Outcome, body
from loadtest.bench.scenarios import SCENARIOS, Generator, Sample
from loadtest.bench.targets import Target

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: CONTENT-LENGTH\r\n\r\n"
LOAD = Load(0, HEAD, "bench-model", requests=12, connections=3, first=500)


@pytest.fixture
def run(monkeypatch) -> Callable[..., Awaitable[Outcome]]:
    """Runs a load against the mock, or against `protocol`, in this process."""
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n" * 9))

    async def go(load: Load, protocol=mock.Connection) -> Outcome:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await main(msgspec.structs.replace(load, port=port))

    return go


def answering(change: Callable[[bytes], bytes]) -> type[mock.Connection]:
    class Changed(mock.Connection):
        def write(self, data: bytes) -> None:
            super().write(change(data))

    return Changed


async def test_every_answer_of_the_mock_is_right(run):
    outcome = await run(LOAD)
    assert (outcome.completed, outcome.failed, outcome.problems) == (12, 0, [])
    assert len(outcome.latency_ms) == 2


async def test_streams_are_complete_and_their_delays_are_known(run):
    load = msgspec.structs.replace(LOAD, stream=True, chunks=7, gap_us=500)
    outcome = await run(load)
    assert (outcome.completed, outcome.failed) == (12, 0)
    assert outcome.chunks == 84
    assert 0 < outcome.delay_ms[0] <= outcome.delay_ms[1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data.replace(b"n=0000005", b"n=0000006"), "somebody else's answer"),
        (lambda data: data.replace(b"200 OK", b"503 No"), "status 503"),
        (lambda data: data.replace(b'"stop"', b'"none"'), "no finish reason"),
        (lambda data: b"SPAM" + data, "not HTTP"),
    ],
)
async def test_a_wrong_answer_is_not_counted(run, change, problem):
    outcome = await run(LOAD, answering(change))
    assert outcome.completed == 0
    assert outcome.failed >= 3
    assert outcome.problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data.replace(b'"t=', b'"x='), "0 chunks of 4"),
        (lambda data: data.replace(b"[DONE]", b"[GONE]"), "no [DONE]"),
    ],
)
async def test_a_wrong_stream_is_not_counted(run, change, problem):
    load = msgspec.structs.replace(LOAD, stream=True, chunks=4)
    outcome = await run(load, answering(change))
    assert outcome.completed == 0
    assert problem in outcome.problems


def test_requests_have_the_size_the_method_names():
    assert abs(len(body(LOAD, 3)) - 1900) < 40


def test_prompts_differ_or_not_as_the_scenario_says():
    def texts(kind: str) -> set[bytes]:
        load = msgspec.structs.replace(LOAD, text=kind)
        return {body(load, number) for number in range(50)}

    assert len(texts("same")) == 1
    assert len(texts("padded")) == len(texts("varied")) == 50


def test_no_two_runs_send_the_same_numbers():
    generator = Generator(1.0)
    target = Target("t", 1, {s.name: "m" for s in SCENARIOS})
    plain = SCENARIOS[0]
    first, second = generator.load(plain, target), generator.load(plain, target)
    assert second.first >= first.first + first.requests


def sample(target: str, cpu: float | None, delay: float = 1.0) -> Sample:
    return Sample(target, "stream", cpu, 10.0, [1.0, 2.0], [delay, delay], 50.0, 5, 0, [])


def test_medians_and_ratios():
    found = [Target(name, 1, {"stream": "m"}) for name in ("direct", "nginx", "tollhouse")]
    samples = [sample("direct", None, 0.2)]
    samples += [sample("nginx", cpu, 0.3) for cpu in (4.0, 5.0, 60.0)]
    samples += [sample("tollhouse", cpu, 0.45) for cpu in (14.0, 15.0, 100.0)]
    rows = report.summary(samples, found)["scenarios"]["stream"]["targets"]
    assert rows["nginx"]["cpu_us"] == 5.0
    assert rows["tollhouse"]["times_nginx"] == 3.0
    assert rows["tollhouse"]["delay_added_ms_p50"] == pytest.approx(0.25)
    assert rows["direct"]["times_nginx"] is None
    assert "nginx 3.0x" in report.ratios(report.summary(samples, found))


def test_the_order_rotates_so_that_nobody_is_always_first():
    found = [Target(name, 1, {"stream": "m"}) for name in "abc"]
    stream = next(s for s in SCENARIOS if s.name == "stream")
    firsts = [report.order(stream, found, number)[0].name for number in range(4)]
    assert firsts == ["a", "b", "c", "a"]
