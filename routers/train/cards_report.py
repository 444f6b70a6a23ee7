"""How well cards do: calibration by model, routing by pair of models, and the prior by name.

Cross-fitted: a row is judged by cards that were fitted without it. Only the anchors see every
row, through the scores of the anchoring models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.cards import Card, p_ok
from routers.evals import metrics
from routers.modelnames import canonical, traits
from routers.refit.cards import Floats
from routers.train.cards import (
    FRONTIER,
    Anchored,
    Evidence,
    anchor,
    card_name,
    fit_all,
    fit_cards,
    fit_prior,
)
from routers.train.linear import sigmoid

FOLDS = 5
# A pair is worth routing when the strong model is right this much more often.
MIN_GAP = 0.1
MIN_PAIR_ROWS = 300


class Fit(msgspec.Struct, frozen=True):
    """Brier scores and calibration errors of one model on held-out rows. `mean`: the Brier score
    of the model's own mean within each group, which knows the labels; `reference`: of the
    uncarded reference; `prior`: of the card by name, fitted without this model."""

    model: str
    rows: int
    brier_card: float
    brier_reference: float
    brier_prior: float | None
    brier_mean: float
    ece_card: float
    ece_reference: float


class Pair(msgspec.Struct, frozen=True):
    """APGR of routing between two models by the gain of the uncarded reference, of cards without
    and of cards with domain offsets (the true domain given)."""

    weak: str
    strong: str
    rows: int
    reference: float
    plain: float
    domains: float


class Report(msgspec.Struct, frozen=True):
    """`summary`: means over models and over pairs."""

    fits: list[Fit]
    pairs: list[Pair]
    summary: dict[str, float]


def report(evidence: Sequence[Evidence], seed: int) -> Report:
    """Raises ValueError as `anchor` does."""
    anchored = anchor(evidence)
    held = [_held_out(anchored, place, seed) for place in range(len(anchored))]
    prior = _priors(evidence)
    fits, pairs = [], []
    for part, cards in zip(anchored, held, strict=True):
        for model in sorted(part.evidence.scores):
            found = _fit_of(part, cards, model, prior.get(card_name(model)))
            if found is not None:
                fits.append(found)
        pairs.extend(_pairs(part, cards))
    return Report(fits, pairs, _summary(fits, pairs))


class _HeldOut(msgspec.Struct, frozen=True):
    """By model, arrays [n]: with domain offsets, and without."""

    full: dict[str, Floats]
    plain: dict[str, Floats]


def _held_out(anchored: list[Anchored], place: int, seed: int) -> _HeldOut:
    part = anchored[place]
    n = len(part.local)
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    names = {model: card_name(model) for model in part.evidence.scores}
    full = {model: np.full(n, np.nan) for model in names}
    plain = {model: np.full(n, np.nan) for model in names}
    for k in range(FOLDS):
        others = [*anchored[:place], _take(part, np.flatnonzero(fold != k)), *anchored[place + 1 :]]
        cards = fit_cards(others)
        rows = np.flatnonzero(fold == k)
        for model, name in names.items():
            card = cards.get(name)
            if card is not None:
                bare = msgspec.structs.replace(card, domain={})
                full[model][rows] = _predict(card, part, rows)
                plain[model][rows] = _predict(bare, part, rows)
    return _HeldOut(full, plain)


def _take(part: Anchored, rows: NDArray[np.intp]) -> Anchored:
    return Anchored(part.evidence.take(rows), part.local[rows], part.frontier[rows])


def _predict(card: Card, part: Anchored, rows: NDArray[np.intp]) -> Floats:
    local, frontier = sigmoid(part.local), sigmoid(part.frontier)
    groups = part.evidence.groups
    return np.array([p_ok(card, float(local[i]), float(frontier[i]), groups[i]) for i in rows])


def _priors(evidence: Sequence[Evidence]) -> dict[str, Card]:
    """The card that each model would get by its name if nobody had scored it."""
    cards = fit_all(evidence).cards
    found = {}
    for name, card in cards.items():
        rest = {other: c for other, c in cards.items() if canonical(other) != canonical(name)}
        prior = fit_prior(rest)
        guess = prior.card(name) if prior is not None and card.base == "local" else None
        if guess is not None and traits(name).size is not None:
            found[name] = guess
    return found


def _fit_of(part: Anchored, held: _HeldOut, model: str, prior: Card | None) -> Fit | None:
    label, p = part.evidence.scores[model], held.full[model]
    rows = np.flatnonzero(~np.isnan(label) & ~np.isnan(p))
    if not len(rows):
        return None
    base = _base_of(part, model)[rows]
    y, groups = label[rows], np.array(part.evidence.groups)[rows]
    mean = np.zeros(len(rows))
    for group in set(groups.tolist()):
        mean[groups == group] = y[groups == group].mean()
    guess = _predict(prior, part, rows) if prior is not None else None
    return Fit(
        model=model,
        rows=len(rows),
        brier_card=metrics.brier(p[rows], y),
        brier_reference=metrics.brier(base, y),
        brier_prior=metrics.brier(guess, y) if guess is not None else None,
        brier_mean=metrics.brier(mean, y),
        ece_card=metrics.ece(p[rows], y),
        ece_reference=metrics.ece(base, y),
    )


def _base_of(part: Anchored, model: str) -> Floats:
    return sigmoid(part.frontier if model in FRONTIER else part.local)


def _pairs(part: Anchored, held: _HeldOut) -> list[Pair]:
    scores = part.evidence.scores
    found = []
    uncarded = sigmoid(part.frontier) - sigmoid(part.local)
    for weak in sorted(scores):
        for strong in sorted(scores):
            both = ~np.isnan(scores[weak]) & ~np.isnan(scores[strong])
            both &= ~np.isnan(held.full[weak]) & ~np.isnan(held.full[strong])
            rows = np.flatnonzero(both)
            low, high = scores[weak][rows], scores[strong][rows]
            if len(rows) < MIN_PAIR_ROWS or high.mean() - low.mean() < MIN_GAP:
                continue
            plain = (held.plain[strong] - held.plain[weak])[rows]
            domains = (held.full[strong] - held.full[weak])[rows]
            found.append(
                Pair(
                    weak,
                    strong,
                    len(rows),
                    metrics.apgr(uncarded[rows], low, high),
                    metrics.apgr(plain, low, high),
                    metrics.apgr(domains, low, high),
                )
            )
    return found


def _summary(fits: Sequence[Fit], pairs: Sequence[Pair]) -> dict[str, float]:
    known = [fit for fit in fits if fit.brier_prior is not None]
    values: Mapping[str, list[float]] = {
        "brier_card": [fit.brier_card for fit in fits],
        "brier_reference": [fit.brier_reference for fit in fits],
        "brier_mean": [fit.brier_mean for fit in fits],
        "ece_card": [fit.ece_card for fit in fits],
        "ece_reference": [fit.ece_reference for fit in fits],
        "brier_prior_known": [fit.brier_prior or 0.0 for fit in known],
        "brier_reference_known": [fit.brier_reference for fit in known],
        "brier_card_known": [fit.brier_card for fit in known],
        "apgr_reference": [pair.reference for pair in pairs],
        "apgr_plain": [pair.plain for pair in pairs],
        "apgr_domains": [pair.domains for pair in pairs],
    }
    return {name: round(float(np.mean(found)), 4) for name, found in values.items() if found}
