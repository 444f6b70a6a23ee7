"""Anthropic messages answers and usage to the internal form and back."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.base import Usage
from backends.dialects import ir
from backends.dialects.messages_request import JSON_TOOL
from backends.dialects.messages_turns import parse_arguments
from backends.errors import UpstreamProtocolError

_STOPS: dict[str, ir.Stop] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_RAW_STOPS: dict[ir.Stop, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_MOST_TOKENS = 100_000_000
_COUNTS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
)
_ENCODER = msgspec.json.Encoder()


def decode_stop(raw: str) -> ir.Stop:
    """Values that this table does not know end an answer as `stop`; the raw value stays beside."""
    return _STOPS.get(raw, "stop")


def encode_stop(stop: ir.Stop, raw: str | None = None) -> str:
    return raw if raw in _STOPS else _RAW_STOPS[stop]


def merge_counts(counts: dict[str, int], usage: object) -> bool:
    """Set (never add) the counts that a usage object holds; they are cumulative. False when it
    holds something that is no count: then nothing of it may be believed."""
    if not isinstance(usage, dict):
        return usage is None
    totals = _with_iterations(usage)
    for name in _COUNTS:
        value = totals.get(name)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value <= _MOST_TOKENS:
            return False
        counts[name] = value
    details = usage.get("output_tokens_details")
    if isinstance(details, dict):
        thinking = details.get("thinking_tokens")
        if type(thinking) is int and 0 <= thinking <= _MOST_TOKENS:
            counts["thinking_tokens"] = thinking
    tools = usage.get("server_tool_use")
    searches = tools.get("web_search_requests") if isinstance(tools, dict) else None
    if type(searches) is int and 0 <= searches <= _MOST_TOKENS:
        counts["searches"] = searches
    return True


def _with_iterations(usage: dict[str, Any]) -> dict[str, Any]:
    """Totals that include compaction, which the top level leaves out. An advisor's tokens stay
    out: they have another model's price."""
    iterations = usage.get("iterations")
    if not isinstance(iterations, list) or not all(isinstance(i, dict) for i in iterations):
        return usage
    own = [item for item in iterations if item.get("type") != "advisor_message"]
    if not own:
        return usage
    totals: dict[str, Any] = {}
    for name in _COUNTS:
        values = [item[name] for item in own if item.get(name) is not None]
        if values and all(type(value) is int and value >= 0 for value in values):
            totals[name] = sum(values)
    return {**usage, **totals}


def usage_of(counts: dict[str, int]) -> Usage | None:
    """`input_tokens` counts what no cache had, so the prompt is the sum of all three."""
    if "output_tokens" not in counts and "input_tokens" not in counts:
        return None
    cached = counts.get("cache_read_input_tokens", 0)
    write = counts.get("cache_creation_input_tokens", 0)
    completion = counts.get("output_tokens", 0)
    return Usage(
        prompt=counts.get("input_tokens", 0) + cached + write,
        completion=completion,
        cached=cached,
        cache_write=write,
        reasoning=min(counts.get("thinking_tokens", 0), completion),
        searches=counts.get("searches", 0),
    )


def service_tier_of(usage: object) -> str:
    """The tier that a usage object names; empty when it names none."""
    return _text(usage.get("service_tier")) if isinstance(usage, dict) else ""


def decode_usage(usage: object) -> Usage | None:
    """None when nothing, or nothing believable, was reported."""
    counts: dict[str, int] = {}
    return usage_of(counts) if merge_counts(counts, usage) else None


def encode_usage(usage: Usage) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "input_tokens": usage.prompt - usage.cached - usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.cache_write,
        "output_tokens": usage.completion,
    }
    if usage.reasoning:
        encoded["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return encoded


def decode_answer(message: object, *, created: int = 0, json_tool: bool = False) -> ir.Answer:
    """`json_tool`: the call of the forced tool becomes the text of the answer.

    Raises UpstreamProtocolError when this is not a message. Blocks of unknown kinds are left out.
    """
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise UpstreamProtocolError("the upstream's answer is not a message")
    raw = message.get("stop_reason")
    if not isinstance(raw, str):
        raise UpstreamProtocolError("the upstream's answer has no stop_reason")
    parts: list[ir.Part] = []
    unwrapped = False
    for block in message["content"]:
        part = _decode_block(block)
        if json_tool and isinstance(part, ir.ToolCall) and part.name == JSON_TOOL:
            part, unwrapped = ir.Text(part.arguments), True
        if part is not None:
            parts.append(part)
    calls = any(isinstance(part, ir.ToolCall) for part in parts)
    stop = decode_stop(raw)
    extras: dict[str, Any] = {}
    if isinstance(message.get("stop_details"), dict):
        extras["stop_details"] = message["stop_details"]
    sequence = message.get("stop_sequence")
    return ir.Answer(
        id=_text(message.get("id")),
        model=_text(message.get("model")),
        parts=tuple(parts),
        stop="stop" if unwrapped and stop == "tool_calls" and not calls else stop,
        created=created,
        raw_stop=raw,
        stop_sequence=sequence if isinstance(sequence, str) else None,
        usage=decode_usage(message.get("usage")),
        extras=extras,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _decode_block(block: Any) -> ir.Part | None:
    match block:
        case {"type": "text", "text": str(text)}:
            return ir.Text(text)
        case {"type": "thinking", "thinking": str(text)}:
            return ir.Thinking(text, _text(block.get("signature")))
        case {"type": "redacted_thinking", "data": str(data)}:
            return ir.RedactedThinking(data)
        case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
            arguments = _ENCODER.encode(block.get("input") or {}).decode()
            return ir.ToolCall(call_id, name, arguments)
    return None


def encode_answer(answer: ir.Answer) -> dict[str, Any]:
    """A message for clients that speak this dialect."""
    content: list[dict[str, Any]] = []
    for part in answer.parts:
        if isinstance(part, ir.Text | ir.Refusal) and part.text:
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, ir.Thinking):
            content.append({"type": "thinking", "thinking": part.text, "signature": part.signature})
        elif isinstance(part, ir.RedactedThinking):
            content.append({"type": "redacted_thinking", "data": part.data})
        elif isinstance(part, ir.ToolCall):
            value = parse_arguments(part.arguments, "tool_use")
            content.append({"type": "tool_use", "id": part.id, "name": part.name, "input": value})
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": encode_stop(answer.stop, answer.raw_stop),
        "stop_sequence": answer.stop_sequence,
        "usage": encode_usage(answer.usage or Usage()),
    }
