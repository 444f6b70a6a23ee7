"""SIGHUP: the configuration is read anew, whole, and the workers are replaced one after the other,
each by one that serves already. What cannot be read, or is not valid, changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from socket import socket

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess

from gateway.config import Config, ConfigError
from gateway.config.model import EngineConfig

log = logging.getLogger("tollhouse")

START_S = 60
_FIXED = ("data_dir", "auth", "store", "database")
_FIXED_SERVER = ("host", "port", "workers")


class Supervisor(Multiprocess):
    """`renew` gives what new workers are to start from. Raises ConfigError."""

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket], renew: Callable[[], uvicorn.Config]
    ) -> None:
        super().__init__(config, sockets)
        self._renew = renew

    def handle_hup(self) -> None:
        try:
            renewed = self._renew()
        except ConfigError as exc:
            log.error("SIGHUP: the configuration stays as it was: %s", exc)
            return
        former, before = self.config, list(self.processes)
        self._replace(renewed)
        kept = sum(process in before for process in self.processes)
        if not kept:
            log.info("SIGHUP: every worker has the configuration as it is now")
        elif not self.should_exit.is_set():
            log.error("SIGHUP: a worker did not start with it: the configuration stays as it was")
            self.config = former
            if kept < len(before):
                self._replace(former)

    def _replace(self, config: uvicorn.Config) -> None:
        """As far as new workers come to serve. Starting may take longer than answering does."""
        self.config = config
        answering, config.timeout_worker_healthcheck = config.timeout_worker_healthcheck, START_S
        try:
            self.restart_all()
        finally:
            config.timeout_worker_healthcheck = answering


def check_fixed(running: Config, wanted: Config) -> None:
    """Whether nothing has changed that the parent process holds. Raises ConfigError."""
    for name in _FIXED:
        if getattr(running, name) != getattr(wanted, name):
            raise ConfigError(name, "cannot be changed without a restart")
    for name in _FIXED_SERVER:
        if getattr(running.server, name) != getattr(wanted.server, name):
            raise ConfigError(f"server.{name}", "cannot be changed without a restart")
    had, has = _engines(running), _engines(wanted)
    for name in had.keys() | has.keys():
        if had.get(name) != has.get(name):
            raise ConfigError(f"backends.{name}", "an embedded engine needs a restart")


def _engines(config: Config) -> dict[str, EngineConfig]:
    return {
        name: backend.engine or EngineConfig()
        for name, backend in config.backends.items()
        if backend.provider == "embedded"
    }
