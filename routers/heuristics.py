"""A router without a model: what can be read off the surface of a text.

Length alone nearly equals the best published routers on MMLU and GSM8K, so it is both an input
of the trained heads and the baseline to beat.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

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
)

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"[0-9]")
_OPERATOR = re.compile(r"[=+*/^<>~|\\$%∑∫√≤≥≠±\u00d7÷]")
_CODE = re.compile(r"[{}\[\]();_`#]")
_CHOICE = re.compile(r"^\(?[A-J][.)] ", re.MULTILINE)
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_HARD = re.compile(
    r"\b(?:prov(?:e|ing)|proof|deriv(?:e|ation)|theorem|lemma|integral|eigen\w*|asymptotic\w*|"
    r"complexity|algorithm|optimi[sz]\w*|refactor\w*|concurren\w+|deadlock|architecture|"
    r"trade-?offs?|quantum|thermodynamic\w*|differential|equilibrium|stochastic|"
    r"implement\w*|debug\w*|analy[sz]e|evaluate|critique|diagnos\w+|calculat\w+|determin\w+)\b",
    re.IGNORECASE,
)


def surface(rendered: Rendered) -> tuple[float, ...]:
    """The features named in `SURFACE`, each roughly in [0, 10] and finite for every text."""
    text = rendered.text
    words = _WORD.findall(text)
    size = max(1, len(text))
    return (
        math.log1p(rendered.chars),
        math.log1p(len(words)),
        min(20.0, sum(map(len, words)) / max(1, len(words))),
        len(_DIGIT.findall(text)) / size * 10,
        len(_OPERATOR.findall(text)) / size * 10,
        len(_CODE.findall(text)) / size * 10,
        math.log1p(text.count("\n")),
        min(3.0, text.count("?")),
        1.0 if len(_CHOICE.findall(text)) > 1 else 0.0,
        len(_NON_ASCII.findall(text)) / size * 10,
        math.log1p(len(_HARD.findall(text))),
    )


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
