"""The parent process: reads the configuration, starts embedded servers, runs the workers.

Workers are given one encoded `Resolved` and share nothing but the store and the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from backends.local.engine import Engine, EngineError, EngineSettings, tiny_model_path
from gateway.auth import admin_token, hash_key
from gateway.compose import Resolved, verify
from gateway.config import Config, ConfigError
from gateway.config.model import AdminConfig, AuthConfig, EngineConfig
from gateway.doubts import doubts
from gateway.keeper import Child, Keeper
from gateway.policies import check_names
from gateway.protocol import Protocol
from gateway.records import Database, RecordsError
from gateway.reload import Supervisor, check_fixed
from gateway.store.embedded import EmbeddedStore
from gateway.store.errors import StoreError
from gateway.worker import application

log = logging.getLogger("tollhouse")


@contextlib.contextmanager
def prepared(config: Config) -> Iterator[Resolved]:
    """Everything that workers need, running and kept so: embedded store, embedded engines; and the
    database schema.

    Raises ConfigError when something configured cannot be started.
    """
    verify(config)
    for doubt in doubts(config):
        log.warning("%s", doubt)
    data_dir = Path(config.data_dir)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError("data_dir", f"{data_dir} cannot be made: {exc.strerror}") from exc
    with contextlib.ExitStack() as stack:
        children: dict[str, Child] = {}
        store_url = config.store.url
        if not store_url:
            store = children["the embedded store"] = _store(stack, config, data_dir)
            store_url = store.url
        engines: dict[str, str] = {}
        for name, backend in config.backends.items():
            if backend.provider == "embedded":
                engine = _engine(stack, name, backend.engine or EngineConfig())
                children[f"the engine of backends.{name}"] = engine
                engines[name] = engine.base_url
        if children:
            keeper = Keeper(children)
            keeper.start()
            stack.callback(keeper.stop)
        database_url = config.database.url or f"sqlite:///{(data_dir / 'tollhouse.db').absolute()}"
        asyncio.run(_open_records(config, database_url))
        yield Resolved(
            config=with_secrets(config),
            store_url=store_url,
            database_url=database_url,
            engines=engines,
            parent=f"{socket.gethostname()}-{secrets.token_hex(8)}",
        )


async def _open_records(config: Config, url: str) -> None:
    """Make the tables, once, before any worker: what cannot be reached, or names a policy that is
    not there, stops the start with its path."""
    database = Database(url)
    try:
        await database.start()
        await check_names(config, database)
    except RecordsError as exc:
        raise ConfigError("database.url", str(exc)) from exc
    finally:
        await database.aclose()


def with_secrets(config: Config) -> Config:
    """The hash key of client keys and the admin token: made once where none is configured."""
    return msgspec.structs.replace(
        config,
        auth=AuthConfig(hash_key=hash_key(config).decode()),
        admin=AdminConfig(token=admin_token(config)),
    )


def _store(stack: contextlib.ExitStack, config: Config, data_dir: Path) -> EmbeddedStore:
    store = EmbeddedStore(data_dir / "store", maxmemory=f"{config.store.maxmemory_mb}mb")
    try:
        store.start()
    except StoreError as exc:
        raise ConfigError("store.url", f"not set, and the embedded store: {exc}") from exc
    stack.callback(store.stop)
    return store


def _engine(stack: contextlib.ExitStack, name: str, settings: EngineConfig) -> Engine:
    engine = Engine(
        EngineSettings(
            model=settings.model or str(tiny_model_path()),
            alias=name,
            parallel=settings.parallel,
            context=settings.context,
            threads=settings.threads or (_cores() if settings.model else 1),
        )
    )
    try:
        engine.start()
    except EngineError as exc:
        raise ConfigError(f"backends.{name}.engine.model", str(exc)) from exc
    stack.callback(engine.stop)
    return engine


def _cores() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Linux only
        return os.cpu_count() or 1


def bind(host: str, port: int) -> socket.socket:
    """Raises ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP: without uvloop, asyncio turns off Nagle's delay of such sockets only.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as exc:
        sock.close()
        raise ConfigError("server.port", f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    sock.set_inheritable(True)
    return sock


def server_config(resolved: Resolved) -> uvicorn.Config:
    server = resolved.config.server
    return uvicorn.Config(
        partial(application, msgspec.json.encode(resolved)),
        factory=True,
        workers=server.workers,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, int(server.drain)),
        # A worker that is starved of CPU is not a dead one.
        timeout_worker_healthcheck=15,
    )


def renewed(running: Resolved, read: Callable[[], Config]) -> Resolved:
    """What workers need by the configuration as it is now. Raises ConfigError for one that is not
    valid, or changes what the parent process holds."""
    config = with_secrets(read())
    check_fixed(running.config, config)
    verify(config)
    for doubt in doubts(config):
        log.warning("%s", doubt)
    asyncio.run(_open_records(config, running.database_url))
    return msgspec.structs.replace(running, config=config)


def serve(resolved: Resolved, sock: socket.socket, read: Callable[[], Config]) -> int:
    """Serve until SIGTERM or SIGINT. Open streams are given `server.drain` seconds. A start that
    fails ends it too: 0 is returned, or the process exits with 0, only after it has served.
    `read` gives the configuration as it is at a SIGHUP. Raises ConfigError from it alone."""
    allow_files()
    config = server_config(resolved)
    if resolved.config.server.workers == 1:
        return serve_here(config, sock)
    supervisor = Supervisor(config, [sock], lambda: server_config(renewed(resolved, read)))
    supervisor.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return STARTUP_FAILURE if failed else 0


def allow_files() -> None:
    """Let this process and its workers open as many files as they may: each request holds two
    connections, and the usual soft limit of 1,024 is for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as exc:  # macOS has a hard limit that cannot be had
            log.warning("at most %d files can be open at once: %s", soft, exc)


def serve_here(config: uvicorn.Config, sock: socket.socket) -> int:
    server = uvicorn.Server(config)

    def leave(*_: Any) -> NoReturn:
        raise SystemExit(0 if server.started else STARTUP_FAILURE)

    # Not ignored while the event loop may still wait for something: uvicorn's own handler is gone
    # once it has stopped, and it raises the signal again then.
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, _hangup(sys.stdin is not None and sys.stdin.isatty()))
    try:
        server.run(sockets=[sock])
    finally:
        # The store and the engines that were started for it must still be stopped.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return 0 if server.started else STARTUP_FAILURE


def _hangup(terminal: bool) -> Callable[..., None]:
    """What one worker does at a SIGHUP: that of a terminal which is gone ends it, as SIGTERM does.
    There is nobody to serve while it would be replaced."""

    def handle(*_: Any) -> None:
        if terminal:
            signal.raise_signal(signal.SIGTERM)
        else:
            log.warning(
                "SIGHUP: one worker cannot be replaced; restart it to read the configuration"
            )

    return handle


class Background:
    """A server in a thread of this process, for the demo: same code, one worker."""

    def __init__(self, resolved: Resolved, sock: socket.socket) -> None:
        self._server = uvicorn.Server(server_config(resolved))
        self._thread = threading.Thread(target=self._run, args=(sock,), daemon=True)

    def _run(self, sock: socket.socket) -> None:
        self._server.run(sockets=[sock])

    def __enter__(self) -> Background:
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.02)
        if not self._thread.is_alive():
            raise RuntimeError("the gateway did not start; its log says why")
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.should_exit = True
        self._thread.join(15)
