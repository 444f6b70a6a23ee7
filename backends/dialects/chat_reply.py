"""Reading an OpenAI-compatible answer: a light look at each chunk, whose bytes are passed on.

Only the fields below are decoded, so whatever else an engine sends survives untouched.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import msgspec

from backends.base import Event, Operation, Usage
from backends.dialects.chat_answer import generated
from backends.dialects.chat_calls import CallNumbers, Function, ToolCall
from backends.dialects.exchange import Incoming
from backends.dialects.refusals import ErrorBody, Refusal, error_for, read_error, redact
from backends.errors import (
    BackendError,
    ChoicesMissing,
    StreamBroken,
    StreamFailed,
    StreamTruncated,
    UpstreamFailed,
    UpstreamProtocolError,
)
from backends.sse import SSEParser

__all__ = ["ChatReply", "choices_asked", "read_usage"]

BODY_BYTES = 32 * 1024 * 1024
MAX_TOKENS = 100_000_000
_LINE_FEED = 10  # as a number: looking for it in bytes takes a fifth of the time
_DONE = b"[DONE]"
# An engine says so of an answer that it could not bring to an end (OpenRouter, vLLM and SGLang,
# DeepSeek).
_BROKEN_OFF = frozenset({"error", "abort", "insufficient_system_resource"})


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    audio: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    error: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: Any = None
    model: str | None = None
    object: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    service_tier: Any = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = -1
    completion_tokens: int | None = None
    total_tokens: Any = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    num_sources_used: Any = None  # xAI's live search


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_any = msgspec.json.Decoder().decode


def choices_asked(body: Mapping[str, Any]) -> int:
    """How many choices the answer to a request has: `n` for each prompt of a list of prompts."""
    n, prompt = body.get("n"), body.get("prompt")
    each = n if isinstance(n, int) and n > 1 else 1
    many = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return each * len(prompt) if many and isinstance(prompt, list) else each


def read_usage(raw: bytes) -> Usage | None:
    """Usage as the upstream stated it, or None when it is missing or cannot be true: negative,
    beyond a hundred million tokens, or parts that are larger than their whole."""
    try:
        usage = _decode_usage(raw)
    except msgspec.DecodeError:
        return None
    read = usage.prompt_tokens_details or _Details()
    made = usage.completion_tokens_details or _Details()
    prompt, stated = usage.prompt_tokens, usage.completion_tokens or 0
    completion = generated(prompt, stated, usage.total_tokens)
    cached, written = read.cached_tokens or 0, read.cache_write_tokens or 0
    reasoning = max(made.reasoning_tokens or 0, completion - stated)
    heard = min(max(read.audio_tokens or 0, 0), prompt)
    spoken = min(max(made.audio_tokens or 0, 0), completion)
    searches = usage.num_sources_used if type(usage.num_sources_used) is int else 0
    if not (0 <= prompt <= MAX_TOKENS and 0 <= completion <= MAX_TOKENS):
        return None
    if min(cached, written, reasoning) < 0 or cached + written > prompt or reasoning > completion:
        return None
    return Usage(
        prompt, completion, cached, written, reasoning, False, heard, spoken, max(searches, 0)
    )


def _length(text: str | None) -> int:
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _text_bytes(delta: _Delta) -> int:
    content = delta.content
    size = _length(content) if content is None or isinstance(content, str) else _parts(content)
    size += _length(delta.reasoning_content or delta.reasoning)
    if delta.refusal:
        size += _length(delta.refusal)
    if delta.tool_calls:
        size += sum(_call_bytes(call.function) for call in delta.tool_calls)
    if delta.function_call:
        size += _call_bytes(delta.function_call)
    return size


def _parts(content: list[Any]) -> int:
    # Mistral's reasoning models send lists of parts, whose texts may be lists again.
    size = 0
    for part in content:
        if isinstance(part, dict):
            for key in ("text", "thinking"):
                value = part.get(key)
                size += _parts(value) if isinstance(value, list) else _length(_str(value))
    return size


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _call_bytes(function: Function | None) -> int:
    return 0 if function is None else _length(function.name) + _length(function.arguments)


def _decode_loosely(data: bytes) -> Any:
    """Any JSON, with half a surrogate pair in it too (`\\ud83d`; RFC 8259, section 8.2), which the
    fast decoder refuses: engines that count UTF-16 units cut a text inside an emoji. Raises
    ValueError (a msgspec.DecodeError is one) or RecursionError."""
    try:
        return _decode_any(data)
    except msgspec.DecodeError:
        if b"\\u" not in data:
            raise
        return json.loads(data.decode(), parse_constant=_no_number)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _loose(data: bytes) -> _Chunk | None:
    """A chunk that is JSON but cannot be read as it should be: what can still be read of it."""
    try:
        value = _decode_loosely(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    listed = value.get("choices")
    choices = (
        [_loose_choice(choice) for choice in listed if isinstance(choice, dict)]
        if isinstance(listed, list)
        else None
    )
    return _Chunk(
        choices=choices,
        usage=msgspec.Raw(json.dumps(value.get("usage")).encode()),
        error=value.get("error"),
        model=_str(value.get("model")),
        service_tier=value.get("service_tier"),
        object=_str(value.get("object")),
        data=msgspec.Raw(b"[]" if isinstance(value.get("data"), list) else b""),
    )


def _loose_choice(choice: dict[str, Any]) -> _Choice:
    index = choice.get("index")
    delta = choice.get("delta") or choice.get("message")
    content = _str(delta.get("content")) if isinstance(delta, dict) else None
    # The rest of the delta is unreadable but not nothing: its size stands in for its text.
    rest = "" if content or not delta else json.dumps(delta)
    return _Choice(
        index=index if isinstance(index, int) else 0,
        delta=_Delta(content=content, reasoning=rest),
        text=_str(choice.get("text")),
        finish_reason=_str(choice.get("finish_reason")),
        error=choice.get("error"),
    )


def _breaks_off(choice: _Choice) -> bool:
    return bool(choice.error) or choice.finish_reason in _BROKEN_OFF


def _why(choice: _Choice) -> ErrorBody:
    """Why its engine broke a choice off."""
    if choice.error:
        return read_error({"error": choice.error})
    return ErrorBody(message=f"the upstream broke its answer off ({choice.finish_reason})")


class ChatReply:
    """A Reply over one exchange. `choices`: how many were asked for. Fewer are an answer when the
    upstream says that it is done (some engines ignore `n`); without that word the stream was cut.
    `calls_end_with_stop`: a `stop` after tool calls is said as `tool_calls`. `malformed` counts
    events that were dropped because they were not JSON, not UTF-8, or not an object."""

    def __init__(
        self,
        exchange: Incoming,
        operation: Operation,
        *,
        choices: int = 1,
        calls_end_with_stop: bool = False,
        dropped: tuple[str, ...] = (),
        secrets: tuple[str, ...] = (),
    ) -> None:
        self.malformed = 0
        self._exchange = exchange
        self._operation = operation
        self._choices = choices
        self._calls_end_with_stop = calls_end_with_stop
        self._dropped = dropped
        self._secrets = secrets
        self._model: str | None = None
        self._usage: Usage | None = None
        self._service_tier: Any = None
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self._numbers: dict[int, CallNumbers] = {}
        self._called: set[int] = set()

    @property
    def model(self) -> str | None:
        return self._model

    @property
    def usage(self) -> Usage | None:
        return self._usage

    @property
    def service_tier(self) -> str:
        return _str(self._service_tier) or ""

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._dropped

    async def aclose(self) -> None:
        self._exchange.close()

    def events(self) -> AsyncIterator[Event]:
        return self._stream() if self._exchange.stream else self._whole()

    async def _stream(self) -> AsyncIterator[Event]:
        exchange = self._exchange
        parser = SSEParser()
        try:
            exchange.check_type("stream")
            while data := await self._receive():
                for name, payload in parser.feed(data):
                    if payload.startswith(_DONE):
                        self._check_finished()
                        exchange.finish()
                        return
                    event = self._event(name, payload)
                    if event is not None:
                        exchange.progress(event.semantic)
                        yield event
            for name, payload in parser.close():
                if payload.startswith(_DONE):
                    self._check_finished()
                    return
                event = self._event(name, payload)
                if event is not None:
                    yield event
            self._check_finished()
            if len(self._seen) < self._choices:
                raise ChoicesMissing("the upstream's stream ended before all of its choices")
        finally:
            exchange.close()

    async def _receive(self) -> bytes:
        try:
            return await self._exchange.receive()
        except StreamBroken:
            # Every choice has its finish reason: nothing of the answer is missing.
            if len(self._seen) >= self._choices and not self._open:
                return b""
            raise

    def _check_finished(self) -> None:
        if self._open or not self._seen:
            raise StreamTruncated("the upstream's stream ended without a finish reason")

    def _event(self, name: str | None, data: bytes) -> Event | None:
        try:
            if not data.isascii():
                data.decode()
            chunk = _decode_chunk(data)
        except msgspec.DecodeError:
            loose = _loose(data)
            if loose is None:
                self.malformed += 1
                return None
            chunk = loose
        except (UnicodeDecodeError, RecursionError):
            self.malformed += 1
            return None
        if _LINE_FEED in data:
            # An event of several lines. What is JSON has them only between its tokens.
            data = data.replace(b"\n", b" ")
        if chunk.error or chunk.object == "error" or name == "error":
            self._fail(read_error(_decode_loosely(data)))
        if chunk.model:
            self._model = chunk.model
        if chunk.service_tier:
            self._service_tier = chunk.service_tier
        stated = len(chunk.usage) > len("null")
        usage = None
        if stated:
            usage = read_usage(bytes(chunk.usage))
            self._usage = usage or self._usage
        choices = chunk.choices
        if not choices:
            return Event(data, usage=usage, usage_only=stated)
        return self._choices_event(data, choices, usage)

    def _choices_event(self, data: bytes, choices: list[_Choice], usage: Usage | None) -> Event:
        event = Event(data, usage=usage)
        calls = False
        for choice in choices:
            size = _length(choice.text)
            if choice.delta is not None:
                size += _text_bytes(choice.delta)
                if choice.delta.tool_calls or choice.delta.function_call or choice.delta.audio:
                    event.semantic = True
                calls = calls or bool(choice.delta.tool_calls)
            event.text_bytes += size
            if choice.finish_reason or choice.error:
                if _breaks_off(choice):
                    self._fail(_why(choice))
                event.semantic = True
                self._seen.add(choice.index)
                self._open.discard(choice.index)
                if choice.index == 0:
                    event.finish = choice.finish_reason
            elif choice.index not in self._seen:
                self._seen.add(choice.index)
                self._open.add(choice.index)
        if event.text_bytes:
            event.semantic = True
        if calls:
            event.data = self._numbered(data, choices)
        return self._ended(event, choices) if self._calls_end_with_stop else event

    def _ended(self, event: Event, choices: list[_Choice]) -> Event:
        """The event, with the finish reason of its choices that made tool calls."""
        wrong: list[int] = []
        for at, choice in enumerate(choices):
            said = choice.delta or choice.message
            if said is not None and said.tool_calls:
                self._called.add(choice.index)
            if choice.finish_reason == "stop" and choice.index in self._called:
                wrong.append(at)
        if not wrong:
            return event
        try:
            answer = _decode_any(event.data)
        except msgspec.DecodeError:
            # A number out of range, in a field that was passed over above.
            return event
        for at in wrong:
            answer["choices"][at]["finish_reason"] = "tool_calls"
            if choices[at].index == 0:
                event.finish = "tool_calls"
        event.data = msgspec.json.encode(answer)
        return event

    def _numbered(self, data: bytes, choices: list[_Choice]) -> bytes:
        """The chunk with an index for each of its tool calls: itself where they are right."""
        wrong: list[tuple[int, int, int]] = []
        for at, choice in enumerate(choices):
            for place, call in enumerate((choice.delta and choice.delta.tool_calls) or ()):
                numbers = self._numbers.setdefault(choice.index, CallNumbers())
                number = numbers.number(call)
                if number != call.index:
                    wrong.append((at, place, number))
        if not wrong:
            return data
        try:
            chunk = _decode_any(data)
        except msgspec.DecodeError:
            # A number out of range, in a field that was passed over above.
            return data
        for at, place, number in wrong:
            chunk["choices"][at]["delta"]["tool_calls"][place]["index"] = number
        return msgspec.json.encode(chunk)

    def _fail(self, error: ErrorBody) -> NoReturn:
        """An error inside a 200 stream. Before any content it is what its status says; after it,
        the stream has failed."""
        if error.status is not None and not self._exchange.semantic:
            raise error_for(Refusal(error.status, error, secrets=self._secrets))
        message = redact(error.message, self._secrets) or "the upstream reported an error"
        raise StreamFailed(message, code=error.code or None)

    async def _whole(self) -> AsyncIterator[Event]:
        exchange = self._exchange
        try:
            exchange.check_type("json")
            yield self._body_event(await exchange.read(BODY_BYTES))
        finally:
            exchange.close()

    def _body_event(self, data: bytes) -> Event:
        try:
            data.decode()
            body = _decode_chunk(data)
        except msgspec.DecodeError as exc:
            loose = _loose(data)
            if loose is None:
                raise UpstreamProtocolError("the upstream's answer is no JSON object") from exc
            body = loose
        except (UnicodeDecodeError, RecursionError) as exc:
            raise UpstreamProtocolError("the upstream's answer is not JSON") from exc
        if body.error or body.object == "error":
            raise self._body_error(read_error(_decode_loosely(data)))
        self._model = body.model
        self._service_tier = body.service_tier
        self._usage = read_usage(bytes(body.usage)) if len(body.usage) else None
        event = Event(data, semantic=True, usage=self._usage)
        if self._operation == "embeddings":
            if not bytes(body.data).startswith(b"["):
                raise UpstreamProtocolError("the upstream's answer has no embeddings")
            return event
        self._check_choices(body.choices)
        for choice in body.choices or ():
            message = choice.message or choice.delta
            event.text_bytes += _length(choice.text) + (_text_bytes(message) if message else 0)
            if choice.index == 0:
                event.finish = choice.finish_reason
        return self._ended(event, body.choices or []) if self._calls_end_with_stop else event

    def _check_choices(self, choices: list[_Choice] | None) -> None:
        if not choices:
            raise UpstreamProtocolError("the upstream's answer has no choices")
        if len(choices) > self._choices:
            raise UpstreamProtocolError("the upstream's answer has more choices than asked for")
        for choice in choices:
            if _breaks_off(choice):
                raise self._body_error(_why(choice))
        if not all(choice.finish_reason for choice in choices):
            raise UpstreamProtocolError("the upstream's answer has no finish reason")

    def _body_error(self, error: ErrorBody) -> BackendError:
        if error.status is not None:
            return error_for(Refusal(error.status, error, secrets=self._secrets))
        return UpstreamFailed("the upstream reported an error")
