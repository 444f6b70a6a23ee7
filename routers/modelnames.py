"""What a model's name says: family, size, age, and which listed model it is another spelling of.

The same weights go by many names: `meta-llama/Llama-3.1-8B-Instruct`, `llama3.1:8b`,
`Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf`. `canonical` drops what does not change the model
(publisher, packaging, quantisation) and `loose` also revisions, context sizes and the marks of
tuning for chat.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

_SIZE = re.compile(r"e?(\d+(?:\.\d+)?)([bm])")
_MIXTURE = re.compile(r"(\d+)x(\d+(?:\.\d+)?)b")
_ACTIVE = re.compile(r"a(\d+(?:\.\d+)?)b")
_GLUED = re.compile(r"([a-z]{3,})(\d+(?:\.\d+)?)")
_UNDERSCORE = re.compile(r"(?<=\d)_(?=\d)")
_REVISION = re.compile(r"v0\.?\d+|\d{3,8}|\d+k|preview|exp")
_LATER = re.compile(r"v\d+(?:\.\d+)*")
_QUANTISED = re.compile(r"i?q\d\w*|w\d+a\d+|(?:nv|mx)?fp\d+|bf16|int\d|\dbit|\d\.\d+bpw")
_FORMATS = ("gguf", "awq", "gptq", "exl2", "exl3", "mlx", "bnb", "imat", "hf")
_PACKAGING = frozenset(
    (*_FORMATS, "meta", "c4ai", "latest", "free", "versatile", "instant", "turbo")
)
_CHAT = frozenset(("instruct", "chat", "it", "sft", "dpo"))
_BASE = frozenset(("base", "pt"))

# A mixture of experts shares its attention between the experts: Mixtral-8x7B has 46.7 billion
# parameters, not 56 (arXiv 2401.04088).
MIXTURE_SHARE = 46.7 / 56
MIXTURE_ACTIVE = 2


class Traits(msgspec.Struct, frozen=True):
    """`params` and `active`: billions of parameters, all and those used for one token; None where
    neither the name nor the family tells. `year`: when the family came out, as a decimal year."""

    family: str = ""
    params: float | None = None
    active: float | None = None
    year: float | None = None

    @property
    def size(self) -> float | None:
        """The size of a dense model of about the same ability, in billions: the geometric mean of
        all and active parameters, a rule of thumb for mixtures of experts."""
        if self.params is None:
            return None
        return float((self.params * (self.active or self.params)) ** 0.5)


class Family(msgspec.Struct, frozen=True):
    """`prefix`: the tokens with which the canonical name begins."""

    prefix: str
    year: float
    params: float | None = None
    active: float | None = None


def _table(rows: str) -> tuple[Family, ...]:
    found = []
    for row in rows.strip().splitlines():
        prefix, year, *sizes = (cell.strip() for cell in row.split("|"))
        found.append(Family(prefix, float(year), *(float(size) for size in sizes)))
    return tuple(sorted(found, key=lambda family: -len(family.prefix)))


# Month of release and, where names leave it out, parameters (all | active), in billions, as the
# publishers' model cards give them. The longest prefix wins.
FAMILIES = _table(
    """
    llama 2 | 2023.5
    llama 3 | 2024.3
    llama 3.1 | 2024.5
    llama 3.1 nemotron | 2024.8
    llama 3.2 | 2024.7
    llama 3.3 | 2024.9
    llama 3.3 nemotron | 2025.2
    codellama | 2023.6
    tinyllama | 2024.0 | 1.1
    mistral 7b | 2024.4
    mistral 7b v0.2 | 2024.2
    mistral 7b v0.1 | 2023.7
    mistral 7b instruct v0.1 | 2023.7
    mistral 7b instruct v0.2 | 2023.9
    mistral nemo | 2024.5 | 12.2
    mistral small | 2024.7 | 22
    mistral large | 2024.6 | 123
    ministral | 2024.8
    mixtral 8x7b | 2023.9
    mixtral 8x22b | 2024.3
    mathstral | 2024.5
    codestral | 2024.4 | 22
    qwen 1.5 | 2024.1
    qwen 2 | 2024.4
    qwen 2.5 | 2024.7
    qwen 3 | 2025.3
    qwq | 2024.9 | 32
    yi | 2023.8
    yi 1.5 | 2024.4
    gemma | 2024.1
    gemma 2 | 2024.5
    gemma 3 | 2025.2
    gemma 3n | 2025.5
    codegemma | 2024.3
    phi 2 | 2023.9 | 2.7
    phi 3 | 2024.3
    phi 3 mini | 2024.3 | 3.8
    phi 3 medium | 2024.4 | 14
    phi 3.5 mini | 2024.6 | 3.8
    phi 4 | 2024.9 | 14
    phi 4 mini | 2025.1 | 3.8
    deepseek coder v2 | 2024.5 | 236 | 21
    deepseek coder v2 lite | 2024.5 | 15.7 | 2.4
    deepseek v2 | 2024.4 | 236 | 21
    deepseek v3 | 2025.0 | 671 | 37
    deepseek r1 | 2025.1 | 671 | 37
    deepseek r1 distill | 2025.1
    command r | 2024.2 | 35
    command r plus | 2024.3 | 104
    jamba 1.5 large | 2024.6 | 398 | 94
    jamba 1.5 mini | 2024.6 | 52 | 12
    gpt oss 20b | 2025.6 | 20.9 | 3.6
    gpt oss 120b | 2025.6 | 116.8 | 5.1
    """
)


@lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    """The name as tokens with single spaces: `Meta-Llama-3_1-8B-Instruct-Q4_K_M.gguf` and
    `llama3.1:8b-instruct` both give `llama 3.1 8b instruct`."""
    last = name.lower().strip().rstrip("/").rsplit("/", 1)[-1]
    # Quantisation first: `q4_k_m` has underscores that part nothing.
    last = re.sub(r"(?<![a-z0-9])i?q\d(?:_[a-z0-9]+)*", " ", last.removesuffix(".gguf"))
    tokens: list[str] = []
    for word in re.split(r"[-_:@\s]+", _UNDERSCORE.sub(".", last)):
        if word in _PACKAGING or _QUANTISED.fullmatch(word):
            continue
        glued = _GLUED.fullmatch(word)
        tokens.extend(glued.groups() if glued else (word,))
    return " ".join(filter(None, tokens))


def loose(name: str) -> str:
    """The canonical name without revisions, context sizes and chat marks; base models keep
    `base`."""
    words = canonical(name).split()
    # After a size `v2` is a revision; before or without one it is a generation: DeepSeek-V2.
    sized = any(_SIZE.fullmatch(word) or _MIXTURE.fullmatch(word) for word in words)
    kept = words[:1]
    for word in words[1:]:
        later = _LATER.fullmatch(word) if sized else None
        if word not in _CHAT and not _REVISION.fullmatch(word) and not later:
            kept.append("base" if word in _BASE else word)
    return " ".join(kept)


def traits(name: str) -> Traits:
    """What the name says; empty for a name that says nothing."""
    text = canonical(name)
    words = text.split()
    family = next((f for f in FAMILIES if f"{text} ".startswith(f"{f.prefix} ")), None)
    params, active = _sizes(words)
    if family is not None and family.params is not None and _says_no_other(params, family.params):
        params, active = family.params, family.active
    return Traits(
        family=family.prefix if family else "",
        params=params,
        active=active,
        year=family.year if family else None,
    )


def _says_no_other(params: float | None, family: float) -> bool:
    """Whether the name gives no size, or the family's own one rounded (`gpt-oss-20b`)."""
    return params is None or 0.8 < params / family < 1.25


def _sizes(words: list[str]) -> tuple[float | None, float | None]:
    params: float | None = None
    active: float | None = None
    for word in words:
        if mixture := _MIXTURE.fullmatch(word):
            experts, each = int(mixture[1]), float(mixture[2])
            params = experts * each * MIXTURE_SHARE
            active = params * MIXTURE_ACTIVE / max(experts, MIXTURE_ACTIVE)
        elif dense := _SIZE.fullmatch(word):
            if params is None:
                params = float(dense[1]) / (1000 if dense[2] == "m" else 1)
        elif part := _ACTIVE.fullmatch(word):
            active = float(part[1])
    # Nothing that is served is smaller than ten million parameters: such a size is no size.
    if params is None or not 0.01 <= params <= 10_000:
        return None, None
    return params, min(active, params) if active else None
