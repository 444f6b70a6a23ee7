"""The events of an Anthropic messages stream to deltas of the internal form."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.base import Usage
from backends.dialects import ir
from backends.dialects.messages_answer import (
    decode_stop,
    merge_counts,
    service_tier_of,
    usage_of,
)
from backends.dialects.messages_request import JSON_TOOL
from backends.errors import StreamFailed, StreamTruncated, UpstreamProtocolError

_DECODER = msgspec.json.Decoder()
ERROR_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that an error of this type has when it comes before the stream."""
_ERROR_CODES = {
    "authentication_error": "upstream_auth_failed",
    "permission_error": "upstream_auth_failed",
    "billing_error": "upstream_billing",
    "rate_limit_error": "upstream_rate_limited",
    "timeout_error": "upstream_timeout",
    "overloaded_error": "upstream_overloaded",
}


class _Block:
    """An open content block."""

    __slots__ = ("arguments", "as_text", "index", "kind", "signature", "text")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.index = 0
        self.arguments = False
        self.as_text = False
        self.text: list[str] = []
        self.signature = ""


class StreamDecoder:
    """One stream. `feed` takes the events in order; `close` says whether they were all.

    Blocks may interleave. Events and blocks of unknown kinds are ignored. `error` is the error
    event's own error, as it came.
    """

    def __init__(self, *, json_tool: bool = False) -> None:
        self._json_tool = json_tool
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._unwrapped = False
        self._counts: dict[str, int] = {}
        self._believable = True
        self._raw_stop: str | None = None
        self._stop_sequence: str | None = None
        self._extras: dict[str, Any] = {}
        self._started = False
        self.done = False
        self.malformed = 0
        self.service_tier = ""
        self.error: Any = None

    @property
    def usage(self) -> Usage | None:
        """What was reported so far."""
        return usage_of(self._counts) if self._believable else None

    def feed(self, name: str | None, data: bytes) -> list[ir.Delta]:
        """Raises StreamFailed for an error event, UpstreamProtocolError for a tool call without
        a name. What is no JSON object is counted in `malformed` and left out."""
        if self.done:
            return []
        try:
            event = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self.malformed += 1
            return []
        kind = event.get("type", name)
        if kind == "content_block_delta":
            return self._delta(event)
        if kind == "error" or isinstance(event.get("error"), dict):
            self.error = event.get("error")
            raise stream_error(self.error)
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        return handler(self, event) if handler is not None else []

    def close(self) -> None:
        """The upstream closed the stream: raises StreamTruncated unless it had ended."""
        if not self.done:
            raise StreamTruncated(
                "the upstream's stream ended before its message_stop",
                code="upstream_stream_truncated",
            )

    def _message_start(self, event: dict[str, Any]) -> list[ir.Delta]:
        message = event.get("message")
        if not isinstance(message, dict) or self._started:
            return []
        self._started = True
        self._believable = merge_counts(self._counts, message.get("usage"))
        self.service_tier = service_tier_of(message.get("usage"))
        answer_id, model = message.get("id"), message.get("model")
        return [
            ir.Start(
                answer_id if isinstance(answer_id, str) else "",
                model if isinstance(model, str) else "",
                self.usage,
            )
        ]

    def _block_start(self, event: dict[str, Any]) -> list[ir.Delta]:
        index, content = event.get("index"), event.get("content_block")
        if type(index) is not int or not isinstance(content, dict):
            return []
        kind = content.get("type")
        if kind == "tool_use":
            return self._call_start(index, content)
        if kind == "text":
            self._blocks[index] = _Block("text")
            text = content.get("text")
            return [ir.TextDelta(text)] if isinstance(text, str) and text else []
        if kind == "thinking":
            block = self._blocks[index] = _Block("thinking")
            signature = content.get("signature")
            block.signature = signature if isinstance(signature, str) else ""
            # The answer has begun, also where all of its reasoning stays hidden.
            return self._thinking(block, content.get("thinking")) or [ir.ThinkingDelta("")]
        if kind == "redacted_thinking" and isinstance(content.get("data"), str):
            return [ir.ThinkingEnd(ir.RedactedThinking(content["data"]))]
        return []

    def _call_start(self, index: int, content: dict[str, Any]) -> list[ir.Delta]:
        call_id, name = content.get("id"), content.get("name")
        if not isinstance(call_id, str) or not isinstance(name, str):
            raise UpstreamProtocolError("a tool call of the stream has no id or no name")
        block = self._blocks[index] = _Block("tool_use")
        given = content.get("input")
        whole = msgspec.json.encode(given).decode() if isinstance(given, dict) and given else ""
        block.arguments = bool(whole)
        if self._json_tool and name == JSON_TOOL:
            block.as_text = self._unwrapped = True
            return [ir.TextDelta(whole)] if whole else []
        block.index = self._calls
        self._calls += 1
        start = ir.CallStart(block.index, call_id, name)
        return [start, ir.CallDelta(block.index, whole)] if whole else [start]

    def _delta(self, event: dict[str, Any]) -> list[ir.Delta]:
        delta, index = event.get("delta"), event.get("index")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None or not isinstance(delta, dict):
            return []
        kind = delta.get("type")
        if kind == "text_delta" and block.kind == "text":
            text = delta.get("text")
            return [ir.TextDelta(text)] if isinstance(text, str) and text else []
        if kind == "input_json_delta" and block.kind == "tool_use":
            piece = delta.get("partial_json")
            if not isinstance(piece, str) or not piece:
                return []
            block.arguments = True
            return [ir.TextDelta(piece) if block.as_text else ir.CallDelta(block.index, piece)]
        if kind == "thinking_delta" and block.kind == "thinking":
            return self._thinking(block, delta.get("thinking"))
        if kind == "signature_delta" and isinstance(delta.get("signature"), str):
            block.signature += delta["signature"]
        return []

    @staticmethod
    def _thinking(block: _Block, text: object) -> list[ir.Delta]:
        if not isinstance(text, str) or not text:
            return []
        block.text.append(text)
        return [ir.ThinkingDelta(text)]

    def _block_stop(self, event: dict[str, Any]) -> list[ir.Delta]:
        index = event.get("index")
        block = self._blocks.pop(index, None) if type(index) is int else None
        if block is None:
            return []
        if block.kind == "thinking":
            return [ir.ThinkingEnd(ir.Thinking("".join(block.text), block.signature))]
        if block.kind == "tool_use" and not block.arguments:
            return [ir.TextDelta("{}") if block.as_text else ir.CallDelta(block.index, "{}")]
        return []

    def _message_delta(self, event: dict[str, Any]) -> list[ir.Delta]:
        delta = event.get("delta")
        if isinstance(delta, dict):
            reason, sequence = delta.get("stop_reason"), delta.get("stop_sequence")
            if isinstance(reason, str):
                self._raw_stop = reason
            if isinstance(sequence, str):
                self._stop_sequence = sequence
            if isinstance(delta.get("stop_details"), dict):
                self._extras["stop_details"] = delta["stop_details"]
        if not merge_counts(self._counts, event.get("usage")):
            self._believable = False
        self.service_tier = service_tier_of(event.get("usage")) or self.service_tier
        return []

    def _message_stop(self, event: dict[str, Any]) -> list[ir.Delta]:
        raw = self._raw_stop
        if raw is None:
            raise StreamTruncated(
                "the upstream's stream ended without a stop_reason",
                code="upstream_stream_truncated",
            )
        deltas: list[ir.Delta] = []
        for index in list(self._blocks):
            deltas.extend(self._block_stop({"index": index}))
        self.done = True
        stop = decode_stop(raw)
        if self._unwrapped and stop == "tool_calls" and not self._calls:
            stop = "stop"
        deltas.append(ir.Finish(stop, raw, self._stop_sequence, self.usage, self._extras))
        return deltas


_HANDLERS = {
    "message_start": StreamDecoder._message_start,
    "content_block_start": StreamDecoder._block_start,
    "content_block_stop": StreamDecoder._block_stop,
    "message_delta": StreamDecoder._message_delta,
    "message_stop": StreamDecoder._message_stop,
}


def stream_error(error: object) -> StreamFailed:
    """The upstream's own words stay out of the message: they may hold anything."""
    kind = error.get("type") if isinstance(error, dict) else None
    kind = kind if isinstance(kind, str) and kind.isidentifier() and len(kind) < 64 else "error"
    return StreamFailed(
        f"the upstream ended its stream with {kind}",
        status=ERROR_STATUS.get(kind),
        code=_ERROR_CODES.get(kind, "upstream_error"),
    )
