"""Metrics across the workers of one parent process: each publishes what it counted, whichever is
scraped merges them. Other replicas of the gateway are scraped for themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gateway.runtime import Runtime
from gateway.store.errors import StoreError
from gateway.telemetry import merge, names
from gateway.telemetry.core import Read
from routers.onnx.classes import FILE as CLASSES

if TYPE_CHECKING:
    from gateway.pipeline import Pipeline

_PREFIX = "th:metrics:"
# A worker that has not published for this long is gone.
_TTL_SECONDS = 10


def publisher(runtime: Runtime) -> Callable[[bytes], Awaitable[None]] | None:
    """None with a single worker: then there is nothing to merge."""
    if runtime.config.server.workers == 1:
        return None
    members, worker = _members(runtime), runtime.telemetry.worker

    async def publish(text: bytes) -> None:
        await runtime.store.command("SET", f"{members}:{worker}", text, "EX", _TTL_SECONDS)
        await runtime.store.command("SADD", members, worker)
        await runtime.store.command("EXPIRE", members, _TTL_SECONDS)

    return publish


def _members(runtime: Runtime) -> str:
    """The set of workers that share this one's parent; their texts are kept under its name."""
    return _PREFIX + runtime.parent


async def exposition(runtime: Runtime, own: bytes) -> bytes:
    """The metrics of every worker of this parent process, each with its `worker` label; `own` are
    those of this one. While the store is gone, they are all there is."""
    found = {runtime.telemetry.worker: own}
    if runtime.config.server.workers > 1:
        try:
            found = {**await _others(runtime), **found}
        except StoreError:
            # Shown by the store gauge of this worker; a scrape must still work.
            return merge(found)
    return merge(found)


async def _others(runtime: Runtime) -> dict[str, bytes]:
    members = _members(runtime)
    found: dict[str, bytes] = {}
    for name in await runtime.store.command("SMEMBERS", members):
        text = await runtime.store.command("GET", f"{members}:".encode() + name)
        if text is None:
            await runtime.store.command("SREM", members, name)
        else:
            found[name.decode()] = text
    return found


def register_gauges(runtime: Runtime, pipeline: Pipeline, lag: Read) -> None:
    """What is read at each scrape."""
    telemetry = runtime.telemetry
    telemetry.models((t.name, t.model) for t in runtime.catalog.targets)
    telemetry.gauge(names.IN_FLIGHT, lambda: pipeline.in_flight)
    telemetry.gauge(names.OUTBOX_LAG, lag)
    telemetry.gauge(names.STORE_UP, lambda: 1 if runtime.store.available else 0)
    telemetry.gauge(
        names.BACKEND_UP,
        lambda: [
            ((str(row["name"]),), 1.0 if row["healthy"] else 0.0)
            for row in runtime.catalog.snapshot()
        ],
    )
    telemetry.gauge(names.LABELS, lambda: _labels(runtime))
    telemetry.gauge(names.ROUTER_ACTIVE, lambda: _active(runtime))
    telemetry.gauge(names.DETECTOR_UP, lambda: 1 if _detecting(runtime) else 0)
    runtime.steering.gauges(telemetry)
    telemetry.gauge(names.ROUTER_INFO, lambda: [(_router_info(runtime), 1.0)])


def _labels(runtime: Runtime) -> list[tuple[tuple[str, ...], float]]:
    return [(key, float(count)) for key, count in runtime.learning.label_counts().items()]


def _active(runtime: Runtime) -> list[tuple[tuple[str, ...], float]]:
    active = runtime.learning.activation.active
    return [((active.name,), 1.0 if active.loaded else 0.0)]


def _detecting(runtime: Runtime) -> bool:
    """Whether a model looks for data classes, and its last look did not fail."""
    texts = runtime.router.describe().get("texts")
    if not isinstance(texts, dict):
        return False
    return bool(texts.get("data_classes")) and CLASSES not in texts.get("failing", ())


def _router_info(runtime: Runtime) -> tuple[str, ...]:
    facts = runtime.router.describe()
    return str(facts.get("model", runtime.router.name)), str(facts.get("provider", "none"))
