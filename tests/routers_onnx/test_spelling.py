"""Slips of the pen are read as the words that were meant."""

from __future__ import annotations

import json
import string
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from routers.onnx.arrays import save_arrays
from routers.onnx.manifest import ArtefactError
from routers.onnx.router import DEFAULT_ARTEFACT
from routers.onnx.spelling import FILE, NEIGHBOURS, Spelling, load_known, word_key
from routers.onnx.tokenizer import Tokenizer, load_tokenizer
from routers.train.spelling import known_words, write_known

VOCABULARY: dict[str, int] = json.loads((DEFAULT_ARTEFACT / "tokenizer.json").read_bytes())[
    "model"
]["vocab"]
SPELLING = Spelling(VOCABULARY, ())
MAX_TOKENS = 160
MENDING = load_tokenizer(DEFAULT_ARTEFACT / "tokenizer.json", MAX_TOKENS, known=())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("quesion", "question"),  # left out
        ("queestion", "question"),  # one too many
        ("wuestion", None),  # the first letter is trusted
        ("quedtion", "question"),  # the next key
        ("quextion", "question"),  # the key below
        ("quepstion", "question"),
        ("qeustion", "question"),  # swapped
        ("qeusiton", None),  # two slips
        ("quemtion", None),  # a key far away
        ("tiem", "time"),
        ("tim", None),
        ("zzxqjv", None),
        ("questi0n", None),
        ("x" * 30, None),
        ("", None),
    ],
)
def test_one_slip_is_mended(written: str, meant: str | None) -> None:
    assert SPELLING.mend(written) == meant


def test_known_words_are_left_alone() -> None:
    assert SPELLING.mend("volts") is not None
    assert Spelling(VOCABULARY, {word_key("volts")}).mend("volts") is None


def test_the_commonest_word_wins() -> None:
    words = {"stare": 7, "store": 3, "shore": 1}
    # "shore" is two keys away; of the other two the one with the lower id.
    assert Spelling(words, ()).mend("stre") == Spelling(words, ()).mend("sttre") is None
    assert Spelling({"stares": 7, "stores": 3}, ()).mend("stres") == "stores"
    assert Spelling({"stares": 3, "stores": 7}, ()).mend("stres") == "stares"


def test_neighbours_are_mutual_and_near() -> None:
    assert set(NEIGHBOURS) == set(string.ascii_lowercase)
    assert all(key in NEIGHBOURS[other] for key in NEIGHBOURS for other in NEIGHBOURS[key])
    assert NEIGHBOURS["s"] == frozenset("awedxz")
    assert NEIGHBOURS["p"] == frozenset("ol")


LONG = sorted(w for w in VOCABULARY if 5 <= len(w) <= 24 and w.isascii() and w.isalpha())


def one_slip(written: str, meant: str) -> bool:
    """Whether the two differ by one letter too many, left out, wrong, or two neighbours swapped."""
    differ = [i for i, (a, b) in enumerate(zip(written, meant, strict=False)) if a != b]
    if len(written) != len(meant):
        longer, shorter = sorted((written, meant), key=len, reverse=True)
        return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
    if len(differ) == 1:
        return True
    first, second = differ[0], differ[-1]
    swapped = written[first] == meant[second] and written[second] == meant[first]
    return len(differ) == 2 and second == first + 1 and swapped


@given(st.sampled_from(LONG), st.integers(0, 2**32))
def test_what_is_mended_is_one_slip_away_and_no_rarer(word: str, seed: int) -> None:
    rng = Random(seed)
    at = rng.randrange(1, len(word) - 1)
    written = rng.choice(
        [
            word[:at] + word[at + 1 :],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + rng.choice(string.ascii_lowercase) + word[at:],
            word[:at] + rng.choice(sorted(NEIGHBOURS[word[at]])) + word[at + 1 :],
        ]
    )
    assume(written not in VOCABULARY)
    found = SPELLING.mend(written)
    if len(written) > 4 and written.isalpha() and len(written) <= 24:
        assert found is not None
        assert VOCABULARY[found] <= VOCABULARY[word]
        assert found[0] == written[0]
        assert one_slip(written, found)


def test_a_text_with_slips_has_the_ids_of_the_text_meant(tokenizer: Tokenizer) -> None:
    right = "Explain how the engine converts heat into motion, and name the losses."
    wrong = "Expalin how the engin converts heeat into motion, and name the losses."
    assert MENDING.encode(right) == tokenizer.encode(right)
    assert MENDING.encode(wrong) == tokenizer.encode(right)
    assert tokenizer.encode(wrong) != tokenizer.encode(right)


def test_a_text_of_unknown_words_is_left_alone(tokenizer: Tokenizer) -> None:
    dutch = "Ik wil graag weten waarom de fietser gisteren niet gestopt is bij het kruispunt"
    assert MENDING.encode(dutch) == tokenizer.encode(dutch)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert 2 <= len(MENDING.encode(text)) <= MAX_TOKENS


def test_known_words_are_those_of_two_texts(tmp_path: Path) -> None:
    texts = ["The flurbs are ok", "Flurbs, abc123 and gnarx", "gnarx", "gnarx", "the THE", "the"]
    words = known_words(texts, {"the": 1, "are": 2})
    assert words == ["flurbs", "gnarx"]
    write_known(tmp_path, words)
    assert load_known(tmp_path) == {word_key("flurbs"), word_key("gnarx")}


def test_without_a_file_nothing_is_mended(tmp_path: Path) -> None:
    assert load_known(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        save_arrays(tmp_path / FILE, {"known": np.zeros(3, dtype=np.float32)})
    else:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ArtefactError, match=FILE):
        load_known(tmp_path)
