"""From a configuration to the objects of one worker: the only place that knows every part."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import socket
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec

from backends.base import Backend, Timeouts
from backends.dialects.chat import ChatBackend, ChatSettings
from backends.dialects.messages import MessagesBackend, MessagesSettings
from backends.http import Limits, UpstreamTransport
from backends.pool import Pool, PoolSettings
from backends.prices import FREE, Price, load_prices, nano_usd
from backends.profiles import ENGINE_DEFAULTS, ENGINE_FEATURES, Profile, find_profile
from backends.providers import Provider, load_providers
from backends.retry import RetryBudget
from backends.scripted import ScriptedBackend
from backends.tokens import TokenCounter
from gateway.auth import Keyring, check_config_keys
from gateway.cards import activated_cards, build_cards
from gateway.catalog import Catalog, Target
from gateway.config import Config, ConfigError
from gateway.config.load import BUILT_IN, model_price
from gateway.config.model import BackendConfig, ModelConfig
from gateway.detection import Detector
from gateway.learning import Learning, Loaders, Parts, RouterSlot
from gateway.ledger import Ledger, Sweeper
from gateway.policies import Policies
from gateway.records import Database, Drainer, LedgerBooks, RecordsError, Retention
from gateway.records.database import check_url
from gateway.runtime import Runtime
from gateway.steering import Parts as SteeringParts
from gateway.steering import Steering
from gateway.store import Store, StoreError, StoreSettings
from gateway.store.link import Endpoint
from gateway.store.lock import Lock
from gateway.telemetry import Telemetry
from gateway.telemetry.traces import NO_OTLP, OTLP
from routers.artefacts import existing_artefact, find_artefact, has_gpu
from routers.base import Router
from routers.cards import Card
from routers.heuristics import HeuristicRouter
from routers.onnx.manifest import MANIFEST, ArtefactError, load_manifest
from routers.onnx.router import MissingRouter, OnnxRouter
from routers.onnx.session import GPU_RUNTIME, NOT_STARTED, check_distributions, no_cuda

log = logging.getLogger("tollhouse")

_NO_STORE = (
    "not an address of a store: look at the host, the port and the options; in a password '/', ':' "
    "and '@' are written %2F, %3A and %40"
)
_LOCAL_PROVIDER = Provider(base_url="")
BACKGROUND_CONNECTIONS = 64


class Resolved(msgspec.Struct, frozen=True):
    """A configuration with the addresses of what the parent process started for it. `parent` is
    that process's name, no other's on any machine; `worker` is this worker's, made without one."""

    config: Config
    store_url: str = ""
    database_url: str = ""
    engines: dict[str, str] = {}
    parent: str = ""
    worker: str = ""


@dataclass
class Composition:
    """A runtime and the background tasks that belong to it."""

    runtime: Runtime
    sweeper: Sweeper
    drainer: Drainer
    retention: Retention | None
    transport: UpstreamTransport
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Connect, load keys and policies, and start the background tasks."""
        runtime = self.runtime
        await runtime.database.start()
        await runtime.policies.start()
        await runtime.keyring.start()
        await runtime.learning.start()
        await runtime.steering.start()
        for run in (self.sweeper.run, self.drainer.run, runtime.steering.run):
            self.spawn(run())
        if self.retention is not None:
            self.spawn(self.retention.run())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_report)
        self._tasks.append(task)

    async def aclose(self) -> None:
        """Stop everything, also after a start that failed half way; the outbox is drained once
        more, so that a clean stop leaves nothing."""
        runtime = self.runtime
        runtime.database.hasten()
        # The last one first; each is closed whatever became of the others.
        async with AsyncExitStack() as closing:
            for part in (
                runtime.database,
                runtime.store,
                runtime.router,
                runtime.detector,
                self.transport,
                runtime.catalog,
                runtime.policies,
                runtime.keyring,
            ):
                closing.push_async_callback(part.aclose)
            closing.push_async_callback(runtime.telemetry.shutdown)
            closing.push_async_callback(self._file_the_rest)
            closing.push_async_callback(runtime.steering.aclose)
            closing.push_async_callback(runtime.learning.aclose)
            closing.push_async_callback(self._stop_tasks)

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _file_the_rest(self) -> None:
        try:
            await self.drainer.flush()
        except (StoreError, RecordsError) as exc:
            # What is not filed stays in the outbox for the next start.
            log.warning("outbox not filed at the end: %s", exc)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a background task ended", exc_info=task.exception())


def compose(resolved: Resolved) -> Composition:
    """Build everything; connect to nothing. Raises ConfigError."""
    config = resolved.config
    worker = resolved.worker or f"{socket.gethostname()}-{os.getpid()}"
    store = Store(StoreSettings(url=resolved.store_url, deadline_ms=config.store.deadline_ms))
    database = Database(resolved.database_url)
    ledger = Ledger(store, books=LedgerBooks(database))
    transport = UpstreamTransport(upstream_limits(config))
    policies = Policies(config, database, store)
    catalog = build_catalog(config, resolved.engines, transport)
    telemetry = Telemetry(config.telemetry, worker)
    slot = RouterSlot(build_router(config))
    learning = Learning(
        Parts(
            config=config,
            worker=worker,
            database=database,
            store=store,
            ledger=ledger,
            policies=policies,
            catalog=catalog,
            telemetry=telemetry,
            slot=slot,
            loaders=Loaders(
                configured=partial(_configured_router, config),
                configured_cards=partial(_configured_cards, config),
                artefact=OnnxRouter.load,
                cards=partial(activated_cards, config),
                use_cards=catalog.use_cards,
            ),
            configured=partial(_configured_directory, config),
        )
    )
    runtime = Runtime(
        config=config,
        parent=resolved.parent,
        store=store,
        database=database,
        ledger=ledger,
        keyring=Keyring(config, database, store, ledger),
        policies=policies,
        catalog=catalog,
        router=slot,
        detector=Detector(slot),
        telemetry=telemetry,
        learning=learning,
        steering=Steering(
            SteeringParts(policies, slot, store, telemetry, catalog.carded, config.server.workers),
            time.time,
        ),
    )
    return Composition(
        runtime=runtime,
        sweeper=Sweeper(ledger, Lock(store, "sweeper", worker)),
        drainer=Drainer(store, database, Lock(store, "drainer", worker)),
        retention=_retention(config, store, database, worker),
        transport=transport,
    )


def _retention(config: Config, store: Store, database: Database, worker: str) -> Retention | None:
    days = config.records.keep_days
    if days is None:
        return None
    lock = Lock(store, "records-retention", worker, ttl_ms=60_000)
    return Retention(store, database, lock, days * 86_400)


def build_router(config: Config) -> Router:
    """Raises ConfigError for an artefact that cannot be used, unless the configuration prefers
    to go on without."""
    settings = config.router
    if settings.artefact == "none":
        return MissingRouter("router.artefact is none")
    if settings.artefact == "heuristic":
        return HeuristicRouter()
    try:
        router = OnnxRouter.load(existing_artefact(settings.artefact))
    except ArtefactError as exc:
        if settings.on_missing == "fail":
            raise ConfigError("router.artefact", str(exc)) from exc
        log.error("router.artefact: %s; requests stay unclassified", exc)
        return MissingRouter(str(exc))
    if check_distributions() == GPU_RUNTIME and not has_gpu():
        # Whoever installed it expects a GPU, and a CPU serves as if nothing were amiss.
        log.warning(
            "onnxruntime-gpu is installed, and no GPU is used: %s", no_cuda() or NOT_STARTED
        )
    return router


def _configured_router(config: Config) -> Router:
    """As `build_router`, in the middle of serving: nothing stops for a file that has gone bad."""
    try:
        return build_router(config)
    except ConfigError as exc:
        log.error("%s; requests stay unclassified", exc)
        return MissingRouter(str(exc))


def _configured_cards(config: Config) -> dict[str, Card]:
    """As `build_cards`, in the middle of serving: without it every model is judged by its tier."""
    try:
        return build_cards(config)
    except ConfigError as exc:
        log.error("%s; no model has a card", exc)
        return {}


def _configured_directory(config: Config) -> Path | None:
    """None where the configured router is no artefact that can be used."""
    name = config.router.artefact
    if name in ("none", "heuristic"):
        return None
    found = find_artefact(name)
    return found.absolute() if (found / MANIFEST).is_file() else None


def verify(config: Config) -> None:
    """What the workers would refuse, found before any of them is started: keys, addresses, prices
    and the files of the router's model. Raises ConfigError; connects to nothing."""
    check_config_keys(config)
    check_place(config)
    check_extras(config)
    check_addresses(config)
    build_catalog(config, {}, UpstreamTransport())
    settings = config.router
    if settings.artefact in ("none", "heuristic") or settings.on_missing != "fail":
        return
    try:
        check_distributions()
        load_manifest(existing_artefact(settings.artefact))
    except ArtefactError as exc:
        raise ConfigError("router.artefact", str(exc)) from exc


def upstream_limits(config: Config) -> Limits:
    """One upstream may have to serve all that this worker serves at once, and what is compared in
    the background beside it."""
    return Limits(connections=config.server.max_in_flight + BACKGROUND_CONNECTIONS)


def check_place(config: Config) -> None:
    """Whether `data_dir` is, or can be made, a directory to write to. Raises ConfigError."""
    place = Path(config.data_dir).absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir():
        raise ConfigError("data_dir", f"{there} is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError("data_dir", f"{there} cannot be written to by this user")


def check_extras(config: Config) -> None:
    """Whether what the configuration asks for is installed. Raises ConfigError."""
    if config.telemetry.otlp_endpoint and not _installed(OTLP):
        raise ConfigError("telemetry.otlp_endpoint", NO_OTLP)
    if config.database.url.startswith("postgresql") and not _installed("psycopg"):
        raise ConfigError(
            "database.url", "PostgreSQL needs the extra `postgres`: install tollhouse[postgres]"
        )


def check_addresses(config: Config) -> None:
    """Whether the addresses of the store and the database can be read. Raises ConfigError, which
    does not repeat them: they may hold a password."""
    try:
        if config.store.url:
            Endpoint.parse(config.store.url)
    except StoreError as exc:
        raise ConfigError("store.url", _NO_STORE) from exc
    try:
        if config.database.url:
            check_url(config.database.url)
    except RecordsError as exc:
        raise ConfigError("database.url", str(exc)) from exc


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it would be in
        return False


def build_catalog(config: Config, engines: dict[str, str], transport: UpstreamTransport) -> Catalog:
    targets: list[Target] = []
    for order, (name, backend) in enumerate(config.backends.items()):
        provider = load_providers().get(backend.provider, _LOCAL_PROVIDER)
        pool = _pool(name, backend, provider, engines, transport)
        for model, settings in backend.models.items():
            thinks_first = provider.is_silent_at_first(settings.upstream or model)
            timeouts = backend.timeouts.of(thinks_first=thinks_first)
            targets.append(_target(name, backend, model, settings, pool, order, timeouts))
    return Catalog(
        tuple(targets),
        config.aliases,
        TokenCounter(),
        RetryBudget(time.monotonic),
        build_cards(config),
    )


def _target(
    name: str,
    backend: BackendConfig,
    model: str,
    settings: ModelConfig,
    pool: Pool,
    order: int,
    timeouts: Timeouts,
) -> Target:
    upstream = settings.upstream or model
    where = f"backends.{name}.models.{model}"
    return Target(
        backend=pool,
        name=name,
        model=model,
        upstream=upstream,
        provider=backend.provider,
        tier=backend.tier,
        facts=backend.facts,
        price=_price(backend, upstream, settings, where),
        profile=_profile(find_profile(upstream), settings, _is_engine(backend)),
        timeouts=timeouts,
        drop_params=backend.drop_params,
        gpu_second=nano_usd(backend.gpu_second_usd, f"backends.{name}.gpu_second_usd"),
        order=order,
        stand_in=backend.stand_in,
        address=_address(pool.replicas),
        sends_tier=_sends_tier(backend.provider),
    )


def _sends_tier(provider: str) -> bool:
    """Whether a client's service tier reaches the provider's API."""
    row = load_providers().get(provider, _LOCAL_PROVIDER)
    return row.dialect == "chat" and "service_tier" not in row.quirks.drop_fields


def _address(replicas: tuple[str, ...]) -> tuple[str, int | None]:
    """Of the only replica: which of several is asked, the pool decides after the span has begun."""
    parts = urlsplit(replicas[0])
    if len(replicas) > 1 or not parts.hostname:
        return "", None
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _price(backend: BackendConfig, upstream: str, settings: ModelConfig, where: str) -> Price:
    """The configured price, else the list's; a local backend without either is free. A frontier
    model without a price is refused: spending that nobody can count."""
    configured = model_price(settings, where)
    if configured is not None:
        return configured
    listed = load_prices().find(backend.provider, upstream)
    if listed is not None:
        return listed
    if backend.tier == "local":
        return FREE
    raise ConfigError(f"{where}.input", f"missing: no list price is known for {upstream!r}")


def _is_engine(backend: BackendConfig) -> bool:
    """Whether the backend is an engine that one runs oneself, not a hosted API."""
    provider = load_providers().get(backend.provider)
    return backend.provider in BUILT_IN or (provider is not None and bool(provider.local_port))


def _profile(known: Profile, settings: ModelConfig, engine: bool) -> Profile:
    if engine:
        features = known.capabilities | ENGINE_FEATURES if known.known else ENGINE_DEFAULTS
        known = msgspec.structs.replace(known, capabilities=features)
    given = {
        "context_window": settings.context_window,
        "max_output": settings.max_output,
        "capabilities": None if settings.capabilities is None else frozenset(settings.capabilities),
    }
    return msgspec.structs.replace(known, **{k: v for k, v in given.items() if v is not None})


def _pool(
    name: str,
    backend: BackendConfig,
    provider: Provider,
    engines: dict[str, str],
    transport: UpstreamTransport,
) -> Pool:
    replicas: dict[str, Backend] = {}
    if backend.provider == "scripted":
        replicas[name] = ScriptedBackend(name, time.monotonic)
    for url in _urls(name, backend, provider, engines):
        try:
            replicas[url] = _backend(name, url, backend, provider, transport)
        except ValueError as exc:
            raise ConfigError(f"backends.{name}.base_url", str(exc)) from exc
    return Pool(PoolSettings(name=name), replicas, time.monotonic, Random())


def _urls(
    name: str, backend: BackendConfig, provider: Provider, engines: dict[str, str]
) -> tuple[str, ...]:
    if backend.provider == "scripted":
        return ()
    if backend.provider == "embedded":
        # Explaining or checking needs no running engine; calling does.
        return (engines.get(name, "http://127.0.0.1:9/v1"),)
    if isinstance(backend.base_url, tuple):
        return backend.base_url or (provider.base_url,)
    return (backend.base_url or provider.base_url,)


def _backend(
    name: str,
    url: str,
    backend: BackendConfig,
    provider: Provider,
    transport: UpstreamTransport,
) -> Backend:
    key = backend.api_key or None
    if provider.dialect == "messages":
        profiles = {
            upstream: _profile(find_profile(upstream), model, engine=False)
            for name_here, model in backend.models.items()
            for upstream in (model.upstream or name_here,)
        }
        settings = MessagesSettings(
            name=name, base_url=url, api_key=key, headers=backend.headers, profiles=profiles
        )
        return MessagesBackend(settings, transport, time.time)
    return ChatBackend(
        ChatSettings(
            name=name,
            base_url=url,
            api_key=key,
            headers=backend.headers,
            quirks=provider.quirks,
        ),
        transport,
        time.time,
    )
