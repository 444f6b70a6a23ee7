"""Any OpenAI-compatible API: the request passes through, its model name and key are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backends.base import Call, Operation
from backends.dialects.chat_reply import ChatReply, choices_asked
from backends.dialects.exchange import Outgoing, call_headers, header_pairs, open_exchange
from backends.dialects.refusals import secrets_of
from backends.errors import Untranslatable
from backends.http import Endpoint, UpstreamTransport, make_endpoint

__all__ = ["ChatBackend", "ChatSettings", "Quirks"]

_PATHS: dict[Operation, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
# What may not be left out silently, with the values that mean "not asked for".
_MEANINGFUL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "tool_choice": (None, "auto", "none"),
    "functions": (None, []),
    "function_call": (None, "auto", "none"),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "audio": (None,),
}
_KEPT = frozenset(
    {"model", "messages", "prompt", "input", "stream", "stream_options"}
    | {"max_tokens", "max_completion_tokens"}
)

_encode = msgspec.json.Encoder().encode


class Quirks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an API differs from OpenAI's.

    `drop_fields`: request fields that it refuses. `allow_fields`: when set, the only ones it
    accepts (besides model, messages, prompt, input, stream and the token limit).
    `stream_options`: whether it may be asked for usage in streams. `max_tokens_field`: the one
    name of the token limit that it knows, when it knows only one.
    """

    drop_fields: tuple[str, ...] = ()
    allow_fields: tuple[str, ...] | None = None
    stream_options: bool = True
    max_tokens_field: str | None = None


class ChatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`base_url` ends before `/chat/completions`. `key_header` carries `key_prefix` + `api_key`.
    `headers` are sent with every request (an organisation, say); what they hold appears in no
    error, see `secrets_of`."""

    name: str
    base_url: str
    api_key: str | None = None
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    headers: dict[str, str] = {}
    quirks: Quirks = Quirks()


class ChatBackend:
    """A Backend for chat, completions and embeddings.

    `clock` gives Unix time in seconds. Raises ValueError for a base URL that is none.
    Nothing of the client's own headers is ever sent.
    """

    def __init__(
        self, settings: ChatSettings, transport: UpstreamTransport, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._secrets = secrets_of(settings.api_key, settings.headers)
        self._endpoints = _endpoints(settings)

    @property
    def name(self) -> str:
        return self._settings.name

    async def open(self, call: Call) -> ChatReply:
        body, dropped = _request(call, self._settings.quirks)
        outgoing = Outgoing(
            self._endpoints[call.operation],
            _encode(body),
            call_headers(call),
            self._secrets,
        )
        exchange = await open_exchange(self._transport, call, outgoing, self._clock)
        return ChatReply(
            exchange,
            call.operation,
            choices=choices_asked(body),
            dropped=dropped,
            secrets=self._secrets,
        )

    async def aclose(self) -> None:
        """Nothing to close: the connections belong to the transport."""


def _endpoints(settings: ChatSettings) -> dict[Operation, Endpoint]:
    own = {name.lower(): value for name, value in settings.headers.items()}
    if settings.api_key:
        own[settings.key_header.lower()] = settings.key_prefix + settings.api_key
    fixed = {"content-type": "application/json", "accept-encoding": "identity"}
    fixed["user-agent"] = "tollhouse"
    headers = header_pairs((fixed | own).items())
    base = settings.base_url.rstrip("/")
    return {operation: make_endpoint(base + path, headers) for operation, path in _PATHS.items()}


def _request(call: Call, quirks: Quirks) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body to send, and the names of fields that were left out.

    Raises Untranslatable when a field that changes the meaning has no place upstream.
    """
    body = {**call.body, "model": call.model}
    dropped = _drop(body, call, quirks)
    if quirks.max_tokens_field is not None and call.operation == "chat":
        limit = body.pop("max_tokens", None)
        limit = body.pop("max_completion_tokens", None) or limit
        if limit is not None:
            body[quirks.max_tokens_field] = limit
    if call.operation == "embeddings":
        body.pop("stream", None)
    elif call.stream:
        body["stream"] = True
        options = body.get("stream_options")
        if quirks.stream_options:
            own = options if isinstance(options, Mapping) else {}
            body["stream_options"] = {**own, "include_usage": True}
        else:
            body.pop("stream_options", None)
    else:
        if body.get("stream") is not None:
            body["stream"] = False
        body.pop("stream_options", None)
    return body, dropped


def _drop(body: dict[str, Any], call: Call, quirks: Quirks) -> tuple[str, ...]:
    if not quirks.drop_fields and quirks.allow_fields is None:
        return ()
    allowed = None if quirks.allow_fields is None else _KEPT.union(quirks.allow_fields)
    dropped = tuple(
        field
        for field in body
        if field in quirks.drop_fields or (allowed is not None and field not in allowed)
    )
    for field in dropped:
        value = body.pop(field)
        if not call.drop_params and value not in _MEANINGFUL.get(field, (value,)):
            raise Untranslatable(f"the chosen model does not support {field}", param=field)
    return dropped
