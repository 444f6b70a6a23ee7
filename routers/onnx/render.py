"""A conversation as the text that a router reads: bounded work, whatever its length.

Tokenisers truncate after tokenising, so a text is cut to its head and tail first: 0.3 ms instead
of 10 ms on 40,000 characters. The last user turn weighs most; but a conversation is classified,
not its last "yes", so the task it began with and the turns before it have a share, unless the
last turn plainly begins a new one. Courtesies and layout are dropped: the same question must get
the same score however it is wrapped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from routers.onnx.framing import unframed
from routers.types import Query, Turn

HEAD = 400
TAIL = 200
LAST_OF_MANY = 340
FIRST = 130
EARLIER = 80
TURNS = 16
USER = "user"
# What an application says before its user does; `developer` is OpenAI's newer name for it.
SYSTEM = frozenset(("system", "developer"))
# What a text is cut to before its white space is looked at.
ROUGH = 4 * (HEAD + TAIL)
# Only so much of a text's ends is searched for courtesies, and of a turn for what it refers to.
GREETING, THANKS, CUE = 160, 80, 120
# A turn with fewer words or characters than this is never a topic of its own.
TOPIC_WORDS, TOPIC_CHARS = 4, 20
# How much of a system prompt is searched for words that ask for thought.
PROMPT = 2000
# Assumed, not measured: no labelled row has a system prompt or tools.
PER_HARD_WORD, PER_TOOL = 0.3, 0.25
MAX_DEMAND = 1.0

_SPACES = ("\t", "\u00a0", "\f", "\v")
_GREETING = re.compile(
    r"(?:(?:hi|hello|hey|dear|good (?:morning|afternoon|evening)|okay|ok|great|perfect|cool|nice|"
    r"thanks|thank you)(?:(?: so| very)? much| there| again| (?!world\b)[^\W\d_]{2,12})?[.!,]+\s*"
    r"|by the way,?\s*"
    r"|i hope (?:you|this)[^.!\n]{0,40}[.!]\s*"
    r"|(?:i was wondering (?:if|whether) you (?:could|can|would)|i(?:'d| would) like you to|"
    r"(?:can|could|would|will) you) (?:please |kindly )?(?:help me with|tell me|answer)"
    r"(?: something| this| a question| the following)?:\s*"
    r"|(?:please |kindly )?(?:can|could|would|will) you (?:please |kindly )?"
    r"(?:help me(?: out)?|assist me)\b[^\n:?.]{0,30}[:?.]\s*"
    r"|(?:i (?:have|need help with)|here is|here's) (?:a|the|this|my) "
    r"(?:question|problem|task)[^\n:.?]{0,20}[:.?]\s*"
    r"|please,? "
    r"|now (?:something else|this one)?[:,.]? ?){1,4}",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"[\s.!]*\b(?:thanks|thank you|thx|cheers)(?: so| very)?(?: much)?(?: in advance)?"
    r"(?: for (?:your|the) (?:help|time))?[\s.!]*\Z",
    re.IGNORECASE,
)
_WORDS_OF_THANKS = ("thank", "thx", "cheers")
_FOLLOWS = re.compile(
    r"\A(?:y(?:es|ep|eah)|no|ok|okay|sure|fine|do|go|continue|proceed|try|why|and|but|so|still|same|"
    r"again|fix|sounds|all|perfect)\b"
    r"|\b(?:it|its|that|this|them|these|those|above|previous|earlier|steps?|options?|plan|again|"
    r"then|you said|your)\b",
    re.IGNORECASE,
)
# Nothing is asked: the conversation ends. With no more than this a turn is a topic of its own.
_CLOSING = re.compile(
    r"(?=.*\b(?:thank|thx|cheers|bye|good ?night|see you|that(?:'|\u2019)?s (?:all|it)|"
    r"that is all))"
    r"(?:(?:ok(?:ay)?|great|perfect|cool|nice|wonderful|awesome|thanks|thank you|many thanks|thx|"
    r"cheers|bye|good ?bye|good ?night|see you(?: later| soon)?|that(?:'|\u2019)?s (?:all|it)|"
    r"that is all|so much|very much|a lot|again|for now|for today|and|"
    r"for (?:your|the|all(?: your| the)?) help|have a (?:nice|good|great) (?:day|evening|weekend)|"
    r"(?:that|it|this) (?:was|is) (?:very |really |so )?(?:great|perfect|helpful|useful|good|fine)"
    r")\b[\s.,;!]*)+",
    re.IGNORECASE,
)
_DEMANDING = re.compile(
    r"\b(?:prove|proofs?|deriv\w+|theorems?|lemmas?|asymptotic\w*|complexity|algorithms?|optimi[sz]\w+|"
    r"concurren\w+|exhaustive\w*|rigorous\w*|formal\w*|verif\w+|diagnos\w+|analy[sz]\w+|"
    r"critique|trade-?offs?|step by step)\b",
    re.IGNORECASE,
)


class Rendered(msgspec.Struct, frozen=True):
    """`text` has at most HEAD + TAIL characters and a few line breaks; `chars` counts what the
    user wrote in all turns that were looked at, before cutting. `demand` >= 0: by how much the
    logit of p_local_ok falls for what a system prompt asks for and the tools on offer."""

    text: str
    chars: int
    demand: float = 0.0


def cut(text: str, budget: int) -> str:
    """At most `budget` characters: two thirds from the head, the rest from the tail."""
    if len(text) <= budget:
        return text
    head = budget * HEAD // (HEAD + TAIL)
    return f"{text[:head]}\n{text[len(text) - (budget - head) :]}"


def tidy(text: str) -> str:
    """White space collapsed, ends stripped; a long text is cut to its head and tail first."""
    rough = text if len(text) <= 2 * ROUGH else f"{text[:ROUGH]}\n{text[-ROUGH:]}"
    for space in _SPACES:
        rough = rough.replace(space, " ")
    # Each turn halves the longest run.
    while "  " in rough:
        rough = rough.replace("  ", " ")
    if "\n" in rough or "\r" in rough:
        lines = rough.replace("\r", "\n").split("\n")
        rough = "\n".join(filter(None, [line.strip(" ") for line in lines]))
    return rough.strip()


def plain(text: str) -> str:
    """A tidy text without a greeting before it, thanks after it, and the template around it, if
    something is left."""
    found = _GREETING.match(text, 0, GREETING)
    bare = text[found.end() :] if found else text
    cut_at = max(0, len(bare) - THANKS)
    if any(word in bare[cut_at:].lower() for word in _WORDS_OF_THANKS):
        thanks = _THANKS.search(bare, cut_at)
        bare = bare[: thanks.start()] if thanks else bare
    return unframed(bare if len(bare) >= TOPIC_CHARS else text)


def render(query: Query) -> Rendered:
    """The text of a query; empty when nobody says anything.

    The system prompt is no part of the text: it is the same for every request of an application,
    and the same question must get the same score under any boilerplate. What it asks for counts
    as `demand`. Where nobody else says anything, it is the question.
    """
    recent = _recent(query)
    if not recent:
        query = _as_asked(query)
        recent = _recent(query)
    demand = _demand(query)
    users = [turn for turn in recent if turn.role == USER]
    if len(users) > 1 and _new_topic(users[-1].text):
        recent = users = users[-1:]
    chars = sum(turn.written for turn in users)
    if len(recent) == 1:
        only = recent[0].text
        return Rendered(cut(only, HEAD + TAIL), max(len(only), chars), demand)
    return Rendered("\n".join(_shares(recent)), chars, demand)


class _Said(msgspec.Struct, frozen=True):
    """A turn, tidied. `written`: its characters, those of a text so long that tidying cut it
    included."""

    role: str
    text: str
    written: int


def _recent(query: Query) -> list[_Said]:
    """The turns to look at."""
    first = next((i for i, turn in enumerate(query.turns) if turn.role == USER), None)
    start = max(0, len(query.turns) - TURNS)
    chosen = [turn for turn in query.turns[start:] if turn.role not in SYSTEM and turn.text]
    if first is not None and first < start:
        chosen.insert(0, query.turns[first])
    found: list[_Said] = []
    for turn in chosen:
        text = tidy(turn.text)
        if turn.role == USER:
            text = plain(text)
        if text:
            whole = len(turn.text)
            found.append(_Said(turn.role, text, whole if whole > 2 * ROUGH else len(text)))
    return found


def _as_asked(query: Query) -> Query:
    """With what the system prompt says as if a user had said it."""
    turns = (Turn(USER, turn.text) for turn in query.turns[-TURNS:] if turn.role in SYSTEM)
    return msgspec.structs.replace(query, turns=tuple(turns))


def _new_topic(text: str) -> bool:
    """Whether a turn stands by itself: long enough, and nothing in its beginning refers back; or
    thanks and farewell, whatever they are for."""
    if len(text) <= CUE and _CLOSING.fullmatch(text) is not None:
        return True
    if len(text) < TOPIC_CHARS or len(text[:CUE].split()) < TOPIC_WORDS:
        return False
    return _FOLLOWS.search(text, 0, CUE) is None


def _demand(query: Query) -> float:
    words = 0
    for turn in query.turns[:2]:
        if turn.role in SYSTEM:
            words += len(set(_DEMANDING.findall(turn.text[:PROMPT].lower())))
    if not words and not query.tools:
        return 0.0
    asked = PER_HARD_WORD * math.log1p(words) + PER_TOOL * math.log1p(query.tools)
    return min(MAX_DEMAND, asked)


def _shares(turns: Sequence[_Said]) -> list[str]:
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
        if len(taken) == 1 and len(piece) >= FIRST:
            # A request that says much is not drowned in what came before it.
            left = min(left, len(piece))
    return [taken[index] for index in sorted(taken)]
