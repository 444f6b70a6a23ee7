"""Fitting: known abilities are found again, and the real scores give cards in the order that
everybody knows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from routers.cards import Card, Cards, encode_cards
from routers.refit.cards import MIN_ROWS
from routers.train.cards import (
    GOLD_STRONG,
    REFERENCE,
    Evidence,
    anchor,
    fit_all,
    fit_cards,
    fit_prior,
    load_evidence,
    prior_errors,
)
from routers.train.cards_report import report
from routers.train.data import GOLD, read_records

GROUPS = ("math", "law", "biology", "history")


def scene(
    source: str, abilities: dict[str, float], hardness: float, law: dict[str, float], seed: int
) -> Evidence:
    """4,000 rows on which model m is right with sigmoid(z - hardness + abilities[m]), where z is
    the reference's own logit; in law also + law[m]."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0.7, 0.8, 4000)
    groups = [GROUPS[i] for i in rng.integers(0, len(GROUPS), 4000)]
    is_law = np.array([group == "law" for group in groups])
    scores = {}
    for model, ability in abilities.items():
        logit = z - hardness + ability + law.get(model, 0.0) * is_law
        scores[model] = (rng.random(4000) < 1 / (1 + np.exp(-logit))).astype(float)
    return Evidence(source, 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-z - 0.8)), groups, scores)


def test_abilities_are_found_again_whatever_the_source_is_like() -> None:
    easy = scene("easy", {REFERENCE: 0.0, "weak-7b": -0.8, GOLD_STRONG: 0.8}, -0.5, {}, 1)
    hard = scene("hard", {"weak-7b": -0.8, "good-70b": 0.7}, 1.5, {"good-70b": -1.0}, 2)
    cards = fit_cards(anchor([easy, hard]))
    assert cards["weak-7b"].offset == pytest.approx(-0.8, abs=0.15)
    assert cards["weak-7b"].rows == 8000
    good = cards["good-70b"]
    assert good.offset + good.domain["law"] == pytest.approx(-0.3, abs=0.25)
    assert good.offset + good.domain["math"] == pytest.approx(0.7, abs=0.25)
    assert good.slope == pytest.approx(1.0, abs=0.15)
    # The references are what the probabilities mean.
    assert cards["mixtral-8x7b-instruct-v0.1"] == Card(rows=4000)
    assert cards["gpt-4-1106-preview"] == Card(base="frontier", rows=4000)


def test_an_answer_that_was_not_asked_for_does_not_count() -> None:
    full = scene("s", {REFERENCE: 0.0, "weak-7b": -0.8}, 0.0, {}, 3)
    scores = dict(full.scores)
    scores["weak-7b"] = np.where(np.arange(4000) % 2, np.nan, full.scores["weak-7b"])
    half = Evidence(full.source, full.p_local, full.p_frontier, full.groups, scores)
    card = fit_cards(anchor([half]))["weak-7b"]
    assert card.rows == 2000
    assert card.offset == pytest.approx(-0.8, abs=0.2)
    assert card.error > fit_cards(anchor([full]))["weak-7b"].error


def test_a_group_in_which_the_format_failed_tells_nothing_of_ability() -> None:
    broken = scene("s", {REFERENCE: 0.0, "odd-7b": 0.3}, 0.0, {"odd-7b": -5.0}, 4)
    card = fit_cards(anchor([broken]))["odd-7b"]
    assert card.offset == pytest.approx(0.3, abs=0.15)
    assert "law" not in card.domain


def test_a_source_that_shares_no_model_is_refused() -> None:
    first = scene("first", {REFERENCE: 0.0}, 0.0, {}, 5)
    with pytest.raises(ValueError, match="second shares no model"):
        anchor([first, scene("second", {"stranger": 0.0}, 0.0, {}, 6)])


def test_few_scores_give_no_card_and_few_models_no_prior() -> None:
    full = scene("s", {REFERENCE: 0.0, "weak-7b": -0.8}, 0.0, {}, 7)
    scores = dict(full.scores)
    scores["weak-7b"] = np.where(np.arange(4000) < MIN_ROWS - 1, full.scores["weak-7b"], np.nan)
    few = Evidence(full.source, full.p_local, full.p_frontier, full.groups, scores)
    cards = fit_cards(anchor([few]))
    assert "weak-7b" not in cards
    assert fit_prior(cards) is None


def test_the_prior_learns_size_and_age() -> None:
    truth = {}
    for year, family in ((2023.5, "llama-2"), (2024.3, "llama-3"), (2024.7, "qwen2.5")):
        for size in (7, 13, 34, 70):
            offset = -0.4 + 0.3 * np.log(size / 8) + 0.5 * (year - 2024.25)
            truth[f"{family}-{size}b"] = Card(offset=float(offset))
    prior = fit_prior(truth)
    assert prior is not None
    assert prior.per_log_size == pytest.approx(0.3, abs=0.05)
    assert prior.per_year == pytest.approx(0.5, abs=0.15)
    assert prior.error < 0.1
    assert len(prior_errors(truth)) == prior.models == 12
    # A card of a backend, a frontier card and one without a size teach it nothing.
    more = {"ward/llama-7b": Card(offset=5), "x-7b": Card("frontier", offset=5), "y": Card()}
    assert fit_prior({**truth, **more}) == prior


def test_cards_beat_the_uncarded_reference_on_rows_they_have_not_seen() -> None:
    abilities = {REFERENCE: 0.0, "weak-7b": -1.0, "good-70b": 1.0}
    law = {"weak-7b": 0.8, "good-70b": -0.8}
    found = report([scene("s", abilities, 0.5, law, 11)], seed=1)
    by_model = {fit.model: fit for fit in found.fits}
    for model in ("weak-7b", "good-70b"):
        assert by_model[model].brier_card < by_model[model].brier_reference
        assert by_model[model].ece_card < 0.05 < by_model[model].ece_reference
    pair = next(p for p in found.pairs if (p.weak, p.strong) == ("weak-7b", "good-70b"))
    assert pair.domains > pair.reference + 0.03
    assert found.summary["brier_card"] < found.summary["brier_reference"]


@pytest.fixture(scope="module")
def real(routing_data: Path) -> Cards:
    """Fitted with a reference that knows nothing of a prompt: anchors and cards must do."""
    reference: dict[str, tuple[float, float]] = {}
    for name in (GOLD, "mmlu_pro", "llmrouter"):
        for record in read_records(routing_data / f"{name}.jsonl.gz", dict):
            reference[record["id"]] = (0.68, 0.81)
    evidence = load_evidence(routing_data, reference)
    assert [part.source for part in evidence] == [GOLD, "mmlu_pro", "llmrouter"]
    return fit_all(evidence)


def test_the_real_scores_give_the_known_order(real: Cards) -> None:
    offset = {name: card.offset for name, card in real.cards.items()}
    assert len(offset) == 29 + 7 + 1 - 1  # one model is scored in both sets
    assert offset["llama-2-7b-base"] < offset["llama-2-13b-base"] < offset["llama-2-70b-base"]
    assert offset["llama-3.1-8b-instruct"] < offset["llama-3.1-70b-instruct"]
    assert offset["mistral-7b-instruct-v0.1"] < offset["mixtral-8x7b-instruct-v0.1"] == 0
    assert 0 <= offset["gemini-1.5-flash-002"] < offset["gemini-1.5-pro-002"]
    assert real.cards["gemini-1.5-pro-002"].base == "frontier"
    assert real.cards["llama-3.1-8b-instruct"].rows > 10_000


def test_the_prior_by_name_beats_knowing_nothing(real: Cards) -> None:
    prior = real.prior
    assert prior is not None
    offsets = [card.offset for card in real.cards.values() if card.base == "local"]
    assert prior.models == 33
    assert prior.error < 0.4 < float(np.sqrt(np.mean(np.square(offsets))))
    assert prior.per_log_size > 0.1
    assert prior.per_year > 0.2
    assert msgspec.json.decode(encode_cards(real), type=Cards) == real
