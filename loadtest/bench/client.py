"""The load generator: raw sockets, keep-alive, a fixed number of connections, one process.

    python -m loadtest.bench.client JSON-OF-A-LOAD

It connects, prints `ready`, waits for a line on standard input, runs, and prints an Outcome as
JSON. Every answer is read to its end and its content checked.
"""

from __future__ import annotations

import asyncio
import re
import sys
from time import monotonic_ns, perf_counter
from typing import cast

import httptools
import msgspec
import uvloop

from loadtest.bench.load import Load, Outcome, body

_STAMP = re.compile(rb"t=(\d+); fare")
_DONE = re.compile(rb"data: ?\[DONE\]")
_FINISH = re.compile(rb'"finish_reason": ?"stop"')
_KEPT_PROBLEMS = 5


class Run:
    """What all connections share: the requests still to send, and what came back."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.next = 0
        self.latencies: list[float] = []
        self.delays: list[int] = []
        self.chunks = 0
        self.problems: list[str] = []
        self.failed = 0
        self.finished = asyncio.Event()
        self.ended = 0

    def take(self) -> int | None:
        if self.next >= self.load.requests:
            return None
        self.next += 1
        return self.next - 1

    def problem(self, text: str) -> None:
        self.failed += 1
        if len(self.problems) < _KEPT_PROBLEMS:
            self.problems.append(text)

    def end(self) -> None:
        self.ended += 1
        if self.ended == self.load.connections:
            self.finished.set()


class Connection(asyncio.Protocol):
    def __init__(self, run: Run) -> None:
        self._run = run
        self._number: int | None = None
        self._parts: list[bytes] = []
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def send(self) -> None:
        self._number = self._run.take()
        if self._number is None:
            self._finish()
            return
        load = self._run.load
        text = body(load, self._number)
        head = load.head.replace("CONTENT-LENGTH", str(len(text))).encode()
        self._parts.clear()
        self._began = perf_counter()
        self._transport.write(head + text)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._run.problem(f"not HTTP: {exc}")
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self._run.problem("connection closed")
            self._finish()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        if self._run.load.stream:
            now = monotonic_ns()
            for stamp in _STAMP.finditer(data):
                self._run.delays.append(now - int(stamp.group(1)))

    def on_message_complete(self) -> None:
        run = self._run
        text = b"".join(self._parts)
        problem = self._check(self._parser.get_status_code(), text)
        if problem:
            run.problem(problem)
        else:
            run.latencies.append(perf_counter() - self._began)
            run.chunks += run.load.chunks if run.load.stream else 0
        if not self._parser.should_keep_alive():
            self._over = True
            asyncio.get_running_loop().create_task(self._again())
            return
        self.send()

    def _check(self, status: int, text: bytes) -> str:
        load = self._run.load
        if status != 200:
            return f"status {status}: {text[:200]!r}"
        if not _FINISH.search(text):
            return "no finish reason"
        if load.stream:
            found = len(_STAMP.findall(text))
            if found != load.chunks:
                return f"{found} chunks of {load.chunks}"
            return "" if _DONE.search(text) else "no [DONE]"
        assert self._number is not None
        wanted = load.nonce(self._number)
        return "" if f"n={wanted};".encode() in text else "somebody else's answer"

    async def _again(self) -> None:
        fresh = await connect(self._run)
        fresh.send()

    def _finish(self) -> None:
        self._over = True
        self._transport.close()
        self._run.end()


async def connect(run: Run) -> Connection:
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: Connection(run), "127.0.0.1", run.load.port
    )
    return protocol


async def main(load: Load) -> Outcome:
    run = Run(load)
    connections = [await connect(run) for _ in range(load.connections)]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = perf_counter()
    for connection in connections:
        connection.send()
    try:
        await asyncio.wait_for(run.finished.wait(), load.limit)
    except TimeoutError:
        run.problem(f"not finished after {load.limit:.0f} s")
    return Outcome(
        completed=len(run.latencies),
        failed=run.failed,
        chunks=run.chunks,
        seconds=perf_counter() - began,
        latency_ms=[x * 1000 for x in quantiles(run.latencies)],
        delay_ms=[x / 1e6 for x in quantiles(run.delays)],
        problems=run.problems,
    )


def quantiles(values: list[float] | list[int]) -> list[float]:
    """p50 and p99; empty without values."""
    if not values:
        return []
    ordered = sorted(values)
    return [float(ordered[int((len(ordered) - 1) * q)]) for q in (0.5, 0.99)]


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=Load)
    print(msgspec.json.encode(uvloop.run(main(given))).decode(), flush=True)
