"""The router's benchmark where there is a GPU, by a router that says it is on one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from loadtest import router_latency
from loadtest.router_latency import MIXES, NOT_MEASURED, Scoring, on_gpu, throughput, together
from routers.artefacts import HEURISTIC
from routers.train.data import default_dir
from routers.types import Query, Score

TEXTS = {f"{tokens} tokens": ["Hello"] for tokens in router_latency.LENGTHS}
TEXTS |= {mix: ["Hello"] for mix in MIXES}


class OnGpu:
    """Remembers as the real one does."""

    name = "stands for a model"

    def __init__(self, provider: str = "CUDAExecutionProvider") -> None:
        self._provider = provider
        self.asked: set[tuple[str, str]] = set()

    def describe(self) -> dict[str, object]:
        return {"provider": self._provider}

    async def score(self, query: Query, *, deadline: float) -> Score:
        key = query.partition, query.turns[0].text
        cached = key in self.asked
        self.asked.add(key)
        await asyncio.sleep(0)
        return Score(p_local_ok=0.5, p_frontier_ok=0.6, model=self.name, cached=cached)


async def test_latency_and_throughput_ask_nothing_twice() -> None:
    router = OnGpu()
    found = await on_gpu(router, TEXTS)  # type: ignore[arg-type]
    assert isinstance(found, dict)
    assert found["batch_1"].keys() == TEXTS.keys()
    scoring = Scoring(router)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="cached"):
        await throughput(scoring, TEXTS[MIXES[0]], 20)
    assert await throughput(Scoring(OnGpu()), TEXTS[MIXES[0]], 600) > 0  # type: ignore[arg-type]


async def test_a_router_on_the_cpu_is_not_measured_as_one_on_a_gpu() -> None:
    found = await on_gpu(OnGpu("CPUExecutionProvider"), TEXTS)  # type: ignore[arg-type]
    assert found == NOT_MEASURED


@pytest.mark.skipif(not default_dir().is_dir(), reason="the labelled data is not here")
def test_processes_begin_together_and_their_rates_are_added() -> None:
    assert together(HEURISTIC, default_dir(), processes=2, requests=500) > 0


@pytest.mark.skipif(not default_dir().is_dir(), reason="the labelled data is not here")
def test_a_process_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="before it was ready"):
        together(str(tmp_path), default_dir(), processes=1)
