"""How many tokens a request has, before anybody is asked.

Exact for the public encodings of OpenAI, with ranks from `bpe-openai` (no network) or from
tiktoken's own cache when it is already filled; an estimate that leans high for everything else.
Bills are settled with the usage that the upstream reports: this is for limits and reservations.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from backends.profiles import Profile, find_profile

__all__ = ["Count", "TokenCounter", "estimate_completion", "estimate_text"]

INLINE_CHARS = 8192
"""Up to here counting takes about a millisecond and stays on the event loop."""
EXACT_CHARS = 200_000
"""Beyond this an estimate does: no exact count is worth its time there."""
_SLICE = 4096
_BYTES_PER_TOKEN = 3
_PER_MESSAGE = 4
_PER_REPLY = 3
_PER_TOOL = 12
_AUDIO_CHARS_PER_TOKEN = 500
_FILE_CHARS_PER_TOKEN = 4
# Fields that no model reads, and in the last line those that are counted one by one. Whatever else
# a client adds (`suffix`, `prediction`, an engine's own `documents`) may be put before the model.
_OF_REQUEST_NAMES = (
    "model stream stream_options max_tokens max_completion_tokens n best_of stop seed user "
    "metadata store service_tier safety_identifier prompt_cache_key logit_bias modalities audio "
    "tool_choice function_call reasoning_effort verbosity encoding_format "
    "messages tools functions response_format prompt input"
)
_OF_REQUEST = frozenset(_OF_REQUEST_NAMES.split())
_PLAIN = frozenset(("role", "content"))
_OF_MESSAGE = _PLAIN | {"audio"}
# Longer ones than any role or identifier are somebody's text.
_FRAME_CHARS = 64
# Content parts of these types are their text.
_TEXTS = frozenset(("text", "refusal", "thinking"))
_WORDS = ("text", "input_text", "output_text", "refusal", "thinking")

_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_RANKS = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_ENCODER = msgspec.json.Encoder()


class Count(msgspec.Struct, frozen=True):
    """`exact` is false where anything in the count was estimated."""

    tokens: int
    exact: bool


class _Tokenizer(Protocol):
    def count(self, text: str) -> int: ...


def estimate_text(text: str) -> int:
    """Tokens of a text for a tokenizer that is not known: a third of its UTF-8 bytes."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // _BYTES_PER_TOKEN)


def estimate_completion(text_bytes: int) -> int:
    """Tokens of an answer whose upstream reported none, from the UTF-8 bytes of its text."""
    return -(-max(text_bytes, 0) // _BYTES_PER_TOKEN)


class TokenCounter:
    """Counts requests. Encodings are loaded when first needed and kept: `o200k_base` takes about
    67 MB and 0.12 s, `cl100k_base` 33 MB and 0.06 s, half of it shared between processes.

    `encodings` names those that may be loaded; texts for others are estimated.
    """

    def __init__(self, encodings: Iterable[str] = tuple(_RANKS)) -> None:
        self._allowed = frozenset(encodings) & frozenset(_RANKS)
        self._loaded: dict[str, _Tokenizer | None] = {}
        self._loading = threading.Lock()

    def count_text(self, text: str, model: str) -> Count:
        return _Job(self._tokenizer(find_profile(model)), len(text)).text(text)

    def count_chat(self, body: Mapping[str, Any], model: str) -> Count:
        """Input tokens of a request in OpenAI form (chat, completions or embeddings) for the
        upstream's model `model`. Blocks for about 0.1 ms per kilobyte."""
        return self._count(body, find_profile(model), _size(body))

    def estimate_chat(self, body: Mapping[str, Any], model: str) -> Count:
        """As `count_chat` without any tokenizer: about ten times faster, and leaning high."""
        job = _Job(None, 0)
        return Count(_tokens(body, job, find_profile(model)), job.exact)

    async def count_chat_async(self, body: Mapping[str, Any], model: str) -> Count:
        """As `count_chat`; what takes longer than about a millisecond happens in a thread."""
        profile = find_profile(model)
        size = _size(body)
        ready = profile.tokenizer not in self._allowed or profile.tokenizer in self._loaded
        if ready and size <= INLINE_CHARS:
            return self._count(body, profile, size)
        return await asyncio.to_thread(self._count, body, profile, size)

    def _count(self, body: Mapping[str, Any], profile: Profile, size: int) -> Count:
        tokenizer = self._tokenizer(profile) if size <= EXACT_CHARS else None
        job = _Job(tokenizer, size)
        tokens = _tokens(body, job, profile)
        return Count(tokens, job.exact)

    def _tokenizer(self, profile: Profile) -> _Tokenizer | None:
        name = profile.tokenizer
        if name not in self._allowed:
            return None
        if name not in self._loaded:
            with self._loading:
                if name not in self._loaded:
                    self._loaded[name] = _from_bpe_openai(name) or _from_tiktoken_cache(name)
        return self._loaded[name]


class _Job:
    """One count: a tokenizer, or None to estimate, and whether all was exact so far."""

    def __init__(self, tokenizer: _Tokenizer | None, size: int) -> None:
        self._tokenizer = tokenizer if size <= EXACT_CHARS else None
        # `size` is rough: what it left out must not be counted exactly without end either.
        self._left = EXACT_CHARS
        self.exact = self._tokenizer is not None

    def text(self, text: str) -> Count:
        tokens = self.tokens(text)
        return Count(tokens, self.exact)

    def tokens(self, text: str) -> int:
        self._left -= len(text)
        if self._tokenizer is None or self._left < 0:
            self.exact = False
            return estimate_text(text)
        try:
            if len(text) <= _SLICE:
                return self._tokenizer.count(text)
            # In slices, because the tokenizer holds the interpreter for the whole of a call.
            return sum(self._tokenizer.count(piece) for piece in self._slices(text))
        except UnicodeEncodeError:
            # Half of a surrogate pair, which JSON can smuggle into a string.
            self.exact = False
            return estimate_text(text)

    def _slices(self, text: str) -> Iterator[str]:
        start = 0
        while len(text) - start > _SLICE:
            end = _word_start(text, start + _SLICE // 2, start + _SLICE)
            if end < 0:
                end = start + _SLICE
                self.exact = False
            yield text[start:end]
            start = end
        yield text[start:]

    def value(self, value: object) -> int:
        """Of text or JSON that is put before a model in a form that is not known."""
        if isinstance(value, str):
            text = value
        elif value and isinstance(value, Mapping | list):
            text = _ENCODER.encode(value).decode()
        else:
            return 0
        self.exact = False
        return self.tokens(text)


def _word_start(text: str, low: int, high: int) -> int:
    """The last place in [low, high) where a space between two letters begins a word: every
    encoding begins a token there. -1 when there is none."""
    at = text.rfind(" ", low, high)
    while at > low:
        if text[at - 1].isalpha() and at + 1 < len(text) and text[at + 1].isalpha():
            return at
        at = text.rfind(" ", low, at)
    return -1


# -- what counts in a request ---------------------------------------------------------------------


def _size(body: Mapping[str, Any]) -> int:
    """Characters of text in a request, roughly: enough to choose how to count."""
    total = 0
    for message in _list(body.get("messages")):
        if isinstance(message, Mapping):
            content = message.get("content")
            if isinstance(content, str):
                total += len(content)
            for part in _list(content):
                text = part.get("text") if isinstance(part, Mapping) else part
                total += len(text) if isinstance(text, str) else 0
    for name in ("prompt", "input"):
        value = body.get(name)
        values = value if isinstance(value, list) else [value]
        total += sum(len(item) for item in values if isinstance(item, str))
    # A tool is rarely under 200 characters; its exact size is not worth an encoding here.
    return total + 400 * len(_list(body.get("tools")))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _tokens(body: Mapping[str, Any], job: _Job, profile: Profile) -> int:
    total = 0
    messages = _list(body.get("messages"))
    if messages:
        total += _PER_REPLY
        for message in messages:
            if isinstance(message, Mapping):
                total += _message(message, job, profile)
    for name in ("tools", "functions", "response_format"):
        value = body.get(name)
        if value and value not in ({"type": "text"}, {"type": "json_object"}):
            job.exact = False
            entries = len(value) if isinstance(value, list) else 1
            total += job.tokens(_ENCODER.encode(value).decode()) + _PER_TOOL * entries
    for name in ("prompt", "input"):
        total += _plain(body.get(name), job)
    return total + sum([job.value(body[name]) for name in body.keys() - _OF_REQUEST])


def _plain(value: object, job: _Job) -> int:
    """A prompt: text, token ids, or a list of either."""
    if isinstance(value, str):
        return job.tokens(value)
    if isinstance(value, list):
        return sum(1 if type(item) is int else _plain(item, job) for item in value)
    return job.value(value)


def _message(message: Mapping[str, Any], job: _Job, profile: Profile) -> int:
    # Three tokens frame a message, and its role is one.
    total = _PER_MESSAGE
    content = message.get("content")
    if isinstance(content, str):
        total += job.tokens(content)
    else:
        total += sum(_part(part, job, profile) for part in _list(content))
    role = message.get("role")
    if isinstance(role, str) and len(role) > _FRAME_CHARS:
        total += job.value(role)
    return total if message.keys() == _PLAIN else total + _beside(message, job)


def _beside(message: Mapping[str, Any], job: _Job) -> int:
    """Tokens of what a message has besides its role and content."""
    total = 0
    for field, value in message.items():
        if field == "name" and isinstance(value, str):
            total += job.tokens(value) + 1
        elif field == "tool_call_id" and isinstance(value, str):
            total += job.value(value) if len(value) > _FRAME_CHARS else 0
        elif field not in _OF_MESSAGE:
            total += job.value(value)
    return total


def _part(part: object, job: _Job, profile: Profile) -> int:
    if isinstance(part, str):
        return job.tokens(part)
    if not isinstance(part, Mapping):
        return 0
    kind = part.get("type")
    written = [text for name in _TEXTS if isinstance(text := part.get(name), str)]
    words = sum([job.tokens(text) for text in written])
    if written and (kind in _WORDS or (kind is None and part.keys() <= _TEXTS)):
        return words
    job.exact = False
    # Text beside an image does not make it less of one.
    return words + _media(part, kind, profile)


def _media(part: Mapping[str, Any], kind: object, profile: Profile) -> int:
    if kind == "input_audio":
        return 100 + _data_size(part, "input_audio", "data") // _AUDIO_CHARS_PER_TOKEN
    if kind == "file":
        return 100 + _data_size(part, "file", "file_data") // _FILE_CHARS_PER_TOKEN
    return profile.image_tokens


def _data_size(part: Mapping[str, Any], outer: str, inner: str) -> int:
    value = part.get(outer)
    data = value.get(inner) if isinstance(value, Mapping) else None
    return len(data) if isinstance(data, str) else 0


# -- encodings ------------------------------------------------------------------------------------


def _from_bpe_openai(name: str) -> _Tokenizer | None:
    """The package's compiled module alone: importing the package itself builds three tables in
    Python that nothing here needs, for 100 MB and more than a second."""
    full = "bpe_openai._bindings"
    module = sys.modules.get(full)
    if module is None:
        package = importlib.util.find_spec("bpe_openai")
        if package is None:
            return None
        places = package.submodule_search_locations
        spec = importlib.machinery.PathFinder.find_spec(full, list(places or ()))
        if spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[full] = module
    tokenizer: _Tokenizer = module.tokenizer_for_encoding(name)
    # The ranks are unpacked at the first use.
    tokenizer.count("")
    return tokenizer


class _Tiktoken:
    def __init__(self, name: str) -> None:
        import tiktoken

        self._encoding = tiktoken.get_encoding(name)

    def count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))


def _from_tiktoken_cache(name: str) -> _Tokenizer | None:
    """Only with a sound file in tiktoken's cache: without one it would go to the network."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:
        return None
    key = hashlib.sha1(_URL.format(name).encode(), usedforsecurity=False).hexdigest()
    try:
        data = (Path(folder) / key).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != _RANKS[name]:
        return None
    return _Tiktoken(name)
