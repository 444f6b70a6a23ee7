"""`tollhouse serve` as a newcomer runs it: without a file, with a model of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from backends.local.engine import Engine, EngineSettings, tiny_model_path
from backends.providers import load_providers
from gateway import discover as discovery
from gateway.auth import parse_key
from gateway.config import ConfigError
from tests.support import Process

COMMAND = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in load_providers().values():
        if provider.key_env:
            monkeypatch.delenv(provider.key_env, raising=False)


def serve(folder: Path, *args: str, **env: str) -> Process:
    return Process([*COMMAND, "serve", "--port", "0", *args], env, cwd=str(folder))


@pytest.fixture
def own_model(tmp_path: Path, no_keys: None) -> Iterator[Process]:
    process = serve(tmp_path, "--local-model", str(tiny_model_path()))
    yield process
    process.stop()


def test_a_model_of_ones_own_answers(own_model: Process) -> None:
    url = own_model.wait_for(r"listens on (http://127\.0\.0\.1:\d+)/v1").group(1)
    key = own_model.wait_for(r"client key: (th-\S+)").group(1)
    assert parse_key(key) is not None
    own_model.wait_for("no frontier API")
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        answer = client.post(
            "/v1/chat/completions",
            headers={"authorization": f"Bearer {key}"},
            json={
                "model": "auto",
                "temperature": 0,
                "max_tokens": 30,
                "messages": [{"role": "user", "content": "Hello"}],
            },
        )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tollhouse-tier"] == "local"
    assert "Hello" in answer.json()["choices"][0]["message"]["content"]


def test_a_missing_model_is_a_config_error(tmp_path: Path, no_keys: None) -> None:
    process = serve(tmp_path, "--local-model", "nowhere.gguf")
    assert process.wait() == 2
    process.stop()
    assert "nowhere.gguf" in process.output


async def test_api_keys_and_engines_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(EngineSettings(alias="tiny-here"))
    engine.start()
    try:
        rows = load_providers()
        here = msgspec.structs.replace(rows["llamacpp"], local_port=engine.port)
        only = {"llamacpp": here, "openai": rows["openai"], "anthropic": rows["anthropic"]}
        monkeypatch.setattr(discovery, "load_providers", lambda: only)
        config, notes = await discovery.discover({"OPENAI_API_KEY": "sk-x"}, str(tmp_path))
    finally:
        engine.stop()
    assert set(config.backends) == {"llamacpp", "openai"}
    assert config.backends["llamacpp"].tier == "local"
    assert list(config.backends["llamacpp"].models) == ["tiny-here"]
    assert "gpt-4o" in config.backends["openai"].models
    assert any("OPENAI_API_KEY" in note for note in notes)
    assert not any("sk-x" in note for note in notes)


@contextlib.asynccontextmanager
async def listening(answers: dict[str, str]) -> AsyncIterator[int]:
    """A server on a port of its own that answers these paths, and 404 for others."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = answers.get(head.split()[1], "")
        status = "200 OK" if body else "404 Not Found"
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_models_that_an_engine_hands_on_are_not_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "/v1/models": '{"data": [{"id": "llama3.2:3b"}, {"id": "gpt-oss:120b-cloud"}, '
        '{"id": "glm-4.6:cloud"}, {"id": "ours:latest"}]}',
        "/api/tags": '{"models": [{"name": "llama3.2:3b"}, {"name": "gpt-oss:120b-cloud", '
        '"remote_host": "https://ollama.com:443"}, {"name": "glm-4.6:cloud"}, '
        '{"name": "ours:latest", "remote_host": "https://ollama.com:443"}]}',
    }
    async with listening(answers) as port:
        rows = load_providers()
        only = {"ollama": msgspec.structs.replace(rows["ollama"], local_port=port)}
        monkeypatch.setattr(discovery, "load_providers", lambda: only)
        config, notes = await discovery.discover({}, str(tmp_path))
    assert list(config.backends["ollama"].models) == ["llama3.2:3b"]
    assert any("glm-4.6:cloud, gpt-oss:120b-cloud, ours:latest left out" in n for n in notes)


async def test_an_engine_without_a_list_of_its_own_is_known_by_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening({"/v1/models": '{"data": [{"id": "gpt-oss:120b-cloud"}]}'}) as port:
        rows = load_providers()
        only = {"ollama": msgspec.structs.replace(rows["ollama"], local_port=port)}
        monkeypatch.setattr(discovery, "load_providers", lambda: only)
        config, notes = await discovery.discover({}, str(tmp_path))
    assert not config.backends
    assert any("no local engine" in note for note in notes)


async def test_the_first_key_stays_the_same(tmp_path: Path, no_keys: None) -> None:
    first, _ = await discovery.discover({}, str(tmp_path))
    second, _ = await discovery.discover({}, str(tmp_path))
    assert first.keys == second.keys
    assert os.stat(tmp_path / "client-key").st_mode & 0o077 == 0
    assert (tmp_path / "client-key").read_text().strip() == first.keys[0].key
    (tmp_path / "client-key").write_text("something-else-of-some-length\n")
    with pytest.raises(ConfigError, match="holds no key"):
        await discovery.discover({}, str(tmp_path))
    assert first.server.host == "127.0.0.1"


def test_a_port_that_is_taken_is_a_config_error(tmp_path: Path, no_keys: None) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = Process(
            [*COMMAND, "serve", "--port", str(taken.getsockname()[1])], cwd=str(tmp_path)
        )
        assert process.wait() == 2
        process.stop()
    assert "server.port" in process.output
