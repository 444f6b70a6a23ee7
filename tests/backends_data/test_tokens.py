from __future__ import annotations

import base64
import gzip
import hashlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import tokens
from backends.tokens import Count, TokenCounter, estimate_completion, estimate_text

pytest.importorskip("bpe_openai")

SLOW = settings(max_examples=100, deadline=None, database=None)
NAMES = {"o200k_base": "gpt-4o", "cl100k_base": "gpt-4"}


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    return TokenCounter()


@pytest.fixture(scope="session", params=sorted(NAMES))
def oracle(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """tiktoken itself, over the same ranks: an implementation of its own."""
    import tiktoken
    from tiktoken_ext import openai_public

    name = request.param
    packed = files("bpe_openai.data").joinpath(f"{name}.tiktoken.gz").read_bytes()
    pairs = (line.split() for line in gzip.decompress(packed).splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_public, "load_tiktoken_bpe", lambda *a, **k: ranks)
        made = openai_public.ENCODING_CONSTRUCTORS[name]()
    return NAMES[name], tiktoken.Encoding(**made)


def test_counts_equal_tiktoken(counter: TokenCounter, oracle: tuple[str, Any]) -> None:
    model, encoding = oracle

    @SLOW
    @given(text=st.text(max_size=200))
    def check(text: str) -> None:
        want = len(encoding.encode_ordinary(text))
        assert counter.count_text(text, model) == Count(want, exact=True)

    check()


def test_slices_change_nothing(counter: TokenCounter, oracle: tuple[str, Any]) -> None:
    model, encoding = oracle
    words = st.sampled_from(["naïve", "the", "漢字", "x=1;", "12345", "\n\n", "don't", "🙂", "  "])

    @settings(SLOW, max_examples=15)
    @given(some=st.lists(words, min_size=20, max_size=60))
    def check(some: list[str]) -> None:
        text = " plain words ".join(some) * 60
        assert len(text) > 2 * tokens._SLICE
        want = len(encoding.encode_ordinary(text))
        assert counter.count_text(text, model) == Count(want, exact=True)

    check()


def test_a_text_without_words_is_flagged(counter: TokenCounter) -> None:
    count = counter.count_text("=" * 20_000, "gpt-4o")
    assert not count.exact and count.tokens > 0


def test_a_conversation(counter: TokenCounter) -> None:
    body = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "text", "text": "hello world"}]},
        ]
    }
    words = sum(
        counter.count_text(text, "gpt-4o").tokens
        for text in ("You are a helpful assistant.", "hello world")
    )
    assert counter.count_chat(body, "gpt-4o") == Count(words + 4 + 4 + 3, exact=True)


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]},
    ],
)
def test_what_is_not_text_counts_and_is_flagged(
    counter: TokenCounter, extra: dict[str, Any]
) -> None:
    plain = {"messages": [{"role": "user", "content": ""}]}
    count = counter.count_chat({**plain, **extra}, "gpt-4o")
    assert count.tokens > counter.count_chat(plain, "gpt-4o").tokens
    assert not count.exact


LONG = "word " * 5_000


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [LONG]}]},
        {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": LONG}]}]},
        {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": LONG}]}]},
        {"messages": [{"role": LONG, "content": ""}]},
        {"messages": [{"role": "tool", "content": "", "tool_call_id": LONG}]},
        {"messages": [{"role": "assistant", "content": "", "reasoning": LONG}]},
        {"messages": [{"role": "user", "content": ""}], "documents": [{"text": LONG}]},
        {"messages": [{"role": "user", "content": ""}], "prediction": {"content": LONG}},
        {"prompt": "", "suffix": LONG},
        {"input": [{"content": LONG}]},
    ],
)
def test_text_counts_wherever_a_model_may_read_it(
    counter: TokenCounter, body: dict[str, Any]
) -> None:
    assert 5_000 <= counter.count_chat(body, "gpt-4o").tokens < 5_100
    assert counter.estimate_chat(body, "gpt-4o").tokens >= 5_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {}},
        {"image_url": {}},
        {"type": "file", "file": {"file_data": LONG}},
    ],
)
def test_text_beside_an_image_takes_nothing_off(
    counter: TokenCounter, part: dict[str, Any]
) -> None:
    def tokens(**more: str) -> int:
        body = {"messages": [{"role": "user", "content": [{**part, **more}]}]}
        return counter.count_chat(body, "gpt-4o").tokens

    assert tokens(text="") == tokens() < tokens(text="word")


@pytest.mark.parametrize(
    "more", [{"user": LONG, "metadata": {"a": LONG}, "stop": [LONG], "n": 1, "top_k": 5}]
)
def test_what_no_model_reads_does_not_count(counter: TokenCounter, more: dict[str, Any]) -> None:
    plain = {"messages": [{"role": "user", "content": "hello"}]}
    assert counter.count_chat({**plain, **more}, "gpt-4o") == counter.count_chat(plain, "gpt-4o")


def test_very_much_besides_messages_is_estimated(counter: TokenCounter) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "word " * 60_000}}]
    body = {"messages": [{"role": "user", "content": "hello"}], "tools": tools}
    assert counter.count_chat(body, "gpt-4o").tokens >= 100_000


def test_prompts_and_inputs(counter: TokenCounter) -> None:
    assert counter.count_chat({"prompt": [1, 2, 3]}, "gpt-3.5-turbo-instruct").tokens == 3
    assert counter.count_chat({"input": ["a", "b"]}, "text-embedding-3-small") == Count(2, True)
    assert counter.count_chat({"prompt": [[1], [2, 3]]}, "made-up").tokens == 3


def test_unknown_tokenizers_are_estimated_high(counter: TokenCounter) -> None:
    assert counter.count_text("x" * 10, "made-up") == Count(4, exact=False)
    assert estimate_text("漢字") == 2 and estimate_text("") == 0
    assert estimate_completion(7) == 3 and estimate_completion(0) == 0
    english = "The quick brown fox jumps over the lazy dog. " * 20
    assert estimate_text(english) > counter.count_text(english, "gpt-4o").tokens


def test_very_long_texts_are_estimated(counter: TokenCounter) -> None:
    body = {"messages": [{"role": "user", "content": "ab " * 70_000}]}
    count = counter.count_chat(body, "gpt-4o")
    assert count == Count(70_000 + 7, exact=False)


def test_half_a_surrogate_pair_is_no_crash(counter: TokenCounter) -> None:
    assert counter.count_text("\ud800 x", "gpt-4o") == Count(2, exact=False)


def test_an_estimate_needs_no_encoding() -> None:
    counter = TokenCounter(encodings=())
    body = {"messages": [{"role": "user", "content": "hello"}]}
    assert counter.count_chat(body, "gpt-4o") == counter.estimate_chat(body, "gpt-4o")
    assert counter.estimate_chat(body, "gpt-4o") == Count(2 + 7, exact=False)


async def test_the_thread_counts_the_same(counter: TokenCounter) -> None:
    for repeat in (1, 3000):
        body = {"messages": [{"role": "user", "content": "some words " * repeat}]}
        assert await counter.count_chat_async(body, "gpt-4o") == counter.count_chat(body, "gpt-4o")


@pytest.mark.parametrize(
    "body",
    [{}, {"messages": 5}, {"messages": [5, {"content": [7, {}]}]}, {"prompt": {"a": 1}}],
)
def test_odd_bodies_are_no_crash(counter: TokenCounter, body: dict[str, Any]) -> None:
    assert counter.count_chat(body, "gpt-4o").tokens >= 0


def test_importing_costs_nothing() -> None:
    code = (
        "import sys, backends.tokens as t; t.TokenCounter();"
        "assert not {'tiktoken', 'bpe_openai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tiktoken_is_used_only_with_a_sound_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert tokens._from_tiktoken_cache("o200k_base") is None
    url = tokens._URL.format("o200k_base").encode()
    (tmp_path / hashlib.sha1(url).hexdigest()).write_bytes(b"not the ranks")
    assert tokens._from_tiktoken_cache("o200k_base") is None
    packed = files("bpe_openai.data").joinpath("o200k_base.tiktoken.gz").read_bytes()
    (tmp_path / hashlib.sha1(url).hexdigest()).write_bytes(gzip.decompress(packed))
    found = tokens._from_tiktoken_cache("o200k_base")
    assert found is not None and found.count("hello world") == 2
