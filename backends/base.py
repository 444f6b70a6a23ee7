"""The waist to models: `Backend.open(call) -> Reply`.

A caller speaks the OpenAI chat form only. A backend whose upstream speaks another dialect
translates on its own side, so that a new dialect changes nothing above this file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, Protocol

import msgspec

Operation = Literal["chat", "completions", "embeddings"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one upstream attempt.

    `prompt` includes `cached` (read from the provider's cache) and `cache_write`;
    `completion` includes `reasoning`; `audio_prompt` and `audio_completion` are the parts of both
    that are audio. `searches`: searches of the web, or sources read, that the upstream counts, and
    charges, beside its tokens. `estimated` is true when the upstream reported nothing believable
    and the numbers were counted here.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: bool = False
    audio_prompt: int = 0
    audio_completion: int = 0
    searches: int = 0


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds. `first_token` runs from the request's last byte to the first semantic content of a
    stream, `idle` between two events after it, `total` over the whole attempt."""

    connect: float = 5.0
    first_token: float = 15.0
    idle: float = 30.0
    total: float = 600.0


class Call(msgspec.Struct, frozen=True):
    """One attempt. `body` is the client's request in OpenAI form, as parsed JSON; the backend
    must not change it. `model` is the upstream's name of the model. `traceparent` (W3C Trace
    Context) is sent along when it is set."""

    operation: Operation
    model: str
    body: Mapping[str, Any]
    stream: bool
    timeouts: Timeouts
    request_id: str = ""
    traceparent: str = ""
    drop_params: bool = False


class Event(msgspec.Struct):
    """One piece of an answer, in OpenAI form, in the order in which the upstream sent it.

    For a stream, `data` is the JSON of one chat.completion.chunk (or completion chunk) without
    SSE framing; for a non-stream answer there is exactly one event and `data` is the whole body.

    `semantic`: carries content, a tool call, reasoning, a refusal or a finish reason, so that an
    answer may be committed to the client. `text_bytes`: UTF-8 bytes of generated text in it (for
    estimates of usage). `finish`: the finish reason, when this event carries one for choice 0.
    `usage`: set when the event reports usage. `usage_only`: a chunk with `choices: []` that
    exists only to report usage; a client that did not ask for usage must not see it.
    """

    data: bytes
    semantic: bool = False
    text_bytes: int = 0
    finish: str | None = None
    usage: Usage | None = None
    usage_only: bool = False


class Reply(Protocol):
    """An open answer. Iterate `events()` once, to its end, then read the rest.

    `events()` raises a BackendError when the answer does not end well: in particular
    StreamTruncated when a stream ends without a finish reason. It yields every event as soon as
    it is complete: nothing is held back to be joined with the next.
    `aclose()` ends the upstream call at once (the upstream sees its connection close) and may be
    called at any time, more than once.
    """

    @property
    def model(self) -> str | None:
        """The model that answered, as the upstream named it."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The last usage the upstream reported; None when it reported none."""
        ...

    @property
    def service_tier(self) -> str:
        """The tier in which the upstream says it served the call; empty when it says nothing."""
        ...

    @property
    def dropped(self) -> tuple[str, ...]:
        """Request fields that the upstream's dialect could not carry and that were left out."""
        ...

    @property
    def malformed(self) -> int:
        """Events of the answer that could not be read and were left out."""
        ...

    def events(self) -> AsyncIterator[Event]: ...

    async def aclose(self) -> None: ...


class Backend(Protocol):
    """An upstream. Constructors do nothing; connections are made on demand."""

    @property
    def name(self) -> str: ...

    async def open(self, call: Call) -> Reply:
        """Send the call and wait for the upstream's status and headers.

        Raises a BackendError (see `backends.errors`) when the upstream refuses, fails or cannot
        be reached. Returns before the first event.
        """
        ...

    async def aclose(self) -> None: ...
