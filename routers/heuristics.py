"""A router without a model: what can be read off the surface of a text.

Length alone nearly equals the best published routers on MMLU and GSM8K, so it is both an input
of the trained heads and the baseline to beat.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from operator import itemgetter

from routers.onnx.render import Rendered, render
from routers.types import Query, Score

SURFACE = (
    "log_chars",
    "log_words",
    "word_length",
    "digits",
    "operators",
    "code_signs",
    "log_lines",
    "questions",
    "choices",
    "non_ascii",
    "hard_words",
    "numbers",
    "sentences",
    "connectives",
    "negations",
    "fill_in",
    "latex",
    "distinct",
    "long_words",
    "commas",
    "combined",
)

_WORD = re.compile(r"\w+")
_DIGITS = b"0123456789"
_OPERATORS = b"=+*/^<>~|\\$%"
_RARE_OPERATORS = "∑∫√≤≥≠±\u00d7÷"
_CODE = b"{}[]();_`#"
_CHOICE = re.compile(r"^\(?[a-j][.)] +(.*)$", re.MULTILINE)
# Where one option says several things, and what is left out when these are compared.
_BETWEEN = re.compile(r"[,;](?=\s)|\band\b")
_BESIDE = re.compile(r"\bonly\b|[^\w$%+-]+")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
# Beginnings of words that ask for thought.
_HARD = (
    "prove",
    "proving",
    "proof",
    "deriv",
    "theorem",
    "lemma",
    "integral",
    "eigen",
    "asymptotic",
    "complexity",
    "algorithm",
    "optimi",
    "refactor",
    "concurren",
    "deadlock",
    "architecture",
    "tradeoff",
    "quantum",
    "thermodynamic",
    "differential",
    "equilibrium",
    "stochastic",
    "implement",
    "debug",
    "analyse",
    "analyze",
    "evaluate",
    "critique",
    "diagnos",
    "calculat",
    "determin",
)
# All of them have five letters or more, and few words begin like one of them.
_BEGINNING = itemgetter(slice(5))
_HARD_BEGINS = frozenset(map(_BEGINNING, _HARD))
_NUMBER = re.compile(r"[0-9][0-9,.]*")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_LATEX = re.compile(r"\\[a-z]+|\$")
# Words that chain quantities and steps: worked solutions of their texts are longer.
_CONNECTIVES = frozenset(
    (
        "and",
        "then",
        "after",
        "if",
        "each",
        "every",
        "than",
        "twice",
        "half",
        "per",
        "total",
        "remaining",
        "more",
        "less",
        "times",
    )
)
_NEGATIONS = frozenset(("not", "except", "never", "least", "incorrect", "false", "cannot"))


def surface(rendered: Rendered) -> tuple[float, ...]:
    """The features named in `SURFACE`, each roughly in [0, 20] and finite for every text."""
    text = rendered.text
    small = text.lower()
    words = _WORD.findall(small)
    lengths = list(map(len, words))
    size, count = max(1, len(text)), max(1, len(words))
    # Signs of ASCII are one byte each in UTF-8, and no part of another character.
    raw = text.encode("utf-8", "surrogatepass")
    digits = len(raw) - len(raw.translate(None, _DIGITS))
    operators = len(raw) - len(raw.translate(None, _OPERATORS))
    signs = len(raw) - len(raw.translate(None, _CODE))
    beyond = 0
    if not text.isascii():
        operators += sum(map(text.count, _RARE_OPERATORS))
        beyond = len(_NON_ASCII.findall(text))
    lines = text.count("\n")
    hard = 0
    if not _HARD_BEGINS.isdisjoint(map(_BEGINNING, words)):
        hard = sum(w.startswith(_HARD) for w in words)
    options = _CHOICE.findall(small) if lines else ()
    return (
        math.log1p(rendered.chars),
        math.log1p(len(words)),
        min(20.0, sum(lengths) / count),
        digits / size * 10,
        operators / size * 10,
        signs / size * 10,
        math.log1p(lines),
        min(3.0, text.count("?")),
        1.0 if len(options) > 1 else 0.0,
        beyond / size * 10,
        math.log1p(hard),
        math.log1p(len(_NUMBER.findall(text)) if digits else 0),
        math.log1p(len(_SENTENCE.findall(text))),
        math.log1p(sum(map(_CONNECTIVES.__contains__, words))),
        math.log1p(sum(map(_NEGATIONS.__contains__, words))),
        1.0 if "__" in text or "which of the following" in small else 0.0,
        math.log1p(len(_LATEX.findall(text)) if "\\" in text or "$" in text else 0),
        len(set(words)) / count,
        math.log1p(len([n for n in lengths if n >= 8])),
        math.log1p(text.count(",")),
        combined(options) if len(options) > 2 else 0.0,
    )


def combined(options: Sequence[str]) -> float:
    """In [0, 1]: how far options are made of the same parts, as "true, false" and "false, true"
    are. Such a question is answered only when several things are right at once. 1 where each part
    is in three options, 0 where three of four parts are new. Letters are small."""
    parts = [
        part
        for option in options
        for piece in _BETWEEN.split(option)
        if (part := _BESIDE.sub(" ", piece).strip())
    ]
    new = len(set(parts)) / max(1, len(parts))
    return min(1.0, max(0.0, (0.75 - new) / (0.75 - 1 / 3)))


class HeuristicRouter:
    """Scores by length, notation and a few words. Needs no model and never fails."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock

    @property
    def name(self) -> str:
        return "heuristic"

    async def score(self, query: Query, *, deadline: float) -> Score:
        started = self._clock()
        rendered = render(query)
        if not rendered.text.strip():
            return Score(unclassified="empty", model=self.name)
        hardness = difficulty(rendered)
        return Score(
            p_local_ok=0.95 - 0.60 * hardness,
            p_frontier_ok=0.97 - 0.22 * hardness,
            confidence=0.3,
            tokens=query.prompt_tokens,
            model=self.name,
            us=int((self._clock() - started) * 1e6),
        )

    def detect(self, text: str) -> frozenset[str]:
        return frozenset()

    def describe(self) -> dict[str, object]:
        return {"router": self.name}

    async def aclose(self) -> None:
        return None


def difficulty(rendered: Rendered) -> float:
    """In [0, 1]: 0 for a greeting, near 1 for a long text full of notation and hard words."""
    found = dict(zip(SURFACE, surface(rendered), strict=True))
    # 20 characters are a remark, 3,000 a task with its material.
    length = (found["log_chars"] - math.log(20)) / (math.log(3000) - math.log(20))
    notation = found["operators"] + found["code_signs"] + 0.5 * found["digits"]
    total = 0.5 * min(1.0, max(0.0, length)) + 0.25 * math.tanh(notation)
    return min(1.0, total + 0.25 * math.tanh(found["hard_words"]))
