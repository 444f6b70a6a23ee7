"""The text of an answer in chat form, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice] = []


_body = msgspec.json.Decoder(_Body)


def answer_text(events: Iterable[bytes]) -> str | None:
    """What the first choice says, over all events; None when it did not come to its natural end,
    says nothing, or is not of the form."""
    parts: list[str] = []
    finish = None
    for data in events:
        try:
            choices = _body.decode(data).choices
        except msgspec.DecodeError:
            return None
        for choice in choices[:1]:
            said = choice.message or choice.delta
            if said is not None and said.content:
                parts.append(said.content)
            finish = choice.finish_reason or finish
    text = "".join(parts)
    return text if finish == "stop" and text.strip() else None
