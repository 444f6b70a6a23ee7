"""Deltas of the internal form to the events of an Anthropic messages stream."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.base import Usage
from backends.dialects import ir
from backends.dialects.messages_answer import encode_stop, encode_usage

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder()

MessageEvent = tuple[str, bytes]
"""The `event:` name, which clients dispatch on, and the JSON of `data:`."""


class StreamEncoder:
    """Opens a block when its first content comes and closes it before the next one: blocks never
    interleave. What an upstream sends between the pieces of a tool call waits until the call's
    arguments are complete."""

    def __init__(self) -> None:
        self._index = -1
        self._open: str | None = None
        self._call = -1
        self._arguments: list[str] = []
        self._held: list[ir.Delta] = []
        self._usage = Usage()

    def encode(self, delta: ir.Delta) -> list[MessageEvent]:
        if isinstance(delta, ir.Finish):
            return self._finish(delta)
        if self._call >= 0:
            if isinstance(delta, ir.CallDelta) and delta.index == self._call:
                return self._call_delta(delta)
            if self._held or not self._call_complete():
                self._held.append(delta)
                return []
        return self._emit(delta)

    def _emit(self, delta: ir.Delta) -> list[MessageEvent]:
        if isinstance(delta, ir.Start):
            return self._start(delta)
        if isinstance(delta, ir.TextDelta | ir.RefusalDelta):
            return self._piece("text", {"text": ""}, "text_delta", "text", delta.text)
        if isinstance(delta, ir.ThinkingDelta):
            empty = {"thinking": "", "signature": ""}
            return self._piece("thinking", empty, "thinking_delta", "thinking", delta.text)
        if isinstance(delta, ir.ThinkingEnd):
            return self._thinking_end(delta)
        if isinstance(delta, ir.CallStart):
            return self._call_start(delta)
        if isinstance(delta, ir.CallDelta):
            return self._call_delta(delta) if delta.index == self._call else []
        return []

    def error(self, kind: str, message: str) -> list[MessageEvent]:
        """The end of a stream that failed. `kind` is one of the dialect's error types."""
        return [_event("error", error={"type": kind, "message": message})]

    def _start(self, delta: ir.Start) -> list[MessageEvent]:
        self._usage = delta.usage or Usage()
        message: dict[str, Any] = {
            "id": delta.id,
            "type": "message",
            "role": "assistant",
            "model": delta.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": encode_usage(self._usage),
        }
        return [_event("message_start", message=message)]

    def _begin(self, kind: str, content: dict[str, Any]) -> list[MessageEvent]:
        events = self._end()
        self._index += 1
        self._open = kind
        block = {"type": kind, **content}
        events.append(_event("content_block_start", index=self._index, content_block=block))
        return events

    def _end(self) -> list[MessageEvent]:
        if self._open is None:
            return []
        self._open, self._call = None, -1
        self._arguments.clear()
        return [_event("content_block_stop", index=self._index)]

    def _delta(self, kind: str, field: str, value: str) -> MessageEvent:
        body = {"type": kind, field: value}
        return _event("content_block_delta", index=self._index, delta=body)

    def _piece(
        self, kind: str, empty: dict[str, Any], delta: str, field: str, text: str
    ) -> list[MessageEvent]:
        events: list[MessageEvent] = []
        if self._open != kind:
            events = self._begin(kind, empty)
        events.append(self._delta(delta, field, text))
        return events

    def _thinking_end(self, delta: ir.ThinkingEnd) -> list[MessageEvent]:
        block = delta.block
        if isinstance(block, ir.RedactedThinking):
            return self._begin("redacted_thinking", {"data": block.data}) + self._end()
        if self._open != "thinking":
            return []
        events = [self._delta("signature_delta", "signature", block.signature)]
        return events + self._end()

    def _call_start(self, delta: ir.CallStart) -> list[MessageEvent]:
        events = self._begin("tool_use", {"id": delta.id, "name": delta.name, "input": {}})
        self._call = delta.index
        return events

    def _call_delta(self, delta: ir.CallDelta) -> list[MessageEvent]:
        self._arguments.append(delta.arguments)
        events = [self._delta("input_json_delta", "partial_json", delta.arguments)]
        if self._held and delta.arguments.rstrip().endswith("}") and self._call_complete():
            held, self._held = self._held, []
            events += self._end()
            for waiting in held:
                events += self.encode(waiting)
        return events

    def _call_complete(self) -> bool:
        try:
            _DECODER.decode("".join(self._arguments))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        return True

    def _flush(self) -> list[MessageEvent]:
        """Nothing more will come: send what waits, all pieces of a call together."""
        groups: dict[tuple[str, int], list[ir.Delta]] = {}
        for position, delta in enumerate(self._held):
            if isinstance(delta, ir.CallStart | ir.CallDelta):
                groups.setdefault(("call", delta.index), []).append(delta)
            else:
                groups[("other", position)] = [delta]
        self._held.clear()
        events = self._end()
        for group in groups.values():
            for delta in group:
                events += self._emit(delta)
        return events + self._end()

    def _finish(self, delta: ir.Finish) -> list[MessageEvent]:
        events = self._flush()
        end = {
            "stop_reason": encode_stop(delta.stop, delta.raw_stop),
            "stop_sequence": delta.stop_sequence,
        }
        usage = encode_usage(delta.usage or self._usage)
        events.append(_event("message_delta", delta=end, usage=usage))
        events.append(_event("message_stop"))
        return events


def _event(kind: str, **fields: Any) -> MessageEvent:
    return kind, _ENCODER.encode({"type": kind, **fields})
