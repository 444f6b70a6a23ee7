"""Embedded servers that end by themselves are started again."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from backends.local.engine import EngineError, tiny_model_path
from gateway.keeper import Keeper
from gateway.store.errors import StoreError
from tests.gateway.test_serve import serve

LONG = 60.0
HELLO = {"model": "auto", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}


def test_a_killed_store_and_a_killed_engine_come_back(tmp_path: Path) -> None:
    process = serve(tmp_path, "--local-model", str(tiny_model_path()))
    try:
        url = process.wait_for(r"listens on (http://127\.0\.0\.1:\d+)/v1").group(1)
        key = process.wait_for(r"client key: (th-\S+)").group(1)
        with httpx.Client(
            base_url=url,
            timeout=20,
            trust_env=False,
            headers={"authorization": f"Bearer {key}", "cache-control": "no-store"},
        ) as client:
            assert client.post("/v1/chat/completions", json=HELLO).status_code == 200
            before = {child.pid: " ".join(child.cmdline()) for child in process.children()}
            killed = [
                pid
                for pid, command in before.items()
                if "valkey-server" in command or "backends.local.engine" in command
            ]
            assert len(killed) == 2, before
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            process.wait_for("the embedded store runs again", LONG)
            process.wait_for("the engine of backends.local runs again", LONG)
            deadline = time.monotonic() + LONG
            while (answer := client.post("/v1/chat/completions", json=HELLO)).status_code != 200:
                assert time.monotonic() < deadline, answer.text
                time.sleep(0.1)
            assert answer.headers["x-tollhouse-tier"] == "local"
            children = process.children()
            assert not {child.pid for child in children} & set(killed)
    finally:
        process.stop()
    gone, _ = psutil.wait_procs(children, timeout=20)
    assert len(gone) == len(children) >= 2


class Child:
    """Ends when told, and starts only after some failures."""

    def __init__(self, error: Exception | None = None, failures: int = 0) -> None:
        self.running = True
        self._error, self._failures = error, failures
        self.starts = 0
        self.started = threading.Event()

    def start(self) -> None:
        self.starts += 1
        if self._error is not None and self.starts <= self._failures:
            raise self._error
        self.running = True
        self.started.set()


@pytest.mark.parametrize("error", [StoreError("no room"), EngineError("no file")])
def test_a_child_that_does_not_start_is_tried_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    well, ill = Child(), Child(error, failures=2)
    keeper = Keeper({"well": well, "ill": ill}, pause=0.01)
    ill.running = False
    keeper.start()
    assert ill.started.wait(LONG)
    keeper.stop()
    assert (well.starts, ill.starts) == (0, 3)
    told = [message for message in caplog.messages if str(error) in message]
    assert told == [f"ill does not start: {error}"] * 2
    assert "ill runs again" in caplog.messages


def test_nothing_is_started_once_it_is_stopped() -> None:
    child = Child()
    keeper = Keeper({"child": child}, pause=0.01)
    keeper.start()
    keeper.stop()
    child.running = False
    time.sleep(0.05)
    assert child.starts == 0
