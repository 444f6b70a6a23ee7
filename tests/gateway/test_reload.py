"""SIGHUP: the configuration is read anew by workers that replace those that serve."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.auth import new_key
from tests.support import PLAIN, Gateway

CONFIG = """
data_dir = "data"
[server]
drain = 10
[admin]
token = "${TEST_ADMIN_TOKEN}"
[router]
artefact = "heuristic"
[cache]
enabled = false
[aliases]
chosen = "home/one"
[backends.home]
provider = "scripted"
tier = "local"
models.one = { upstream = "scripted:tokens=2,latency=5ms" }
models.two = { upstream = "scripted:tokens=3,latency=5ms" }
models.slow = { upstream = "scripted:tokens=100,chunk=30ms" }
[[keys]]
key = "${MAIN}"
"""
OTHER = CONFIG.replace("home/one", "home/two")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Gateway]]:
    started: list[Gateway] = []

    def of(workers: int) -> Gateway:
        started.append(Gateway(tmp_path, CONFIG, keys={"main": new_key()}, workers=workers))
        return started[-1]

    yield of
    for gateway in started:
        gateway.stop()


def ask(gateway: Gateway, model: str = "chosen", **more: object) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
    # A connection of its own: kept ones would stay with their worker.
    with gateway.client() as client:
        return client.post("/v1/chat/completions", json=body)


def answers(gateway: Gateway, count: int = 12) -> set[str]:
    found = [ask(gateway) for _ in range(count)]
    assert {answer.status_code for answer in found} == {200}
    return {answer.headers["x-tollhouse-model"] for answer in found}


def test_every_worker_has_the_new_file_and_no_request_is_lost(
    start: Callable[[int], Gateway],
) -> None:
    gateway = start(2)
    assert answers(gateway) == {"one"}
    gateway.config.write_text(OTHER)
    with ThreadPoolExecutor(3) as threads:
        stream = threads.submit(ask, gateway, "home/slow", stream=True)
        time.sleep(0.3)
        gateway.process.signal(signal.SIGHUP)
        meanwhile = []
        while "SIGHUP: " not in gateway.process.output:
            meanwhile.append(ask(gateway).status_code)
        assert stream.result().text.rstrip().endswith("data: [DONE]")
    assert "every worker has the configuration" in gateway.process.output
    assert set(meanwhile) == {200}
    assert answers(gateway) == {"two"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (CONFIG.replace("home/one", "home/none"), "aliases.chosen"),
        (OTHER + "[server.more]\n", "not valid TOML|server.more"),
        (OTHER.replace('data_dir = "data"', 'data_dir = "elsewhere"'), "data_dir"),
    ],
    ids=["not valid", "unknown key", "held by the parent"],
)
def test_a_file_that_cannot_be_used_changes_nothing(
    start: Callable[[int], Gateway], text: str, path: str
) -> None:
    gateway = start(2)
    before = {child.pid for child in gateway.process.children()}
    gateway.config.write_text(text)
    gateway.process.signal(signal.SIGHUP)
    gateway.process.wait_for(rf"SIGHUP: the configuration stays as it was: .*({path})")
    assert {child.pid for child in gateway.process.children()} == before
    assert answers(gateway) == {"one"}


def test_one_worker_goes_on_and_says_so(start: Callable[[int], Gateway]) -> None:
    gateway = start(1)
    gateway.config.write_text(OTHER)
    gateway.process.signal(signal.SIGHUP)
    gateway.process.wait_for("SIGHUP: one worker cannot be replaced")
    assert answers(gateway) == {"one"}
    assert httpx.get(f"{gateway.url}/livez", **PLAIN).status_code == 200
