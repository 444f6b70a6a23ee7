"""OpenAI chat answers, streamed or whole, to the internal form and back."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.base import Event, Usage
from backends.dialects import ir
from backends.dialects.chat_messages import thinking_blocks
from backends.errors import StreamFailed, StreamTruncated, UpstreamProtocolError

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder()
_STOPS: dict[str, ir.Stop] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_MOST_TOKENS = 100_000_000


# -- usage --------------------------------------------------------------------------------------


def encode_usage(usage: Usage) -> dict[str, Any]:
    prompt_details = {"cached_tokens": usage.cached, "audio_tokens": 0}
    if usage.cache_write:
        prompt_details["cache_write_tokens"] = usage.cache_write
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def generated(prompt: int, completion: int, total: object) -> int:
    """Output tokens, reasoning included. OpenAI counts it in the completion, xAI beside it
    (docs.x.ai, "Consumption and rate limits") and Gemini's endpoint in the total alone, so that
    what the total has beyond the prompt was generated."""
    return max(completion, total - prompt) if type(total) is int else completion


def decode_usage(usage: object) -> Usage | None:
    """None when nothing, or nothing believable, was reported."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    inside = usage.get("prompt_tokens_details")
    inside = inside if isinstance(inside, dict) else {}
    beside = usage.get("completion_tokens_details")
    beside = beside if isinstance(beside, dict) else {}
    reasoning = beside.get("reasoning_tokens") or 0
    if type(prompt) is int and type(completion) is int and type(reasoning) is int:
        stated, completion = completion, generated(prompt, completion, usage.get("total_tokens"))
        reasoning = max(reasoning, completion - stated)
    counts: tuple[Any, ...] = (
        prompt,
        completion,
        inside.get("cached_tokens") or 0,
        inside.get("cache_write_tokens") or 0,
        reasoning,
    )
    if any(type(count) is not int or not 0 <= count <= _MOST_TOKENS for count in counts):
        return None
    if counts[2] + counts[3] > counts[0] or counts[4] > counts[1]:
        return None
    return Usage(*counts)


# -- whole answers ------------------------------------------------------------------------------


def encode_answer(answer: ir.Answer, *, legacy: bool = False) -> dict[str, Any]:
    """A chat.completion. `legacy`: one tool call goes back as `function_call`."""
    texts = [part.text for part in answer.parts if isinstance(part, ir.Text)]
    refusals = [part.text for part in answer.parts if isinstance(part, ir.Refusal)]
    calls = [part for part in answer.parts if isinstance(part, ir.ToolCall)]
    content: str | None = "".join(texts)
    if not content and (calls or refusals):
        content = None
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": "".join(refusals) if refusals else None,
    }
    thinking = "".join(part.text for part in answer.parts if isinstance(part, ir.Thinking))
    if thinking:
        message["reasoning_content"] = thinking
    blocks = thinking_blocks(answer.parts)
    if blocks:
        message["thinking_blocks"] = blocks
    finish: str = answer.stop
    if calls and legacy:
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
        finish = "function_call" if finish == "tool_calls" else finish
    elif calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    choice.update(_stop_extension(answer))
    completion: dict[str, Any] = {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [choice],
    }
    if answer.usage is not None:
        completion["usage"] = encode_usage(answer.usage)
    return completion


def _stop_extension(end: ir.Answer | ir.Finish) -> dict[str, Any]:
    extension: dict[str, Any] = dict(end.extras)
    if end.raw_stop is not None:
        extension["native_finish_reason"] = end.raw_stop
    if end.stop_sequence is not None:
        extension["stop_sequence"] = end.stop_sequence
    return extension


def decode_answer(completion: Any) -> ir.Answer:
    """Choice 0 of a chat.completion. Raises UpstreamProtocolError when there is none."""
    match completion:
        case {"choices": [{"message": dict(message), "finish_reason": str(finish)}, *_]}:
            pass
        case _:
            raise UpstreamProtocolError("the upstream's answer is not a chat completion")
    parts: list[ir.Part] = []
    blocks = message.get("thinking_blocks")
    if isinstance(blocks, list) and blocks:
        parts.extend(filter(None, map(_decode_thinking, blocks)))
    elif isinstance(message.get("reasoning_content"), str):
        parts.append(ir.Thinking(message["reasoning_content"]))
    if isinstance(message.get("content"), str) and message["content"]:
        parts.append(ir.Text(message["content"]))
    if isinstance(message.get("refusal"), str):
        parts.append(ir.Refusal(message["refusal"]))
    for call in message.get("tool_calls") or ():
        match call:
            case {"id": str(call_id), "function": {"name": str(name), "arguments": str(args)}}:
                parts.append(ir.ToolCall(call_id, name, args))
    match message.get("function_call"):
        case {"name": str(name), "arguments": str(args)}:
            parts.append(ir.ToolCall("call_function_0", name, args))
    raw = completion["choices"][0].get("native_finish_reason")
    created = completion.get("created")
    return ir.Answer(
        id=str(completion.get("id", "")),
        model=str(completion.get("model", "")),
        parts=tuple(parts),
        stop=_STOPS.get(finish, "stop"),
        created=created if type(created) is int else 0,
        raw_stop=raw if isinstance(raw, str) else None,
        usage=decode_usage(completion.get("usage")),
    )


def _decode_thinking(block: Any) -> ir.Thinking | ir.RedactedThinking | None:
    match block:
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
            return ir.Thinking(text, signature)
        case {"type": "redacted_thinking", "data": str(data)}:
            return ir.RedactedThinking(data)
    return None


# -- streams out --------------------------------------------------------------------------------


class StreamEncoder:
    """Deltas to chat.completion.chunk events. `created` in seconds since 1970; `model` is used
    until the upstream names its own. `legacy`: the first tool call goes out as `function_call`, and
    there is no place for others."""

    def __init__(self, *, created: int, model: str = "", legacy: bool = False) -> None:
        self._created = created
        self._legacy = legacy
        self._thinking = 0
        self._head = b""
        self._set_head("", model)

    def _set_head(self, answer_id: str, model: str) -> None:
        self._head = b'{"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            _ENCODER.encode(answer_id),
            self._created,
            _ENCODER.encode(model),
        )

    def encode(self, delta: ir.Delta) -> list[Event]:
        if isinstance(delta, ir.TextDelta):
            return [self._text(b'{"content":%b}', delta.text)]
        if self._legacy and isinstance(delta, ir.CallStart | ir.CallDelta) and delta.index:
            return []
        if isinstance(delta, ir.CallDelta):
            return [self._call_delta(delta)]
        if isinstance(delta, ir.ThinkingDelta):
            return [self._text(b'{"reasoning_content":%b}', delta.text)]
        if isinstance(delta, ir.CallStart):
            return [self._call_start(delta)]
        if isinstance(delta, ir.RefusalDelta):
            return [self._text(b'{"refusal":%b}', delta.text)]
        if isinstance(delta, ir.Start):
            self._set_head(delta.id, delta.model)
            role = self._chunk(b'{"role":"assistant","content":""}')
            return [Event(role, usage=delta.usage)]
        if isinstance(delta, ir.ThinkingEnd):
            return [self._thinking_end(delta.block)]
        return self._finish(delta)

    def _chunk(self, delta: bytes) -> bytes:
        return b'%b"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":null}]}' % (
            self._head,
            delta,
        )

    def _text(self, form: bytes, text: str) -> Event:
        encoded = _ENCODER.encode(text)
        return Event(self._chunk(form % encoded), semantic=True, text_bytes=len(text.encode()))

    def _thinking_end(self, block: ir.Thinking | ir.RedactedThinking) -> Event:
        # Clients that add up deltas put the entries of a list together by their index.
        blocks = [{"index": self._thinking, **one} for one in thinking_blocks((block,))]
        self._thinking += 1
        return Event(self._chunk(_ENCODER.encode({"thinking_blocks": blocks})))

    def _call_start(self, delta: ir.CallStart) -> Event:
        function = {"name": delta.name, "arguments": ""}
        if self._legacy:
            body: dict[str, Any] = {"function_call": function}
        else:
            call = {"index": delta.index, "id": delta.id, "type": "function", "function": function}
            body = {"tool_calls": [call]}
        return Event(
            self._chunk(_ENCODER.encode(body)), semantic=True, text_bytes=len(delta.name.encode())
        )

    def _call_delta(self, delta: ir.CallDelta) -> Event:
        encoded = _ENCODER.encode(delta.arguments)
        if self._legacy:
            body = b'{"function_call":{"arguments":%b}}' % encoded
        else:
            form = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}'
            body = form % (delta.index, encoded)
        return Event(self._chunk(body), semantic=True, text_bytes=len(delta.arguments.encode()))

    def _finish(self, delta: ir.Finish) -> list[Event]:
        finish: str = delta.stop
        if self._legacy and finish == "tool_calls":
            finish = "function_call"
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}
        choice.update(_stop_extension(delta))
        data = b'%b"choices":[%b]}' % (self._head, _ENCODER.encode(choice))
        events = [Event(data, semantic=True, finish=finish)]
        if delta.usage is not None:
            usage = _ENCODER.encode(encode_usage(delta.usage))
            data = b'%b"choices":[],"usage":%b}' % (self._head, usage)
            events.append(Event(data, usage=delta.usage, usage_only=True))
        return events


# -- streams in ---------------------------------------------------------------------------------


class _Call:
    __slots__ = ("id", "index", "pending", "started")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.pending = ""
        self.started = False


class StreamDecoder:
    """chat.completion.chunk JSON (choice 0) to deltas. `[DONE]` or `close` ends the stream: the
    finish reason comes before the usage, so the Finish is held until then."""

    def __init__(self) -> None:
        self._started = False
        self._calls: dict[int, _Call] = {}
        self._stop: ir.Stop | None = None
        self._raw: str | None = None
        self._usage: Usage | None = None
        self.done = False
        self.malformed = 0

    def feed(self, data: bytes) -> list[ir.Delta]:
        """Raises StreamFailed for an error chunk, StreamTruncated for `[DONE]` without a finish
        reason. What is no JSON object is counted in `malformed` and left out."""
        if self.done:
            return []
        if data.strip() == b"[DONE]":
            return self.close()
        try:
            chunk = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            self.malformed += 1
            return []
        if chunk.get("error") is not None:
            raise StreamFailed("the upstream ended its stream with an error")
        deltas: list[ir.Delta] = []
        if not self._started:
            self._started = True
            answer_id, model = chunk.get("id"), chunk.get("model")
            deltas.append(
                ir.Start(
                    answer_id if isinstance(answer_id, str) else "",
                    model if isinstance(model, str) else "",
                )
            )
        self._usage = decode_usage(chunk.get("usage")) or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                deltas.extend(self._choice(choice))
        return deltas

    def close(self) -> list[ir.Delta]:
        if self.done:
            return []
        if self._stop is None:
            raise StreamTruncated(
                "the stream ended without a finish reason", code="upstream_stream_truncated"
            )
        self.done = True
        return [ir.Finish(self._stop, self._raw, None, self._usage)]

    def _choice(self, choice: dict[str, Any]) -> list[ir.Delta]:
        deltas: list[ir.Delta] = []
        delta = choice.get("delta")
        if isinstance(delta, dict):
            for name, kind in (
                ("reasoning_content", ir.ThinkingDelta),
                ("content", ir.TextDelta),
                ("refusal", ir.RefusalDelta),
            ):
                text = delta.get(name)
                if isinstance(text, str) and text:
                    deltas.append(kind(text))
            blocks = delta.get("thinking_blocks")
            for block in blocks if isinstance(blocks, list) else ():
                part = _decode_thinking(block)
                if part is not None:
                    deltas.append(ir.ThinkingEnd(part))
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                deltas.extend(self._call(call))
            legacy = delta.get("function_call")
            if isinstance(legacy, dict):
                deltas.extend(self._call({"index": 0, "id": "call_function_0", "function": legacy}))
        finish = choice.get("finish_reason")
        if isinstance(finish, str):
            self._stop = _STOPS.get(finish, "stop")
            raw = choice.get("native_finish_reason")
            self._raw = raw if isinstance(raw, str) else None
        return deltas

    def _call(self, item: object) -> list[ir.Delta]:
        if not isinstance(item, dict) or not isinstance(item.get("function"), dict):
            return []
        index = item.get("index", 0)
        if type(index) is not int:
            return []
        call = self._calls.setdefault(index, _Call(len(self._calls)))
        if isinstance(item.get("id"), str):
            call.id = call.id or item["id"]
        name, piece = item["function"].get("name"), item["function"].get("arguments")
        call.pending += piece if isinstance(piece, str) else ""
        deltas: list[ir.Delta] = []
        if not call.started:
            # Some servers name the function in a later chunk than the first arguments.
            if not isinstance(name, str) or not name:
                return []
            call.started = True
            deltas.append(ir.CallStart(call.index, call.id, name))
        if call.pending:
            deltas.append(ir.CallDelta(call.index, call.pending))
            call.pending = ""
        return deltas
