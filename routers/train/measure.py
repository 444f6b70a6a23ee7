"""What the heads are worth, on rows that they were not fitted on."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.evals import metrics
from routers.evals.folds import alike
from routers.onnx.heads import HeadModel
from routers.refit.committee import Labels, fit_committee
from routers.refit.run import with_layer
from routers.train.data import ASSUMED, GOLD
from routers.train.fit import Floats, Table, fit_linear, logistic

FOLDS = 5
SAMPLE_SEED = 20_250_701
# Sentence vectors are short beside standardised features. With a ridge of 10 a slip of the pen in a
# real prompt changed which heads it was scored by.
GATE_SCALE, GATE_RIDGE = 5.0, 200.0
SHIPPED = "shipped"
# Sources with labels of both tiers, and the name under which their metrics stand.
PAIRED = {GOLD: GOLD, "mmlu_pro/plain": "mmlu_pro_plain", "mmlu_pro/options": "mmlu_pro_options"}
Fit = Callable[[Table], HeadModel]


class Held(msgspec.Struct, frozen=True):
    """Predictions for each row by heads fitted without its fold: `said` [n, 2] logit of p_local_ok
    and gain, `p` [n, 2] probabilities. `blind` the same gains by heads fitted without the row's
    whole source. NaN for assumed rows."""

    said: Floats
    p: Floats
    blind: Floats


class Memory(msgspec.Struct, frozen=True):
    """What the shipped committee remembers. `others`: rows beside mmlu_gold; `belief`: how far
    these are believed; `belows`: whether the linear heads have a voice in it, and both where what
    predicts a target better is to be taken; `gate`: whether it is silent on other kinds of request.
    """

    others: int = 1200
    belief: float = 0.3
    belows: tuple[bool, ...] = (False, True)
    gate: bool = True
    speaks: tuple[float, float] = (0.05, 0.25)


DEFAULT = Memory()


def shipped(table: Table, memory: Memory = DEFAULT) -> HeadModel:
    """The recipe that ships: linear heads, and a committee in which they have a voice, over the
    rows of mmlu_gold and a sample of the other rows with both labels. Without mmlu_gold, the
    linear heads alone."""
    model = fit_linear(table)
    gold = np.flatnonzero([row.source == GOLD for row in table.rows])
    if not len(gold):
        return model
    others = [i for source in PAIRED if source != GOLD for i in paired(table, source).tolist()]
    drawn = np.random.default_rng(SAMPLE_SEED).permutation(len(others))[: memory.others]
    rest = np.sort(np.array(others, dtype=np.intp)[drawn])
    part = table.take(np.concatenate([gold, rest]))
    views = model.views(part.sentences, part.surfaces)
    gate = fit_gate(model, table) if memory.gate else None
    labels = centred(part, memory.belief)
    fitted = fit_committee(views, labels, belows=memory.belows, gate=gate, speaks=memory.speaks)
    return with_layer(model, fitted, SHIPPED, frozenset())


def fit_gate(model: HeadModel, table: Table) -> Floats | None:
    """A logistic head that tells the rows of the memory's sources from all others, assumed ones
    and tasks of another kind, so that the memory is not asked about what it knows nothing of. None
    without others."""
    exam = np.isin([row.source for row in table.rows], list(PAIRED))
    if exam.all():
        return None
    views = model.views(table.sentences, table.surfaces)
    scaled = np.hstack([GATE_SCALE * views.sentences, views.surfaces])
    weights, bias = logistic(scaled.astype(np.float64), exam.astype(float), GATE_RIDGE)
    width = views.sentences.shape[1]
    return np.concatenate([GATE_SCALE * weights[:width], weights[width:], [bias]])


def centred(table: Table, belief: float) -> Labels:
    """Labels moved to the level of mmlu_gold, source by source, and believed less elsewhere."""
    labels = table.both()
    local, frontier = labels.local.copy(), labels.frontier.copy()
    sources = np.array([row.source for row in table.rows])
    gold = sources == GOLD
    for name in sorted(set(sources.tolist()) - {GOLD}):
        here = sources == name
        for column in (local, frontier):
            column[here] += column[gold].mean() - column[here].mean()
    return Labels(local, frontier, np.where(gold, 1.0, belief))


def hold_out(table: Table, seed: int, fit: Fit = shipped) -> Held:
    """Five folds over all measured rows; assumed ones are only ever learnt from."""
    n = len(table.rows)
    sources = np.array([row.source for row in table.rows])
    local, frontier = table.labels("local"), table.labels("frontier")
    dealt = alike((local, frontier - local, sources), FOLDS, seed)
    fold = np.where(np.isin(sources, ASSUMED), -1, dealt)
    said, p = np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    for number in range(FOLDS):
        model = fit(table.take(np.flatnonzero(fold != number)))
        _predict(model, table, np.flatnonzero(fold == number), (said, p))
    blind = np.full((n, 2), np.nan)
    family = np.array([row.source.split("/")[0] for row in table.rows])
    for name in sorted({source.split("/")[0] for source in PAIRED}):
        here = np.flatnonzero(family == name)
        if len(here):
            model = fit(table.take(np.flatnonzero(family != name)))
            _predict(model, table, here, (blind, np.empty((n, 2))))
    return Held(said, p, blind[:, 1])


def _predict(
    model: HeadModel, table: Table, index: NDArray[np.intp], into: tuple[Floats, Floats]
) -> None:
    part = table.take(index)
    below = model.views(part.sentences, part.surfaces).below
    into[0][index] = below
    into[1][index] = model.probabilities(below[:, 0], below[:, 1])


def report(table: Table, held: Held, seed: int) -> dict[str, float | list[float]]:
    """Metrics by source, each with its protocol in its name."""
    found: dict[str, float | list[float]] = {}
    for source, name in PAIRED.items():
        index = paired(table, source)
        if len(index) < 2:
            continue
        part = table.take(index)
        weak, strong = part.labels("local"), part.labels("frontier")
        length = part.surfaces[:, 0].astype(np.float64)
        gains = held.p[index, 1] - held.p[index, 0]
        scores = {"cv5": gains, "without_source": held.blind[index], "length": length}
        ranked = metrics.rankings(scores, weak, strong, base="length", seed=seed)
        for label, ranking in ranked.items():
            found[f"{name}_apgr_{label}"] = ranking.apgr.value
            found[f"{name}_apgr_{label}_ci95"] = [ranking.apgr.low, ranking.apgr.high]
        for label in ("cv5", "without_source"):
            over = ranked[label].over_base
            found[f"{name}_apgr_{label}_over_length_ci95"] = [over.low, over.high]
        for point, figure in ranked["cv5"].cpt.items():
            found[f"{name}_cv5_{point}"] = figure.value
        p = held.p[index]
        found[f"{name}_cv5_p_local_ece15"] = metrics.ece(p[:, 0], weak)
        found[f"{name}_cv5_p_local_brier"] = metrics.brier(p[:, 0], weak)
        found[f"{name}_cv5_p_frontier_ece15"] = metrics.ece(p[:, 1], strong)
    return {name: _round(value) for name, value in found.items()}


def paired(table: Table, source: str) -> NDArray[np.intp]:
    """Rows of a source that have both labels."""
    both = ~np.isnan(table.labels("local")) & ~np.isnan(table.labels("frontier"))
    return np.flatnonzero([row.source == source for row in table.rows] & both)


def _round(value: float | list[float]) -> float | list[float]:
    return [round(v, 4) for v in value] if isinstance(value, list) else round(value, 4)
