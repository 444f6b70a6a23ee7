"""Is this worker ready: the store, the router's model, and a backend for every label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.store.errors import StoreError
from routers.residency import residency_gap
from routers.types import Need

if TYPE_CHECKING:
    from gateway.app import Worker


async def readiness(worker: Worker) -> dict[str, Any]:
    """`ready` needs the store, and at least one healthy backend when any is configured. A label
    that no healthy backend satisfies is reported, and makes the worker not ready only when it is
    mandatory in the default policy. The router's model never does: without it the policy's
    default decides. Nor do teams and organisations whose terms cannot be read, of which there are
    `unreadable_terms`: the keys of all others go on."""
    runtime = worker.runtime
    store = await _store(worker)
    candidates = runtime.catalog.candidates(Need())
    healthy = [c for c in candidates if c.healthy]
    policy = runtime.policies.get(runtime.config.policy.default).policy
    labels = {
        label: sorted({c.id for c in healthy if residency_gap(c, (label,), policy) is None})
        for label in policy.labels
    }
    unmet = [label for label in policy.mandatory_labels if not labels.get(label)]
    return {
        "ready": store["ok"] and bool(healthy) and not unmet and not worker.draining,
        "draining": worker.draining,
        "store": store,
        "router": {
            **runtime.router.describe(),
            "active": msgspec.to_builtins(runtime.learning.activation.active),
        },
        "backends": [
            {"name": row["name"], "tier": row["tier"], "healthy": row["healthy"]}
            for row in runtime.catalog.snapshot()
        ],
        "labels": labels,
        "unreadable_terms": len(runtime.keyring.unreadable),
        "in_flight": worker.pipeline.in_flight,
    }


async def _store(worker: Worker) -> dict[str, Any]:
    try:
        await worker.runtime.store.ping()
    except StoreError as exc:
        return {"ok": False, "error": str(exc)}
    return {"ok": True}
