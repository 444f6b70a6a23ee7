"""A gateway with scripted upstreams behind it, and the three accounts of what happened: the
client's, the upstream's own log, and the books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support import PLAIN, Gateway, Upstream

CAPABILITIES = ("chat", "completions", "embeddings", "stream", "tools", "tool_choice", "n")
# The gateway's estimate and the scripted upstream count this prompt alike, at 16 tokens, so that
# what is reserved, estimated and reported can be compared to the nano-USD.
PROMPT_BYTES = 48
PROMPT_TOKENS = 16
NANO_PER_USD_PER_MILLION = 1000


def prompt(number: int) -> str:
    return f"{number:0{PROMPT_BYTES}d}"


@dataclass(frozen=True)
class Backend:
    """One backend with one model `m`. Prices in USD per million tokens, times in seconds.
    `priced`: further lines of the model's."""

    name: str
    fault: str
    url: str = ""
    tier: str = "local"
    jurisdiction: str = "de"
    input: float = 1.0
    output: float = 4.0
    window: int = 100_000
    provider: str = "vllm"
    priced: str = ""
    timeouts: str = "connect = 2.0, first_token = 1.5, idle = 1.0, total = 15.0"

    @property
    def upstream(self) -> str:
        return f"scripted:{self.fault}"

    def toml(self, url: str) -> str:
        capabilities = ", ".join(f'"{name}"' for name in CAPABILITIES)
        facts = f'jurisdiction = "{self.jurisdiction}"' if self.jurisdiction else ""
        return f"""
[backends.{self.name}]
provider = "{self.provider}"
base_url = "{self.url or url}/v1"
tier = "{self.tier}"
facts = {{ {facts} }}
timeouts = {{ {self.timeouts} }}
[backends.{self.name}.models.m]
upstream = "{self.upstream}"
input = {self.input}
output = {self.output}
context_window = {self.window}
max_output = 50_000
capabilities = [{capabilities}]
{self.priced}
"""

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nano-USD."""
        nano = prompt_tokens * self.input + completion_tokens * self.output
        return round(nano * NANO_PER_USD_PER_MILLION)


@dataclass(frozen=True)
class Key:
    """A client's key: which backends it may use, in the order of the configuration."""

    name: str
    backends: tuple[str, ...] = ()
    budget_usd: float | None = 10.0
    more: str = ""

    def toml(self) -> str:
        allow = ", ".join(f'"{backend}/*"' for backend in self.backends)
        budget = "" if self.budget_usd is None else f"budget_usd = {self.budget_usd:.9f}"
        return f"""
[[keys]]
key = "${{{self.name.upper()}}}"
allow = [{allow}]
{budget}
window = "total"
{self.more}
"""


def configuration(
    url: str, backends: tuple[Backend, ...], keys: tuple[Key, ...], extra: str = ""
) -> str:
    return "\n".join(
        [
            'data_dir = "data"',
            '[admin]\ntoken = "${TEST_ADMIN_TOKEN}"',
            '[router]\nartefact = "heuristic"' if "[router]" not in extra else "",
            *(backend.toml(url) for backend in backends),
            *(key.toml() for key in keys),
            extra,
        ]
    )


@dataclass
class Answer:
    """What the client saw. `events`: the data of each event of a stream, `[DONE]` included.
    `whole`: the response came to its end as HTTP means it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: list[bytes] = field(default_factory=list)
    whole: bool = True
    seconds: float = 0.0

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(data) for data in self.events if data != b"[DONE]"]

    @property
    def done(self) -> bool:
        return self.events[-1:] == [b"[DONE]"]

    @property
    def text(self) -> str:
        parts = self.chunks if self.events else [self.json]
        choices = [choice for part in parts for choice in part.get("choices") or ()]
        return "".join(_content(choice) for choice in choices)

    @property
    def finishes(self) -> list[str]:
        parts = self.chunks if self.events else [self.json]
        choices = [choice for part in parts for choice in part.get("choices") or ()]
        return [found for choice in choices if (found := choice.get("finish_reason"))]

    @property
    def error(self) -> dict[str, Any] | None:
        """The error of the answer, or the one that ended its stream."""
        parts = self.chunks if self.events else [self.json]
        return next((part["error"] for part in reversed(parts) if "error" in part), None)

    @property
    def usage(self) -> dict[str, Any] | None:
        parts = self.chunks if self.events else [self.json]
        return next((part["usage"] for part in reversed(parts) if part.get("usage")), None)

    @property
    def broken(self) -> bool:
        """Ended by a terminal error, with nothing that a client could take for success."""
        last = self.chunks[-1] if self.events else self.json
        return self.whole and "error" in last and not self.done and "stop" not in self.finishes

    @property
    def complete(self) -> bool:
        if self.status != 200 or self.error is not None or not self.whole:
            return False
        return bool(self.finishes) and (self.done or not self.events)


def _content(choice: dict[str, Any]) -> str:
    part = choice.get("delta") or choice.get("message") or {}
    return choice.get("text") or part.get("content") or ""


def read_events(raw: bytes) -> list[bytes]:
    blocks = (block.strip() for block in raw.split(b"\n\n"))
    return [block.removeprefix(b"data: ") for block in blocks if block.startswith(b"data: ")]


def chat(text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def completion(text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": text, **more}


class Scene:
    """A running gateway with its upstreams, seen from all sides."""

    def __init__(
        self, gateway: Gateway, upstreams: dict[str, Upstream], backends: tuple[Backend, ...]
    ) -> None:
        self.gateway = gateway
        self.upstreams = upstreams
        self.backends = {backend.name: backend for backend in backends}
        self._client = httpx.Client(base_url=gateway.url, timeout=60, **PLAIN)
        self._admin = gateway.admin()

    def close(self) -> None:
        self._client.close()
        self._admin.close()

    def ask(self, key: str, body: dict[str, Any], **headers: str) -> Answer:
        """One request; underscores in header names become hyphens."""
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        started = time.monotonic()
        sent["authorization"] = f"Bearer {self.gateway.keys[key]}"
        with self._client.stream("POST", path, json=body, headers=sent) as response:
            answer = Answer(response.status_code, dict(response.headers))
            try:
                for data in response.iter_bytes():
                    answer.body += data
            except httpx.TransportError:
                answer.whole = False
        answer.seconds = time.monotonic() - started
        if "event-stream" in answer.headers.get("content-type", ""):
            answer.events = read_events(answer.body)
        return answer

    def attempts(self, request_id: str) -> list[dict[str, Any]]:
        """What the upstreams say of this request, in the order in which it reached them."""
        found = [
            {**row, "upstream": name}
            for name, upstream in self.upstreams.items()
            for row in upstream.log()
            if row["id"] == request_id
        ]
        return sorted(found, key=lambda row: row["started"])

    def ended(self, request_id: str, seconds: float = 10) -> list[dict[str, Any]]:
        """The attempts, once none of them is still running upstream."""
        eventually(
            lambda: all(row["ended"] is not None for row in self.attempts(request_id)), seconds
        )
        return self.attempts(request_id)

    def sql(self, query: str, *values: Any) -> list[dict[str, Any]]:
        path = self.gateway.folder / "data" / "tollhouse.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]

    def usage(self, request_id: str, count: int = 1, seconds: float = 15) -> list[dict[str, Any]]:
        """The usage records of a request, by attempt, once there are that many."""
        query = "SELECT * FROM usage_records WHERE request_id = ? ORDER BY attempt"
        eventually(lambda: len(self.sql(query, request_id)) >= count, seconds)
        return self.sql(query, request_id)

    def decision(self, request_id: str, seconds: float = 15) -> dict[str, Any] | None:
        query = "SELECT body FROM decision_records WHERE request_id = ?"
        eventually(lambda: bool(self.sql(query, request_id)), seconds)
        rows = self.sql(query, request_id)
        return json.loads(rows[0]["body"]) if rows else None

    def key_id(self, key: str) -> str:
        return self.gateway.keys[key].split("-")[1]

    def books(self, key: str) -> dict[str, Any]:
        """The key's budget as the ledger has it: `spent` and `held` in nano-USD."""
        scope = f"key:{self.key_id(key)}"
        answer = self._admin.get("/budgets", params={"limit": 100})
        answer.raise_for_status()
        found: dict[str, Any] = next(row for row in answer.json()["items"] if row["scope"] == scope)
        return found

    def recorded(self, key: str) -> int:
        """Nano-USD in the key's usage records."""
        query = "SELECT COALESCE(SUM(cost_nano), 0) AS total FROM usage_records WHERE key_id = ?"
        return int(self.sql(query, self.key_id(key))[0]["total"])

    def balanced(self, key: str, seconds: float = 20) -> int:
        """Wait for quiescence; then nothing is held and ledger and records agree. What was
        spent, in nano-USD."""

        def quiet() -> bool:
            try:
                books = self.books(key)
            except httpx.HTTPStatusError as exc:
                # Right after a burst a starved store may miss its deadline: that is no quiet yet.
                if exc.response.status_code == 503:
                    return False
                raise
            return bool(books["held"] == 0 and books["spent"] == self.recorded(key))

        eventually(quiet, seconds)
        books = self.books(key)
        assert books["held"] == 0
        assert books["spent"] == self.recorded(key)
        return int(books["spent"])

    def charged(self, *backends: str) -> int:
        """What the upstreams' logs come to at these backends' prices, in nano-USD."""
        wanted = {self.backends[name].upstream: self.backends[name] for name in backends}
        return sum(
            wanted[row["model"]].cost(row["prompt_tokens"], row["completion_tokens"])
            for upstream in self.upstreams.values()
            for row in upstream.log()
            if row["model"] in wanted and row["status"] == 200
        )


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether the condition became true in time."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


class Raw:
    """One request on a bare socket, for clients that behave badly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    @classmethod
    async def connect(cls, gateway: Gateway) -> Raw:
        parts = urlsplit(gateway.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        return cls(reader, writer)

    async def send(
        self, key: str, body: dict[str, Any], *, part: float = 1.0, headers: str = ""
    ) -> None:
        """The request; of the body only the first `part`."""
        data = json.dumps(body).encode()
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        head = (
            f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n{headers}\r\n"
        )
        self.writer.write(head.encode() + data[: int(len(data) * part)])
        await self.writer.drain()

    async def head(self) -> int:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        return self.status

    async def until(self, needle: bytes) -> bytes:
        return await self.reader.readuntil(needle)

    async def rest(self) -> bytes:
        """The body of an answer that says how long it is."""
        return await self.reader.readexactly(int(self.headers["content-length"]))

    async def body(self) -> bytes:
        """The chunks of the answer, to its end. Raises IncompleteReadError when it is cut."""
        parts: list[bytes] = []
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if not size:
                return b"".join(parts)
            parts.append(data[:-2])

    def half_close(self) -> None:
        self.writer.write_eof()

    async def close(self) -> float:
        """Close at once. Returns the time."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        return time.time()


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP server of a few bytes: `answer` gets each connection once its request is read. Yields
    its URL and the requests that it saw."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            head, _, rest = data.partition(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    while len(rest) < int(line.partition(b":")[2]):
                        rest += connection.recv(65536)
            seen.append(head + b"\r\n\r\n" + rest)
            answer(connection)

    def accept() -> None:
        threads = []
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(5)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        stop.set()
        acceptor.join(10)
        listener.close()
