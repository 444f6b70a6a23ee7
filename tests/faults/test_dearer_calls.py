"""Calls that cost more, or less, than the list price: by service tier, of audio, with searches."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import (
    PROMPT_TOKENS,
    Backend,
    Key,
    Scene,
    chat,
    prompt,
    raw_server,
)

USED = {"prompt_tokens": 16, "completion_tokens": 4, "total_tokens": 20}
# 16 tokens at 1 USD and 4 at 4 USD per million, in nano-USD.
LIST = 32_000
TIERS = "tiers = { priority = { input = 2.0, output = 8.0 }, flex = { input = 0.5, output = 2.0 } }"


def serving(tier: str | None, usage: dict[str, Any]) -> Callable[[socket.socket], None]:
    """An upstream that says it serves in `tier`."""

    def answer(connection: socket.socket) -> None:
        said = {} if tier is None else {"service_tier": tier}
        choice = {"index": 0, "message": {"role": "assistant", "content": "letters"}}
        whole = {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage, **said}
        body = json.dumps(whole).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        connection.sendall(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)

    return answer


def streaming(tier: str, usage: dict[str, Any] | None) -> Callable[[socket.socket], None]:
    """As `serving`, in a stream. Without `usage` it is cut before it states any."""

    def answer(connection: socket.socket) -> None:
        text = {"index": 0, "delta": {"content": "letters"}}
        chunks: list[dict[str, Any]] = [{"choices": [text], "service_tier": tier}]
        if usage is not None:
            done = {"index": 0, "delta": {}, "finish_reason": "stop"}
            chunks += [{"choices": [done]}, {"choices": [], "usage": usage}]
        events = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
        last = b"data: [DONE]\n\n" if usage is not None else b""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        connection.sendall(head + events + last)

    return answer


def claude(connection: socket.socket) -> None:
    """Anthropic's API, of an organisation with a commitment, with two searches."""
    usage = {
        "input_tokens": 16,
        "output_tokens": 4,
        "service_tier": "priority",
        "server_tool_use": {"web_search_requests": 2},
    }
    body = {
        "type": "message",
        "id": "msg_1",
        "model": "m",
        "content": [{"type": "text", "text": "letters"}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    connection.sendall(head.encode() + b"\r\nconnection: close\r\n\r\n" + data)


AUDIO = {
    **USED,
    "prompt_tokens_details": {"audio_tokens": 10},
    "completion_tokens_details": {"audio_tokens": 2},
}
SOURCES = {**USED, "num_sources_used": 3}
# Name, what its upstream does, and the lines of its prices.
UPSTREAMS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "priority": (serving("priority", USED), TIERS),
    "flex": (serving("flex", USED), TIERS),
    "usual": (serving("default", USED), TIERS),
    "silent": (serving(None, USED), TIERS),
    "unknown": (serving("scale", USED), TIERS),
    "unpriced": (serving("priority", USED), ""),
    "cheaper": (serving("flex", USED), "tiers = { priority = { input = 2.0, output = 8.0 } }"),
    "stream": (streaming("priority", USED), TIERS),
    "cut": (streaming("priority", None), TIERS),
    "audio": (serving("default", AUDIO), "audio_input = 10.0\naudio_output = 20.0"),
    "loud": (serving("default", AUDIO), ""),
    "sources": (serving("default", SOURCES), ""),
    "claude": (claude, ""),
}


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Iterator[Scene]:
    with contextlib.ExitStack() as servers:
        backends = tuple(
            Backend(
                name,
                f"tier-{name}",
                url=servers.enter_context(raw_server(answer))[0],
                tier="frontier",
                provider="anthropic" if name == "claude" else "openai",
                priced=priced,
            )
            for name, (answer, priced) in UPSTREAMS.items()
        )
        keys = tuple(Key(name, (name,)) for name in UPSTREAMS)
        tight = Key("tight", ("usual",), budget_usd=0.000_500)
        yield stage(backends, (*keys, tight))


def booked(scene: Scene, name: str, **more: Any) -> tuple[int, str, str]:
    """What a request cost in nano-USD, the tier that is recorded, and what had no price."""
    body = chat(prompt(1), **more)
    answer = scene.ask(name, body, x_tollhouse_cache="no-store")
    (record,) = scene.usage(answer.request_id)
    assert record["prompt_tokens"] == PROMPT_TOKENS
    return record["cost_nano"], record["service_tier"], record["unpriced"]


@pytest.mark.parametrize(
    ("name", "asked", "cost", "tier"),
    [
        ("priority", "priority", 2 * LIST, "priority"),
        ("priority", None, 2 * LIST, "priority"),  # by the setting of the project
        ("flex", "flex", LIST // 2, "flex"),
        ("usual", "priority", LIST, ""),  # the upstream had no room in the tier
        ("silent", "priority", 2 * LIST, "priority"),
        ("silent", "auto", LIST, ""),
        ("stream", "priority", 2 * LIST, "priority"),
    ],
)
def test_a_call_costs_what_its_service_tier_costs(
    scene: Scene, name: str, asked: str | None, cost: int, tier: str
) -> None:
    more = {} if asked is None else {"service_tier": asked}
    if name == "stream":
        more["stream"] = True
    assert booked(scene, name, **more) == (cost, tier, "")
    scene.balanced(name)


def test_a_stream_that_is_cut_costs_what_its_tier_costs(scene: Scene) -> None:
    answer = scene.ask("cut", chat(prompt(2), stream=True, service_tier="priority"))
    assert answer.broken
    (record,) = scene.usage(answer.request_id)
    assert (record["estimated"], record["service_tier"]) == (1, "priority")
    tokens = record["prompt_tokens"], record["completion_tokens"]
    assert record["cost_nano"] == 2 * scene.backends["cut"].cost(*tokens)


@pytest.mark.parametrize(
    ("name", "cost", "tier", "unpriced"),
    [
        ("unknown", 2 * LIST, "scale", "service_tier"),  # the dearest that is known
        ("unpriced", LIST, "priority", "service_tier"),
        ("cheaper", LIST, "flex", ""),
        ("loud", LIST, "", "audio"),
        ("sources", LIST, "", "web_search"),
        ("claude", LIST, "priority", "service_tier,web_search"),
    ],
)
def test_what_has_no_known_price_is_flagged(
    scene: Scene, name: str, cost: int, tier: str, unpriced: str
) -> None:
    assert booked(scene, name) == (cost, tier, unpriced)
    scene.balanced(name)


def test_a_search_that_is_asked_for_is_flagged(scene: Scene) -> None:
    found = booked(scene, "usual", web_search_options={})
    assert found == (LIST, "", "web_search")


def test_audio_costs_what_audio_costs(scene: Scene) -> None:
    # 6 tokens of text and 10 of audio in, 2 and 2 out.
    assert booked(scene, "audio") == (6_000 + 100_000 + 8_000 + 40_000, "", "")


def test_the_dearer_tier_is_reserved(scene: Scene) -> None:
    flex = scene.ask("tight", chat(prompt(3), max_tokens=100, service_tier="flex"))
    assert flex.status == 200, flex.body
    refused = scene.ask("tight", chat(prompt(4), max_tokens=100, service_tier="priority"))
    assert (refused.status, refused.json["error"]["code"]) == (402, "budget_exceeded")


def test_the_providers_own_setting_is_reserved_once_it_is_known(scene: Scene) -> None:
    scene.ask("priority", chat(prompt(5)))
    held = {"x_tollhouse_max_cost": "0.0006"}
    refused = scene.ask("priority", chat(prompt(6), max_tokens=100), **held)
    assert refused.status == 402, refused.body
