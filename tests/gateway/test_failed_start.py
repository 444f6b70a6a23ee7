"""A gateway that cannot start ends, with everything that it had started, and says why."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from litestar import Litestar

from gateway.app import Worker
from gateway.auth import Keyring, new_key
from gateway.compose import Resolved
from gateway.config import Config
from gateway.config.load import default_policy
from gateway.config.model import AuthConfig, RouterConfig
from gateway.learning import Learning
from gateway.policies import Policies
from gateway.steering import Steering
from gateway.store import EmbeddedStore
from gateway.telemetry import Telemetry
from tests.support import Gateway, Process, Upstream, config_for

COMMAND = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]


@pytest.fixture
def broken(tmp_path: Path, upstream: Upstream) -> Gateway:
    """Stopped, with a row in its database that no worker can read."""
    gateway = Gateway(tmp_path, config_for(upstream.url), keys={"main": new_key()})
    with gateway.admin() as admin:
        assert admin.put("/budgets/team:red", json={"labels": ["eu"]}).status_code == 200
    assert gateway.stop() == 0
    with closing(sqlite3.connect(tmp_path / "data" / "tollhouse.db")) as database, database:
        database.execute("UPDATE scope_terms SET labels = '{'")
    return gateway


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_fails_ends_the_process(broken: Gateway, workers: str) -> None:
    env = {"MAIN": broken.key, "TEST_ADMIN_TOKEN": broken.admin_token}
    args = ["serve", str(broken.config), "--port", "0", "--workers", workers]
    process = Process([*COMMAND, *args], env, cwd=str(broken.folder))
    children: list[psutil.Process] = []
    try:
        process.wait_for(r"listens on")
        children = process.children()
        assert process.wait(30) == 3
        process.wait_for(r"the gateway cannot start: \w+Error: ", 1)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    finally:
        for child in filter(psutil.Process.is_running, children):
            child.kill()
        process.stop()


@pytest.mark.parametrize("part", [Policies, Keyring, Learning, Steering, Telemetry])
async def test_a_start_that_fails_leaves_nothing_running(
    tmp_path: Path, valkey: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, part: type
) -> None:
    """Whichever part fails: all that was started before it has ended."""
    start = part.start  # type: ignore[attr-defined]

    async def fails(self: Any, *args: Any) -> None:
        await start(self, *args)
        raise RuntimeError("no room")

    monkeypatch.setattr(part, "start", fails)
    database = f"sqlite:///{tmp_path}/records.db"
    config = Config(
        data_dir=str(tmp_path),
        auth=AuthConfig(hash_key="0123456789abcdef0123456789abcdef"),
        policies={"default": default_policy()},
        router=RouterConfig(artefact="heuristic"),
    )
    resolved = Resolved(config, store_url=valkey.url, database_url=database)
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="no room"):
        async with Worker().lifespan(Litestar(), resolved):
            pass
    assert asyncio.all_tasks() == before


# Uvicorn cancels what is left and waits for it, for ever if need be.
STUBBORN = """
import asyncio, contextlib, socket, sys, uvicorn
from gateway.serving import bind, serve_here

async def stubborn():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

async def app(scope, receive, send):
    app.task = asyncio.create_task(stubborn())
    raise RuntimeError("no room")

sys.exit(serve_here(uvicorn.Config(app, loop="uvloop", lifespan="on"), bind("127.0.0.1", 0)))
"""


def test_sigterm_ends_a_start_that_hangs() -> None:
    process = Process([sys.executable, "-c", STUBBORN])
    try:
        process.wait_for("Application startup failed")
        time.sleep(0.5)
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 3
    finally:
        process._popen.kill()
        process.stop()
