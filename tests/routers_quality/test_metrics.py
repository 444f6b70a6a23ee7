"""The metrics against what they are defined to be, worked out the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.evals import metrics
from routers.evals.metrics import Floats


def labels(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return (rng.random(n) < 0.6).astype(float), (rng.random(n) < 0.85).astype(float)


def routellm(score: Floats, weak: Floats, strong: Floats) -> float:
    """APGR as routellm/evals has it: thresholds at the deciles, realised shares, trapezoids."""
    points = []
    for i, threshold in enumerate(np.quantile(score, np.linspace(0, 1, 11))):
        chosen = score > threshold if i == 10 else score >= threshold
        points.append((chosen.mean(), np.where(chosen, strong, weak).mean()))
    points.sort()
    x, y = np.array(points).T
    floor, top = weak.mean(), strong.mean()
    return float((np.trapezoid(y, x) - floor) / (top - floor))


@pytest.mark.parametrize("n", [1000, 1501])
@pytest.mark.parametrize("decimals", [6, 1])
def test_apgr_is_routellms(n: int, decimals: int) -> None:
    weak, strong = labels(n)
    score = np.round(np.random.default_rng(1).random(n) + 0.3 * (strong - weak), decimals)
    assert metrics.apgr(score, weak, strong) == pytest.approx(
        routellm(score, weak, strong), abs=0.01
    )


def test_equal_scores_count_as_the_mean_over_their_orders() -> None:
    weak = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    strong = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    score = np.array([9.0, 8, 7, 6, 5, 5, 5, 5, 2, 1])
    orders = []
    for order in itertools.permutations([0.1, 0.2, 0.3, 0.4]):
        split = score.copy()
        split[4:8] += order
        orders.append(metrics.apgr(split, weak, strong))
    assert metrics.apgr(score, weak, strong) == pytest.approx(float(np.mean(orders)))


def test_a_constant_score_is_random() -> None:
    weak, strong = labels(777)
    assert metrics.apgr(np.zeros(777), weak, strong) == pytest.approx(0.5)
    assert metrics.cpt(np.zeros(777), weak, strong, 0.8) == pytest.approx(80.0)


def test_an_oracle_can_exceed_one_and_is_the_best() -> None:
    weak, strong = labels(2000)
    curve = metrics.pgr_curve(strong - weak, weak, strong)
    assert curve.max() > 1 and curve[-1] == pytest.approx(1.0)
    score = np.random.default_rng(3).random(2000)
    assert (curve >= metrics.pgr_curve(score, weak, strong) - 1e-9).all()


def test_without_a_gap_there_is_no_apgr() -> None:
    weak, strong = np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])
    score = np.array([1.0, 2.0, 3.0])
    assert np.isnan(metrics.apgr(score, weak, strong))
    assert np.isnan(metrics.cpt(score, weak, strong, 0.5))


@settings(max_examples=30)
@given(st.integers(2, 60), st.integers(0, 5), st.integers(0, 1000))
def test_a_resample_by_counts_is_a_resample_by_rows(n: int, decimals: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = np.round(rng.random(n), decimals)
    gain = rng.integers(-1, 2, n).astype(float)
    drawn = rng.integers(0, n, n)
    counts = np.bincount(drawn, minlength=n).astype(float)
    by_counts = metrics.Order(score).gained(gain, counts)
    by_rows = metrics.Order(score[drawn]).gained(gain[drawn])
    assert by_counts == pytest.approx(by_rows, abs=1e-9)


def test_the_intervals_are_those_of_the_plain_bootstrap() -> None:
    weak, strong = labels(600)
    score = np.random.default_rng(4).random(600) + 0.2 * (strong - weak)
    base = np.random.default_rng(5).random(600)
    found = metrics.rankings({"a": score, "b": base}, weak, strong, base="b", seed=1)
    slow = metrics.bootstrap(lambda i: metrics.apgr(score[i], weak[i], strong[i]), 600, seed=2)
    assert [found["a"].apgr.low, found["a"].apgr.high] == pytest.approx(slow, abs=0.02)
    paired = metrics.bootstrap(
        lambda i: (
            metrics.apgr(score[i], weak[i], strong[i]) - metrics.apgr(base[i], weak[i], strong[i])
        ),
        600,
        seed=3,
    )
    over = metrics.difference(score, base, weak, strong, seed=4)
    assert [over.low, over.high] == pytest.approx(paired, abs=0.03)
    assert found["b"].over_base == metrics.Figure(0.0, 0.0, 0.0)
    assert found["a"].apgr.value == pytest.approx(metrics.apgr(score, weak, strong))
    assert found["a"].cpt["cpt50"].value == pytest.approx(metrics.cpt(score, weak, strong, 0.5))
    ends = found["a"].quality[0].value, found["a"].quality[-1].value
    assert ends == pytest.approx((weak.mean(), strong.mean()))


def test_the_same_seed_gives_the_same_figures() -> None:
    weak, strong = labels(200)
    score = {"a": np.random.default_rng(4).random(200)}
    once = metrics.rankings(score, weak, strong, base="a", seed=1, rounds=50)
    assert once == metrics.rankings(score, weak, strong, base="a", seed=1, rounds=50)
    assert once != metrics.rankings(score, weak, strong, base="a", seed=2, rounds=50)


def test_calibrated_probabilities_have_small_errors_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(4000)
    y = (rng.random(4000) < p).astype(float)
    good = metrics.calibration(p, y, seed=1, rounds=200)
    bad = metrics.calibration(np.clip(p + 0.2, 0, 1), y, seed=1, rounds=200)
    assert good.ece.value < 0.04 < bad.ece.low
    assert good.ece.low <= 0.02 and good.brier.low < good.brier.value < good.brier.high
    assert good.brier.value < good.brier_of_mean
    assert good.ece.value == pytest.approx(metrics.ece(p, y))


def test_ece_by_hand() -> None:
    p = np.array([0.01, 0.02, 0.98, 1.0])
    y = np.array([0.0, 1.0, 1.0, 1.0])
    # Two bins of two rows: |0.015 - 0.5| and |0.99 - 1|, half the rows each.
    assert metrics.ece(p, y) == pytest.approx((0.485 + 0.01) / 2)
