"""One engine that speaks both dialects: either way to it gives the same answer and bill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from backends.base import Call, Timeouts
from backends.dialects.chat import ChatBackend, ChatSettings
from backends.dialects.messages import MessagesBackend, MessagesSettings
from backends.http import UpstreamTransport
from backends.prices import Price

pytest.importorskip("xllamacpp")

PRICE = Price.from_usd_per_million(input=3, output=15)
PROMPTS = ("Hello!", "Count from 1 to 5.", "Please greet me, then count to three.")


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    from backends.local.engine import Engine, EngineSettings

    with Engine(EngineSettings()) as running:
        yield running


def call(prompt: str, stream: bool) -> Call:
    body = {
        "model": "x",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": prompt},
        ],
        "max_tokens": 40,
        "temperature": 0,
    }
    return Call("chat", "tiny", body, stream, Timeouts(first_token=60))


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_chat_and_messages_agree(
    engine: Any, wires: SimpleNamespace, prompt: str, stream: bool
) -> None:
    transport = UpstreamTransport()
    base = engine.base_url
    ways = [
        ChatBackend(ChatSettings(name="c", base_url=base), transport, lambda: 1.0),
        MessagesBackend(MessagesSettings(name="m", base_url=base), transport, lambda: 1.0),
    ]
    outcomes = []
    try:
        for backend in ways:
            reply = await backend.open(call(prompt, stream))
            events = [event async for event in reply.events()]
            bodies = [json.loads(event.data) for event in events]
            if stream:
                text = wires.fold(bodies)["message"]["content"]
            else:
                text = bodies[0]["choices"][0]["message"]["content"]
            finish = [event.finish for event in events if event.finish]
            usage = reply.usage
            assert usage is not None
            # What the engine had cached differs by the order of the calls, the sum does not.
            cost = PRICE.cost(usage)
            outcomes.append((text, finish, usage.prompt, usage.completion, cost))
    finally:
        await transport.aclose()
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]
