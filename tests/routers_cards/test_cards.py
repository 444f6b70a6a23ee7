"""Cards as values: probabilities stay probabilities, the order of prompts stays, names find."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.cards import (
    MAX_OFFSET,
    MAX_SLOPE,
    Card,
    CardError,
    Cards,
    apply_cards,
    encode_cards,
    load_cards,
    p_ok,
    with_card,
    without_base,
)
from routers.types import Score

offsets = st.floats(-MAX_OFFSET, MAX_OFFSET)
probabilities = st.floats(0, 1)
cards = st.builds(
    Card,
    base=st.sampled_from(["local", "frontier"]),
    slope=st.floats(0.05, MAX_SLOPE),
    offset=offsets,
    domain=st.dictionaries(st.sampled_from(["math", "law"]), offsets),
)


@given(cards, probabilities, probabilities, st.sampled_from([None, "math", "law", "other"]))
def test_a_carded_probability_is_one(
    card: Card, local: float, frontier: float, domain: str | None
) -> None:
    found = p_ok(card, local, frontier, domain)
    assert math.isfinite(found)
    assert 0 < found < 1


@given(cards, probabilities, probabilities, probabilities)
def test_what_is_likelier_for_the_reference_is_likelier_for_the_model(
    card: Card, low: float, high: float, other: float
) -> None:
    low, high = sorted((low, high))
    if card.base == "local":
        assert p_ok(card, low, other) <= p_ok(card, high, other)
    else:
        assert p_ok(card, other, low) <= p_ok(card, other, high)


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.floats(0.01, MAX_OFFSET))
def test_a_card_of_nothing_changes_nothing_and_a_better_one_betters(
    local: float, frontier: float, better: float
) -> None:
    assert p_ok(Card(), local, frontier) == pytest.approx(local)
    assert p_ok(Card(base="frontier"), local, frontier) == pytest.approx(frontier)
    assert p_ok(Card(offset=better), local, frontier) > p_ok(Card(), local, frontier)


def test_a_domain_moves_only_its_own_requests() -> None:
    card = Card(domain={"law": -1.0})
    assert p_ok(card, 0.7, 0.9, "law") == pytest.approx(1 / (1 + (0.3 / 0.7) * math.e))
    assert p_ok(card, 0.7, 0.9, "math") == p_ok(card, 0.7, 0.9) == pytest.approx(0.7)


@pytest.mark.parametrize(
    "bad",
    [
        '{"slope": 0}',
        '{"slope": -1}',
        '{"slope": 9}',
        '{"offset": 7}',
        '{"domain": {"law": -7}}',
        '{"error": -1}',
        '{"base": "cloud"}',
        '{"ofset": 1}',
    ],
)
def test_a_card_that_cannot_be_is_refused(bad: str, tmp_path: Path) -> None:
    (tmp_path / "cards.json").write_text('{"cards": {"m": ' + bad + "}}")
    with pytest.raises(CardError, match=r"cards\.json"):
        load_cards(tmp_path)


def test_a_damaged_byte_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cards.json").write_bytes(b'{"cards": {"\xff": {}}}')
    with pytest.raises(CardError, match=r"cards\.json"):
        load_cards(tmp_path)


def test_no_number_is_refused_also_by_replace() -> None:
    with pytest.raises(ValueError, match="offset"):
        Card(offset=math.nan)
    with pytest.raises(ValueError, match="offset"):
        msgspec.structs.replace(Card(offset=5.0), offset=6.5)


def test_cards_come_back_as_they_were_written(tmp_path: Path, listed: Cards) -> None:
    assert load_cards(tmp_path) == Cards()
    (tmp_path / "cards.json").write_bytes(encode_cards(listed))
    assert load_cards(tmp_path) == listed
    assert encode_cards(load_cards(tmp_path)) == encode_cards(listed)


def test_apply_fills_the_candidates_that_have_a_card() -> None:
    score = Score(p_local_ok=0.7, p_frontier_ok=0.9, domain="law", p_ok={"other/m": 0.5})
    found = apply_cards(
        score, {"a/m": Card(offset=-1.0, domain={"law": 0.5}), "b/m": Card(base="frontier")}
    )
    assert found.p_ok == {
        "other/m": 0.5,
        "a/m": pytest.approx(1 / (1 + (0.3 / 0.7) * math.exp(0.5))),
        "b/m": pytest.approx(0.9),
    }
    assert (found.p_local_ok, found.p_frontier_ok) == (0.7, 0.9)
    assert score.p_ok == {"other/m": 0.5}


def test_apply_leaves_what_has_no_score() -> None:
    unclassified = Score(unclassified="deadline")
    assert apply_cards(unclassified, {"a/m": Card()}) is unclassified
    score = Score(p_local_ok=0.7, p_frontier_ok=0.9)
    assert apply_cards(score, {}) is score


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct"),
        ("llama3.1:8b", "llama-3.1-8b-instruct"),
        ("llama-3.1-8b-base", "llama-3.1-8b-base"),
        ("mistral:7b", "mistral-7b-instruct-v0.3"),
        ("mistralai/Mistral-7B-Instruct-v0.1", "mistral-7b-instruct-v0.1"),
        ("yi:34b", "yi-34b-base"),
        ("gemini-1.5-pro-002", "gemini-1.5-pro-*"),
        ("gpt-4-turbo", "gpt-4-1106-preview"),
        ("gpt-4o", None),
        ("qwen2.5:7b", None),
        ("tiny", None),
        ("", None),
    ],
)
def test_a_model_finds_its_listed_card(listed: Cards, model: str, name: str | None) -> None:
    assert listed.listed(model) == name


def test_a_card_of_the_very_backend_comes_first(listed: Cards) -> None:
    assert listed.find("llama3.1:8b", "ward/special") == listed.cards["ward/special"]
    found = listed.find("llama3.1:8b", "other/special")
    assert found is not None
    assert (found.origin, found.like) == ("listed", "llama-3.1-8b-instruct")
    mine = Card(offset=0.9, origin="fitted", rows=40)
    assert with_card(listed, "other/special", mine).find("llama3.1:8b", "other/special") == mine


def test_the_prior_of_a_name(listed: Cards) -> None:
    small, large = listed.find("qwen2.5:1.5b"), listed.find("qwen2.5:72b")
    assert small is not None
    assert large is not None
    assert small.origin == large.origin == "prior"
    assert small.offset < large.offset
    assert large.error == 0.35
    # Nothing beyond the largest and the newest that it was fitted on; a tiny one is tiny.
    prior = listed.prior
    assert prior is not None
    assert prior.offset(5000, 2030) == prior.offset(110, 2025)
    assert prior.offset(0.1, 2024) < prior.offset(3.8, 2024)
    assert listed.find("tiny") is None
    assert listed.find("gpt-4o") is None
    assert Cards().find("qwen2.5:7b") is None


def test_an_unknown_like_names_the_nearest(listed: Cards) -> None:
    with pytest.raises(CardError, match=r"no card 'lama-3.1-8b'; near: .*llama-3.1-8b-instruct"):
        listed.like("lama-3.1-8b")
    with pytest.raises(CardError, match=r"known: .*yi-34b-base"):
        listed.like("zzz")
    with pytest.raises(CardError, match="lists none"):
        Cards().like("llama-3.1-8b-instruct")
    assert listed.like("llama3.1:8b").like == "llama-3.1-8b-instruct"


def test_a_refit_to_labels_of_nobody_known_leaves_no_card_of_that_base(listed: Cards) -> None:
    moved = without_base(listed, "local")
    assert moved.cards.keys() == {"gemini-1.5-pro-*", "gpt-4-1106-preview"}
    assert moved.prior is None
    assert without_base(listed, "frontier").prior == listed.prior
