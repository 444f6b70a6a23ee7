"""Logistic regression over hashed features by AdaGrad, in numpy alone. Deterministic for a seed.

A document is a list of windows, a window a list of buckets; tokens are rows of buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Buckets = NDArray[np.int32]

START = -2.0
TINY = 1e-8


class Recipe(msgspec.Struct, frozen=True):
    """How to descend: passes over the rows, rows in a step, rate (falling to 0), ridge."""

    epochs: int
    batch: int
    rate: float
    ridge: float
    seed: int


class Window(msgspec.Struct, frozen=True):
    """`buckets` flat; `size` divides their sum; `target` for each output; `weight` of the row;
    `known` is what each output's logit has before anything is added."""

    buckets: Buckets
    size: float
    target: tuple[float, ...]
    weight: float
    known: tuple[float, ...]


def fit_windows(
    rows: Sequence[Window], width: int, recipe: Recipe
) -> tuple[Floats, NDArray[np.float64]]:
    """Weights [outputs, width] and biases [outputs]."""
    outputs = len(rows[0].target)
    weights = np.zeros((outputs, width), dtype=np.float32)
    slopes = np.full((outputs, width), 1e-6, dtype=np.float32)
    bias = np.full(outputs, START)
    lengths = np.array([len(row.buckets) for row in rows])
    sizes = np.array([row.size for row in rows])
    targets = np.array([row.target for row in rows])
    importance = np.array([row.weight for row in rows])
    known = np.array([row.known for row in rows])
    for chosen, rate in _steps(len(rows), recipe):
        buckets = np.concatenate([rows[i].buckets for i in chosen])
        counts = lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        for k in range(outputs):
            sums = np.add.reduceat(weights[k].take(buckets), starts)
            logit = sums / sizes[chosen] + bias[k] + known[chosen, k]
            error = (sigmoid(logit) - targets[chosen, k]) * importance[chosen] / recipe.batch
            bias[k] -= recipe.rate * error.sum()
            pushed = np.repeat(error / sizes[chosen], counts)
            _descend(weights[k], slopes[k], np.bincount(buckets, pushed, width), rate, recipe.ridge)
    return weights, bias


def fit_tokens(
    rows: Buckets, targets: Floats, importance: Floats, recipe: Recipe, sharpness: float
) -> tuple[Floats, float]:
    """Weights [width] and the bias of one output; `rows` [tokens, features] of buckets, where the
    bucket 0 stands for a feature that is not there. A logit is `sharpness` times the sum."""
    # Only buckets in use are descended on: most of the time goes into those steps.
    used = np.bincount(rows.ravel(), minlength=1) > 0
    used[0] = True
    rows = (np.cumsum(used, dtype=np.int32) - 1)[rows]
    width = int(used.sum())
    weights = np.zeros(width, dtype=np.float32)
    slopes = np.full(width, 1e-6, dtype=np.float32)
    bias = START
    for chosen, rate in _steps(len(rows), recipe):
        buckets = rows[chosen]
        logit = weights.take(buckets).sum(axis=1) * sharpness + bias
        error = (sigmoid(logit) - targets[chosen]) * importance[chosen] / recipe.batch
        bias -= recipe.rate * float(error.sum())
        pushed = np.repeat(error * sharpness, rows.shape[1])
        gradient = np.bincount(buckets.ravel(), pushed, width)
        gradient[0] = 0.0
        _descend(weights, slopes, gradient, rate, recipe.ridge)
    full = np.zeros(len(used), dtype=np.float32)
    full[used] = weights
    return full, bias


def _steps(rows: int, recipe: Recipe) -> Any:
    """Batches of row numbers, each with its rate."""
    rng = np.random.default_rng(recipe.seed)
    in_all, done = recipe.epochs * -(-rows // recipe.batch), 0
    for _ in range(recipe.epochs):
        order = rng.permutation(rows)
        for start in range(0, rows, recipe.batch):
            yield order[start : start + recipe.batch], recipe.rate * (1 - done / in_all)
            done += 1


def _descend(
    weights: Floats, slopes: Floats, gradient: NDArray[Any], rate: float, ridge: float
) -> None:
    slope = gradient.astype(np.float32) + np.float32(ridge) * weights
    slopes += slope * slope
    weights -= np.float32(rate) * slope / np.sqrt(slopes + np.float32(TINY))


def sigmoid(logit: NDArray[Any]) -> NDArray[Any]:
    p: NDArray[Any] = 1.0 / (1.0 + np.exp(-np.clip(logit, -50, 50)))
    return p
