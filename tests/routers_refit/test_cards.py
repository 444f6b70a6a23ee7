"""The card of one model: few labels move it little, many as far as they say."""

from __future__ import annotations

import numpy as np
import pytest

from routers.cards import Card, logit
from routers.refit.cards import MIN_ROWS, fit_card


def labels(ability: float, n: int, seed: int) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    z = rng.normal(0.7, 0.8, n)
    right = rng.random(n) < 1 / (1 + np.exp(-z - ability))
    return list(1 / (1 + np.exp(-z))), [float(ok) for ok in right]


def test_a_customers_labels_move_the_prior_as_far_as_they_are_many() -> None:
    prior = Card(offset=0.5, origin="prior", error=0.35)
    assert fit_card(*labels(-1.0, MIN_ROWS - 1, 8), prior) is prior
    assert fit_card(*labels(-1.0, MIN_ROWS, 8), prior).rows == MIN_ROWS
    few = fit_card(*labels(-1.0, 40, 8), prior)
    many = fit_card(*labels(-1.0, 4000, 8), prior)
    assert -1.0 < few.offset < 0.4
    assert many.offset == pytest.approx(-1.0, abs=0.2)
    assert (few.origin, few.rows) == ("fitted", 40)
    assert many.error < few.error < prior.error


def test_a_fitted_card_is_calibrated_on_its_rows() -> None:
    p, outcome = labels(-1.2, 1000, 9)
    card = fit_card(p, outcome)
    z = np.log(np.array(p) / (1 - np.array(p)))
    mean = (1 / (1 + np.exp(-card.slope * z - card.offset))).mean()
    assert mean == pytest.approx(np.mean(outcome), abs=0.02)


@pytest.mark.parametrize(("p", "share"), [(0.87, 0.1), (0.99, 0.02), (0.05, 0.95)])
def test_labels_opposite_to_what_is_expected_are_followed(p: float, share: float) -> None:
    outcome = [float(i < 100 * share) for i in range(100)]
    card = fit_card([p] * 100, outcome)
    said = 1 / (1 + np.exp(-card.slope * logit(p) - card.offset))
    # In between: the penalty holds back a little.
    assert min(share, p) < said < max(share, p)
    assert said == pytest.approx(share, abs=0.06)


def test_what_a_prior_knows_of_domains_is_not_fitted_again() -> None:
    rng = np.random.default_rng(12)
    law = rng.random(4000) < 0.5
    z = rng.normal(0.7, 0.8, 4000)
    outcome = (rng.random(4000) < 1 / (1 + np.exp(-z - 0.4 + 2.0 * law))).astype(float)
    prior = Card(domain={"law": -2.0}, origin="listed", error=0.3)
    domains = ["law" if one else None for one in law]
    card = fit_card(1 / (1 + np.exp(-z)), outcome, prior, domains)
    assert card.offset == pytest.approx(0.4, abs=0.15)
    assert card.domain == {"law": -2.0}
    with pytest.raises(ValueError, match="domains has 1 entries"):
        fit_card(1 / (1 + np.exp(-z)), outcome, prior, ["law"])


def test_labels_of_one_kind_give_a_finite_card() -> None:
    p, _ = labels(0.0, 200, 10)
    assert 0.5 < fit_card(p, [1.0] * 200).offset <= 6
    assert -6 <= fit_card([0.0] * 200, [0.0] * 200).offset <= 6


@pytest.mark.parametrize(
    ("p", "outcome", "message"),
    [
        ([0.5] * 40, [1.0] * 39, r"shape \(40,\) and outcome \(39,\)"),
        ([0.5] * 39 + [1.5], [1.0] * 40, r"p_base\[39\] is 1.5"),
        ([0.5] * 40, [1.0] * 2 + [float("nan")] * 38, r"outcome\[2\] is nan"),
    ],
)
def test_labels_that_are_none_are_refused(
    p: list[float], outcome: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_card(p, outcome)
