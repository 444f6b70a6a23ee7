"""Fitting the heads: logistic ridge with one free intercept per source, in numpy.

The intercepts centre the labels within their source, so that the weights learn what makes one
prompt harder than another of the same source, never which source it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.heuristics import SURFACE
from routers.onnx.heads import HeadModel, Heads, Linear, Scales
from routers.train.data import ASSUMED, GOLD, Row

Floats = NDArray[np.floating[Any]]

# Found by cross-validation on mmlu_gold; the differences between neighbours are within noise.
SCALES = Scales(topic=10.0, sentence=3.0, surface=0.5, sharpness=20.0)
LOCAL_RIDGE = 20.0
RECOVERY_RIDGE = 100.0
GOLD_WEIGHT = 6.0
ASSUMED_WEIGHT = 0.5
ITERATIONS = 12


class Table(msgspec.Struct, frozen=True):
    """Rows with what the encoder says of them: sentences [n, width], surfaces [n, features]."""

    rows: list[Row]
    sentences: NDArray[np.float32]
    surfaces: NDArray[np.float32]

    def take(self, index: NDArray[np.intp]) -> Table:
        rows = [self.rows[i] for i in index]
        return Table(rows, self.sentences[index], self.surfaces[index])

    def labels(self, name: str) -> Floats:
        """`local` or `frontier`, NaN where unknown."""
        values = [getattr(row, name) for row in self.rows]
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def fit_heads(table: Table) -> Heads:
    """Fit both heads on every row of the table."""
    start = _untrained(table)
    features = HeadModel(start).features(table.sentences, table.surfaces).astype(np.float64)
    local, frontier = table.labels("local"), table.labels("frontier")
    weight = np.array([_weight(row.source) for row in table.rows])
    sources = [_anchor(row.source) for row in table.rows]
    known = ~np.isnan(frontier)
    first = _logistic(features, local, weight, sources, LOCAL_RIDGE)
    second = _logistic(
        features[known],
        frontier[known],
        # A row teaches the recovery head as far as the local models failed on it.
        weight[known] * (1 - local[known]),
        [source for source, keep in zip(sources, known, strict=True) if keep],
        RECOVERY_RIDGE,
    )
    return msgspec.structs.replace(start, local=first, recovery=second, keep=_keep(table))


def recalibrate(heads: Heads, slope: float, shift: float) -> Heads:
    """Heads whose local logit z becomes slope * z + shift."""
    local = Linear(
        [round(slope * w, 6) for w in heads.local.weights], slope * heads.local.bias + shift
    )
    return msgspec.structs.replace(heads, local=local)


def platt(logit: Floats, label: Floats) -> tuple[float, float]:
    """Slope and shift that make sigmoid(slope * logit + shift) a probability (Platt 1999)."""
    found = _newton(
        np.stack([logit, np.ones_like(logit)], axis=1),
        label,
        np.ones_like(label),
        np.array([1e-3, 1e-3]),
    )
    return float(found[0]), float(found[1])


def _untrained(table: Table) -> Heads:
    groups = np.array([row.group for row in table.rows])
    real = [g for g in sorted(set(groups.tolist())) if g not in ASSUMED]
    topics = np.stack([table.sentences[groups == name].mean(axis=0) for name in real])
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    return Heads(
        surface=list(SURFACE),
        surface_mean=_rounded(table.surfaces.mean(axis=0)),
        surface_std=_rounded(table.surfaces.std(axis=0) + 1e-3),
        topics=[_rounded(topic) for topic in topics],
        scales=SCALES,
        local=Linear([0.0] * (len(real) + topics.shape[1] + len(SURFACE)), 0.0),
        recovery=Linear([0.0] * (len(real) + topics.shape[1] + len(SURFACE)), 0.0),
        keep=1.0,
    )


def _keep(table: Table) -> float:
    local, frontier = table.labels("local"), table.labels("frontier")
    gold = np.array([row.source == GOLD for row in table.rows])
    rows = gold if gold.any() else ~np.isnan(frontier)
    return round(float(np.average(frontier[rows], weights=local[rows])), 6)


def _weight(source: str) -> float:
    if source == GOLD:
        return GOLD_WEIGHT
    return ASSUMED_WEIGHT if source in ASSUMED else 1.0


def _anchor(source: str) -> str:
    """Assumed labels are absolute, so they share the intercept of the reference source."""
    return GOLD if source in ASSUMED else source


def _logistic(
    features: Floats, label: Floats, weight: Floats, sources: Sequence[str], ridge: float
) -> Linear:
    names = sorted(set(sources))
    dummies = np.array([[source == name for name in names] for source in sources], dtype=float)
    penalty = np.concatenate([np.full(features.shape[1], ridge), np.full(len(names), 1e-3)])
    found = _newton(np.hstack([features, dummies]), label, weight, penalty)
    weights, intercepts = found[: features.shape[1]], found[features.shape[1] :]
    bias = intercepts[names.index(GOLD)] if GOLD in names else intercepts.mean()
    return Linear(_rounded(weights), round(float(bias), 6))


def _newton(design: Floats, label: Floats, weight: Floats, penalty: Floats) -> Floats:
    found = np.zeros(design.shape[1])
    for _ in range(ITERATIONS):
        mean = 1 / (1 + np.exp(-(design @ found)))
        gradient = design.T @ (weight * (mean - label)) + penalty * found
        curvature = weight * np.maximum(mean * (1 - mean), 1e-4)
        hessian = (design * curvature[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        found = found - step
        if float(np.abs(step).max()) < 1e-6:
            break
    return found


def _rounded(values: Floats) -> list[float]:
    return [round(float(v), 6) for v in values]
