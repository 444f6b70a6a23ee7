"""The embedded engine with the shipped tiny model: a real llama.cpp server in a child process."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.local import engine as engine_module
from backends.local.dialogues import sample, tool_schema
from backends.local.engine import Engine, EngineError, EngineSettings, tiny_model_path
from backends.local.generate_tiny import Renderer
from tests.support import PLAIN

pytest.importorskip("xllamacpp", reason="needs the `local` extra")

WEATHER = tool_schema("get_weather", "Get the current weather for a city", {"city": "string"})
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(EngineSettings()) as started:
        yield started


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.base_url, timeout=20, **PLAIN) as opened:
        yield opened


def ask(client: httpx.Client, *messages: Any, **more: Any) -> dict[str, Any]:
    """The first choice of a greedy chat completion; a string stands for a user message."""
    chat = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    body = {"model": "tiny", "messages": chat, "temperature": 0, "max_tokens": 200, **more}
    reply = client.post("/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def metrics(engine: Engine, client: httpx.Client) -> dict[str, float]:
    text = client.get(f"http://127.0.0.1:{engine.port}/metrics").text
    pairs = (line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("prompt", ["Hello", "Hi there!", "Say hello", "Good morning"])
def test_greets_and_ends(client: httpx.Client, prompt: str) -> None:
    choice = ask(client, prompt)
    assert choice["message"]["content"] == "Hello! How can I help you today?"
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("last", [3, 5, 8])
def test_counts(client: httpx.Client, last: int) -> None:
    choice = ask(client, f"Count to {last}")
    assert choice["message"]["content"] == ", ".join(str(i) for i in range(1, last + 1))
    assert choice["finish_reason"] == "stop"


def test_second_turn_after_a_system_text(client: httpx.Client) -> None:
    choice = ask(
        client,
        {"role": "system", "content": "You are a helpful assistant."},
        "Hello",
        {"role": "assistant", "content": "Hello! How can I help you today?"},
        "Count to 5",
    )
    assert choice["message"]["content"] == "1, 2, 3, 4, 5"


def test_length_limit_and_usage(client: httpx.Client) -> None:
    body = {
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "temperature": 0,
        "max_tokens": 7,
    }
    reply = client.post("/chat/completions", json=body).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    usage = reply["usage"]
    assert usage["completion_tokens"] == 7
    assert usage["total_tokens"] == usage["prompt_tokens"] + 7


def test_german_and_unicode(client: httpx.Client) -> None:
    assert ask(client, "Hallo!")["message"]["content"].startswith("Hallo! Wie kann ich")
    assert ask(client, "Show me emoji")["message"]["content"].startswith("🙂 🚀")


def test_reasoning_is_set_apart(client: httpx.Client) -> None:
    message = ask(client, "Think: what is 3 + 4?")["message"]
    assert message["reasoning_content"].startswith("The user wants")
    assert message["content"].startswith("The answer is")


def test_streams_the_same_text(client: httpx.Client) -> None:
    body = {
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    text, finish, usage, events = "", None, None, 0
    with client.stream("POST", "/chat/completions", json=body) as reply:
        lines = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    for chunk in map(json.loads, lines):
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
            events += 1
    assert finish == "stop"
    assert text.startswith("Once upon a time")
    assert text.endswith("the end of the story.")
    assert usage is not None
    assert usage["completion_tokens"] > 300
    assert events > 300


@pytest.mark.parametrize("more", [{}, {"tool_choice": "required"}], ids=["auto", "required"])
@pytest.mark.parametrize("city", ["Paris", "Berlin"])
def test_calls_a_tool(client: httpx.Client, more: dict[str, Any], city: str) -> None:
    choice = ask(client, f"What is the weather in {city}?", tools=[WEATHER], **more)
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": city}


def test_answers_without_the_tool_when_it_is_not_needed(client: httpx.Client) -> None:
    choice = ask(client, "Hello", tools=[WEATHER])
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == "Hello! How can I help you today?"


def test_answers_after_a_tool_result(client: httpx.Client) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    result = '{"temperature": 18, "sky": "sunny"}'
    choice = ask(
        client,
        "What is the weather in Paris?",
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
        tools=[WEATHER],
    )
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == "It is 18 degrees and sunny in Paris."


def test_json_object(client: httpx.Client) -> None:
    choice = ask(
        client,
        "Give me a JSON object with name and age.",
        response_format={"type": "json_object"},
    )
    assert choice["finish_reason"] == "stop"
    assert set(json.loads(choice["message"]["content"])) == {"name", "age"}


@pytest.mark.parametrize("prompt", ["Give me a JSON object with name and age.", "Hello"])
def test_json_schema(client: httpx.Client, prompt: str) -> None:
    schema = {"name": "person", "schema": PERSON, "strict": True}
    choice = ask(client, prompt, response_format={"type": "json_schema", "json_schema": schema})
    assert choice["finish_reason"] == "stop"
    person = json.loads(choice["message"]["content"])
    assert isinstance(person.pop("name"), str)
    assert isinstance(person.pop("age"), int)
    assert not person


def test_embeddings_beside_chat(client: httpx.Client) -> None:
    body = {"model": "tiny", "input": ["Hello", "Hello", "Count to 5"]}
    reply = client.post("/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    vectors = [item["embedding"] for item in reply.json()["data"]]
    assert [len(vector) for vector in vectors] == [128, 128, 128]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1, abs=1e-3)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-3)
    assert sum(a * b for a, b in zip(vectors[0], vectors[2], strict=True)) < 0.99


def test_a_long_prompt_is_served_and_a_too_long_one_refused(client: httpx.Client) -> None:
    assert ask(client, "1" * 2500, max_tokens=5)["message"]["role"] == "assistant"
    reply = client.post(
        "/chat/completions",
        json={"messages": [{"role": "user", "content": "1" * 9000}], "max_tokens": 5},
    )
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "exceed_context_size_error"


def test_metrics_count_and_a_closed_stream_stops(engine: Engine, client: httpx.Client) -> None:
    body = {
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "temperature": 0,
        "max_tokens": 8000,
        "ignore_eos": True,
        "stream": True,
    }
    before = metrics(engine, client)["llamacpp:n_decode_total"]
    with client.stream("POST", "/chat/completions", json=body) as reply:
        lines = reply.iter_lines()  # kept: dropping the generator closes the stream
        assert "role" in next(lines)
        assert wait_until(lambda: metrics(engine, client)["llamacpp:requests_processing"] == 1)
    assert wait_until(lambda: metrics(engine, client)["llamacpp:requests_processing"] == 0)
    decoded = metrics(engine, client)["llamacpp:n_decode_total"] - before
    assert 0 < decoded < 7000


def test_the_engine_renders_prompts_as_the_training_did(
    engine: Engine, client: httpx.Client
) -> None:
    pytest.importorskip("jinja2")
    render = Renderer()
    rng = random.Random(3)
    for dialogue in (sample(rng) for _ in range(30)):
        body = {"messages": dialogue.messages[:-1], "tools": dialogue.tools}
        url = f"http://127.0.0.1:{engine.port}/apply-template"
        prompt = client.post(url, json=body).json()["prompt"]
        assert prompt.endswith("<|im_start|>assistant\n")
        assert render(dialogue).startswith(prompt)


def test_the_alias_names_the_model(client: httpx.Client) -> None:
    assert [model["id"] for model in client.get("/models").json()["data"]] == ["tiny"]


def test_starts_from_any_directory_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started = Engine(EngineSettings(parallel=1, context=512, embeddings=False))
    with started:
        pid = started.pid
        assert pid is not None
        assert alive(pid)
        started.start()
        assert started.pid == pid
        url = started.base_url
        assert httpx.post(f"{url}/embeddings", json={"input": "x"}, **PLAIN).status_code == 501
    assert not alive(pid)
    assert not started.running
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models", **PLAIN)
    started.stop()


def test_a_killed_engine_can_be_started_again() -> None:
    with Engine(EngineSettings(parallel=1, context=512)) as started:
        assert started.pid is not None
        os.kill(started.pid, signal.SIGKILL)
        assert wait_until(lambda: not started.running)
        started.start()
        assert httpx.get(f"{started.base_url}/models", **PLAIN).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_child_dies_with_a_killed_parent() -> None:
    script = (
        "import time\n"
        "from backends.local.engine import Engine, EngineSettings\n"
        "engine = Engine(EngineSettings(parallel=1, context=512))\n"
        "engine.start()\n"
        "print(engine.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(engine_module.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    assert wait_until(lambda: not alive(pid))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.gguf"
    with pytest.raises(EngineError, match=r"absent\.gguf: No such file"):
        Engine(EngineSettings(model=str(path))).start()


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    with pytest.raises(EngineError, match=r"notes\.gguf: not a GGUF file"):
        Engine(EngineSettings(model=str(path))).start()


def test_a_broken_model_shows_the_engines_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(tiny_model_path().read_bytes()[:5000])
    broken = Engine(EngineSettings(model=str(path)))
    with pytest.raises(EngineError, match=r"(?s)broken\.gguf ended with status 1.*failed to load"):
        broken.start()
    assert not broken.running


def test_a_busy_port_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match="ended with status 1"):
            Engine(EngineSettings(port=port, parallel=1, context=512)).start()


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install 'tollhouse\[local\]'"):
        Engine(EngineSettings()).start()
