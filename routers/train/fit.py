"""Fitting the linear layer: logistic ridge with one free intercept per source, in numpy.

The intercepts centre the labels within their source, so that the weights learn what makes one
prompt harder than another of the same source, never which source it came from. Two things go
beyond that, and both are assumed. The heads for examination questions lean towards what takes more
steps, which holds up on sources that they were not fitted on. The heads for everyday requests know
the levels of tasks whose accuracy by a frontier model is published, so that competition
mathematics is told from sums; beside the levels, what is harder and longer than others of its kind
counts, along a direction that does not tell the kinds apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.heuristics import SURFACE
from routers.onnx.heads import HeadModel, Heads, Linear, Scales
from routers.refit.committee import Labels
from routers.train.data import ASSUMED, EASY, GOLD, HARD, PUBLISHED, REQUESTS, SOLVED, TALK, Row

Floats = NDArray[np.floating[Any]]

# Found by cross-validation on mmlu_gold; the differences between neighbours are within noise.
SCALES = Scales(topic=10.0, sentence=3.0, surface=0.5, sharpness=20.0)
# Of the local and the recovery head. Everyday rows are of many kinds, which less of it would tell
# apart by words that a slip of the pen changes.
EXAM_RIDGES = (20.0, 100.0)
EVERYDAY_RIDGES = (60.0, 300.0)
# The intercept that rows with assumed labels share: those are absolute. Labels of worked solutions
# only say which is harder.
ASSUMED_LEVEL = "assumed"
# What a row weighs, where that is not 1, in the heads for examination questions and in those for
# everyday requests. Requests of our own are few, and without weight of theirs length tells more.
EXAM_WEIGHTS = {EASY: 0.5, TALK: 0.5, HARD: 0.5, SOLVED: 0.2, REQUESTS: 0.0}
EVERYDAY_WEIGHTS = {EASY: 2.0, TALK: 2.0, HARD: 2.0, SOLVED: 0.2, REQUESTS: 10.0}
# By how much the logit of p_local_ok falls for one standard deviation more of predicted steps.
LEAN = 0.5
STEPS_RIDGE = 100.0
# By how much the logit of p_local_ok of an everyday request falls where it is answered worse than
# others of its kind, for 1 in the mean score, and where it is longer, for 1 in log characters.
HARDER, LONGER = 2.0, 0.3
WITHIN_RIDGE = 100.0
# What a direction within kinds pays for telling them apart: in effect it does not.
KINDS_APART = 1000.0
# A frontier model makes up for so much of the local models' failures at least, and at most.
LEAST_RECOVERY, MOST_RECOVERY = 0.05, 0.95
# A question whose options combine the same parts is answered when several things are right at once.
# Of MMLU-Pro's questions, at one category and length, local models answer such ones worse by 0.08,
# and by 0.16 where the feature is 1; frontier models as well as others (docs/adr/0008). By so much
# the logits of p_local_ok and of the recovery move where the feature is 1; fitted to the few
# rows that show it, it would be shrunk to nothing.
COMBINED = (-0.6, 0.35)
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

    def both(self) -> Labels:
        return Labels(self.labels("local"), self.labels("frontier"))


def fit_linear(table: Table) -> HeadModel:
    """Heads of the linear layer alone, in two versions: for questions like the measured ones, and
    for everyday requests, in which the assumed rows weigh more and set the level.

    The weights come from every source but mmlu_gold; that one, if it is there, only sets the level
    of the first version, so that a committee fitted on it learns from what this layer says of rows
    it has not seen."""
    heads, arrays = _untrained(table)
    start = Linear(heads, arrays)
    features = start.features(table.sentences, table.surfaces).astype(np.float64)
    rows = _Rows(
        features,
        table.labels("local"),
        table.labels("frontier"),
        np.array([row.source == GOLD for row in table.rows]),
        [ASSUMED_LEVEL if s in ASSUMED and s != SOLVED else s for s in _sources(table)],
        _weights(table, EXAM_WEIGHTS),
        EXAM_RIDGES,
    )
    exam = _pair(rows, _lean(LEAN * _steps(features, table)))
    everyday = exam
    if ASSUMED_LEVEL in rows.anchors:
        everyday = _pair(_levelled(rows, table), _lean(_within(features, table)))
    arrays = arrays | {
        "weights": np.vstack([exam[0], everyday[0]]).astype(np.float32),
        "bias": np.concatenate([exam[1], everyday[1]]).astype(np.float32),
    }
    return HeadModel(msgspec.structs.replace(heads, keep=_keep(table)), arrays)


class _Rows(msgspec.Struct, frozen=True):
    """As one version of the heads learns from them. `gold` [n] says which rows only set the level;
    `anchors`: whose intercept each row has; `weight` [n]; `ridges` of the local and the recovery
    head. `level`: the anchor whose intercept is the heads'; without it mmlu_gold sets it, or where
    there is none, all measured rows."""

    features: Floats
    local: Floats
    frontier: Floats
    gold: NDArray[np.bool_]
    anchors: list[str]
    weight: Floats
    ridges: tuple[float, float]
    level: str = ""


def _sources(table: Table) -> list[str]:
    return [row.source for row in table.rows]


def _levelled(rows: _Rows, table: Table) -> _Rows:
    """The rows as the everyday heads learn from them: those of tasks with a published accuracy of
    a frontier model stand on the level of the assumed rows, and their frontier label is how often
    it makes up for the local models' failures."""
    sources = np.array(_sources(table))
    frontier, anchors = rows.frontier.copy(), np.array(rows.anchors, dtype=object)
    for name, accuracy in PUBLISHED.items():
        here = sources == name
        if here.any():
            failed = 1 - float(rows.local[here].mean())
            made_up = (accuracy - (1 - failed)) / max(failed, 1e-6)
            frontier[here] = min(max(made_up, LEAST_RECOVERY), MOST_RECOVERY)
            anchors[here] = ASSUMED_LEVEL
    return msgspec.structs.replace(
        rows,
        frontier=frontier,
        anchors=anchors.tolist(),
        weight=_weights(table, EVERYDAY_WEIGHTS),
        ridges=EVERYDAY_RIDGES,
        level=ASSUMED_LEVEL,
    )


def _lean(harder: Floats) -> Floats:
    """[2, features]: what is added to the fitted weights of the local and the recovery head, from
    the direction [features] in which requests are assumed to be harder for local models."""
    found = np.array([-harder, np.zeros_like(harder)])
    # Surface features are the last of a text's features.
    found[:, SURFACE.index("combined") - len(SURFACE)] += np.array(COMBINED) / SCALES.surface
    return found


def _steps(features: Floats, table: Table) -> Floats:
    """The direction [features] in which worked solutions take more steps, so long that measured
    rows have a standard deviation of 1 along it; zeros without worked solutions."""
    sources = np.array(_sources(table))
    solved, measured = sources == SOLVED, ~np.isin(sources, ASSUMED)
    topics = features.shape[1] - table.sentences.shape[1] - table.surfaces.shape[1]
    found = np.zeros(features.shape[1])
    if not solved.any():
        return found
    easy = table.labels("local")[solved]
    steps = np.log((1 - easy) / easy)
    # Topics are those of other sources; what a text is like and about stands in the rest.
    part = features[solved, topics:] - features[solved, topics:].mean(axis=0)
    inner = part.T @ part + STEPS_RIDGE * np.eye(part.shape[1])
    found[topics:] = np.linalg.solve(inner, part.T @ (steps - steps.mean()))
    return found / max(float((features[measured] @ found).std()), 1e-9)


def _within(features: Floats, table: Table) -> Floats:
    """The direction [features] in which rows are answered worse by local models, and longer, than
    others of their kind; kinds by their means do not differ along it. mmlu_gold does not teach
    it, see `fit_linear`."""
    local, length = table.labels("local"), table.surfaces[:, SURFACE.index("log_chars")]
    sources, kinds = np.array(_sources(table)), np.array([_kind(row) for row in table.rows])
    width = features.shape[1]
    inner = (WITHIN_RIDGE * np.eye(width)).astype(np.float64)
    outer = np.zeros(width)
    for name in sorted({row.source for row in table.rows} - {GOLD, *ASSUMED} | {SOLVED}):
        here = np.flatnonzero(sources == name)
        if len(here):
            part = features[here] - features[here].mean(axis=0)
            target = LONGER * length[here] - HARDER * local[here]
            weight = EVERYDAY_WEIGHTS.get(name, 1.0)
            inner += weight * part.T @ part
            outer += weight * part.T @ (target - target.mean())
    middle = features.mean(axis=0)
    for kind in sorted(set(kinds.tolist())):
        away = features[kinds == kind].mean(axis=0) - middle
        inner += KINDS_APART * np.outer(away, away)
    found: Floats = np.linalg.solve(inner, outer)
    return found


def _kind(row: Row) -> str:
    """The source, and of our own requests the topic and whether they are easy or hard."""
    return row.id.rpartition("/")[0] if row.source == REQUESTS else row.source


def _pair(rows: _Rows, lean: Floats) -> tuple[Floats, Floats]:
    """[2, features] and [2]: the local and the recovery head. `lean` [2, features] is added to the
    fitted weights, so that the mean of the rows stays where it was."""
    features, local, frontier, weight = rows.features, rows.local, rows.frontier, rows.weight
    anchors, level = np.array(rows.anchors), rows.level
    first = np.flatnonzero(~rows.gold & ~np.isnan(local))
    second = np.flatnonzero(~rows.gold & ~np.isnan(frontier) & ~np.isnan(local))
    slopes, middle = _logistic(
        features[first],
        local[first],
        weight[first],
        (anchors[first].tolist(), level),
        rows.ridges[0],
    )
    slopes += lean[0]
    middle -= float(features[first].mean(axis=0) @ lean[0])
    more, often = np.zeros_like(slopes), 0.0
    if len(second):
        more, often = _logistic(
            features[second],
            frontier[second],
            # A row teaches the recovery head as far as the local models failed on it.
            weight[second] * (1 - local[second]),
            (anchors[second].tolist(), level),
            rows.ridges[1],
        )
        more += lean[1]
        often -= float(features[second].mean(axis=0) @ lean[1])
    gold = np.flatnonzero(rows.gold)
    if len(gold) and not level:
        middle = _level(features[gold] @ slopes, local[gold], np.ones(len(gold)))
        often = _level(features[gold] @ more, frontier[gold], 1 - local[gold])
    return np.array([slopes, more]), np.array([middle, often])


def topic_names(table: Table) -> list[str]:
    """The topics of the linear layer, in its order: the groups of measured rows."""
    return sorted({row.group for row in table.rows} - set(ASSUMED))


def _untrained(table: Table) -> tuple[Heads, dict[str, NDArray[Any]]]:
    groups = np.array([row.group for row in table.rows])
    real = topic_names(table)
    topics = np.stack([table.sentences[groups == name].mean(axis=0) for name in real])
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    width = len(real) + topics.shape[1] + len(SURFACE)
    measured = np.array([row.source not in ASSUMED for row in table.rows])
    mean = table.surfaces[measured].mean(axis=0)
    std = table.surfaces[measured].std(axis=0) + 1e-3
    # Rare and in [0, 1]: standardised, all of it would be beyond what is clipped.
    mean[SURFACE.index("combined")], std[SURFACE.index("combined")] = 0.0, 1.0
    arrays = {
        "surface_mean": mean,
        "surface_std": std,
        "topics": topics.astype(np.float32),
        "weights": np.zeros((4, width), dtype=np.float32),
        "bias": np.zeros(4, dtype=np.float32),
    }
    return Heads(surface=list(SURFACE), scales=SCALES, keep=1.0), arrays


def _keep(table: Table) -> float:
    local, frontier = table.labels("local"), table.labels("frontier")
    gold = np.array([row.source == GOLD for row in table.rows])
    rows = gold if gold.any() else ~np.isnan(frontier) & ~np.isnan(local)
    return round(float(np.average(frontier[rows], weights=local[rows])), 6)


def _weights(table: Table, special: Mapping[str, float]) -> Floats:
    return np.array([special.get(source, 1.0) for source in _sources(table)])


def _logistic(
    features: Floats, label: Floats, weight: Floats, groups: tuple[list[str], str], ridge: float
) -> tuple[Floats, float]:
    """Weights, and the intercept of the source named second in `groups`, or the mean of the
    measured sources'."""
    sources, level = groups
    names = sorted(set(sources))
    dummies = np.array([[source == name for name in names] for source in sources], dtype=float)
    penalty = np.concatenate([np.full(features.shape[1], ridge), np.full(len(names), 1e-3)])
    found = _newton(np.hstack([features, dummies]), label, weight, penalty)
    weights, intercepts = found[: features.shape[1]], found[features.shape[1] :]
    if level in names:
        return weights, float(intercepts[names.index(level)])
    measured = [i for i, name in enumerate(names) if name not in (ASSUMED_LEVEL, SOLVED)]
    return weights, float(intercepts[measured].mean()) if measured else 0.0


def logistic(features: Floats, label: Floats, ridge: float) -> tuple[Floats, float]:
    """Weights and intercept of a plain logistic ridge, both classes weighing the same."""
    weight = np.where(label > 0, 0.5 / label.mean(), 0.5 / (1 - label.mean()))
    design = np.hstack([features, np.ones((len(features), 1))])
    penalty = np.concatenate([np.full(features.shape[1], ridge), [1e-3]])
    found = _newton(design, label, weight, penalty)
    return found[:-1], float(found[-1])


def _level(logit: Floats, label: Floats, weight: Floats) -> float:
    """The intercept at which the weighted mean of sigmoid(logit + intercept) is the label's."""
    shift = 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-(logit + shift)))
        slope = float((weight * p * (1 - p)).sum()) + 1e-9
        step = float(weight @ (p - label)) / slope
        shift -= float(np.clip(step, -2.0, 2.0))
        if abs(step) < 1e-9:
            break
    return shift


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
