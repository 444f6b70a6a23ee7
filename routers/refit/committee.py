"""Fitting a committee: ridge regressions whose leave-one-out predictions have a closed form.

For a kernel matrix K and labels y, with H = (K + ridge I)^-1, the prediction for row i without
row i is y_i - (H y)_i / H_ii (Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, eq. 5.12). So the figures that weigh and calibrate the members are of rows not fitted on, but
for the mean that the labels are counted from: without a row it would lean away from that row's
label, and a member that knows nothing would seem to know the opposite. A fit of 1,500 rows takes
seconds. Only numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.onnx.committee import CLIP, GAIN, LOCAL, NEIGHBOURS, Kernels, Views

Floats = NDArray[np.floating[Any]]

NEARS = (6.0, 12.0)
SHAPE_WIDTH = 0.5
# The logit of a gate that is always open.
ALWAYS = 30.0
NEAR_RIDGE, SHAPE_RIDGE, TOPIC_RIDGE = 3.0, 10.0, 0.3
# The shares of the rows, by leave-one-out familiarity, below which the memory is silent, and from
# which it speaks alone. Small: of a text of their kind the heads beneath have less to say.
SPEAKS = (0.0, 0.02)
# Rows' worth of belief in "no slope": a hundred noisy rows must not promise large gains.
SLOPE_PRIOR = 30.0


class Labels(msgspec.Struct, frozen=True):
    """[n] each, in [0, 1], NaN where unknown. `weight` [n] above 0: how far a row is believed, or
    how many it stands for; only those with 1 or more set the level, by their number, and the
    spread. None: 1 for all."""

    local: Floats
    frontier: Floats
    weight: Floats | None = None

    @property
    def weights(self) -> Floats:
        return np.ones(len(self.local)) if self.weight is None else self.weight

    def take(self, index: NDArray[np.intp]) -> Labels:
        weight = None if self.weight is None else self.weight[index]
        return Labels(self.local[index], self.frontier[index], weight)

    def target(self, which: int) -> Floats:
        """What the members of that target predict: the local label, or the gain."""
        return self.local if which == LOCAL else self.frontier - self.local


class Fitted(msgspec.Struct, frozen=True):
    """`arrays` and `kernels` as Committee takes them."""

    arrays: dict[str, NDArray[Any]]
    kernels: Kernels


class _Member(msgspec.Struct, frozen=True):
    """`dual` [n] (0 for rows without the label) and `start`; `held` [n]: leave-one-out
    predictions, or the plain ones for rows without the label."""

    dual: Floats
    start: float
    held: Floats


class _Side(msgspec.Struct, frozen=True):
    """One target's part of a committee: rows of its arrays, and the loss of its predictions of
    rows left out."""

    arrays: dict[str, Any]
    loss: float


def fit_committee(
    views: Views,
    labels: Labels,
    nears: Sequence[float] = NEARS,
    belows: Sequence[bool] = (False, True),
    gate: Floats | None = None,
    speaks: tuple[float, float] = SPEAKS,
) -> Fitted:
    """Tries each width of the sentence kernel, and for each target whether what the heads beneath
    say is a member too, and keeps what predicts held rows best. `gate`: see Committee; without it
    every text is of their kind; `speaks`: see SPEAKS. Raises ValueError when a target has fewer
    than two labels."""
    cosines = (views.sentences @ views.sentences.T).astype(np.float64)
    if gate is None:
        gate = np.zeros(views.sentences.shape[1] + views.surfaces.shape[1] + 1)
        gate[-1] = ALWAYS
    familiar = _familiarity(cosines, labels.weights >= 1.0, speaks)
    targets = [labels.target(LOCAL), labels.target(GAIN)]
    known = [np.flatnonzero(~np.isnan(label)) for label in targets]
    sure = np.where(labels.weights >= 1.0, labels.weights, 0.0)
    if min(np.count_nonzero(sure[rows]) for rows in known) < 2:
        raise ValueError("a target needs at least two labels")
    shape = _ridges(_shape_gram(views), targets, known, SHAPE_RIDGE / labels.weights)
    topics = np.asarray(views.topics, dtype=np.float64)
    topic = _ridges(topics @ topics.T, targets, known, TOPIC_RIDGE / labels.weights)
    best: tuple[float, float, list[_Side]] | None = None
    for width in nears:
        gram = np.exp(width * (cosines - 1))
        near = _ridges(gram, targets, known, NEAR_RIDGE / labels.weights)
        scenes = [_Scene(views, topics, below, sure) for below in belows]
        sides = [
            min(
                (_side(s, i, (near[i], shape[i], topic[i]), targets[i], known[i]) for s in scenes),
                key=lambda side: side.loss,
            )
            for i in (LOCAL, GAIN)
        ]
        loss = sum(side.loss for side in sides)
        if best is None or loss < best[0]:
            best = loss, width, sides
    if best is None:
        raise ValueError("nothing to try")
    fitted = _fitted(views, best[1], best[2], familiar)
    fitted.arrays["gate"] = np.asarray(gate, dtype=np.float32)
    return fitted


def _fitted(
    views: Views, width: float, sides: Sequence[_Side], familiar: tuple[float, float]
) -> Fitted:
    arrays: dict[str, NDArray[Any]] = {
        "memory": np.asarray(views.sentences, np.float32),
        "shapes": np.asarray(views.surfaces, np.float32),
        "familiar": np.array(familiar, dtype=np.float32),
    }
    for name in sides[0].arrays:
        arrays[name] = np.array([side.arrays[name] for side in sides], dtype=np.float32)
    return Fitted(arrays, Kernels(width, SHAPE_WIDTH))


class _Scene(msgspec.Struct, frozen=True):
    """What both targets share. `sure` [n]: how many a row stands for in the level; 0 for those
    that do not set it."""

    views: Views
    topics: Floats
    below: bool
    sure: Floats


def _side(
    scene: _Scene,
    which: int,
    members: tuple[_Member, _Member, _Member],
    label: Floats,
    known: NDArray[np.intp],
) -> _Side:
    """Joins the members of one target."""
    views = scene.views
    sign = -1.0 if which == LOCAL else 1.0
    said = [*(m.held for m in members), sign * views.surfaces[:, 0], views.below[:, which]]
    table = np.stack(said, axis=1).astype(np.float64)
    known = known[scene.sure[known] > 0]
    centre, spread = table[known].mean(axis=0), table[known].std(axis=0) + 1e-6
    weight = np.array([1.0, 1.0, 1.0, 1.0, 1.0 if scene.below else 0.0])
    total = np.clip((table - centre) / spread, -CLIP, CLIP) @ weight
    draw = _logistic_line if which == LOCAL else _straight_line
    line = draw(total[known], label[known], scene.sure[known])
    own = line[0] + line[1] * total
    near, shape, topic = members
    arrays = {
        "near": near.dual,
        "shape": shape.dual,
        "topic": scene.topics.T @ topic.dual,
        "start": [m.start for m in members],
        "centre": centre,
        "spread": spread,
        "weight": weight,
        "line": line,
    }
    expected = 1 / (1 + np.exp(-own)) if which == LOCAL else own
    loss = float(((expected - label)[known] ** 2).mean())
    return _Side(arrays, loss)


def _shape_gram(views: Views) -> Floats:
    surfaces = np.asarray(views.surfaces, dtype=np.float64)
    squares = (surfaces**2).sum(axis=1)
    distance = (squares[:, None] + squares - 2 * surfaces @ surfaces.T) / surfaces.shape[1]
    gram: Floats = np.exp(-SHAPE_WIDTH * distance)
    return gram


def _ridges(
    gram: Floats, targets: Sequence[Floats], known: Sequence[NDArray[np.intp]], ridge: Floats
) -> list[_Member]:
    """One member for each target; rows that both know are inverted once."""
    inverses: dict[bytes, Floats] = {}
    found = []
    for label, rows in zip(targets, known, strict=True):
        key = rows.tobytes()
        if key not in inverses:
            inner = gram[np.ix_(rows, rows)]
            inverses[key] = np.linalg.inv(inner + np.diag(ridge[rows]))
        found.append(_ridge(gram, label, rows, inverses[key]))
    return found


def _ridge(gram: Floats, label: Floats, known: NDArray[np.intp], inverse: Floats) -> _Member:
    start = float(label[known].mean())
    dual = inverse @ (label[known] - start)
    everywhere = np.zeros(len(label))
    everywhere[known] = dual
    held = gram @ everywhere + start
    held[known] = label[known] - dual / np.diag(inverse)
    return _Member(everywhere, start, held)


def _familiarity(
    cosines: Floats, sure: NDArray[np.bool_], speaks: tuple[float, float]
) -> tuple[float, float]:
    """The limits between which the memory's say grows, by how near its rows are to each other."""
    others = cosines.copy()
    np.fill_diagonal(others, -1.0)
    near = min(NEIGHBOURS, len(others) - 1)
    best = np.partition(others, len(others) - near, axis=1)[:, -near:].mean(axis=1)
    low, high = (float(v) for v in np.quantile(best[sure], speaks))
    return low, high


def _straight_line(total: Floats, label: Floats, weight: Floats) -> tuple[float, float]:
    centre, level = np.average(total, weights=weight), np.average(label, weights=weight)
    deviation = total - centre
    prior = SLOPE_PRIOR * max(float(np.average(deviation**2, weights=weight)), 1e-9)
    weighed = weight * deviation
    slope = float(weighed @ label) / (float(weighed @ deviation) + prior)
    slope = max(slope, 1e-4)
    return float(level - slope * centre), slope


def _logistic_line(total: Floats, label: Floats, weight: Floats) -> tuple[float, float]:
    """Intercept and slope of a logit (Platt 1999), the slope drawn a little towards 0."""
    centre, spread = float(total.mean()), float(total.std()) + 1e-9
    design = np.stack([np.ones_like(total), (total - centre) / spread], axis=1)
    found = np.zeros(2)
    for _ in range(25):
        p = 1 / (1 + np.exp(-(design @ found)))
        gradient = design.T @ (weight * (p - label)) + np.array([1e-3, 2.0]) * found
        curvature = (design * (weight * (p * (1 - p) + 1e-4))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag([1e-3, 2.0]), gradient)
        found = found - step
        if np.abs(step).max() < 1e-8:
            break
    slope = max(float(found[1]) / spread, 1e-4)
    return float(found[0]) - slope * centre, slope
