"""How a router is measured: RouteLLM's protocol (lm-sys/RouteLLM, arXiv 2406.18665) and
calibration. Arrays are float [n]; labels are 0 or 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def pgr_curve(score: Floats, weak: Floats, strong: Floats) -> Floats:
    """Share of the gap between the models that is closed when 0, 10 ... 100 % of the calls, those
    with the highest score, go to the strong one. NaN where the models do not differ."""
    order = np.argsort(-score, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    taken = np.rint(np.linspace(0, len(score), 11)).astype(int)
    return gained[taken] / gained[-1] if gained[-1] else np.full(11, np.nan)


def apgr(score: Floats, weak: Floats, strong: Floats) -> float:
    """Area under `pgr_curve` by the trapezoid rule: random 0.5."""
    curve = pgr_curve(score, weak, strong)
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def cpt(score: Floats, weak: Floats, strong: Floats, target: float) -> float:
    """Percent of calls to the strong model at which `target` of the gap is first closed."""
    curve = pgr_curve(score, weak, strong)
    for i in range(1, 11):
        if curve[i] >= target:
            low, high = curve[i - 1], curve[i]
            return float(10 * (i - 1 + (target - low) / (high - low)))
    return 100.0


def ece(p: Floats, label: Floats, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    total = 0.0
    for i in range(bins):
        inside = place == i
        if inside.any():
            total += inside.mean() * abs(float(p[inside].mean()) - float(label[inside].mean()))
    return float(total)


def brier(p: Floats, label: Floats) -> float:
    return float(((p - label) ** 2).mean())


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float], n: int, seed: int, rounds: int = 1000
) -> list[float]:
    """95 % interval of `statistic(rows)` over resampled rows; rounds without a value are left
    out."""
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(0, n, n)) for _ in range(rounds)])
    return [float(v) for v in np.nanpercentile(drawn, [2.5, 97.5])]
