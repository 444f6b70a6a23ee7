"""The quick tokenizer gives the ids of the library's, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.onnx.characters import opened, readable, words
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
        "Na\u00efve caf\u00e9s cost 3\u00a0\u20ac \u2192 \u00bd of \u00a3\U0001f600",
        "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u304c\u3064 \ud55c\uad6d\uc5b4",
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u039f\u0394\u039f\u03a3",
        "I\u0307stanbul \u0130 \u0661\u0662\u0663 \u0928\u092e\u0938\u094d\u0924\u0947",
        "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 " * 60,
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
            st.sampled_from(list("eationsr##[]CLSEP \u2019\u2026\u201c\u00e9\u4e2d\u03a3\u0301")),
            st.characters(min_codepoint=0xA0, max_codepoint=0x17FF),
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
    "text",
    [
        "a\x00b",
        "a\x0bb",
        "see [SEP] here",
        "\u4f60\u597d [MASK]",
        "\ud800",
        "soft\u00adhyphen",
        "no\u200bspace",
        "\U0001d400",
    ],
)
def test_text_with_rarer_characters_is_left_to_the_library(quick: WordPiece, text: str) -> None:
    assert quick.encode(text) is None


def test_every_character_that_is_known_is_read_as_the_library_reads_it(
    config: dict[str, Any],
) -> None:
    library = tokenizers.Tokenizer.from_str(json.dumps(config))
    known = [c for c in map(chr, range(0x110000)) if readable().fullmatch(c) is not None]
    assert len(known) > 50_000
    text = " ".join(f"A{c}b {c}{c} \u00e9{c}" for c in known)
    split = library.pre_tokenizer.pre_tokenize_str(library.normalizer.normalize_str(text))
    assert words().findall(opened(text)) == [word for word, _ in split]


def test_a_slip_is_mended_beside_accents_too_but_not_in_another_language(
    config: dict[str, Any], quick: WordPiece
) -> None:
    mending = wordpiece_of(config, MAX_TOKENS)
    assert mending is not None
    mending.mend([])
    right = "The d\u00e9cor of the restaurant is beautiful, I think"
    assert mending.encode(right.replace("beautiful", "beutiful")) == quick.encode(right)
    german = "Die Universit\u00e4ten ver\u00f6ffentlichten gemeinsam Forschungsergebnisse"
    assert mending.encode(german) == quick.encode(german)


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
