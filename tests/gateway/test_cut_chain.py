"""Decisions that were taken out of the database are missed, however much traffic follows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.support import Gateway, Upstream, config_for

SECONDS = 15.0


def test_a_cut_tail_is_told_after_more_requests(
    serve: Callable[..., Gateway], upstream: Upstream
) -> None:
    gateway = serve(config_for(upstream.url))
    path = gateway.folder / "data" / "tollhouse.db"
    with gateway.client() as client, gateway.admin() as admin:

        def ask(count: int) -> None:
            for _ in range(count):
                body = {"model": "local/ok", "messages": [{"role": "user", "content": "hi"}]}
                assert client.post("/v1/chat/completions", json=body).status_code == 200

        def filed(rows: int) -> Any:
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                (report,) = admin.post("/audit:verify", json={}).json()["items"] or [{"rows": 0}]
                if report["rows"] == rows:
                    return report
                time.sleep(0.1)
            raise AssertionError(f"no {rows} rows in {SECONDS} s")

        ask(5)
        assert filed(5)["ok"]
        with closing(sqlite3.connect(path, timeout=10)) as database, database:
            database.execute("DELETE FROM decision_records WHERE seq > 3")
            database.execute(
                "UPDATE chain_heads SET seq = 3,"
                " hash = (SELECT hash FROM decision_records WHERE seq = 3)"
            )
        ask(4)
        report = filed(7)
        assert not report["ok"]
        assert report["seq"] == 4
        assert "rows 4 to 5 were cut off" in report["problem"]
