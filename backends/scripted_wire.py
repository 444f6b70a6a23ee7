"""A scripted answer as bytes, with its faults: OpenAI's chat, completions and embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from backends.base import Operation
from backends.dialects.chat_reply import choices_asked
from backends.faults import Plan
from backends.scripted_answer import Answer, compose, count_prompt

__all__ = ["ChatWire", "Frame", "Playback", "Wire", "embeddings", "play"]

Kind = Literal["start", "content", "finish", "usage", "done"]
End = Literal["clean", "fin", "rst", "noterm"]

_BIG_EVENT = 10 * 1024 * 1024
_BIG_BODY = 40 * 1024 * 1024
_CREATED = 1_700_000_000
_encode = msgspec.json.Encoder().encode


class Frame(msgspec.Struct, frozen=True):
    """Bytes that are sent together, `delay` seconds after the ones before; `tokens` of the answer
    are in them."""

    data: bytes
    kind: Kind
    tokens: int = 0
    delay: float = 0.0


class Playback(msgspec.Struct, frozen=True):
    """One answer, ready to be sent. `before`: seconds until the status line; `hang`: it never
    comes; `reset`: RST instead. `end` says how the connection is left after the last frame."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    frames: tuple[Frame, ...]
    stream: bool = False
    before: float = 0.0
    hang: bool = False
    reset: bool = False
    end: End = "clean"
    prompt: int = 0
    completion: int = 0


class Wire(Protocol):
    """How a dialect writes answers and errors."""

    def whole(self, answer: Answer) -> bytes: ...

    def frames(self, answer: Answer) -> list[Frame]: ...

    def error_event(self) -> bytes: ...

    def error(self, status: int, code: str | None, message: str) -> bytes: ...


def _event(value: Any) -> bytes:
    return b"data: %b\n\n" % _encode(value)


class ChatWire:
    """Chat and completions. `toolindex`: number tool calls wrongly, as some engines do."""

    def __init__(self, operation: Operation, body: Mapping[str, Any], *, toolindex: bool) -> None:
        self._chat = operation == "chat"
        self._first_index = 7 if toolindex else 0
        self._model = str(body.get("model"))
        options = body.get("stream_options")
        self._usage = bool(options.get("include_usage")) if isinstance(options, dict) else False
        self._choices = choices_asked(body)
        kind = "chatcmpl" if self._chat else "cmpl"
        digest = hashlib.blake2s(_encode(body.get("messages", body.get("prompt"))), digest_size=8)
        self._id = f"{kind}-{digest.hexdigest()}"

    def _head(self, chunk: bool) -> dict[str, Any]:
        name = "text_completion"
        if self._chat:
            name = "chat.completion.chunk" if chunk else "chat.completion"
        return {"id": self._id, "object": name, "created": _CREATED, "model": self._model}

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        if self._chat:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        else:
            text = delta.get("content", "")
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
        chunk = {**self._head(True), "choices": [choice]}
        if self._usage:
            chunk["usage"] = None
        return _event(chunk)

    def frames(self, answer: Answer) -> list[Frame]:
        frames = []
        for index in range(self._choices):
            if self._chat:
                start = {"role": "assistant", "content": None if answer.calls else ""}
                frames.append(Frame(self._chunk(index, start), "start"))
            for piece in answer.pieces:
                frames.append(Frame(self._chunk(index, {"content": piece}), "content", 1))
            for number, call in enumerate(answer.calls, self._first_index):
                function = {"name": call.name, "arguments": ""}
                opening = {"index": number, "id": call.id, "type": "function", "function": function}
                opened = self._chunk(index, {"tool_calls": [opening]})
                frames.append(Frame(opened, "content", call.tokens))
                for at in range(0, len(call.arguments), 8):
                    part = {"index": number, "function": {"arguments": call.arguments[at : at + 8]}}
                    frames.append(Frame(self._chunk(index, {"tool_calls": [part]}), "content"))
            frames.append(Frame(self._chunk(index, {}, answer.finish), "finish"))
        if self._usage and answer.reported:
            usage = {**self._head(True), "choices": [], "usage": self._reported(answer.reported)}
            frames.append(Frame(_event(usage), "usage"))
        frames.append(Frame(b"data: [DONE]\n\n", "done"))
        return frames

    def _reported(self, reported: tuple[int, int]) -> dict[str, int]:
        prompt, completion = reported
        completion *= self._choices
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def whole(self, answer: Answer) -> bytes:
        body = {
            **self._head(False),
            "choices": [self._choice(answer, index) for index in range(self._choices)],
        }
        if answer.reported:
            body["usage"] = self._reported(answer.reported)
        return _encode(body)

    def _choice(self, answer: Answer, index: int) -> dict[str, Any]:
        rest = {"index": index, "logprobs": None, "finish_reason": answer.finish}
        if not self._chat:
            return {**rest, "text": answer.text}
        text = None if answer.calls else answer.text
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in answer.calls
            ]
        return {**rest, "message": message}

    def error_event(self) -> bytes:
        return _event({"error": {"message": "scripted failure", "type": "server_error"}})

    def error(self, status: int, code: str | None, message: str) -> bytes:
        kind = "invalid_request_error" if status < 429 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": code}
        return _encode({"error": error})


def _refusal(plan: Plan) -> tuple[int, str | None, str] | None:
    if plan.redirect:
        return 307, None, "scripted redirect"
    if plan.context:
        message = "This model's maximum context length is 8 tokens."
        return 400, "context_length_exceeded", message
    if plan.filtered:
        return 400, "content_filter", "The prompt was filtered."
    if plan.status != 200:
        return plan.status, None, f"scripted status {plan.status}"
    return None


def play(wire: Wire, body: Mapping[str, Any], plan: Plan) -> Playback:
    """Everything that one request will see, worked out beforehand."""
    refusal = _refusal(plan)
    if refusal is not None:
        headers = []
        if plan.retry_after is not None:
            headers.append(("retry-after", f"{plan.retry_after:g}"))
        if plan.redirect:
            headers.append(("location", "http://127.0.0.1:9/v1/elsewhere"))
        frame = Frame(wire.error(*refusal), "done")
        return Playback(
            refusal[0], "application/json", tuple(headers), (frame,), before=plan.latency
        )
    answer = compose(body, plan)
    stream = body.get("stream") is True
    frames = _stream_frames(wire, answer, plan) if stream else _whole_frames(wire, answer, plan)
    content_type = "text/event-stream; charset=utf-8" if stream else "application/json"
    if plan.fault in ("html", "wrongtype"):
        content_type = "text/html" if plan.fault == "html" else "application/octet-stream"
    cut = plan.cut is not None
    return Playback(
        200,
        content_type,
        (),
        tuple(frames),
        stream,
        before=plan.latency,
        hang=plan.hang,
        reset=plan.reset,
        end=plan.how if cut else "clean",
        prompt=answer.prompt,
        completion=(
            sum(frame.tokens for frame in frames)
            if cut
            else answer.completion * choices_asked(body)
        ),
    )


def _whole_frames(wire: Wire, answer: Answer, plan: Plan) -> list[Frame]:
    data = wire.whole(answer)
    if plan.fault == "html":
        data = b"<html><body>It works!</body></html>"
    elif plan.fault == "malformed":
        data = data[:-12]
    elif plan.fault == "error200":
        data = wire.error(500, None, "scripted failure")
    elif plan.fault == "nul":
        data = data[:-1] + b',"x":"\x00"}'
    elif plan.fault == "badutf8":
        data = data[:-1] + b',"x":"\xff\xfe"}'
    elif plan.fault == "bigevent":
        data = data[:-1] + b',"x":"' + b"x" * _BIG_BODY + b'"}'
    pace = plan.first_token + plan.chunk * max(len(answer.pieces) - 1, 0) + (plan.stall or 0.0)
    if plan.cut is not None:
        data = data[: len(data) // 2]
    return [Frame(data, "content", answer.completion, pace)]


def _stream_frames(wire: Wire, answer: Answer, plan: Plan) -> list[Frame]:
    frames = _faulty(wire, wire.frames(answer), plan)
    paced = []
    contents = 0
    for frame in frames:
        delay = 0.0
        if frame.kind == "content":
            delay = plan.chunk if contents else plan.first_token
            if plan.stall is not None and contents == plan.after:
                delay += plan.stall
            if plan.cut is not None and contents == plan.cut:
                break
            contents += 1
        paced.append(msgspec.structs.replace(frame, delay=delay) if delay else frame)
    return paced


def _faulty(wire: Wire, frames: list[Frame], plan: Plan) -> list[Frame]:
    fault = plan.fault
    if fault == "html":
        return [Frame(b"<html><body>It works!</body></html>", "start")]
    if fault == "nodone":
        return [frame for frame in frames if frame.kind != "done"]
    if fault == "nofinish":
        return [frame for frame in frames if frame.kind != "finish"]
    if fault == "twodone":
        return [*frames, *(frame for frame in frames if frame.kind == "done")]
    extra = {
        "malformed": b'data: {"choices":[{"index":0,"delta":\n\n',
        "nul": b'data: {"x":"\x00"}\n\n',
        "badutf8": b'data: {"x":"\xff\xfe"}\n\n',
        "error200": wire.error_event(),
        "bigevent": b'data: {"x":"' + b"x" * (_BIG_EVENT if fault == "bigevent" else 0) + b'"}\n\n',
    }
    if fault not in extra:
        return frames
    contents = [place for place, frame in enumerate(frames) if frame.kind == "content"]
    place = contents[min(plan.after, len(contents) - 1)] if contents else 0
    after = [] if fault == "error200" else frames[place:]
    return [*frames[:place], Frame(extra[fault], "start"), *after]


def embeddings(body: Mapping[str, Any]) -> bytes:
    """Eight numbers for each input, from its hash: equal texts have equal vectors."""
    given = body.get("input", "")
    items = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
    prompt = count_prompt(body)
    data = []
    for index, item in enumerate(items):
        digest = hashlib.blake2s(_encode(item), digest_size=8).digest()
        vector = [byte / 128 - 1 for byte in digest]
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return _encode({"object": "list", "model": body.get("model"), "data": data, "usage": usage})
