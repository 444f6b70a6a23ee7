"""Real servers for tests, all on 127.0.0.1: a gateway, an upstream that fails on demand."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

START_SECONDS = 90.0
# For clients of the tests' own servers, which speak plain HTTP: reading the bundle of authorities
# takes longer than most of what is asked.
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """A child process whose output is kept, so that a failure can be read."""

    def __init__(self, args: list[str], env: dict[str, str] | None = None, cwd: str = "") -> None:
        self.lines: list[str] = []
        self._popen = subprocess.Popen(
            args,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
            cwd=cwd or None,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            if self._popen.poll() is not None:
                self._reader.join(2)
                if found := re.search(pattern, self.output):
                    return found
                raise AssertionError(f"ended with {self._popen.returncode}:\n{self.output}")
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} within {seconds} s:\n{self.output}")

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        return self._popen.wait(seconds)

    def stop(self) -> None:
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(15)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait(5)
        self._reader.join(5)
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)


class Upstream:
    """The scripted upstream over HTTP: faults by model name, and a log of what it was asked."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process = Process(
            [sys.executable, "-m", "loadtest.upstream", "--port", str(self.port)]
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self._client = httpx.Client(base_url=self.url, timeout=30, **PLAIN)
        self._ready()

    def _ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._client.get("/_stats")
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise AssertionError(self.process.output) from None
                time.sleep(0.05)
            else:
                return

    def log(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.get("/_log").json()
        return found

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get("/_stats").json()
        return found

    def reset(self) -> None:
        self._client.post("/_reset")

    def stop(self) -> None:
        self._client.close()
        self.process.stop()


class Gateway:
    """`tollhouse serve CONFIG` as a user runs it."""

    def __init__(
        self, folder: Path, config: str, *, keys: dict[str, str], workers: int = 1
    ) -> None:
        self.folder = folder
        self.keys = keys
        self.key = next(iter(keys.values()), "")
        self.admin_token = "admin-token-of-a-test-gateway"
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "tollhouse.toml"
        self.config.write_text(config)
        env = {name.upper(): key for name, key in keys.items()}
        env["TEST_ADMIN_TOKEN"] = self.admin_token
        self.process = Process(
            [
                sys.executable,
                "-c",
                "import sys; from gateway.cli import main; sys.exit(main())",
                "serve",
                str(self.config),
                "--port",
                "0",
                "--workers",
                str(workers),
            ],
            env,
            cwd=str(folder),
        )
        try:
            found = self.process.wait_for(r"listens on (http://[\d.]+:\d+)")
            self.url = found.group(1)
            self._ready()
        except BaseException:
            self.process.stop()
            raise

    def _ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/livez", timeout=5, **PLAIN).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline or self.process._popen.poll() is not None:
                raise AssertionError(f"the gateway did not start:\n{self.process.output}")
            time.sleep(0.05)

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **PLAIN, **more)

    def async_client(self, key: str | None = None, **more: Any) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, **PLAIN, **more)

    def admin(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.admin_token}"}
        return httpx.Client(base_url=f"{self.url}/admin/v1", headers=headers, timeout=30, **PLAIN)

    def stop(self) -> int:
        self.process.stop()
        return self.process.wait()

    def kill(self) -> None:
        for child in self.process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.signal(signal.SIGKILL)


def stop_all(gateways: list[Gateway]) -> None:
    """All at once, for each takes its time to end."""
    for gateway in gateways:
        gateway.process.signal(signal.SIGTERM)
    for gateway in gateways:
        gateway.stop()


def config_for(upstream: str, *, extra: str = "", models: Iterator[str] | None = None) -> str:
    """A configuration with one local and one frontier backend on the scripted upstream, whose
    models are named by the faults they bring."""
    return f"""
data_dir = "data"

[admin]
token = "${{TEST_ADMIN_TOKEN}}"

[router]
artefact = "heuristic"

[backends.local]
provider = "vllm"
base_url = "{upstream}/v1"
tier = "local"
facts = {{ jurisdiction = "de" }}
timeouts = {{ connect = 2.0, first_token = 3.0, idle = 2.0, total = 20.0 }}
models.ok = {{ upstream = "scripted:ok", input = 0.0, output = 0.0 }}

[backends.frontier]
provider = "vllm"
base_url = "{upstream}/v1"
tier = "frontier"
facts = {{ jurisdiction = "us" }}
timeouts = {{ connect = 2.0, first_token = 3.0, idle = 2.0, total = 20.0 }}
models.ok = {{ upstream = "scripted:ok", input = 2.0, output = 10.0 }}

[[keys]]
key = "${{MAIN}}"
{extra}
"""
