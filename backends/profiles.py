"""What is known of models by name: window, capabilities, tokenizer, quirks of their dialect.

Rows are tried in order, the first pattern that matches wins. A model that no row knows gets a
conservative profile with `known=False`. Facts change: configuration overrides them per backend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Any, Literal

import msgspec

CAPABILITIES = frozenset(
    {
        "audio",
        "chat",
        "completions",
        "embeddings",
        "json_object",
        "json_schema",
        "logprobs",
        "n",
        "reasoning",
        "stream",
        "tool_choice",
        "tools",
        "vision",
    }
)

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class Profile(msgspec.Struct, frozen=True):
    """Facts of one model.

    `context_window` and `max_output` are in tokens. `tokenizer` names an encoding that
    `backends.tokens` can count with, or is empty when only an estimate is possible.
    `image_tokens` is the most that one image may count.

    Quirks of the Anthropic dialect: `thinking` says how reasoning is asked for ("budget" in
    tokens, "effort" alone, or "adaptive": effort together with adaptive thinking); `efforts` are
    the effort words the model takes; `thinking_off` the word that switches thinking off, empty
    when nothing does;
    `sampling` which of temperature, top_p and top_k it takes ("all", "one" of temperature and
    top_p, or "none"); `forced_tools` whether a tool may be forced.
    """

    context_window: int = 8192
    max_output: int = 4096
    capabilities: frozenset[str] = frozenset({"chat", "completions", "stream"})
    tokenizer: str = ""
    known: bool = True
    thinking: Literal["", "budget", "effort", "adaptive"] = ""
    efforts: tuple[Effort, ...] = ()
    thinking_off: Literal["", "disabled", "between_tools"] = "disabled"
    sampling: Literal["all", "one", "none"] = "all"
    forced_tools: bool = True
    image_tokens: int = 5000


UNKNOWN = Profile(known=False)

ENGINE_FEATURES = frozenset(
    {"completions", "json_object", "json_schema", "logprobs", "n", "stream"}
)
"""What open-weight engines (llama.cpp, vLLM, SGLang ...) add to whatever model they run."""
ENGINE_DEFAULTS = ENGINE_FEATURES | {"chat", "embeddings", "tools", "tool_choice"}
"""What is assumed of a model that no row knows, on such an engine; the engine says no if not."""

_TEXT = frozenset({"chat", "stream"})
_TOOLS = _TEXT | {"tools", "tool_choice"}
_OPENAI = _TOOLS | {"vision", "json_object", "json_schema", "logprobs", "n"}
_OPENAI_REASONING = _TOOLS | {"vision", "json_object", "json_schema", "reasoning"}
_JSON = _TOOLS | {"json_object", "json_schema"}
_CLAUDE = _TOOLS | {"vision", "json_object"}
_CLAUDE_SCHEMA = _CLAUDE | {"json_schema", "reasoning"}
_CLAUDE_FREE = _CLAUDE_SCHEMA - {"json_object", "tool_choice"}
_GEMINI = _TOOLS | {"vision", "json_object", "json_schema", "reasoning", "n", "audio"}
_EMBEDDINGS = frozenset({"embeddings"})
_O200K, _CL100K = "o200k_base", "cl100k_base"
_LOW3: tuple[Effort, ...] = ("low", "medium", "high")
_LOW4: tuple[Effort, ...] = (*_LOW3, "max")
_ALL: tuple[Effort, ...] = (*_LOW3, "xhigh", "max")


def _claude(
    window: int, output: int, capabilities: frozenset[str], quirks: Profile | None = None
) -> Profile:
    base = quirks or Profile()
    return msgspec.structs.replace(
        base, context_window=window, max_output=output, capabilities=capabilities
    )


_BUDGET = Profile(thinking="budget")
_BUDGET_ONE = Profile(thinking="budget", sampling="one")
_EFFORT = Profile(thinking="effort", efforts=_LOW3, sampling="one")
_ADAPTIVE4 = Profile(thinking="adaptive", efforts=_LOW4, sampling="one")
_ADAPTIVE = Profile(thinking="adaptive", efforts=_ALL, sampling="none")
_ALWAYS = msgspec.structs.replace(_ADAPTIVE, thinking_off="", forced_tools=False)
_BETWEEN = msgspec.structs.replace(_ALWAYS, thinking_off="between_tools")

_M = 1_000_000

_ROWS: tuple[tuple[str, Profile], ...] = (
    # OpenAI
    ("gpt-5.[4-9]*", Profile(1_050_000, 128_000, _OPENAI_REASONING, _O200K)),
    ("gpt-5-chat*", Profile(128_000, 16_384, _OPENAI, _O200K)),
    ("gpt-5*", Profile(400_000, 128_000, _OPENAI_REASONING, _O200K)),
    ("gpt-4.1*", Profile(1_047_576, 32_768, _OPENAI, _O200K)),
    ("gpt-4o-mini*", Profile(128_000, 16_384, _OPENAI, _O200K, image_tokens=50_000)),
    ("gpt-4o-audio*", Profile(128_000, 16_384, _OPENAI | {"audio"}, _O200K)),
    ("gpt-4o*", Profile(128_000, 16_384, _OPENAI, _O200K)),
    ("chatgpt-4o*", Profile(128_000, 16_384, _OPENAI, _O200K)),
    ("o[134]", Profile(200_000, 100_000, _OPENAI_REASONING, _O200K)),
    ("o[134]-*", Profile(200_000, 100_000, _OPENAI_REASONING, _O200K)),
    ("gpt-4-turbo*", Profile(128_000, 4096, _OPENAI - {"json_schema"}, _CL100K)),
    ("gpt-4*", Profile(8192, 8192, _TOOLS | {"logprobs", "n"}, _CL100K)),
    ("gpt-3.5-turbo-instruct*", Profile(4096, 4096, frozenset({"completions", "stream"}), _CL100K)),
    ("gpt-3.5-turbo*", Profile(16_385, 4096, _TOOLS | {"json_object", "logprobs", "n"}, _CL100K)),
    ("text-embedding-3-*", Profile(8191, 0, _EMBEDDINGS, _CL100K)),
    ("text-embedding-ada-002", Profile(8191, 0, _EMBEDDINGS, _CL100K)),
    ("*gpt-oss-*", Profile(131_072, 65_536, _JSON | {"reasoning"}, _O200K)),
    # Anthropic
    ("*claude-fable-5*", _claude(_M, 128_000, _CLAUDE_FREE, _ALWAYS)),
    ("*claude-mythos-5*", _claude(_M, 128_000, _CLAUDE_FREE, _ALWAYS)),
    ("*claude-opus-5-5*", _claude(_M, 128_000, _CLAUDE_FREE, _ALWAYS)),
    ("*claude-sonnet-5-5*", _claude(_M, 128_000, _CLAUDE_FREE, _BETWEEN)),
    ("*claude-haiku-5-5*", _claude(_M, 128_000, _CLAUDE_SCHEMA, _ADAPTIVE)),
    ("*claude-opus-5*", _claude(_M, 128_000, _CLAUDE_SCHEMA, _ADAPTIVE)),
    ("*claude-sonnet-5*", _claude(_M, 128_000, _CLAUDE_SCHEMA, _ADAPTIVE)),
    ("*claude-opus-4-[78]*", _claude(_M, 128_000, _CLAUDE_SCHEMA, _ADAPTIVE)),
    ("*claude-opus-4-6*", _claude(_M, 128_000, _CLAUDE_SCHEMA, _ADAPTIVE4)),
    ("*claude-sonnet-4-6*", _claude(_M, 64_000, _CLAUDE_SCHEMA, _ADAPTIVE4)),
    ("*claude-opus-4-5*", _claude(200_000, 64_000, _CLAUDE_SCHEMA, _EFFORT)),
    ("*claude-sonnet-4-5*", _claude(200_000, 64_000, _CLAUDE_SCHEMA, _BUDGET_ONE)),
    ("*claude-haiku-4-5*", _claude(200_000, 64_000, _CLAUDE_SCHEMA, _BUDGET_ONE)),
    ("*claude-opus-4-1*", _claude(200_000, 32_000, _CLAUDE_SCHEMA, _BUDGET_ONE)),
    ("*claude-opus-4*", _claude(200_000, 32_000, _CLAUDE | {"reasoning"}, _BUDGET)),
    ("*claude-sonnet-4*", _claude(200_000, 64_000, _CLAUDE | {"reasoning"}, _BUDGET)),
    ("*claude-3-7-*", _claude(200_000, 64_000, _CLAUDE | {"reasoning"}, _BUDGET)),
    ("*claude-3-5-*", _claude(200_000, 8192, _CLAUDE)),
    ("*claude-3-*", _claude(200_000, 4096, _CLAUDE)),
    # Google
    ("gemini-embedding*", Profile(2048, 0, _EMBEDDINGS)),
    ("*gemini-3*", Profile(1_048_576, 65_536, _GEMINI)),
    ("*gemini-2.5-*", Profile(1_048_576, 65_536, _GEMINI)),
    ("*gemini-2.0-*", Profile(1_048_576, 8192, _GEMINI - {"reasoning"})),
    # Mistral
    ("mistral-embed*", Profile(8192, 0, _EMBEDDINGS)),
    ("mistral-medium*", Profile(131_072, 32_768, _JSON | {"vision", "n"})),
    ("mistral-large*", Profile(131_072, 32_768, _JSON | {"vision", "n"})),
    ("mistral-small*", Profile(131_072, 32_768, _JSON | {"vision", "n"})),
    ("magistral-*", Profile(131_072, 40_960, _JSON | {"vision", "reasoning"})),
    ("codestral-*", Profile(131_072, 32_768, _JSON | {"n"})),
    ("ministral-*", Profile(131_072, 32_768, _JSON | {"vision", "n"})),
    # DeepSeek
    ("deepseek-flash", Profile(_M, 65_536, _TOOLS | {"json_object", "logprobs", "reasoning"})),
    ("deepseek-v4*", Profile(_M, 65_536, _TOOLS | {"json_object", "logprobs", "reasoning"})),
    ("deepseek-chat", Profile(131_072, 8192, _TOOLS | {"json_object", "logprobs"})),
    ("deepseek-reasoner", Profile(131_072, 65_536, _TOOLS | {"json_object", "reasoning"})),
    # Open weights, as served by Groq, Together and local engines
    ("*llama-4-*", Profile(131_072, 8192, _JSON | {"vision"})),
    ("*llama-3.[123]-*", Profile(131_072, 8192, _JSON)),
    ("*llama3.[123]*", Profile(131_072, 8192, _JSON)),
    ("*qwen3*", Profile(32_768, 8192, _JSON | {"reasoning", "logprobs"})),
    ("*qwen2.5*", Profile(32_768, 8192, _JSON | {"logprobs"})),
    ("*nomic-embed-text*", Profile(8192, 0, _EMBEDDINGS)),
    ("*bge-*", Profile(512, 0, _EMBEDDINGS)),
)

_COMPILED = tuple((re.compile(translate(pattern)), profile) for pattern, profile in _ROWS)


@lru_cache(maxsize=1024)
def find_profile(model: str) -> Profile:
    """The profile of a model by its upstream name, in any case; UNKNOWN when no row matches."""
    name = model.lower()
    for pattern, profile in _COMPILED:
        if pattern.match(name):
            return profile
    return UNKNOWN


def output_limit(body: Mapping[str, Any], profile: Profile) -> int:
    """Tokens that an answer to this request may have at most: what the client allows, else the
    model's own limit. This is also what a translation fills in where a dialect wants a limit."""
    for name in ("max_completion_tokens", "max_tokens"):
        asked = body.get(name)
        if type(asked) is int and asked > 0:
            return asked
    return profile.max_output
