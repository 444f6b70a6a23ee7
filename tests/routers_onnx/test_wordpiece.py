"""The quick tokenizer gives the ids of the library's, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.onnx.router import DEFAULT_ARTEFACT
from routers.onnx.tokenizer import Tokenizer, load_tokenizer
from routers.onnx.wordpiece import WordPiece, wordpiece_of

MAX_TOKENS = 160


@pytest.fixture(scope="session")
def config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEFAULT_ARTEFACT / "tokenizer.json").read_bytes())
    return found


@pytest.fixture(scope="session")
def quick(config: dict[str, Any]) -> WordPiece:
    found = wordpiece_of(config, MAX_TOKENS)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Why is the sky blue?",
        "def f(x):\n\treturn x**2  # isn't it?\r\n",
        "\u201cIt\u2019s 7.5% \u2013 or so\u2026\u201d, she said \u2014 twice",
        "Pneumonoultramicroscopicsilicovolcanoconiosis and zzxqj",
        "x" * 100,
        "x" * 101,
        "word " * 500,
        "unbelievability's " * 100,
        "[unused1] [PAD ##ing _under_score_ a.b.c",
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    ],
)
def test_plain_text_is_read_as_the_library_reads_it(
    tokenizer: Tokenizer, quick: WordPiece, text: str
) -> None:
    found = quick.encode(text)
    assert found == tokenizer.encode_fully(text)
    assert tokenizer.encode(text) == found


def test_any_text_has_the_ids_of_the_library_or_none(
    tokenizer: Tokenizer, quick: WordPiece
) -> None:
    plain = st.text(
        st.one_of(
            st.characters(max_codepoint=0x7F),
            st.sampled_from(list("eationsr##[]CLSEP \u2019\u2026\u201c\u00e9\u4e2d")),
        ),
        max_size=400,
    )

    @given(st.one_of(plain, st.text(st.characters(), max_size=50)))
    @settings(max_examples=400)
    def same(text: str) -> None:
        found = quick.encode(text)
        assert found is None or found == tokenizer.encode_fully(text)

    same()


@pytest.mark.parametrize(
    "text", ["na\u00efve", "\u4f60\u597d", "a\x00b", "a\x0bb", "see [SEP] here", "[MASK]", "\ud800"]
)
def test_text_that_is_not_plain_is_left_to_the_library(quick: WordPiece, text: str) -> None:
    assert quick.encode(text) is None


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": None},
        {"normalizer": {"type": "BertNormalizer", "lowercase": False}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": {"type": "BPE", "vocab": {}}},
        {"model": {"type": "WordPiece", "vocab": []}},
        {"model": None},
        {"added_tokens": [{"content": "<s>"}]},
    ],
)
def test_another_tokenizer_has_no_quick_way(
    config: dict[str, Any], change: dict[str, object]
) -> None:
    assert wordpiece_of({**config, **change}, MAX_TOKENS) is None


def test_a_tokenizer_that_ends_texts_otherwise_is_the_librarys(
    config: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**config, "post_processor": None}))
    text = "Why is the sky blue?"
    other = load_tokenizer(path, MAX_TOKENS)
    assert other.encode(text) == other.encode_fully(text)
    assert other.encode(text)[0] != config["model"]["vocab"]["[CLS]"]
