"""A conversation kept in the SDK's own objects, whose turns are answered by different providers.

Each provider is a few bytes of what it really sends, behind a gateway of its own; what reaches it is
compared with what it takes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from gateway.auth import new_key
from tests.faults.scene import raw_server
from tests.support import PLAIN, Gateway

CAN = '["chat", "stream", "tools", "tool_choice", "vision", "reasoning"]'
ASKED = {"role": "user", "content": "What is the weather in Graz?"}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def _config(url: str) -> str:
    backends = "".join(
        f"""
[backends.{name}]
provider = "{name}"
base_url = "{url}/v1"
models.m = {{ upstream = "{upstream}", capabilities = {CAN}, input = 1.0, output = 1.0 }}
"""
        for name, upstream in (("anthropic", "claude-opus-4-6"), ("vllm", "m"))
    )
    return f"""
data_dir = "data"
[admin]
token = "${{TEST_ADMIN_TOKEN}}"
[router]
artefact = "heuristic"
[cache]
enabled = false
[[keys]]
key = "${{MAIN}}"
{backends}
"""


def _answer(data: bytes, kind: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _messages(*blocks: dict[str, Any]) -> bytes:
    """A streamed answer of Anthropic's."""
    message = {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 9, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(blocks):
        whole = block["type"] == "redacted_thinking"
        opened = block if whole else {"type": block["type"]}
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        for field in () if whole else block.keys() - {"type"}:
            delta = {"type": f"{field}_delta", field: block[field]}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "end_turn"}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 9}})
    events.append({"type": "message_stop"})
    data = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return _answer(data.encode(), "text/event-stream")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """`answer` is what any provider says; `sent()` the last body that reached one."""
    rig = SimpleNamespace(answer=b"")

    def say(connection: socket.socket) -> None:
        connection.sendall(rig.answer)

    with raw_server(say) as (url, seen):
        rig.sent = lambda: json.loads(seen[-1].partition(b"\r\n\r\n")[2])
        folder = tmp_path_factory.mktemp("switching")
        gateway = Gateway(folder, _config(url), keys={"main": new_key()})
        http = openai.DefaultHttpxClient(**PLAIN)
        rig.client = openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key, http_client=http, max_retries=0
        )
        yield rig
        rig.client.close()
        gateway.stop()


def test_the_stream_helper_collects_several_blocks_of_reasoning(rig: SimpleNamespace) -> None:
    """And what it collected goes back to the model that signed it, unchanged."""
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s1"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "aha", "signature": "s2"},
    ]
    rig.answer = _messages(*blocks, {"type": "text", "text": "Sunny."})
    client: openai.OpenAI = rig.client
    with client.chat.completions.stream(model="anthropic/m", messages=[ASKED]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content == "Sunny."
    assert message.reasoning_content == "hmaha"  # type: ignore[attr-defined]
    history = [ASKED, message.model_dump(exclude_none=True), ASKED]
    with client.chat.completions.stream(model="anthropic/m", messages=history) as stream:
        stream.until_done()
    assert rig.sent()["messages"][1]["content"] == [*blocks, {"type": "text", "text": "Sunny."}]
