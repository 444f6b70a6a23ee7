"""The values of learning: what is kept of a conversation, and what was said of its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from routers.text import turns_of

Side = Literal["weak", "strong", ""]
Source = Literal["feedback", "shadow"]
# Why a conversation that might have been kept was not: it is too long, is not text alone, or the
# router's model saw a class of data in it that may not be kept.
WhyNot = Literal["too_long", "opaque", "data_class"]


class Message(msgspec.Struct, frozen=True):
    """One turn as it is kept and exported."""

    role: str
    content: str


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """`tools`: the names of the tools that were offered, in OpenAI form; their schemas are not
    kept."""

    messages: list[Message]
    tools: list[dict[str, Any]] = []


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What the router said of a request at the time. `artefact` names the model that said it."""

    p_local_ok: float | None = None
    p_frontier_ok: float | None = None
    threshold: float | None = None
    artefact: str = ""


class Capture(Scored, frozen=True, kw_only=True):
    """A conversation that was answered. `conversation` is the JSON of a Conversation; `side` says
    which tier of its policy answered, and `model` which model of it, as `backend/model`, None where
    that is not known; `ts` is when, in seconds since the epoch."""

    decision_id: str
    org: str
    ts: float
    conversation: str
    side: Side
    model: str | None


class Uncaptured(msgspec.Struct, frozen=True):
    """Of a conversation that was answered and not kept: only why. `ts` as in Capture."""

    decision_id: str
    org: str
    ts: float
    reason: WhyNot


class Label(Scored, frozen=True, kw_only=True):
    """A training row with one or both labels, each in [0, 1]. `local_model` and `frontier_model`
    say of whose answer each is, as `backend/model`, None where that is not known or there is no
    label. `ts`: when the request was made; `created`: when the label was."""

    decision_id: str
    source: Source
    org: str
    ts: float
    created: float
    conversation: str
    local_ok: float | None = None
    frontier_ok: float | None = None
    local_model: str | None = None
    frontier_model: str | None = None


class LabelLine(msgspec.Struct, frozen=True):
    """A row as `tollhouse router refit` reads it: one for each conversation. The two models as in
    Label."""

    id: str
    messages: list[Message]
    local_ok: float | None
    frontier_ok: float | None
    local_model: str | None
    frontier_model: str | None
    tools: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


encode_line = msgspec.json.Encoder().encode
decode_conversation = msgspec.json.Decoder(Conversation).decode


def conversation_of(body: Mapping[str, Any]) -> str:
    """The JSON of a request's Conversation."""
    turns = [Message(turn.role, turn.text) for turn in turns_of(body)]
    return encode_line(Conversation(turns, _tools(body.get("tools")))).decode()


def _tools(given: Any) -> list[dict[str, Any]]:
    """Without descriptions and schemas: how many there were matters, and what they are called."""
    found = []
    for tool in given if isinstance(given, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        shown = name[:64] if isinstance(name, str) else ""
        found.append({"type": "function", "function": {"name": shown}})
    return found


def merge(labels: Iterable[Label]) -> Iterable[LabelLine]:
    """One line for each decision; the labels of one decision must follow each other. Where both
    sources speak of the same side, feedback of people goes before the judge's verdict; the model
    that is named for a side is that of the very label which is taken."""
    held: list[Label] = []
    for label in labels:
        if held and held[0].decision_id != label.decision_id:
            yield _merged(held)
            held = []
        held.append(label)
    if held:
        yield _merged(held)


def _merged(labels: list[Label]) -> LabelLine:
    ordered = sorted(labels, key=lambda label: label.source != "feedback")

    local = next((label for label in ordered if label.local_ok is not None), None)
    frontier = next((label for label in ordered if label.frontier_ok is not None), None)
    conversation = decode_conversation(ordered[0].conversation)
    return LabelLine(
        id=ordered[0].decision_id,
        messages=conversation.messages,
        local_ok=None if local is None else local.local_ok,
        frontier_ok=None if frontier is None else frontier.frontier_ok,
        local_model=None if local is None else local.local_model,
        frontier_model=None if frontier is None else frontier.frontier_model,
        tools=conversation.tools or msgspec.UNSET,
    )
