"""A scripted answer as Anthropic's messages API writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from backends.scripted_answer import Answer
from backends.scripted_wire import Frame

__all__ = ["MessagesWire"]

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", None: None}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_encode = msgspec.json.Encoder().encode


def _event(value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), _encode(value))


class MessagesWire:
    def __init__(self, body: Mapping[str, Any]) -> None:
        self._model = str(body.get("model"))
        digest = hashlib.blake2s(_encode(body.get("messages")), digest_size=8)
        self._id = f"msg_{digest.hexdigest()}"

    def _message(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    def whole(self, answer: Answer) -> bytes:
        blocks: list[dict[str, Any]] = []
        if answer.pieces:
            blocks.append({"type": "text", "text": answer.text})
        for call in answer.calls:
            value = msgspec.json.decode(call.arguments)
            blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": value})
        message = self._message() | {"content": blocks, "stop_reason": _STOP[answer.finish]}
        if answer.reported:
            message["usage"] = dict(
                zip(("input_tokens", "output_tokens"), answer.reported, strict=True)
            )
        return _encode(message)

    def frames(self, answer: Answer) -> list[Frame]:
        start = self._message()
        if answer.reported:
            start["usage"] = {"input_tokens": answer.reported[0], "output_tokens": 1}
        frames = [Frame(_event({"type": "message_start", "message": start}), "start")]
        index = 0
        if answer.pieces:
            frames.append(self._open(index, {"type": "text", "text": ""}))
            frames.append(Frame(_event({"type": "ping"}), "start"))
            for piece in answer.pieces:
                frames.append(self._delta(index, {"type": "text_delta", "text": piece}, 1))
            frames.append(self._close(index))
            index += 1
        for call in answer.calls:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            frames.append(self._open(index, block))
            parts = [call.arguments[at : at + 8] for at in range(0, len(call.arguments), 8)]
            for number, part in enumerate(["", *parts]):
                piece_of = {"type": "input_json_delta", "partial_json": part}
                frames.append(self._delta(index, piece_of, 0 if number else call.tokens))
            frames.append(self._close(index))
            index += 1
        delta = {"stop_reason": _STOP[answer.finish], "stop_sequence": None}
        ending: dict[str, Any] = {"type": "message_delta", "delta": delta}
        if answer.reported:
            ending["usage"] = {"output_tokens": answer.reported[1]}
        frames.append(Frame(_event(ending), "finish"))
        frames.append(Frame(_event({"type": "message_stop"}), "done"))
        return frames

    def _open(self, index: int, block: dict[str, Any]) -> Frame:
        event = {"type": "content_block_start", "index": index, "content_block": block}
        return Frame(_event(event), "start")

    def _delta(self, index: int, delta: dict[str, Any], tokens: int) -> Frame:
        event = {"type": "content_block_delta", "index": index, "delta": delta}
        return Frame(_event(event), "content", tokens)

    def _close(self, index: int) -> Frame:
        return Frame(_event({"type": "content_block_stop", "index": index}), "start")

    def error_event(self) -> bytes:
        error = {"type": "api_error", "message": "scripted failure"}
        return _event({"type": "error", "error": error})

    def error(self, status: int, code: str | None, message: str) -> bytes:
        if code == "context_length_exceeded":
            message = "prompt is too long: 9 tokens > 8 maximum"
        error = {"type": _ERRORS.get(status, "api_error"), "message": message}
        return _encode({"type": "error", "error": error, "request_id": "req_scripted"})
