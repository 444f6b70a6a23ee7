"""Retries are paid for by requests, so that an outage is not made worse by them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from backends.errors import UpstreamFailed
from backends.retry import RetryBudget
from gateway.admission import admit
from gateway.attempts import Caller
from gateway.auth import Principal
from gateway.compose import Resolved, compose
from gateway.config import parse_config
from gateway.inbound import Controls, parse
from gateway.runtime import Runtime
from gateway.settlement import Settler

CONFIG = """
[router]
artefact = "heuristic"
[backends.scripted]
provider = "scripted"
tier = "local"
models.well = { upstream = "scripted:tokens=3" }
models.ill = { upstream = "scripted:status=500" }
"""


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    runtime = compose(Resolved(config=parse_config(CONFIG, {}), worker="w")).runtime
    yield runtime
    await runtime.catalog.aclose()
    await runtime.router.aclose()


async def attempts(runtime: Runtime, model: str) -> int:
    """How often one request for this model was tried."""
    body = {"model": f"scripted/{model}", "messages": [{"role": "user", "content": "hi"}]}
    inbound = parse("chat", msgspec.json.encode(body), Controls(), "req_1")
    ex = await admit(runtime, inbound, Principal(), time.perf_counter(), time.time())
    caller = Caller(runtime, Settler(runtime))
    if model == "well":
        await (await caller.open(ex)).aclose()
    else:
        with pytest.raises(UpstreamFailed):
            await caller.open(ex)
    return len(ex.attempts)


async def test_ten_requests_pay_for_one_retry(runtime: Runtime) -> None:
    runtime.catalog.retry_budget = RetryBudget(lambda: 0.0, floor=1)
    assert [await attempts(runtime, "ill") for _ in range(2)] == [2, 1]
    assert [await attempts(runtime, "well") for _ in range(10)] == [1] * 10
    assert await attempts(runtime, "ill") == 2
