"""Servers shared by the tests of one run."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import new_key
from gateway.records import Database
from gateway.store import EmbeddedStore, Store, StoreSettings
from tests.support import Gateway, Upstream, config_for, stop_all


def pytest_collection_finish() -> None:
    """What was imported and collected lives as long as the run: out of the collector's sight."""
    gc.collect()
    gc.freeze()


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
    stop_all(started)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """The Valkey of this worker of the run. Tests begin by emptying it."""
    server = EmbeddedStore(tmp_path_factory.mktemp("valkey"), maxmemory="64mb")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def store(valkey: EmbeddedStore) -> AsyncIterator[Store]:
    # Tests are not about deadlines unless they say so; this machine may be busy.
    store = Store(StoreSettings(valkey.url, deadline_ms=20_000))
    await store.command("FLUSHALL")
    yield store
    await store.aclose()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/records.db")
    await database.start()
    yield database
    await database.aclose()


def _find_initdb() -> Path | None:
    on_path = shutil.which("initdb")
    found = [Path(on_path)] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return found[0] if found else None


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a real PostgreSQL server, where one is installed."""
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    initdb = _find_initdb()
    if initdb is None:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp(prefix="th-pg-"))
    # PostgreSQL refuses to run as root; an unprivileged user is at hand wherever root is.
    who = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    if who:
        shutil.chown(folder, **who)
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **who}
    subprocess.run([initdb, "-D", data, "-U", "th", "-A", "trust", "-N"], check=True, **quiet)
    options = f"-c listen_addresses= -k {folder} -c fsync=off"
    pg_ctl = initdb.with_name("pg_ctl")
    subprocess.run(
        [pg_ctl, "-D", data, "-o", options, "-w", "-l", folder / "log", "start"],
        check=True,
        **quiet,
    )
    yield f"postgresql+psycopg://th@/postgres?host={folder}"
    subprocess.run([pg_ctl, "-D", data, "-m", "immediate", "stop"], check=True, **quiet)
    shutil.rmtree(folder)
