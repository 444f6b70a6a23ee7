from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import KeyHasher, format_key, is_public_id, new_key, parse_key

PUBLIC = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=12)
SECRET = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", min_size=43, max_size=43
)


@given(PUBLIC, SECRET)
def test_what_is_formatted_is_parsed(public: str, secret: str) -> None:
    assert parse_key(format_key(public, secret)) == (public, secret)
    assert is_public_id(public)


@given(st.text(max_size=80))
def test_any_text_is_a_key_only_in_its_own_form(text: str) -> None:
    parsed = parse_key(text)
    assert parsed is None or format_key(*parsed) == text


def test_new_keys_have_the_form_and_differ() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(parse_key(key) is not None for key in made)


def test_new_key_uses_only_the_given_randomness() -> None:
    draws = iter([bytes([255] * 24), bytes(range(24)), bytes([1] * 32)])
    key = new_key(lambda n: next(draws))
    assert key == "th-abcdefghijkl-" + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "th-",
        "sk-abcdefghijkl-" + "a" * 43,
        "th-ABCDEFGHIJKL-" + "a" * 43,
        "th-abcdefghijkl-" + "a" * 42,
        "th-abcdefghijkl-" + "a" * 44,
        "th-abcdefghijkl-" + "a" * 42 + "=",
        "th-abcdefghijkl-" + "a" * 43 + "\n",
        "th-abcdefghijk'-" + "a" * 43,
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert parse_key(text) is None


@given(PUBLIC, SECRET)
def test_the_hash_depends_on_every_part(public: str, secret: str) -> None:
    hasher = KeyHasher(b"one hash key")
    digest = hasher.digest(format_key(public, secret))
    assert len(digest) == 32
    assert digest == hasher.digest(format_key(public, secret))
    assert digest != KeyHasher(b"another hash key").digest(format_key(public, secret))
    other = ("b" if public[0] == "a" else "a") + public[1:]
    assert digest != hasher.digest(format_key(other, secret))


def test_a_token_of_any_characters_can_be_hashed() -> None:
    assert len(KeyHasher(b"").digest("th-\udcff\u00e9" * 10)) == 32
