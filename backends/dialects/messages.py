"""Anthropic's messages API: the request is translated, and so is every event of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import msgspec

from backends.base import Call, Event, Usage
from backends.dialects import chat_answer, chat_ir, ir
from backends.dialects.exchange import (
    Exchange,
    Outgoing,
    call_headers,
    header_pairs,
    open_exchange,
)
from backends.dialects.messages_answer import decode_answer, service_tier_of
from backends.dialects.messages_request import Encoded, Target, encode_request
from backends.dialects.messages_stream import ERROR_STATUS, StreamDecoder
from backends.dialects.refusals import Refusal, error_for, read_error, secrets_of
from backends.errors import (
    InvalidUpstreamRequest,
    StreamFailed,
    Untranslatable,
    UpstreamBilling,
    UpstreamProtocolError,
)
from backends.http import Endpoint, UpstreamTransport, make_endpoint
from backends.profiles import Profile, find_profile
from backends.sse import SSEParser

__all__ = ["MessagesBackend", "MessagesReply", "MessagesSettings"]

BODY_BYTES = 32 * 1024 * 1024

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class MessagesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`base_url` ends before `/messages`. `betas` go into `anthropic-beta`. `user_salt` keys the
    hash by which end users are named to the provider. `profiles` override what is known of
    models, by their upstream names."""

    name: str
    base_url: str = "https://api.anthropic.com/v1"
    api_key: str | None = None
    headers: dict[str, str] = {}
    betas: tuple[str, ...] = ()
    api_version: str = "2023-06-01"
    user_salt: str = ""
    profiles: dict[str, Profile] = {}


class MessagesBackend:
    """A Backend for chat. `clock` gives Unix time in seconds. Raises ValueError for a base URL
    that is none. Nothing of the client's own headers is ever sent."""

    def __init__(
        self, settings: MessagesSettings, transport: UpstreamTransport, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._secrets = secrets_of(settings.api_key, settings.headers)
        self._endpoint = _endpoint(settings)

    @property
    def name(self) -> str:
        return self._settings.name

    async def open(self, call: Call) -> MessagesReply:
        encoded = self._translate(call)
        outgoing = Outgoing(
            self._endpoint,
            _encode(encoded.body),
            call_headers(call),
            secrets=self._secrets,
        )
        try:
            exchange = await open_exchange(self._transport, call, outgoing, self._clock)
        except InvalidUpstreamRequest as exc:
            # This API has no status of its own for an account without money.
            if "credit balance is too low" in exc.message:
                raise UpstreamBilling(
                    "the upstream refused for billing reasons", status=exc.status
                ) from exc
            raise
        return MessagesReply(exchange, encoded, int(self._clock()), self._secrets)

    def _translate(self, call: Call) -> Encoded:
        if call.operation != "chat":
            raise Untranslatable(
                f"the chosen model's API has no {call.operation}",
                code="unsupported_operation",
                param="model",
            )
        settings = self._settings
        target = Target(
            model=call.model,
            profile=settings.profiles.get(call.model) or find_profile(call.model),
            drop_params=call.drop_params,
            user_salt=settings.user_salt.encode(),
            api_version=settings.api_version,
        )
        request = chat_ir.decode_request(call.body)
        if request.stream is not call.stream:
            request = msgspec.structs.replace(request, stream=call.stream)
        return encode_request(request, target)

    async def aclose(self) -> None:
        """Nothing to close: the connections belong to the transport."""


def _endpoint(settings: MessagesSettings) -> Endpoint:
    fixed = {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "tollhouse",
        "anthropic-version": settings.api_version,
    }
    own = {name.lower(): value for name, value in settings.headers.items()}
    if settings.betas:
        own["anthropic-beta"] = ",".join(settings.betas)
    if settings.api_key:
        own["x-api-key"] = settings.api_key
    headers = header_pairs((fixed | own).items())
    return make_endpoint(settings.base_url.rstrip("/") + "/messages", headers)


class MessagesReply:
    """A Reply over one exchange. `malformed` counts events that were dropped because they were
    not JSON objects."""

    def __init__(
        self, exchange: Exchange, request: Encoded, created: int, secrets: tuple[str, ...]
    ) -> None:
        self._exchange = exchange
        self._request = request
        self._created = created
        self._secrets = secrets
        self._model: str | None = None
        self._usage: Usage | None = None
        self._service_tier = ""
        self._decoder = StreamDecoder(json_tool=request.json_tool)

    @property
    def model(self) -> str | None:
        return self._model

    @property
    def usage(self) -> Usage | None:
        return self._decoder.usage if self._exchange.stream else self._usage

    @property
    def service_tier(self) -> str:
        return self._decoder.service_tier if self._exchange.stream else self._service_tier

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._request.dropped

    @property
    def malformed(self) -> int:
        return self._decoder.malformed

    async def aclose(self) -> None:
        self._exchange.close()

    def events(self) -> AsyncIterator[Event]:
        return self._stream() if self._exchange.stream else self._whole()

    async def _stream(self) -> AsyncIterator[Event]:
        exchange, decoder = self._exchange, self._decoder
        encoder = chat_answer.StreamEncoder(created=self._created, legacy=self._request.legacy)
        parser = SSEParser()
        try:
            exchange.check_type("stream")
            while True:
                data = await exchange.receive()
                for name, payload in parser.feed(data) if data else parser.close():
                    exchange.progress(False)
                    for delta in self._deltas(name, payload):
                        for event in encoder.encode(delta):
                            exchange.progress(event.semantic)
                            yield event
                if decoder.done:
                    exchange.finish()
                    return
                if not data:
                    decoder.close()
        finally:
            exchange.close()

    def _deltas(self, name: str | None, payload: bytes) -> list[ir.Delta]:
        try:
            deltas = self._decoder.feed(name, payload)
        except StreamFailed as exc:
            self._fail(exc)
        if self._model is None and deltas and isinstance(deltas[0], ir.Start):
            self._model = deltas[0].model or None
        return deltas

    def _fail(self, failure: StreamFailed) -> NoReturn:
        """An error inside a 200 stream. Before any content it is what its type says; after it,
        the stream has failed."""
        if failure.status is None or self._exchange.semantic:
            raise failure
        body = read_error({"error": self._decoder.error})
        refusal = Refusal(failure.status, body, secrets=self._secrets)
        raise error_for(refusal) from failure

    async def _whole(self) -> AsyncIterator[Event]:
        exchange = self._exchange
        try:
            exchange.check_type("json")
            yield self._body_event(await exchange.read(BODY_BYTES))
        finally:
            exchange.close()

    def _body_event(self, data: bytes) -> Event:
        try:
            body = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise UpstreamProtocolError("the upstream's answer is not JSON") from exc
        if isinstance(body, dict) and body.get("type") == "error":
            self._body_error(body)
        answer = decode_answer(body, created=self._created, json_tool=self._request.json_tool)
        self._model = answer.model or None
        self._usage = answer.usage
        self._service_tier = service_tier_of(body.get("usage"))
        completion = chat_answer.encode_answer(answer, legacy=self._request.legacy)
        return Event(
            _encode(completion),
            semantic=True,
            text_bytes=sum(map(_text_bytes, answer.parts)),
            finish=completion["choices"][0]["finish_reason"],
            usage=answer.usage,
        )

    def _body_error(self, body: dict[str, Any]) -> NoReturn:
        error = read_error(body)
        status = ERROR_STATUS.get(error.type, 500)
        raise error_for(Refusal(status, error, secrets=self._secrets))


def _text_bytes(part: ir.Part) -> int:
    if isinstance(part, ir.Text | ir.Thinking | ir.Refusal):
        return len(part.text.encode())
    if isinstance(part, ir.ToolCall):
        return len(part.name.encode()) + len(part.arguments.encode())
    return 0
