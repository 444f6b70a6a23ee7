"""What is measured: the mock itself, nginx, Tollhouse, and other gateways when installed."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.bench.processes import Process, free_port

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "loadtest" / "peers"
KEY = f"th-benchbench01-{secrets.token_urlsafe(32)}"
MODEL = "bench-model"
PATH = "/v1/chat/completions"

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 10000000; client_body_buffer_size 64k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream mock {{ server 127.0.0.1:{mock}; keepalive 64; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

_TOLLHOUSE = """
data_dir = "{folder}/tollhouse"

[server]
port = {port}
max_in_flight = 4000

[router]
artefact = "{artefact}"

[backends.mock]
provider = "vllm"
base_url = "http://127.0.0.1:{mock}/v1"
tier = "frontier"
[backends.mock.models.{model}]
context_window = 32768
max_output = 4096
input = 0.15
output = 0.60

[backends.near]
provider = "vllm"
base_url = "http://127.0.0.1:{mock}/v1"
tier = "local"
[backends.near.models.{model}]
context_window = 32768
max_output = 4096
input = 0.0
output = 0.0

[[keys]]
key = "${{TOLLHOUSE_BENCH_KEY}}"
org = "bench"
team = "bench"
budget_usd = 1000000
requests_per_minute = 100000000
tokens_per_minute = 1000000000
concurrency = 100000

[[scopes]]
id = "org:bench"
budget_usd = 1000000
"""


@dataclass
class Target:
    """`models` names the model to ask for in each scenario that this target takes part in.
    `share` scales the number of requests: slow targets get fewer. `router` is true where a
    router model is loaded."""

    name: str
    port: int
    models: dict[str, str]
    share: float = 1.0
    ready: str = "/v1/models"
    headers: dict[str, str] = field(default_factory=dict)
    process: Process | None = None
    start_limit: float = 60.0
    start_seconds: float | None = None
    idle_memory: dict[str, float] = field(default_factory=dict)

    def head(self) -> str:
        """The request head, with CONTENT-LENGTH where the number goes."""
        headers = {
            "host": f"127.0.0.1:{self.port}",
            "content-type": "application/json",
            "accept": "*/*",
            **self.headers,
            "content-length": "CONTENT-LENGTH",
        }
        lines = [f"POST {PATH} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""])

    def start(self) -> None:
        """Raises DidNotStart."""
        if self.process is not None:
            self.process.start()
            self.start_seconds = self.process.wait_ready(self.port, self.ready, self.start_limit)
            self.idle_memory = self.process.memory()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


def mock(folder: Path) -> Target:
    port = free_port()
    command = [sys.executable, "-m", "loadtest.bench.mock", str(port)]
    process = Process(command, folder / "mock.log", {"PYTHONPATH": str(ROOT)})
    same = dict.fromkeys(("plain", "stream", "streams_500", "streams_2000"), MODEL)
    return Target("direct", port, same, process=process)


def nginx(folder: Path, upstream: int) -> Target | None:
    """Debian's nginx with one worker and keep-alive on both sides; None when it is not there."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if binary is None:
        return None
    port = free_port()
    config = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(user + _NGINX.format(folder=folder, port=port, mock=upstream))
    process = Process([binary, "-p", str(folder), "-c", str(config)], folder / "nginx.log")
    same = dict.fromkeys(("plain", "stream", "streams_500", "streams_2000"), MODEL)
    return Target("nginx", port, same, share=4.0, process=process)


def tollhouse(folder: Path, upstream: int, *, artefact: str) -> Target:
    """The gateway with one worker, its embedded Valkey, SQLite, and everything on: key, limits,
    labels, policy, exact cache, budgets, records, metrics. With `artefact` "none" there is no
    router model and models are named; with one, only `auto` is asked for."""
    routed = artefact != "none"
    name = "tollhouse+router" if routed else "tollhouse"
    port = free_port()
    home = folder / name
    home.mkdir()
    config = home / "tollhouse.toml"
    config.write_text(
        _TOLLHOUSE.format(folder=home, port=port, mock=upstream, artefact=artefact, model=MODEL)
    )
    command = [sys.executable, "-m", "gateway.cli", "serve", str(config), "--workers", "1"]
    script = Path(sys.executable).with_name("tollhouse")
    if script.exists():
        command[:3] = [str(script)]
    scenarios = ("auto",) if routed else ("plain", "cache", "stream", "streams_500", "streams_2000")
    return Target(
        name,
        port,
        dict.fromkeys(scenarios, "auto" if routed else f"mock/{MODEL}"),
        ready="/livez",
        headers={"authorization": f"Bearer {KEY}"},
        process=Process(
            command, home / "log", {"TOLLHOUSE_BENCH_KEY": KEY, "PYTHONPATH": str(ROOT)}
        ),
    )


def litellm(folder: Path, upstream: int) -> Target | None:
    """LiteLLM's proxy with one worker; None when `make bench-peers` has not installed it."""
    binary = PEERS / ".venv-litellm" / "bin" / "litellm"
    if not binary.exists():
        return None
    port = free_port()
    config = PEERS / "litellm.yaml"
    process = Process(
        [str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
        folder / "litellm.log",
        {
            "BENCH_UPSTREAM": f"http://127.0.0.1:{upstream}/v1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
        },
    )
    return Target(
        "litellm",
        port,
        {"plain": MODEL, "stream": MODEL},
        share=0.1,
        ready="/health/liveliness",
        headers={"authorization": "Bearer sk-bench"},
        process=process,
        start_limit=180,
    )


def portkey(folder: Path, upstream: int) -> Target | None:
    """Portkey's open gateway under Node; None when `make bench-peers` has not installed it."""
    script = PEERS / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    fix = PEERS / "portkey-headers.cjs"
    node = shutil.which("node")
    if node is None or not script.exists():
        return None
    port = free_port()
    process = Process(
        [node, "--require", str(fix), str(script), f"--port={port}", "--headless"],
        folder / "portkey.log",
        {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"},
    )
    return Target(
        "portkey",
        port,
        {"plain": MODEL, "stream": MODEL},
        share=0.4,
        ready="/",
        headers={
            "authorization": "Bearer sk-bench",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
        },
        process=process,
    )
