"""How a router is measured: RouteLLM's protocol (lm-sys/RouteLLM, routellm/evals; arXiv
2406.18665) and calibration. Arrays are float [n]; labels lie in [0, 1].

RouteLLM takes ten equal-count bins of the score as thresholds, sends every row at or above a
threshold to the strong model, and integrates quality over the share of strong calls by the
trapezoid rule. Rows that share a score therefore cross together, and the trapezoid between the
two points is the mean over every order of those rows. The same mean is taken here for each group
of equal scores, so that a constant score is exactly random and no order or seed is involved. The
eleven points lie at 0, 10 ... 100 % of the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SHARES = np.linspace(0.0, 1.0, 11)
# A curve to look at has five times the points; every fifth is one of `SHARES`.
FINE = 5
FINE_SHARES = np.linspace(0.0, 1.0, 10 * FINE + 1)
BINS = 15
ROUNDS = 1000


class Order:
    """The rows by falling score, with ties as groups. Sorted once, used by every resample."""

    def __init__(self, score: Floats) -> None:
        self._rows = np.argsort(-score, kind="stable")
        ordered = np.asarray(score)[self._rows]
        changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        self._starts = np.concatenate([[0], changes]).astype(np.intp)
        self._tied = len(self._starts) < len(ordered)

    def gained(self, gain: Floats, counts: Floats | None = None, shares: Floats = SHARES) -> Floats:
        """Sum of `gain` (strong - weak) over the share of rows with the highest scores, at each
        of `shares`. `counts`: how often each row is in the sample, once without."""
        times = np.ones(len(gain)) if counts is None else counts
        size, sums = times[self._rows], (times * gain)[self._rows]
        if self._tied:
            size = np.add.reduceat(size, self._starts)
            sums = np.add.reduceat(sums, self._starts)
        calls = np.concatenate([[0.0], np.cumsum(size)])
        total = np.concatenate([[0.0], np.cumsum(sums)])
        gained: Floats = np.interp(shares * calls[-1], calls, total)
        return gained


def pgr_curve(score: Floats, weak: Floats, strong: Floats) -> Floats:
    """Share of the gap between the models that is closed at 0, 10 ... 100 % of the calls. NaN
    where the strong model is not better on these rows."""
    return _pgr(Order(score).gained(np.asarray(strong, dtype=float) - weak))


def _pgr(gained: Floats) -> Floats:
    """Of one curve or of many, whose points lie along the last axis."""
    whole = np.where(gained[..., -1:] > 1e-9, gained[..., -1:], np.nan)
    curve: Floats = gained / whole
    return curve


def apgr(score: Floats, weak: Floats, strong: Floats) -> float:
    """Area under `pgr_curve` by the trapezoid rule: random 0.5."""
    return area(pgr_curve(score, weak, strong))


def area(curve: Floats) -> float:
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def cpt(score: Floats, weak: Floats, strong: Floats, target: float) -> float:
    """Percent of calls to the strong model at which `target` of the gap is first closed."""
    return _crossing(pgr_curve(score, weak, strong), target)


def _crossing(curve: Floats, target: float) -> float:
    """NaN without a curve. A curve that goes up and down crosses where it first reaches it."""
    if np.isnan(curve[-1]):
        return float("nan")
    first = int(np.argmax(curve >= target))
    if first == 0:
        return 0.0
    low, high = curve[first - 1], curve[first]
    return float(100.0 / (len(curve) - 1) * (first - 1 + (target - low) / (high - low)))


def ece(p: Floats, label: Floats, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins."""
    return _ece(_places(p, bins), p, label, np.ones(len(p)), bins)


def _places(p: Floats, bins: int) -> NDArray[np.intp]:
    return np.clip((p * bins).astype(np.intp), 0, bins - 1)


def _ece(
    place: NDArray[np.intp], p: Floats, label: Floats, counts: Floats, bins: int = BINS
) -> float:
    # |mean p - mean label| of a bin, weighted by its share, is |sum p - sum label| / n.
    gap = np.bincount(place, weights=counts * (p - label), minlength=bins)
    return float(np.abs(gap).sum() / counts.sum())


def brier(p: Floats, label: Floats) -> float:
    return float(((p - label) ** 2).mean())


class Figure(msgspec.Struct, frozen=True):
    """A value and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


class Ranking(msgspec.Struct, frozen=True):
    """What `rankings` finds of one score: APGR, CPT in percent of calls, and the quality curve
    over `FINE_SHARES` with the interval of each point. `over_base` is its APGR less that of the
    base score, on the same resamples."""

    apgr: Figure
    cpt: dict[str, Figure]
    quality: list[Figure]
    over_base: Figure


TARGETS = {"cpt20": 0.2, "cpt50": 0.5, "cpt80": 0.8}


def rankings(
    scores: dict[str, Floats],
    weak: Floats,
    strong: Floats,
    *,
    base: str,
    seed: int,
    rounds: int = ROUNDS,
) -> dict[str, Ranking]:
    """Every score measured on the same resampled rows, so that differences are paired.

    Rows are resampled with replacement; resamples in which the strong model is not better have
    no PGR and are left out of its intervals. One sort for each score and one pass for each
    resample: 1,000 resamples of 15,000 rows take about a second for each score.
    """
    gain = np.asarray(strong, dtype=float) - weak
    orders = {name: Order(score) for name, score in scores.items()}
    rng, n = np.random.default_rng(seed), len(gain)
    gained = {name: np.empty((rounds, len(FINE_SHARES))) for name in scores}
    floor = np.empty(rounds)
    for number in range(rounds):
        counts = resample(rng, n)
        floor[number] = counts @ weak
        for name, order in orders.items():
            gained[name][number] = order.gained(gain, counts, FINE_SHARES)
    points = {name: order.gained(gain, shares=FINE_SHARES) for name, order in orders.items()}
    areas = {name: _areas(_pgr(drawn[:, ::FINE])) for name, drawn in gained.items()}
    start = float(np.sum(weak))
    found: dict[str, Ranking] = {}
    for name, drawn in gained.items():
        point, curves = _pgr(points[name][::FINE]), _pgr(drawn[:, ::FINE])
        found[name] = Ranking(
            apgr=_defined(area(point), areas[name]),
            cpt={
                label: _defined(_crossing(point, target), _crossings(curves, target))
                for label, target in TARGETS.items()
            },
            quality=[
                interval(float(start + at) / n, (floor + column) / n)
                for at, column in zip(points[name], drawn.T, strict=True)
            ],
            over_base=_defined(
                area(point) - area(_pgr(points[base][::FINE])), areas[name] - areas[base]
            ),
        )
    return found


def _defined(value: float, drawn: Floats) -> Figure:
    """Without a value there is no interval either: that of the resamples which happen to have one
    would be of other rows than these."""
    return Figure(value, value, value) if np.isnan(value) else interval(value, drawn)


def resample(rng: np.random.Generator, n: int) -> Floats:
    """How often each of `n` rows is drawn in `n` draws with replacement, float [n]."""
    return np.bincount(rng.integers(0, n, n), minlength=n).astype(float)


def _areas(curves: Floats) -> Floats:
    areas: Floats = ((curves[:, 1:] + curves[:, :-1]) / 2).mean(axis=1)
    return areas


def _crossings(curves: Floats, target: float) -> Floats:
    return np.array([_crossing(curve, target) for curve in curves])


class Calibration(msgspec.Struct, frozen=True):
    """ECE over 15 equal-width bins, and the Brier score beside that of the constant base rate."""

    ece: Figure
    brier: Figure
    brier_of_mean: float
    rows: int


def calibration(p: Floats, label: Floats, *, seed: int, rounds: int = ROUNDS) -> Calibration:
    """Resampling adds to every bin's gap, so percentiles of a resampled ECE lie above its value.
    Its interval is therefore the reflected one (2 * value - percentile), cut at 0."""
    rng, n, place, square = np.random.default_rng(seed), len(p), _places(p, BINS), (p - label) ** 2
    errors, squares = np.empty(rounds), np.empty(rounds)
    for number in range(rounds):
        counts = resample(rng, n)
        errors[number] = _ece(place, p, label, counts)
        squares[number] = counts @ square / n
    value = ece(p, label)
    drawn = interval(value, errors)
    reflected = Figure(value, max(0.0, 2 * value - drawn.high), max(0.0, 2 * value - drawn.low))
    mean = brier(np.full(n, label.mean()), label)
    return Calibration(reflected, interval(brier(p, label), squares), mean, n)


def interval(value: float, drawn: Floats) -> Figure:
    """The middle 95 % of `drawn`, NaN left out."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Figure(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Figure(value, float(low), float(high))


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float], n: int, seed: int, rounds: int = ROUNDS
) -> list[float]:
    """95 % interval of any `statistic(rows)` over resampled rows; rounds without a value are left
    out. `rankings` and `calibration` are much faster for what they measure."""
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(0, n, n)) for _ in range(rounds)])
    found = interval(float("nan"), drawn)
    return [found.low, found.high]


def difference(
    better: Floats, worse: Floats, weak: Floats, strong: Floats, seed: int, rounds: int = ROUNDS
) -> Figure:
    """APGR of one score less that of another, with the interval of the paired difference."""
    pair = {"better": better, "worse": worse}
    found = rankings(pair, weak, strong, base="worse", seed=seed, rounds=rounds)
    return found["better"].over_base
