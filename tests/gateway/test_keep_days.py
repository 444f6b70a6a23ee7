"""Records that are too old go from a running gateway's database; its budgets keep their books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from gateway.auth import new_key
from gateway.records import Database, DecisionRecord, UsageRecord, file_records
from tests.faults.scene import eventually
from tests.support import Gateway, Upstream, config_for

DAY = 86_400.0
OLD, NEW = 1200, 5
SPENT = (OLD + NEW) * 1_000_000


async def fill(path: Path, key: str) -> None:
    """Records of ten days ago, many more than one step takes, and of an hour ago."""
    path.parent.mkdir(parents=True)
    database = Database(f"sqlite:///{path}")
    await database.start()
    now = time.time()
    times = [now - 10 * DAY] * OLD + [now - 3600] * NEW
    decisions = [DecisionRecord(f"d{i}", f"r{i}", ts, "lab") for i, ts in enumerate(times)]
    usage = [
        UsageRecord(f"a{i}", f"r{i}", ts, "lab", key_id=key, cost_nano=1_000_000)
        for i, ts in enumerate(times)
    ]
    await database.write(file_records, [*decisions, *usage])
    await database.aclose()


def verified(admin: httpx.Client) -> dict[str, Any]:
    result = admin.post("/audit:verify", json={"org": "lab"}).json()
    assert result["ok"], result
    return dict(result["items"][0])


def test_old_records_go(serve: Callable[..., Gateway], upstream: Upstream, tmp_path: Path) -> None:
    secret = new_key()
    key = secret.split("-")[1]
    asyncio.run(fill(tmp_path / "gateway-0" / "data" / "tollhouse.db", key))
    more = """
[records]
keep_days = 2
[[keys]]
key = "${LAB}"
org = "lab"
budget_usd = 1.5
window = "total"
"""
    gateway = serve(
        config_for(upstream.url, extra=more), keys={"main": new_key(), "lab": secret}, workers=2
    )
    with gateway.admin() as admin:
        assert eventually(lambda: verified(admin)["deleted"] == OLD, 60)
        assert verified(admin)["rows"] == NEW

        def left() -> int:
            return len(admin.get("/usage", params={"org": "lab", "limit": 500}).json()["items"])

        assert eventually(lambda: left() == NEW, 60)
        body = {"model": "local/ok", "messages": [{"role": "user", "content": "hi"}]}
        with gateway.client(secret) as client:
            assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert eventually(lambda: verified(admin)["rows"] == NEW + 1)
        # Opened at the start, with what has been deleted since.
        (book,) = admin.get("/budgets").json()["items"]
        assert (book["scope"], book["spent"]) == (f"key:{key}", SPENT)
