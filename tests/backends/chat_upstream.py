"""The chat dialect against an upstream of bytes: what its tests share."""

from __future__ import annotations

import json
from typing import Any

from backends.base import Call, Timeouts
from backends.dialects.chat import ChatBackend

KEY = "sk-very-secret-key-0001"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n"
CLOSE = b"connection: close\r\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 5}


def piece(
    content: str | None = None, finish: str | None = None, index: int = 0, **more: Any
) -> dict:
    delta = {} if content is None else {"content": content}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "m-1",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
        **more,
    }


def sse(*events: dict | bytes) -> bytes:
    return b"".join(
        b"data: %b\n\n" % (event if isinstance(event, bytes) else json.dumps(event).encode())
        for event in events
    )


def chunked(data: bytes) -> bytes:
    """One chunk of a body that never gets its last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def call(stream: bool = True, body: dict | None = None, **more: Any) -> Call:
    fields: dict[str, Any] = {
        "operation": "chat",
        "model": "m",
        "body": body or {"model": "alias", "messages": [{"role": "user", "content": "hi"}]},
        "stream": stream,
        "timeouts": Timeouts(),
        "request_id": "req-1",
    }
    return Call(**{**fields, **more})


async def collect(backend: ChatBackend, request: Call) -> tuple[Any, list[Any]]:
    reply = await backend.open(request)
    events = []
    try:
        async for event in reply.events():
            events.append(event)
    finally:
        await reply.aclose()
    return reply, events


def sent(seen: list[bytes]) -> dict:
    return json.loads(seen[0].partition(b"\r\n\r\n")[2])


WHOLE = {
    "id": "c1",
    "model": "m-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "héllo", "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
    "more": 1,
}


def body_answer(
    body: Any, content_type: bytes = b"application/json", status: bytes = b"200 OK"
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nretry-after: 7\r\n\r\n%b" % (
        status,
        content_type,
        len(data),
        data,
    )
