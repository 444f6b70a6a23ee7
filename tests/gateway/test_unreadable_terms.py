"""A budget in the database that nobody can read closes its own keys, not the gateway."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.auth import new_key
from tests.support import Gateway, Upstream, config_for

TEAM = """team = "red"

[[keys]]
key = "${OTHER}"
"""


@pytest.fixture
def stained(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    config = config_for(upstream.url, extra=TEAM)
    keys = {"main": new_key(), "other": new_key()}
    first = Gateway(tmp_path, config, keys=keys)
    with first.admin() as admin:
        terms = {"budget_usd": 5, "window": "day"}
        assert admin.put("/budgets/team:red", json=terms).status_code == 200
    assert first.stop() == 0
    with closing(sqlite3.connect(tmp_path / "data" / "tollhouse.db")) as database, database:
        database.execute("UPDATE scope_terms SET window = '000000000001000000000000'")
    gateway = Gateway(tmp_path, config, keys=keys)
    yield gateway
    gateway.stop()


def test_only_its_own_keys_are_refused_until_it_is_set_again(stained: Gateway) -> None:
    def ask(key: str) -> httpx.Response:
        body = {"model": "local/ok", "messages": [{"role": "user", "content": "hi"}]}
        with stained.client(stained.keys[key]) as client:
            return client.post("/v1/chat/completions", json=body)

    def readyz(client: httpx.Client) -> Any:
        return client.get(f"{stained.url}/readyz?verbose").json()

    with stained.admin() as admin:
        assert ask("other").status_code == 200
        refused = ask("main")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "terms_unreadable")
        assert refused.headers["x-should-retry"] == "false"
        assert "team:red" in error["message"] and "window" in error["message"]
        assert "team:red" in stained.process.output
        seen = readyz(admin)
        assert (seen["ready"], seen["unreadable_terms"]) == (True, 1)

        page = admin.get("/budgets").json()
        shown = {item["scope"]: item for item in page["items"]}["team:red"]
        assert shown["open"] is False
        assert "window" in shown["problem"]
        key = {"key": stained.keys["main"].split("-")[1]}
        request = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
        explained = admin.post("/explain", json={"request": request, **key})
        assert explained.status_code == 409
        assert "team:red" in explained.json()["detail"]

        terms = {"budget_usd": 5, "window": "day"}
        assert admin.put("/budgets/team:red", json=terms).status_code == 200
        assert ask("main").status_code == 200
        assert readyz(admin)["unreadable_terms"] == 0
