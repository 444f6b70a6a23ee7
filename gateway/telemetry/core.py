"""Telemetry of one worker: metrics always, traces when an OTLP endpoint is configured."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

from gateway.config.model import TelemetryConfig
from gateway.telemetry.exposition import render
from gateway.telemetry.facts import AttemptFacts, RequestFacts, SpanStart
from gateway.telemetry.measure import Measures
from gateway.telemetry.names import Metric, spelling
from gateway.telemetry.traces import Span, Traces

Publish = Callable[[bytes], Awaitable[None]]
Rows = list[tuple[tuple[str, ...], float]]
Read = Callable[[], float | Iterable[tuple[tuple[str, ...], float]]]
SHUTDOWN_GRACE = 3.0

log = logging.getLogger("tollhouse.telemetry")


class Telemetry:
    """`worker` tells this worker from the others on `/metrics`. `environ` is looked at for the
    spelling of GenAI names (see `gateway.telemetry.names`)."""

    def __init__(
        self,
        settings: TelemetryConfig,
        worker: str,
        *,
        environ: Mapping[str, str] = os.environ,
        traces: Traces | None = None,
    ) -> None:
        names = spelling(environ)
        self.worker = worker
        self._measures = Measures(names)
        self._traces = traces or Traces(settings, names, random.random)
        self._gauges: dict[str, tuple[Metric, Read]] = {}
        self._publishing: asyncio.Task[None] | None = None
        self.attempt: Callable[[AttemptFacts], None] = self._measures.attempt
        self.request: Callable[[RequestFacts], None] = self._measures.request
        self.count: Callable[..., None] = self._measures.count
        self.span: Callable[[SpanStart], Span] = self._traces.span

    @property
    def tracing(self) -> bool:
        """Whether spans go anywhere: without, nobody need say what a span would be about."""
        return self._traces.on

    async def start(self, publish: Publish | None = None, every: float = 2.0) -> None:
        """`publish` is given this worker's exposition every `every` seconds, so that whichever
        worker is scraped can merge them all. Raises ConfigError when traces cannot be sent."""
        self._traces.start(self.worker)
        if publish is not None:
            self._publishing = asyncio.create_task(self._publish(publish, every))

    async def shutdown(self) -> None:
        """Stops publishing and sends the spans still queued, for at most `SHUTDOWN_GRACE`
        seconds: a collector that hangs does not hold up the exit."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
            self._publishing = None
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._traces.shutdown()
            with suppress(RuntimeError):  # too late: the loop is closed, nobody waits any more
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=send, daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(sent.wait(), SHUTDOWN_GRACE)

    def models(self, pairs: Iterable[tuple[str, str]]) -> None:
        """The configured (backend, model) pairs; any other is counted as `_other`."""
        self._measures.configure(frozenset(pairs))

    def gauge(self, metric: Metric, read: Read) -> None:
        """`read` is called at every exposition. It gives a number, or for a metric with labels
        rows of (label values in the metric's order, number)."""
        self._gauges[metric.name] = (metric, read)

    def exposition(self) -> bytes:
        """This worker's metrics in the Prometheus text format, without a `worker` label."""
        return render(self._measures.families(), self._read())

    def _read(self) -> list[tuple[Metric, Rows]]:
        found: list[tuple[Metric, Rows]] = []
        for metric, read in self._gauges.values():
            try:
                value = read()
                rows: Rows = [((), value)] if isinstance(value, int | float) else list(value)
            except Exception:  # a part that cannot tell its state must not take /metrics down
                log.exception("gauge %s could not be read", metric.name)
                continue
            found.append((metric, rows))
        return found

    async def _publish(self, publish: Publish, every: float) -> None:
        failing = False
        while True:
            try:
                await publish(self.exposition())
                failing = False
            except Exception:  # the border of this background task: the store may be gone
                if not failing:
                    log.warning("metrics of worker %s not published", self.worker, exc_info=True)
                failing = True
            await asyncio.sleep(every)
