"""Scripted conversations: a router scores the conversation, not its last line.

What is expected is written as relations between gains, so that it holds for any good router:

- `nearer`: the gain is nearer to that of one text alone than to that of another;
- `above`, `below`: it is above or below that of a text or another conversation;
- `like`: it is that of another, give or take a share of the artefact's own distance between hard
  and easy texts.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from routers.base import Router
from routers.types import Query, Turn

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCRIPT = json.loads((Path(__file__).parent / "conversations.json").read_text())
TEXTS: dict[str, str] = SCRIPT["texts"]
CONVERSATIONS = {entry["name"]: entry for entry in SCRIPT["conversations"]}
# The others stand there to be compared with.
SCRIPTED = [name for name, entry in CONVERSATIONS.items() if entry["expect"]]


class Gains:
    """The gains of every text and conversation under one artefact, each asked for once."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._known: dict[str, float] = {}

    async def of(self, name: str) -> float:
        if name not in self._known:
            score = await self.router.score(query(name), deadline=60)
            assert score.gain is not None, (name, score.unclassified)
            self._known[name] = score.gain
        return self._known[name]

    async def mean(self, names: list[str]) -> float:
        return fmean([await self.of(name) for name in names])

    async def span(self) -> float:
        return await self.mean(SCRIPT["hard"]) - await self.mean(SCRIPT["easy"])


def query(name: str) -> Query:
    if name in TEXTS:
        return Query((Turn("user", TEXTS[name]),))
    entry = CONVERSATIONS[name]
    turns = tuple(Turn(role, written(text)) for role, text in entry["turns"])
    return Query(turns, tools=entry.get("tools", 0))


def written(text: str | list[str | int]) -> str:
    """`$name` stands for a text; in a list of pieces a number repeats the piece before it."""
    if isinstance(text, str):
        return TEXTS[text[1:]] if text.startswith("$") else text
    pieces: list[str] = []
    for piece in text:
        pieces += [written(piece)] if isinstance(piece, str) else pieces[-1:] * (piece - 1)
    return "".join(pieces)


@pytest.fixture(scope="module")
def gains(shipped: Router) -> Gains:
    return Gains(shipped)


async def test_hard_texts_are_above_easy_ones(gains: Gains) -> None:
    hard = [await gains.of(name) for name in SCRIPT["hard"]]
    easy = [await gains.of(name) for name in SCRIPT["easy"]]
    assert fmean(hard) > fmean(easy)
    pairs = [(high, low) for high in hard for low in easy]
    assert sum(high > low for high, low in pairs) / len(pairs) >= 0.95


@pytest.mark.parametrize("name", SCRIPTED)
async def test_conversation(gains: Gains, name: str) -> None:
    found = await gains.of(name)
    for relation, wanted in CONVERSATIONS[name]["expect"].items():
        if relation == "nearer":
            near, far = await gains.of(wanted["to"]), await gains.of(wanted["than"])
            assert abs(found - near) < abs(found - far), (near, far)
        elif relation in ("above", "below"):
            other = await gains.of(wanted)
            assert found > other if relation == "above" else found < other
        else:
            other, span = await gains.of(wanted["of"]), await gains.span()
            assert abs(found - other) <= span * wanted["within"]


async def test_there_are_enough_and_they_differ() -> None:
    assert len(CONVERSATIONS) == len(SCRIPT["conversations"])
    assert len(SCRIPTED) >= 25
    kinds = {kind for entry in CONVERSATIONS.values() for kind in entry["expect"]}
    assert kinds == {"nearer", "above", "below", "like"}
