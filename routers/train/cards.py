"""Fitting model cards from the scores of many models against held-out reference probabilities.

All by penalised logistic regression in numpy. First the reference is **anchored**: in each group
of a source (a subject, a task) its logits are shifted, and over the source scaled, so that they
fit the reference model's own scores there. What is left between the anchored logit and a model's
scores is the model: one offset, a slope shrunk to 1, and an offset per group shrunk to 0.

An answer that could not be parsed counts as not asked, other than for the labels of the heads:
models fail the format of one evaluation for reasons that say little about another backend.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.cards import MAX_OFFSET, MAX_SLOPE, SIZE, YEAR, Base, Card, Cards, Prior
from routers.modelnames import Traits, canonical, traits
from routers.refit.cards import MIN_ROWS, SLOPE_PENALTY, Floats, logits, penalised
from routers.train.data import GOLD, read_source

Rows = NDArray[np.intp]

REFERENCE = "Mixtral-8x7B-Instruct-v0.1"
GOLD_STRONG = "gpt-4-1106-preview"
FRONTIER = ("gemini-1.5-pro-002", "gemini-1.5-flash-002", GOLD_STRONG)
# Raw models among the scored ones: their names carry no mark, but what is served under such a
# name is usually the chat model, so their cards say `base`.
RAW = (
    "Llama-2-7b-hf",
    "Llama-2-13b-hf",
    "Llama-2-70b-hf",
    "Meta-Llama-3-8B",
    "Meta-Llama-3-70B",
    "Meta-Llama-3_1-8B",
    "Meta-Llama-3_1-70B",
    "Mistral-7B-v0.1",
    "Mistral-7B-v0.2-hf",
    "Mixtral-8x7B-v0.1",
    "Qwen1.5-110B",
    "Yi-34B",
    "Yi-6B",
    "gemma-7b",
)
# Code tasks are no domain here: models fail their format (9 % on one set, 58 % on the other).
TASK_DOMAINS = {"gsm8k": "math", "math": "math"}
DOMAINS = frozenset(
    (
        "biology",
        "business",
        "chemistry",
        "computer science",
        "economics",
        "engineering",
        "health",
        "history",
        "law",
        "math",
        "other",
        "philosophy",
        "physics",
        "psychology",
    )
)

# Penalties are inverse prior variances: a group's offset is 0 +- 0.25.
GROUP_PENALTY = 1 / 0.25**2
FREE = 1e-3
# A group that lies further than this from the model's other groups tells of a failed format, not
# of ability: Qwen2.5-7B has 17 % on one four-choice set and 86 % on another.
STRAY = 1.25
MIN_DOMAIN_ROWS = 60
PRIOR_RIDGE = 0.3
MIN_MODELS = 8


class Evidence(msgspec.Struct, frozen=True):
    """Scored rows of one source with the reference's held-out probabilities, arrays [n].

    `scores`: by model, in [0, 1], NaN where the model was not asked or could not be parsed.
    `groups`: the subject or task of each row; one that is a domain's name gives domain offsets.
    """

    source: str
    p_local: Floats
    p_frontier: Floats
    groups: list[str]
    scores: Mapping[str, Floats]

    def take(self, rows: Rows) -> Evidence:
        return Evidence(
            self.source,
            self.p_local[rows],
            self.p_frontier[rows],
            [self.groups[i] for i in rows],
            {model: values[rows] for model, values in self.scores.items()},
        )


class _Scored(msgspec.Struct):
    id: str
    scores: dict[str, float | None]
    category: str = ""
    task: str = ""
    null: list[str] = []


class _Gold(msgspec.Struct):
    id: str
    weak: float
    strong: float


def load_evidence(
    directory: Path,
    reference: Mapping[str, tuple[float, float]],
    without: Collection[str] = (),
) -> list[Evidence]:
    """The scored rows whose id is in `reference`, which holds (p_local, p_frontier) by row id and
    should come from heads that have not seen the row. Raises DataError."""
    sources: dict[str, list[tuple[str, str, dict[str, float]]]] = {}
    for gold in read_source(directory, GOLD, _Gold, without):
        both = {REFERENCE: gold.weak, GOLD_STRONG: gold.strong}
        sources.setdefault(GOLD, []).append((gold.id, GOLD, both))
    for name in ("mmlu_pro", "llmrouter"):
        for row in read_source(directory, name, _Scored, without):
            group = row.category or TASK_DOMAINS.get(row.task, f"{name}/{row.task}")
            asked = {m: s for m, s in row.scores.items() if s is not None and m not in row.null}
            sources.setdefault(name, []).append((row.id, group, asked))
    found = []
    for name, rows in sources.items():
        rows = [row for row in rows if row[0] in reference]
        if rows:
            found.append(_evidence(name, rows, reference))
    return found


def _evidence(
    source: str,
    rows: list[tuple[str, str, dict[str, float]]],
    reference: Mapping[str, tuple[float, float]],
) -> Evidence:
    p = np.array([reference[row[0]] for row in rows], dtype=np.float64)
    models = sorted({model for row in rows for model in row[2]})
    scores = {
        m: np.array([row[2].get(m, np.nan) for row in rows], dtype=np.float64) for m in models
    }
    return Evidence(source, p[:, 0], p[:, 1], [row[1] for row in rows], scores)


class Anchored(msgspec.Struct, frozen=True):
    """Logits of both bases on the scale of the sources before, arrays [n]."""

    evidence: Evidence
    local: Floats
    frontier: Floats


def fit_all(evidence: Sequence[Evidence]) -> Cards:
    """Cards of every scored model, and the prior for the others.

    The first sources must have scores of `REFERENCE`, whose offset is 0; each later source is
    anchored by that model too or by those with a card from the sources before. Raises ValueError.
    """
    cards = fit_cards(anchor(evidence))
    prior = fit_prior(cards)
    notes = {"prior_rmse": prior.error} if prior is not None else {}
    return Cards(
        cards=cards,
        prior=prior,
        reference={"local": card_name(REFERENCE), "frontier": card_name(GOLD_STRONG)},
        notes=notes,
    )


def anchor(evidence: Sequence[Evidence]) -> list[Anchored]:
    """Raises ValueError for a source that shares no model with those before."""
    anchored: list[Anchored] = []
    offsets = {canonical(REFERENCE): 0.0}
    for source in evidence:
        by_name = {canonical(model): model for model in source.scores}
        # The reference itself wherever it was asked: other anchors would add their own errors.
        ours = canonical(REFERENCE)
        shared = [ours] if ours in by_name else sorted(set(by_name) & set(offsets))
        if not shared:
            raise ValueError(f"{source.source} shares no model with the sources before it")
        label = np.stack([source.scores[by_name[name]] for name in shared])
        known: NDArray[np.bool_] = np.asarray(~np.isnan(label).any(axis=0))
        level = float(np.mean([offsets[name] for name in shared]))
        anchored.append(_anchor(source, label[:, known].mean(axis=0), known, level))
        for name, card in fit_cards(anchored).items():
            if card.base == "local":
                offsets.setdefault(canonical(name), card.offset)
    return anchored


def _anchor(source: Evidence, label: Floats, known: NDArray[np.bool_], level: float) -> Anchored:
    """`label` are the scores of models whose offset is `level`, on the `known` rows."""
    z, frontier = logits(source.p_local), logits(source.p_frontier)
    groups = _dummies(source.groups)[0]
    design = np.hstack([z[:, None], groups])
    penalty = np.concatenate([[SLOPE_PENALTY], np.full(groups.shape[1], FREE)])
    # The slope is shrunk to 1, so only its difference to 1 is fitted.
    found, _ = penalised(design[known], label, penalty, z[known])
    local = z + design @ found - level
    # The gap between the references is a matter of the models, not of the source's difficulty.
    return Anchored(source, local, local + (frontier - z))


def fit_cards(anchored: Sequence[Anchored]) -> dict[str, Card]:
    """One card for each model of at least MIN_ROWS scores, by name. The same model in several
    sources gets one card."""
    spelled: dict[str, str] = {}
    for part in anchored:
        for model in part.evidence.scores:
            spelled.setdefault(canonical(card_name(model)), model)
    cards = {}
    for key, model in sorted(spelled.items()):
        base: Base = "frontier" if model in FRONTIER else "local"
        rows = _rows_of(anchored, key, base)
        if len(rows.label) >= MIN_ROWS:
            cards[card_name(model)] = _card(rows, base)
    for model in (REFERENCE, GOLD_STRONG):
        # The references are what p_local and p_frontier mean: their cards change nothing.
        if (name := card_name(model)) in cards:
            cards[name] = Card(base=cards[name].base, rows=cards[name].rows)
    return cards


def card_name(model: str) -> str:
    """`Meta-Llama-3_1-8B` gives `llama-3.1-8b-base`."""
    name = canonical(model).replace(" ", "-")
    return f"{name}-base" if model in RAW else name


class _Rows(msgspec.Struct, frozen=True):
    z: Floats
    label: Floats
    groups: list[str]


def _rows_of(anchored: Sequence[Anchored], key: str, base: Base) -> _Rows:
    z: list[Floats] = []
    labels: list[Floats] = []
    groups: list[str] = []
    for part in anchored:
        for model, values in part.evidence.scores.items():
            if canonical(card_name(model)) == key:
                asked = np.flatnonzero(~np.isnan(values))
                z.append((part.local if base == "local" else part.frontier)[asked])
                labels.append(values[asked])
                groups.extend(part.evidence.groups[i] for i in asked)
    return _Rows(np.concatenate(z), np.concatenate(labels), groups)


def _card(rows: _Rows, base: Base) -> Card:
    found = _model_fit(rows)
    strays = _strays(found.groups)
    if strays:
        keep = [i for i, group in enumerate(rows.groups) if group not in strays]
        rows = _Rows(rows.z[keep], rows.label[keep], [rows.groups[i] for i in keep])
        found = _model_fit(rows)
    domain = {
        group: round(value, 4)
        for group, value in sorted(found.groups.items())
        if group in DOMAINS and rows.groups.count(group) >= MIN_DOMAIN_ROWS
    }
    # The groups are a sample too: what they differ by adds to what the rows leave open.
    spread = float(np.var(list(found.groups.values()))) / len(found.groups)
    return Card(
        base=base,
        slope=round(float(np.clip(found.slope, 0.05, MAX_SLOPE)), 4),
        offset=round(float(np.clip(found.offset, -MAX_OFFSET, MAX_OFFSET)), 4),
        domain=domain,
        origin="listed",
        rows=len(rows.label),
        error=round(float(np.sqrt(found.variance + spread)), 4),
    )


def _strays(groups: Mapping[str, float]) -> set[str]:
    middle = float(np.median(list(groups.values())))
    return {name for name, value in groups.items() if abs(value - middle) > STRAY}


class _Found(msgspec.Struct, frozen=True):
    slope: float
    offset: float
    groups: dict[str, float]
    variance: float


def _model_fit(rows: _Rows) -> _Found:
    groups, names = _dummies(rows.groups)
    design = np.hstack([rows.z[:, None], np.ones((len(rows.z), 1)), groups])
    penalty = np.concatenate([[SLOPE_PENALTY, FREE], np.full(len(names), GROUP_PENALTY)])
    found, covariance = penalised(design, rows.label, penalty, rows.z)
    values = dict(zip(names, (float(v) for v in found[2:]), strict=True))
    return _Found(1 + float(found[0]), float(found[1]), values, float(covariance[1, 1]))


def fit_prior(cards: Mapping[str, Card]) -> Prior | None:
    """Ridge regression of the offsets of open models on ln(size) and year; its error is that on
    each model left out. None with fewer than MIN_MODELS models that tell their size."""
    known = _known(cards)
    if len(known) < MIN_MODELS:
        return None
    design, offsets = _prior_design(known)
    weights = _ridge(design, offsets)
    sizes = [size for size, _, _ in known.values()]
    years = [year for _, year, _ in known.values()]
    return Prior(
        intercept=round(float(weights[0]), 4),
        per_log_size=round(float(weights[1]), 4),
        per_year=round(float(weights[2]), 4),
        sizes=(min(sizes), max(sizes)),
        years=(min(years), max(years)),
        error=round(float(np.sqrt(np.mean(prior_errors(cards) ** 2))), 4),
        models=len(known),
    )


def prior_errors(cards: Mapping[str, Card]) -> Floats:
    """What the regression misses each model by when fitted on the others, in logits."""
    design, offsets = _prior_design(_known(cards))
    errors = np.zeros(len(offsets))
    for i in range(len(offsets)):
        others = np.arange(len(offsets)) != i
        errors[i] = offsets[i] - design[i] @ _ridge(design[others], offsets[others])
    return errors


def _known(cards: Mapping[str, Card]) -> dict[str, tuple[float, float, float]]:
    """Size, year and offset of the open models whose name tells a size."""
    found = {}
    for name, card in cards.items():
        seen: Traits = traits(name)
        if card.base == "local" and "/" not in name and seen.size is not None:
            found[name] = (round(seen.size, 2), seen.year or YEAR, card.offset)
    return found


def _prior_design(known: Mapping[str, tuple[float, float, float]]) -> tuple[Floats, Floats]:
    values = np.array(list(known.values()), dtype=np.float64).reshape(-1, 3)
    one = np.ones(len(values))
    return np.stack([one, np.log(values[:, 0] / SIZE), values[:, 1] - YEAR], axis=1), values[:, 2]


def _ridge(design: Floats, label: Floats) -> Floats:
    penalty = np.diag([1e-6, PRIOR_RIDGE, PRIOR_RIDGE])
    found: Floats = np.linalg.solve(design.T @ design + penalty, design.T @ label)
    return found


def _dummies(groups: Sequence[str]) -> tuple[Floats, list[str]]:
    names = sorted(set(groups))
    place = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(groups), len(names)))
    found[np.arange(len(groups)), [place[group] for group in groups]] = 1.0
    return found, names
