"""A conversation as the text that a router reads: bounded work, whatever its length.

Tokenisers truncate after tokenising, so a text is cut to its head and tail first: 0.3 ms instead
of 10 ms on 40,000 characters. The last user turn weighs most; but a conversation is classified,
not its last "yes", so the task it began with and the turns before it have a share.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from routers.types import Query, Turn

HEAD = 400
TAIL = 200
LAST_OF_MANY = 340
FIRST = 130
EARLIER = 80
TURNS = 16
USER = "user"


class Rendered(msgspec.Struct, frozen=True):
    """`text` has at most HEAD + TAIL characters and a few line breaks; `chars` counts what the
    user wrote in all turns that were looked at, before cutting."""

    text: str
    chars: int


def cut(text: str, budget: int) -> str:
    """At most `budget` characters: two thirds from the head, the rest from the tail."""
    if len(text) <= budget:
        return text
    head = budget * HEAD // (HEAD + TAIL)
    return f"{text[:head]}\n{text[len(text) - (budget - head) :]}"


def render(query: Query) -> Rendered:
    """The text of a query; empty when nobody but the system prompt says anything.

    The system prompt is left out on purpose: it is the same for every request of an application,
    and the same question must get the same score under any boilerplate.
    """
    first = next((i for i, turn in enumerate(query.turns) if turn.role == USER), None)
    start = max(0, len(query.turns) - TURNS)
    recent = [turn for turn in query.turns[start:] if turn.role != "system" and turn.text]
    if first is not None and first < start:
        recent.insert(0, query.turns[first])
    if len(recent) == 1:
        return Rendered(cut(recent[0].text, HEAD + TAIL), len(recent[0].text))
    chars = sum(len(turn.text) for turn in recent if turn.role == USER)
    return Rendered("\n".join(_shares(recent)), chars)


def _shares(turns: Sequence[Turn]) -> list[str]:
    """The pieces that fit the budget, in the order of the conversation.

    The newest user turn chooses first, then the oldest, then the others from the newest back.
    """
    users = [i for i, turn in enumerate(turns) if turn.role == USER]
    others = [i for i in range(len(turns) - 1, -1, -1) if i not in (users[:1] + users[-1:])]
    order = [(i, LAST_OF_MANY) for i in users[-1:]]
    order += [(i, FIRST) for i in users[:1] if len(users) > 1]
    order += [(i, EARLIER) for i in others]
    left = HEAD + TAIL
    taken: dict[int, str] = {}
    for index, most in order:
        if left <= 0:
            break
        piece = cut(turns[index].text, min(most, left))
        taken[index] = piece
        left -= len(piece)
    return [taken[index] for index in sorted(taken)]
