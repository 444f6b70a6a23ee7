"""One gateway for the SDK tests: a real llama.cpp engine behind both dialects, and the scripted
upstream with a backend of its own for each fault, so that no breaker opens for another test."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from backends.local.engine import Engine, EngineSettings
from gateway.auth import new_key
from tests.support import PLAIN, Gateway, Upstream, free_port

FAULTS = {
    "status-400": "scripted:status=400",
    "status-401": "scripted:status=401",
    "status-404": "scripted:status=404",
    "status-429": "scripted:status=429,retry_after=7",
    "status-500": "scripted:status=500",
    "status-503": "scripted:status=503",
    "reset": "scripted:reset",
    "hang": "scripted:hang",
    "html": "scripted:html",
    "context": "scripted:context",
    "filter": "scripted:filter",
    "cut-fin": "scripted:tokens=20,cut=5,how=fin",
    "cut-rst": "scripted:tokens=20,cut=5,how=rst",
    "nofinish": "scripted:tokens=20,nofinish",
    "stall": "scripted:tokens=20,stall=30,after=5",
    "slow": "scripted:tokens=50,chunk=40ms",
}
ENGINE_CAN = (
    '["chat", "completions", "embeddings", "stream", "tools", "tool_choice", "json_object",'
    ' "json_schema", "logprobs", "n"]'
)
MESSAGES_CAN = '["chat", "stream", "tools", "tool_choice", "json_object", "json_schema"]'
SCRIPTED_CAN = (
    '["chat", "completions", "embeddings", "stream", "tools", "tool_choice", "json_object",'
    ' "json_schema", "vision"]'
)

PAID = "input = 2.0, output = 9.0"


def config(engine: str, upstream: str) -> str:
    return f"""
data_dir = "data"

[server]
max_body_mb = 1

[admin]
token = "${{TEST_ADMIN_TOKEN}}"

[router]
artefact = "heuristic"

# Each request must reach its upstream, also the second time.
[cache]
enabled = false

# Two attempts for a whole answer and two for a stream open no breaker.
[retry]
attempts = 2

[backends.engine]
provider = "llamacpp"
base_url = "{engine}"
tier = "local"
facts = {{ jurisdiction = "de" }}
models.tiny = {{ capabilities = {ENGINE_CAN}, context_window = 8192 }}
models.unbounded = {{ upstream = "tiny", capabilities = {ENGINE_CAN}, context_window = 0 }}

[backends.claude]
provider = "anthropic"
base_url = "{engine}"
tier = "local"
facts = {{ jurisdiction = "de" }}
models.tiny = {{ capabilities = {MESSAGES_CAN}, context_window = 8192 }}

[backends.scripted]
provider = "vllm"
base_url = "{upstream}/v1"
facts = {{ jurisdiction = "us" }}
models.ok = {{ upstream = "scripted:ok", capabilities = {SCRIPTED_CAN}, {PAID} }}
models.other = {{ upstream = "scripted:latency=0", capabilities = {SCRIPTED_CAN}, {PAID} }}
models.plain = {{ upstream = "scripted:ok", capabilities = ["chat", "stream"], {PAID} }}

[backends.messages]
provider = "anthropic"
base_url = "{upstream}/v1"
facts = {{ jurisdiction = "us" }}
models.ok = {{ upstream = "scripted:ok", capabilities = {SCRIPTED_CAN}, {PAID} }}

[backends.dead]
provider = "vllm"
base_url = "http://127.0.0.1:{free_port()}/v1"
models.gone = {{ input = 0.0, output = 0.0 }}

[aliases]
scripted = "scripted/ok"
"scripted:latency=0" = "scripted/other"

# No backend has the fact.
[policies.default]
route = "weak"
[policies.default.labels.secret]
facts = {{ clearance = ["top"] }}

[[keys]]
key = "${{MAIN}}"

[[keys]]
key = "${{NARROW}}"
allow = ["engine/*"]

[[keys]]
key = "${{POOR}}"
org = "poor"
budget_usd = 0.000001
window = "total"

[[keys]]
key = "${{RARE}}"
requests_per_minute = 1

[[keys]]
key = "${{SINGLE}}"
concurrency = 1

[[keys]]
key = "${{SECRET}}"
labels = ["secret"]
""" + "".join(_fault(name, model, upstream) for name, model in FAULTS.items())


def _fault(name: str, model: str, upstream: str) -> str:
    found = ""
    for prefix, provider in (("", "vllm"), ("messages-", "anthropic")):
        found += f"""
[backends."{prefix}{name}"]
provider = "{provider}"
base_url = "{upstream}/v1"
models.bad = {{ upstream = "{model}", input = 1.0, output = 1.0 }}
timeouts = {{ connect = 2.0, first_token = 1.0, idle = 1.0, total = 2.0 }}
"""
    return found.replace("total = 2.0", "total = 20.0") if name == "slow" else found


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    pytest.importorskip("xllamacpp", reason="needs the `local` extra")
    with Engine(EngineSettings()) as started:
        yield started


@pytest.fixture(scope="session")
def tollhouse(
    tmp_path_factory: pytest.TempPathFactory, engine: Engine, upstream: Upstream
) -> Iterator[Gateway]:
    names = ("main", "narrow", "poor", "rare", "single", "secret")
    server = Gateway(
        tmp_path_factory.mktemp("sdk"),
        config(engine.base_url, upstream.url),
        keys={name: new_key() for name in names},
    )
    yield server
    server.stop()


@pytest.fixture
def connect(tollhouse: Gateway) -> Iterator[Callable[..., openai.OpenAI]]:
    """Makes SDK clients for a key of the gateway, by its name; retries are off unless asked."""
    made: list[openai.OpenAI] = []

    def client(key: str = "main", **more: Any) -> openai.OpenAI:
        http = openai.DefaultHttpxClient(**PLAIN)
        given = {"api_key": tollhouse.keys[key], "max_retries": 0, "timeout": 30.0, **more}
        made.append(openai.OpenAI(base_url=f"{tollhouse.url}/v1", http_client=http, **given))
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def client(connect: Callable[..., openai.OpenAI]) -> openai.OpenAI:
    return connect()


@pytest.fixture
def strict(connect: Callable[..., openai.OpenAI]) -> openai.OpenAI:
    """A client that refuses any answer that is not of the API's declared form."""
    return connect(_strict_response_validation=True)


@pytest.fixture
async def aclient(tollhouse: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=tollhouse.key,
        base_url=f"{tollhouse.url}/v1",
        max_retries=0,
        timeout=30.0,
        http_client=openai.DefaultAsyncHttpxClient(**PLAIN),
    ) as opened:
        yield opened


@pytest.fixture
def http(tollhouse: Gateway) -> Iterator[httpx.Client]:
    """Bare HTTP, where the SDK would hide what is looked at."""
    with tollhouse.client() as opened:
        yield opened


@pytest.fixture
def requests(http: httpx.Client) -> Callable[[], dict[str, float]]:
    """How many requests the gateway has answered and refused so far, by its own metrics."""

    def count() -> dict[str, float]:
        text = http.get("/metrics").text
        found = {}
        for name in ("requests", "refused"):
            samples = re.findall(rf"^tollhouse_{name}_total\{{.*\}} (\S+)$", text, re.M)
            found[name] = sum(map(float, samples))
        return found

    return count


@pytest.fixture
def error_form() -> Callable[[Any], dict[str, Any]]:
    """The error object of a failed call, checked: all four keys, and each of its type."""

    def check(failed: Any) -> dict[str, Any]:
        response = getattr(failed, "response", failed)
        # The SDK unwraps the envelope; a stream's error has no response of its own.
        error = failed.body if isinstance(failed, openai.APIError) else None
        if not isinstance(response, openai.APIError):
            assert response.headers["content-type"] == "application/json"
            body = response.json()
            assert set(body) == {"error"}
            assert error in (None, body["error"])
            error = body["error"]
        assert isinstance(error, dict), json.dumps(error)
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["type"], str)
        assert error["param"] is None or isinstance(error["param"], str)
        assert error["code"] is None or isinstance(error["code"], str)
        return error

    return check


@pytest.fixture(scope="session")
def png() -> bytes:
    """A picture of one pixel."""
    return bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c63f8cfc0f01f00050001ff56c72f0d0000000049454e44ae426082"
    )
