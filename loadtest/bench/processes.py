"""Processes of the benchmark: starting, waiting until they answer, and what they use.

CPU is user + system time of a process and all its descendants, as the kernel counts it.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types


class DidNotStart(Exception):
    """A process under test ended early or did not answer in time; holds the end of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A child process in its own group, with its output in a file."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._log = log
        self._env = env
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("wb") as out:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if self._env is None else {**os.environ, **self._env},
                start_new_session=True,
            )

    def wait_ready(self, port: int, path: str, limit: float) -> float:
        """Seconds until `GET path` answers 200. Raises DidNotStart."""
        assert self._child is not None
        began = time.perf_counter()
        while time.perf_counter() - began < limit:
            if self._child.poll() is not None:
                raise DidNotStart(f"exit code {self._child.returncode}: {self._tail()}")
            if _answers(port, path):
                return time.perf_counter() - began
            time.sleep(0.02)
        raise DidNotStart(f"no answer within {limit:.0f} s: {self._tail()}")

    def tree(self) -> list[psutil.Process]:
        assert self._child is not None
        root = psutil.Process(self._child.pid)
        return [root, *root.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds so far, of descendants that have ended too when they were waited for."""
        total = 0.0
        for process in self.tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> dict[str, float]:
        """Resident MB of each process of the tree, by `name/pid`."""
        found = {}
        for process in self.tree():
            try:
                name = " ".join(process.cmdline()[:3]).rsplit("/", 1)[-1] or process.name()
                found[f"{name} [{process.pid}]"] = process.memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                continue
        return found

    def stop(self) -> None:
        if self._child is None:
            return
        tree = [] if self._child.poll() is not None else self.tree()
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(15)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._child = None

    def _tail(self) -> str:
        return self._log.read_bytes()[-1500:].decode(errors="replace")


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
