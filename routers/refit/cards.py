"""Fitting the card of one model to labels of its own answers: penalised logistic regression, numpy
only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.cards import EDGE, MAX_OFFSET, MAX_SLOPE, Card

Floats = NDArray[np.floating[Any]]

# Penalties are inverse prior variances: the slope is 1 +- 0.15.
SLOPE_PENALTY = 1 / 0.15**2
MIN_ROWS = 30
ITERATIONS = 50
HALVINGS = 30
ROUNDING = 1e-9


def fit_card(
    p_base: Sequence[float] | Floats,
    outcome: Sequence[float] | Floats,
    prior: Card | None = None,
    domains: Sequence[str | None] | None = None,
) -> Card:
    """The card of a customer's backend from its own labels.

    `p_base`: the reference's probability of the prior's base on each labelled row; `outcome`: 1
    where the backend's answer was accepted, 0 where not, or a share; `domains`: of each row, for
    a prior that has domain offsets, which are kept. Below MIN_ROWS rows the prior is returned as
    it is. Otherwise its offset is where the fit starts, and counts as much
    as its standard error says. Raises ValueError for arrays that do not fit or are no numbers.
    """
    start = prior if prior is not None else Card(origin="prior", error=1.0)
    p, label = np.asarray(p_base, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if p.ndim != 1 or p.shape != label.shape:
        raise ValueError(f"p_base has shape {p.shape} and outcome {label.shape}: both must be [n]")
    for name, values in (("p_base", p), ("outcome", label)):
        bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(bad):
            raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}: must be in [0, 1]")
    if len(p) < MIN_ROWS:
        return start
    if domains is not None and len(domains) != len(p):
        raise ValueError(f"domains has {len(domains)} entries and p_base {len(p)}")
    z = logits(p)
    known = np.array([start.domain.get(name or "", 0.0) for name in domains or [None] * len(p)])
    # An operator's own figure or a prior without an error is worth as much as a guess by name.
    error = start.error if start.error > 0 else 0.5
    design = np.stack([z, np.ones_like(z)], axis=1)
    penalty = np.array([SLOPE_PENALTY, 1 / error**2])
    found, covariance = penalised(design, label, penalty, start.slope * z + start.offset + known)
    return msgspec.structs.replace(
        start,
        slope=round(float(np.clip(start.slope + found[0], 0.05, MAX_SLOPE)), 4),
        offset=round(float(np.clip(start.offset + found[1], -MAX_OFFSET, MAX_OFFSET)), 4),
        origin="fitted",
        rows=len(p),
        error=round(float(np.sqrt(covariance[1, 1])), 4),
    )


def logits(p: Floats) -> Floats:
    """Finite for every p in [0, 1], [n]."""
    clipped = np.clip(np.asarray(p, dtype=np.float64), EDGE, 1 - EDGE)
    found: Floats = np.log(clipped / (1 - clipped))
    return found


def penalised(
    design: Floats, label: Floats, penalty: Floats, start: Floats
) -> tuple[Floats, NDArray[Any]]:
    """Weights w of sigmoid(start + design @ w) with a penalty on w**2, and their covariance.

    Newton's method. A step that makes the loss greater is halved: a full one overshoots, and the
    next one more so, where most labels are the opposite of what the start says.
    """
    found: Floats = np.zeros(design.shape[1])
    inverse: NDArray[Any] = np.diag(1 / penalty)

    def loss(weights: Floats) -> float:
        z = start + design @ weights
        missed = np.logaddexp(0.0, z) - label * z
        return float(missed.sum() + (penalty * weights**2).sum() / 2)

    now = loss(found)
    for _ in range(ITERATIONS):
        mean = 1 / (1 + np.exp(-np.clip(start + design @ found, -30, 30)))
        gradient = design.T @ (mean - label) + penalty * found
        curvature = np.maximum(mean * (1 - mean), 1e-4)
        inverse = np.linalg.inv((design * curvature[:, None]).T @ design + np.diag(penalty))
        step = inverse @ gradient
        for _ in range(HALVINGS):
            then = loss(found - step)
            if then <= now + ROUNDING * abs(now):
                break
            step = step / 2
        found, now = found - step, then
        if float(np.abs(step).max()) < 1e-7:
            break
    return found, inverse
