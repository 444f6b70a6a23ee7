"""Servers shared by the tests of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import new_key
from tests.support import Gateway, Upstream, config_for


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """The scripted upstream of this worker of the run."""
    server = Upstream()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Gateway]:
    """A running gateway with a local and a frontier backend on the scripted upstream."""
    folder = tmp_path_factory.mktemp("gateway")
    server = Gateway(folder, config_for(upstream.url), keys={"main": new_key()})
    yield server
    server.stop()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways with a configuration of the test's own; all end with the test."""
    started: list[Gateway] = []

    def start(config: str, *, keys: dict[str, str] | None = None, **more: Any) -> Gateway:
        folder = tmp_path / f"gateway-{len(started)}"
        server = Gateway(folder, config, keys=keys or {"main": new_key()}, **more)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()
