"""Fitting the word table of a head: naive Bayes, then a correction by what it gets wrong.

Naive Bayes counts each term as if it stood alone, and knows nothing of the sentence vectors beside
it. So the table is corrected by logistic regression: on rows held out, what discriminant and table
say together is the offset, and the weights of terms move as far as that reduces the log loss.
A term is a word or a pair of neighbours, and is kept when several questions have it. Only numpy, so
that a fit is the same wherever it is made or tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Terms = Sequence[NDArray[np.uint32]]
Loss = Callable[[Floats], tuple[float, Floats]]
# Of the minimiser: steps it remembers, share of the promised fall that is enough, where to give up.
MEMORY, ENOUGH, LEAST_STEP = 10, 1e-4, 1e-9


class Bags(msgspec.Struct, frozen=True):
    """Which known terms the texts have: entries as `row`, `column` and `value` (one over the root
    of the row's terms), ordered by row, of a matrix [rows, columns]."""

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    value: Floats
    rows: int
    columns: int

    def take(self, index: NDArray[np.intp]) -> Bags:
        """The rows of an ascending index."""
        place = np.full(self.rows, -1, dtype=np.intp)
        place[index] = np.arange(len(index))
        row = place[self.row]
        here = row >= 0
        return Bags(row[here], self.column[here], self.value[here], len(index), self.columns)

    def scores(self, weights: Floats) -> Floats:
        """[rows, labels], from weights [labels, columns]."""
        sums = [
            np.bincount(self.row, part[self.column] * self.value, self.rows) for part in weights
        ]
        return np.stack(sums, axis=1)

    def sums(self, of_rows: Floats) -> Floats:
        """[labels, columns], from [rows, labels]: the transpose of `scores`."""
        parts = of_rows.T
        return np.stack(
            [np.bincount(self.column, p[self.row] * self.value, self.columns) for p in parts]
        )


def known(terms: Terms, groups: Sequence[str], least: int) -> NDArray[np.uint32]:
    """The terms that stand in rows of at least `least` groups, sorted."""
    place = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    group = np.array([place[name] for name in groups], dtype=np.uint64)
    lengths = [len(part) for part in terms]
    term = np.concatenate(terms).astype(np.uint64)
    both = np.unique((term << np.uint64(32)) | np.repeat(group, lengths))
    found, count = np.unique(both >> np.uint64(32), return_counts=True)
    keys: NDArray[np.uint32] = found[count >= least].astype(np.uint32)
    return keys


def bags(terms: Terms, keys: NDArray[np.uint32]) -> Bags:
    """The texts' terms as columns of `keys` (sorted); others are left out."""
    row = np.repeat(np.arange(len(terms)), [len(part) for part in terms])
    term = np.concatenate(terms)
    column = keys.searchsorted(term)
    here = keys.take(column, mode="clip") == term if len(keys) else np.zeros(len(term), bool)
    row, column = row[here], column[here]
    count = np.bincount(row, minlength=len(terms))
    return Bags(row, column, 1.0 / np.sqrt(count[row]), len(terms), len(keys))


def naive_bayes(
    bags: Bags, label: NDArray[np.intp], weight: Floats, labels: int, smoothing: float
) -> Floats:
    """[labels, columns]: log P(term | label) / P(term), drawn to 0 by `smoothing` terms' worth of
    the average."""
    cell = label[bags.row] * bags.columns + bags.column
    counts = np.bincount(cell, weight[bags.row], labels * bags.columns)
    counts = counts.reshape(labels, bags.columns)
    background = (counts.sum(axis=0) + 1e-3) / (counts.sum() + 1e-3 * bags.columns)
    pulled = counts + smoothing * background
    found: Floats = np.log(pulled / pulled.sum(axis=1, keepdims=True) / background)
    return found


def correction(
    bags: Bags, label: NDArray[np.intp], weight: Floats, offset: Floats, tether: float, steps: int
) -> Floats:
    """[labels, columns]: what, added to the table, reduces the log loss of rows whose logits
    without it are `offset` [rows, labels]; `tether` times half its square is added to the loss of
    a row of mean weight."""
    shape = (offset.shape[1], bags.columns)
    mass = weight / weight.mean()
    here = np.arange(bags.rows)

    def loss(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(shape)
        logits = offset + bags.scores(table)
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(axis=1)
        lost = float((mass * (np.log(total) - logits[here, label])).sum())
        error = odds / total[:, None]
        error[here, label] -= 1.0
        slope = bags.sums(error * mass[:, None]) + tether * table
        return lost + 0.5 * tether * float(flat @ flat), slope.ravel()

    return minimise(loss, np.zeros(shape[0] * shape[1]), steps).reshape(shape)


def minimise(loss: Loss, start: Floats, steps: int) -> Floats:
    """Where at most `steps` of L-BFGS (Nocedal and Wright, Numerical Optimization, 7.2) lead a
    smooth convex loss that comes with its gradient."""
    place, (value, slope) = start, loss(start)
    past: list[tuple[Floats, Floats]] = []
    for _ in range(steps):
        way = -_curved(slope, past)
        fall = float(slope @ way)
        if not fall < 0.0:
            break
        step = 1.0 if past else min(1.0, 1.0 / float(np.sqrt(slope @ slope)))
        there, (lower, next_slope) = place + step * way, loss(place + step * way)
        while lower > value + ENOUGH * step * fall and step > LEAST_STEP:
            step /= 2.0
            there, (lower, next_slope) = place + step * way, loss(place + step * way)
        if not lower < value:
            break
        past = [*past[1 - MEMORY :], (there - place, next_slope - slope)]
        place, value, slope = there, lower, next_slope
    return place


def _curved(slope: Floats, past: Sequence[tuple[Floats, Floats]]) -> Floats:
    """The slope times the inverse of the curvature that the past steps showed."""
    way = slope.copy()
    shares: list[float] = []
    for moved, bent in reversed(past):
        shares.append(float(moved @ way) / float(moved @ bent))
        way -= shares[-1] * bent
    if past:
        moved, bent = past[-1]
        way *= float(moved @ bent) / float(bent @ bent)
    for (moved, bent), share in zip(past, reversed(shares), strict=True):
        way += (share - float(bent @ way) / float(moved @ bent)) * moved
    return way
