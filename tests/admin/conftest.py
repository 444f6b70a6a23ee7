from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import uvicorn
from litestar import Litestar
from litestar.openapi import OpenAPIConfig

from gateway.admin import COMPONENTS, AdminContext, problem_handler, router_for
from gateway.auth import KeyAdmin, Keyring, Principal, format_key
from gateway.config import Config
from gateway.config.load import default_policy
from gateway.config.model import AuthConfig, KeyConfig, PolicySource, ScopeConfig, TelemetryConfig
from gateway.errors import bad_request
from gateway.learning import RouterSlot
from gateway.ledger import Ledger
from gateway.policies import Policies
from gateway.records import (
    Database,
    DecisionRecord,
    Drainer,
    LedgerBooks,
    UsageRecord,
    append_decisions,
    insert_or_ignore,
)
from gateway.records.schema import usage_records
from gateway.steering import Parts, Steering
from gateway.store import EmbeddedStore, Store, StoreSettings
from gateway.store.lock import Lock
from gateway.telemetry import Telemetry
from routers.heuristics import HeuristicRouter
from routers.types import Policy
from tests.support import PLAIN

T = TypeVar("T")
TOKEN = "an-admin-token-for-tests"
CONFIG_KEY = format_key("configconfig", "c" * 43)


class FakeBackends:
    def snapshot(self) -> list[dict[str, Any]]:
        return [{"name": "local", "tier": "local", "healthy": True, "models": ["tiny"]}]


async def explain(request: dict[str, Any], principal: Principal | None) -> dict[str, Any]:
    if "messages" not in request:
        raise bad_request("messages is missing.", "messages")
    seen = msgspec.to_builtins(principal)
    return {"plan": [], "principal": seen, "labels": sorted(seen["labels"]) if seen else []}


class Server:
    """The admin API on a real server in a thread of its own. `context` is what it serves."""

    def __init__(self) -> None:
        self.context: AdminContext | None = None
        self._ready = threading.Event()
        # Said to be TCP, or asyncio leaves Nagle's delay on: 40 ms a request.
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        app = Litestar(
            # A function, because the framework copies what it is given, and a lock has no copy.
            [router_for(lambda: self._serving(), TOKEN)],
            exception_handlers={Exception: problem_handler},
            openapi_config=OpenAPIConfig(title="Test", version="0", components=COMPONENTS),
            logging_config=None,
        )
        config = uvicorn.Config(app, ws="none", log_level="critical", access_log=False)
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30), "the server did not start"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's event loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _serving(self) -> AdminContext:
        assert self.context is not None, "no gateway is started"
        return self.context

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        self._ready.set()
        await task


class Gateway:
    """What the admin API serves to one test, over a real store and a database of its own."""

    def __init__(self, server: Server, config: Config, path: Path, store_url: str) -> None:
        self._server = server
        self._config = config
        self._path = path
        self._store_url = store_url
        self.port = server.port
        self.url = f"http://127.0.0.1:{self.port}"
        self.context: AdminContext | None = None

    def start(self) -> None:
        self._server.context = self.context = self._server.run(self._made())

    def stop(self) -> None:
        self._server.context = None
        self._server.run(self._closed())

    def call(self, work: Callable[[AdminContext], Awaitable[Any]]) -> Any:
        """Run a coroutine inside the gateway."""

        async def run() -> Any:
            assert self.context is not None
            return await work(self.context)

        return self._server.run(run())

    async def _made(self) -> AdminContext:
        store = self._store = Store(StoreSettings(url=self._store_url, deadline_ms=2000))
        await store.command("FLUSHALL")
        database = Database(f"sqlite:///{self._path}")
        await database.start()
        ledger = Ledger(store, books=LedgerBooks(database))
        keyring = Keyring(self._config, database, store, ledger)
        policies = Policies(self._config, database, store)
        await policies.start()
        await keyring.start()
        return AdminContext(
            keyring=keyring,
            keys=KeyAdmin(keyring, database),
            policies=policies,
            ledger=ledger,
            database=database,
            chains=Drainer(store, database, Lock(store, "drainer", "test")).seen,
            backends=FakeBackends(),
            explain=explain,
            routing=Steering(
                Parts(
                    policies,
                    RouterSlot(HeuristicRouter()),
                    store,
                    Telemetry(TelemetryConfig(), "1"),
                    lambda policy: "",
                ),
                time.time,
            ).views,
        )

    async def _closed(self) -> None:
        assert self.context is not None
        await self.context.keyring.aclose()
        await self.context.policies.aclose()
        await self._store.aclose()
        await self.context.database.aclose()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def base_config() -> Config:
    return Config(
        auth=AuthConfig(hash_key="0123456789abcdef0123456789abcdef"),
        policy=PolicySource(source="database"),
        policies={"default": default_policy(), "cheap": Policy(route="weak")},
        keys=(KeyConfig(CONFIG_KEY, org="acme", team="red", budget_usd=1.0, labels=("phi",)),),
        scopes=(ScopeConfig("org:acme", labels=("eu",), budget_usd=5.0, window="day"),),
    )


@pytest.fixture
def gateway(
    server: Server, tmp_path: Path, valkey: EmbeddedStore, base_config: Config
) -> Iterator[Gateway]:
    gateway = Gateway(server, base_config, tmp_path / "tollhouse.db", valkey.url)
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture
def file_gateway(
    server: Server, tmp_path: Path, valkey: EmbeddedStore, base_config: Config
) -> Iterator[Gateway]:
    """Policies come from the file."""
    config = msgspec.structs.replace(base_config, policy=PolicySource())
    gateway = Gateway(server, config, tmp_path / "tollhouse.db", valkey.url)
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"{gateway.url}/admin/v1", headers=headers, **PLAIN) as client:
        yield client


Fill = Callable[[Gateway], None]


@pytest.fixture
def fill() -> Fill:
    """Files five decisions and their usage."""
    decisions = [
        DecisionRecord(
            decision_id=f"dec_{i}",
            request_id=f"req_{i}",
            ts=1_800_000_000.0 + i,
            org="acme" if i % 2 == 0 else "other",
            key_id="configconfig",
            reason="score_above",
            plan=("up/big",),
            rejected=(),
        )
        for i in range(5)
    ]
    usage = [
        UsageRecord(
            attempt_id=f"att_{i}",
            request_id=f"req_{i}",
            ts=1_800_000_000.0 + i,
            org="acme",
            backend="up",
            model="big" if i else "small",
            prompt_tokens=10,
            completion_tokens=5,
            cost_nano=1000,
        )
        for i in range(5)
    ]

    def run(gateway: Gateway) -> None:
        def write(connection: Any) -> None:
            for org in ("acme", "other"):
                append_decisions(connection, org, [d for d in decisions if d.org == org])
            rows = [{**msgspec.structs.asdict(u), "tags": []} for u in usage]
            insert_or_ignore(connection, usage_records, rows)

        gateway.call(lambda context: context.database.write(write))

    return run


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
def openapi(gateway: Gateway) -> dict[str, Any]:
    return dict(json.loads(httpx.get(f"{gateway.url}/schema/openapi.json", **PLAIN).text))
