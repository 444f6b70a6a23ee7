"""A gateway that learns, over an upstream whose models say what their names ask for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from gateway.auth import new_key
from tests.support import PLAIN, Gateway, stop_all

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A gateway that leaves in the middle of an answer is part of the tests."""


class Talk:
    """An upstream in chat form. Model `local` and `frontier` answer with their own name; `judge`
    holds every answer that does not say LOCAL to be good, wherever it stands; `both` holds all
    of them to be good; `prose` gives no verdict; `broken` answers 500; `slow` waits for `go`.
    `acts` names those that behave as another one for now."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.acts: dict[str, str] = {}
        self.go = threading.Event()
        talk = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                talk.asked.append(body)
                talk.answer(self, body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        model = self.acts.get(body["model"], body["model"])
        if model == "broken":
            self._send(handler, 500, b'{"error": {"message": "broken"}}')
            return
        if model == "slow":
            self.go.wait(20)
        text = self._text(body, model)
        if body.get("stream"):
            self._stream(handler, model, text)
            return
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": model}
        answer = {**whole, "choices": [choice], "usage": USAGE}
        self._send(handler, 200, json.dumps(answer).encode())

    def _text(self, body: dict[str, Any], model: str) -> str:
        if model in ("judge", "both"):
            shown = json.loads(body["messages"][-1]["content"])
            good = [model == "both" or "LOCAL" not in shown[f"answer_{x}"] for x in "ab"]
            return json.dumps({"a_ok": int(good[0]), "b_ok": int(good[1])})
        if model == "prose":
            return "Both answers have their merits."
        return f"{model.upper()} answers {body['messages'][-1]['content']}"

    def _send(self, handler: BaseHTTPRequestHandler, status: int, data: bytes) -> None:
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _stream(self, handler: BaseHTTPRequestHandler, model: str, text: str) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
        events = []
        for piece in (text[:5], text[5:]):
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            events.append({**head, "choices": [choice]})
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        events.append({**head, "choices": [last]})
        for event in [*(json.dumps(event) for event in events), "[DONE]"]:
            data = f"data: {event}\n\n".encode()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        handler.wfile.write(b"0\r\n\r\n")

    def models(self) -> list[str]:
        return [body["model"] for body in self.asked]

    def stop(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture(scope="module")
def talk() -> Iterator[Talk]:
    server = Talk()
    yield server
    server.stop()


BASE = """
data_dir = "data"

[admin]
token = "${{TEST_ADMIN_TOKEN}}"

[router]
artefact = "{artefact}"

[backends.home]
provider = "vllm"
base_url = "{url}/v1"
tier = "local"
facts = {{ jurisdiction = "de" }}
models.m = {{ upstream = "local", input = 0.0, output = 0.0 }}
models.judge = {{ upstream = "{judge}", input = 1.0, output = 4.0, max_output = 1000 }}

[backends.ohio]
provider = "vllm"
base_url = "{url}/v1"
tier = "frontier"
facts = {{ jurisdiction = "us" }}
models.m = {{ upstream = "{frontier}", input = 2.0, output = 10.0, max_output = 1000 }}

# The score never reaches 1 and never falls to -1: the first keeps to the weak tier, the second to
# the strong one, and both of them ask the router.
[policies.default]
threshold = 1.0
cache_ttl = 0
labels.phi = {{ facts = {{ jurisdiction = ["de"] }} }}
labels.pii = {{ facts = {{ jurisdiction = ["de", "us"] }} }}

[policies.strong]
threshold = -1.0
cache_ttl = 0

[policies.cached]
threshold = 1.0
cache_ttl = 600

[policies.lax]
threshold = 1.0
cache_ttl = 0
labels.phi = {{}}

[[keys]]
key = "${{MAIN}}"
org = "acme"

[[keys]]
key = "${{SECOND}}"
org = "acme"
{second}

[[keys]]
key = "${{STRANGER}}"
org = "rival"
{extra}
"""

Start = Callable[..., "Learner"]


class Learner:
    """A running gateway and what tests ask of it."""

    def __init__(self, gateway: Gateway, talk: Talk) -> None:
        self.gateway = gateway
        self.talk = talk

    def chat(self, text: str, *, key: str = "main", **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        with self.gateway.client(self.gateway.keys[key]) as client:
            body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
            return client.post("/v1/chat/completions", json=body, headers=headers)

    def feedback(self, body: Any, *, key: str = "main") -> httpx.Response:
        with self.gateway.client(self.gateway.keys[key]) as client:
            return client.post("/v1/feedback", json=body)

    def labelled(self, *decisions: str) -> dict[str, dict[str, Any]]:
        """Of these decisions, the labels that there are."""
        rows = self.labels(limit=500)
        return {r["decision_id"]: r for r in rows if r["decision_id"] in decisions}

    def labels(self, **query: Any) -> list[dict[str, Any]]:
        with self.gateway.admin() as admin:
            reply = admin.get("/labels", params=query)
            assert reply.status_code == 200, reply.text
            return list(reply.json()["items"])

    def admin(self, method: str, path: str, **more: Any) -> httpx.Response:
        with self.gateway.admin() as admin:
            return admin.request(method, path, **more)

    def routers(self) -> list[str]:
        """Who scored the last requests, newest first."""
        page = self.admin("GET", "/decisions", params={"org": "acme", "limit": 20}).json()
        return [item["router"] for item in page["items"] if item["router"]]

    def metric(self, name: str, **labels: str) -> float:
        text = httpx.get(f"{self.gateway.url}/metrics", **PLAIN).text
        wanted = [f'tollhouse_{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in text.splitlines():
            if line.startswith((name + "{", name + " ")) and all(w in line for w in wanted):
                total += float(line.rpartition(" ")[2])
        return total

    def compared(self, outcome: str, count: int = 1) -> None:
        """Wait until so many comparisons ended like this."""
        name = "tollhouse_shadow_comparisons_total"
        wait_for(lambda: self.metric(name, outcome=outcome) >= count)


def wait_for(ready: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def learn(tmp_path_factory: pytest.TempPathFactory, talk: Talk) -> Iterator[Start]:
    """Starts gateways; `extra` is more configuration, `judge` and `frontier` the upstream's
    models, `second` more about the second key. All end with the file."""
    started: list[Gateway] = []

    def start(
        extra: str = "",
        *,
        judge: str = "judge",
        frontier: str = "frontier",
        artefact: str = "heuristic",
        second: str = "",
        workers: int = 1,
        again: Learner | None = None,
    ) -> Learner:
        text = BASE.format(
            url=talk.url,
            judge=judge,
            frontier=frontier,
            artefact=artefact,
            second=second,
            extra=extra,
        )
        keys = {name: new_key() for name in ("main", "second", "stranger")}
        folder = tmp_path_factory.mktemp("gateway")
        if again is not None:
            keys, folder = again.gateway.keys, again.gateway.folder
        gateway = Gateway(folder, text, keys=keys, workers=workers)
        started.append(gateway)
        return Learner(gateway, talk)

    yield start
    stop_all(started)
