"""The internal form between dialects.

Every dialect has two codecs, wire to this form and this form to wire, so that n dialects need
2n translations and never n squared. Nothing here knows a wire format; `extras` keep what a
dialect said and this form has no word for, so that the way back to the same dialect loses
nothing. `spelling` remembers which of several wire forms of the same meaning was used.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from backends.base import Usage

Stop = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why an answer ended. Closed: an upstream's own value travels beside it as `raw_stop`."""

Extras = dict[str, Any]


class Text(msgspec.Struct, frozen=True):
    text: str
    extras: Extras = {}


class Image(msgspec.Struct, frozen=True):
    """Either `data` (base64) with its `media_type`, or a `url` that only the provider opens."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    extras: Extras = {}


class Document(msgspec.Struct, frozen=True):
    """A file sent along: `data` is base64."""

    media_type: str
    data: str
    name: str | None = None
    extras: Extras = {}


class Opaque(msgspec.Struct, frozen=True):
    """A part that only `dialect` understands, as it was on the wire."""

    dialect: str
    value: dict[str, Any]


class ToolCall(msgspec.Struct, frozen=True):
    """`arguments` is JSON text exactly as the model or the client wrote it."""

    id: str
    name: str
    arguments: str
    extras: Extras = {}


class ToolResult(msgspec.Struct, frozen=True):
    call_id: str
    parts: tuple[Text | Image | Document | Opaque, ...]
    is_error: bool = False
    extras: Extras = {}


class Thinking(msgspec.Struct, frozen=True):
    """Reasoning. With a `signature` it may be given back to the provider that signed it."""

    text: str
    signature: str = ""


class RedactedThinking(msgspec.Struct, frozen=True):
    data: str


class Refusal(msgspec.Struct, frozen=True):
    text: str


Content = Text | Image | Document | Opaque
Part = Content | ToolCall | ToolResult | Thinking | RedactedThinking | Refusal


class System(msgspec.Struct, frozen=True):
    """An instruction of the operator. `source` is its position among the client's messages."""

    parts: tuple[Content, ...]
    source: int = -1
    role: str = "system"
    spelling: dict[str, str] = {}
    extras: Extras = {}


class Turn(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant", "tool"]
    parts: tuple[Part, ...]
    source: int = 0
    spelling: dict[str, str] = {}
    extras: Extras = {}


class Tool(msgspec.Struct, frozen=True):
    """`parameters` is a JSON Schema; None when the client gave none."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    extras: Extras = {}


class ToolChoice(msgspec.Struct, frozen=True):
    """`tool` forces the tool `name`; `allowed` offers only `names`, called freely unless
    `forced`."""

    mode: Literal["auto", "none", "required", "tool", "allowed"]
    name: str = ""
    names: tuple[str, ...] = ()
    forced: bool = False


class Sampling(msgspec.Struct, frozen=True):
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    kind: Literal["text", "json_object", "json_schema"]
    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None
    extras: Extras = {}


class Reasoning(msgspec.Struct, frozen=True):
    """How much the model should think: an effort word, or a budget in tokens (0 means off)."""

    effort: str | None = None
    budget: int | None = None


class Request(msgspec.Struct, frozen=True):
    """`dialect` says whose `extras` these are."""

    dialect: str
    model: str
    system: tuple[System, ...] = ()
    turns: tuple[Turn, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    sampling: Sampling = Sampling()
    output_format: OutputFormat | None = None
    reasoning: Reasoning | None = None
    user: str | None = None
    stream: bool | None = None
    spelling: dict[str, str] = {}
    extras: Extras = {}


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. `created` is in seconds since 1970."""

    id: str
    model: str
    parts: tuple[Part, ...]
    stop: Stop
    created: int = 0
    raw_stop: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None
    extras: Extras = {}


class Start(msgspec.Struct, frozen=True):
    """The first delta of a stream."""

    id: str
    model: str
    usage: Usage | None = None


class TextDelta(msgspec.Struct, frozen=True):
    text: str


class RefusalDelta(msgspec.Struct, frozen=True):
    text: str


class ThinkingDelta(msgspec.Struct, frozen=True):
    text: str


class ThinkingEnd(msgspec.Struct, frozen=True):
    """A block of reasoning is complete; its text was already sent in deltas."""

    block: Thinking | RedactedThinking


class CallStart(msgspec.Struct, frozen=True):
    """`index` counts tool calls from 0, whatever else the answer holds."""

    index: int
    id: str
    name: str


class CallDelta(msgspec.Struct, frozen=True):
    index: int
    arguments: str


class Finish(msgspec.Struct, frozen=True):
    """The last delta. Nothing follows."""

    stop: Stop
    raw_stop: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None
    extras: Extras = {}


Delta = (
    Start | TextDelta | RefusalDelta | ThinkingDelta | ThinkingEnd | CallStart | CallDelta | Finish
)
