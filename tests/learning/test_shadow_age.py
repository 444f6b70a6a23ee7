"""A comparison that has waited too long is given up before anything is sent or paid."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gateway.auth import Principal
from gateway.config.model import LearningConfig
from gateway.learning.consent import Look
from gateway.learning.shadow import MAX_AGE, Job, Shadow
from gateway.learning.types import Scored
from routers.types import Need


@pytest.mark.parametrize(("waited", "outcome"), [(MAX_AGE + 1, "too_old"), (0, "no_local_text")])
async def test_an_old_comparison_is_given_up(waited: float, outcome: str) -> None:
    counted: list[str] = []
    heard = asyncio.Event()

    def count(outcome: str) -> None:
        counted.append(outcome)
        heard.set()

    nothing = cast(Any, None)
    shadow = Shadow(
        LearningConfig(), "default", nothing, nothing, nothing, nothing, count,
        clock=lambda: 1_000 + waited,
    )  # fmt: skip
    body = {"messages": [{"role": "user", "content": "Why?"}]}
    need = Need(operation="chat", capabilities=frozenset(("chat",)))
    scored = Scored(p_local_ok=0.5, p_frontier_ok=0.6, threshold=0.1, artefact="a/1")
    look = Look("Why?", lambda _: frozenset())
    shadow._queue.put_nowait(
        Job(
            "d",
            Principal(),
            "default",
            need,
            body,
            "home/m",
            [b"{}"],
            at=1_000,
            scored=scored,
            look=look,
        )
    )
    worker = asyncio.create_task(shadow.run())
    await asyncio.wait_for(heard.wait(), 10)
    worker.cancel()
    assert counted == [outcome]
