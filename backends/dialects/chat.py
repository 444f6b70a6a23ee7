"""Any OpenAI-compatible API: the request passes through, its model name and key are replaced."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from backends.base import Call, Operation
from backends.dialects.chat_reply import ChatReply, choices_asked
from backends.dialects.chat_request import Quirks, encode_call
from backends.dialects.exchange import Outgoing, call_headers, header_pairs, open_exchange
from backends.dialects.refusals import secrets_of
from backends.http import Endpoint, UpstreamTransport, make_endpoint

__all__ = ["ChatBackend", "ChatSettings", "Quirks"]

_PATHS: dict[Operation, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
_encode = msgspec.json.Encoder().encode


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
        body, dropped = encode_call(call, self._settings.quirks)
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
            calls_end_with_stop=self._settings.quirks.calls_end_with_stop,
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
