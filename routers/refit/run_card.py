"""A new artefact with a model card fitted to labels of one model's answers; all else is as it was.

What the card gains is measured by cross-validation, as for a refit of the heads. Rows of other
models are left out, and so are rows that the artefact's memory holds: what it says of those is not
what it says of others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.cards import (
    FILE,
    Base,
    Card,
    CardError,
    CardOrder,
    Cards,
    encode_cards,
    load_cards,
    p_ok,
    with_card,
)
from routers.evals import metrics
from routers.labels import LabelsError, count_models
from routers.model_rows import OK, Chosen, ModelRows
from routers.onnx.encoder import SPECIAL_TOKENS, load_encoder
from routers.onnx.heads import load_heads
from routers.onnx.manifest import Manifest, load_manifest, write_manifest
from routers.onnx.render import render
from routers.refit.cards import Floats, fit_card
from routers.refit.files import CARD, copy_files, describe, limit_of, require_apart, today, whole
from routers.refit.run import FOLDS, LEAST, ROUNDS, Figures, by_text, column, remembered, rounded

# Of a model of which nobody knows more than its tier, in logits.
ANY = 1.0
# Of other models, so many are named in an error.
NAMES = 3


class CardReport(msgspec.Struct, frozen=True):
    """`base` and `name`: artefacts as `name/version`. `field`: the label that was taken, in `rows`
    rows, of which `unnamed` name no model and were taken to be of this one. `left_out`: rows by why
    they were: `unlabelled`, of an `other_model`, of an `unknown_model`, without a token to score
    (`empty`), or `known` to the artefact. `against`: the models that the labels of the other side
    are of, by labels. `before`: the card that `card` was compared with. `better`: the held-out
    interval of the fall in Brier score, or of the gain in APGR, lies above 0, and neither lies
    below."""

    name: str
    base: str
    target: str
    field: str
    rows: int
    unnamed: int
    left_out: dict[str, int]
    against: dict[str, int]
    seconds: float
    better: bool
    verdict: str
    before: Card
    card: Card
    metrics: Figures


class Sample(msgspec.Struct, frozen=True):
    """[n] each: the artefact's two probabilities and its domains; the labels of the model itself,
    and of the other side, NaN where unknown; a number for each different text, from 0 on, for
    copies of one are together in every split and resample."""

    local: Floats
    frontier: Floats
    domains: Sequence[str | None]
    own: Floats
    other: Floats
    text: NDArray[np.intp]

    def of(self, base: Base) -> Floats:
        return self.local if base == "local" else self.frontier

    def take(self, index: NDArray[np.intp]) -> Sample:
        return Sample(
            self.local[index],
            self.frontier[index],
            [self.domains[i] for i in index],
            self.own[index],
            self.other[index],
            np.unique(self.text[index], return_inverse=True)[1].ravel(),
        )

    def sums(self, values: Floats) -> Floats:
        """[texts]: over their rows."""
        found: Floats = np.bincount(self.text, values).astype(np.float64)
        return found


def run_card(order: CardOrder, rows: ModelRows, base: Path, out: Path) -> CardReport:
    """Fit the card on the artefact in `base`, write the new artefact into `out`. Needs 50 labels
    of the model itself (see ModelRows.of), good and bad ones, on rows that the artefact does not
    know. Raises LabelsError, ArtefactError and CardError; OSError when `out` cannot be written."""
    started = time.perf_counter()
    require_apart(base, out)
    manifest, cards = load_manifest(base), load_cards(base)
    start, before = cards_before(cards, order)
    material = _material(base, manifest, rows, order, start.base)
    sample = material.sample
    card = fit(sample, start)
    held = cross_validate(sample, start, order.seed)
    found, better, verdict = compare(sample, (before, held), start.base, order.seed)
    report = CardReport(
        name=f"{order.name or manifest.name + '-card'}/{manifest.version + 1}",
        base=f"{manifest.name}/{manifest.version}",
        target=order.target,
        field=rows.field(start.base),
        rows=len(sample.own),
        unnamed=material.unnamed,
        left_out=material.left_out,
        against=material.against,
        seconds=round(time.perf_counter() - started, 2),
        better=better,
        verdict=verdict,
        before=before,
        card=card,
        metrics=found,
    )
    with whole(out) as half:
        copy_files(base, half)
        (half / FILE).write_bytes(encode_cards(with_card(cards, order.target, card)))
        write_manifest(half, _manifest(manifest, report, half, order.seed))
    return report


def cards_before(cards: Cards, order: CardOrder) -> tuple[Card, Card]:
    """The card where the fit starts, and the one that holds now: a card that was fitted before is
    replaced, not fitted on, since its rows may be among these. Raises CardError."""
    fitted = cards.cards.get(order.target)
    base = order.base
    start = None
    if order.like:
        start = cards.like(order.like)
    elif base is None:
        start = cards.find(order.target.partition("/")[2])
        base = fitted.base if fitted is not None else None
    if start is None:
        if base is None:
            raise CardError(
                f"the name of {order.target} tells the artefact nothing: say its tier, local or "
                "frontier, or which listed model it is like"
            )
        start = Card(base=base, origin="prior", error=ANY)
    return start, start if fitted is None else fitted


def fit(sample: Sample, start: Card) -> Card:
    return fit_card(sample.of(start.base), sample.own, start, sample.domains)


def predict(sample: Sample, card: Card) -> Floats:
    """[n]: how likely the model answers well."""
    each = zip(sample.local, sample.frontier, sample.domains, strict=True)
    return np.array([p_ok(card, float(local), float(far), domain) for local, far, domain in each])


def cross_validate(sample: Sample, start: Card, seed: int, folds: int = FOLDS) -> Floats:
    """[n]: what a card fitted on the other folds says of each row."""
    many = int(sample.text.max()) + 1
    fold = (np.random.default_rng(seed).permutation(many) % folds)[sample.text]
    held = np.zeros(len(sample.own))
    for number in range(folds):
        out = np.flatnonzero(fold == number)
        card = fit(sample.take(np.flatnonzero(fold != number)), start)
        held[out] = predict(sample.take(out), card)
    return held


def compare(
    sample: Sample, said: tuple[Card, Floats], base: Base, seed: int
) -> tuple[Figures, bool, str]:
    """Figures of the card before and of the held-out predictions [n], on the same rows. APGR only
    where the other side has labels, and is the better one if it is the frontier: routing between
    this model and a model like the reference of the other side."""
    card, after = said
    before, own = predict(sample, card), sample.own
    fall = (before - own) ** 2 - (after - own) ** 2
    falls, counts = sample.sums(fall), sample.sums(np.ones(len(fall)))
    fall_ci = metrics.bootstrap(
        lambda i: float(falls[i].sum() / counts[i].sum()), len(falls), seed, ROUNDS
    )
    found: Figures = {
        "share_ok": float(own.mean()),
        "share_ok_said_before": float(before.mean()),
        "share_ok_said_after": float(after.mean()),
        "brier_before": metrics.brier(before, own),
        "brier_after": metrics.brier(after, own),
        "brier_fall_ci95": fall_ci,
        "ece_before": metrics.ece(before, own),
        "ece_after": metrics.ece(after, own),
    }
    order, gain_ci = _order(sample, (before, after), base, seed)
    found |= order
    better = (gain_ci[0] > 0 or fall_ci[0] > 0) and not (gain_ci[1] < 0 or fall_ci[1] < 0)
    return {k: rounded(v) for k, v in found.items()}, better, _verdict(found, fall_ci, better)


def _order(
    sample: Sample, said: tuple[Floats, Floats], base: Base, seed: int
) -> tuple[Figures, list[float]]:
    """APGR of both, and the interval of the gain; none of it, and NaN, without enough pairs or
    when there is no gap to close."""
    pairs = np.flatnonzero(~np.isnan(sample.other))
    if len(pairs) < LEAST:
        return {}, [float("nan")] * 2
    part = sample.take(pairs)
    counts = part.sums(np.ones(len(pairs)))
    own, other = (part.sums(each) / counts for each in (part.own, part.other))
    if base == "local":
        weak, strong = own, other
        gains = [part.sums(part.frontier - each[pairs]) / counts for each in said]
    else:
        weak, strong = other, own
        gains = [part.sums(each[pairs] - part.local) / counts for each in said]
    if strong.mean() <= weak.mean():
        return {}, [float("nan")] * 2
    more = metrics.difference(gains[1], gains[0], weak, strong, seed, ROUNDS)
    figures: Figures = {
        "apgr_before": metrics.apgr(gains[0], weak, strong),
        "apgr_after": metrics.apgr(gains[1], weak, strong),
        "apgr_gain_ci95": [more.low, more.high],
    }
    return figures, [more.low, more.high]


def _verdict(found: Figures, fall_ci: list[float], better: bool) -> str:
    word = "better than before" if better else "no better than before"
    brier = (
        f"Brier score {found['brier_before']:.3f} before, {found['brier_after']:.3f} after "
        f"(fall {fall_ci[0]:+.3f} to {fall_ci[1]:+.3f})"
    )
    level = (
        f"{found['share_ok']:.0%} of the answers were good, {found['share_ok_said_before']:.0%} "
        f"expected before, {found['share_ok_said_after']:.0%} after"
    )
    order = ""
    if isinstance(gain := found.get("apgr_gain_ci95"), list):
        order = (
            f"; APGR {found['apgr_before']:.3f} before, {found['apgr_after']:.3f} after "
            f"(gain {gain[0]:+.3f} to {gain[1]:+.3f})"
        )
    return f"{word} on held-out rows: {brier}{order}; {level}"


class _Material(msgspec.Struct, frozen=True):
    """The rows that can be used, and what the report says of them and of the others."""

    sample: Sample
    unnamed: int
    left_out: dict[str, int]
    against: dict[str, int]


def _material(
    directory: Path, manifest: Manifest, rows: ModelRows, order: CardOrder, base: Base
) -> _Material:
    """`base`: of the card. Raises LabelsError, ArtefactError."""
    chosen = rows.of(order.target, base, sole=base in order.sole)
    index = np.array(chosen.index, dtype=np.intp)
    own, other = column(rows.own(base))[index], column(rows.other(base))[index]
    what, besides = _words(rows, chosen, order.target, base)
    _require(own, rows.where, f"have {what}", besides)
    model, encoder = load_heads(directory), load_encoder(directory, manifest.max_tokens)
    texts = [render(rows.queries[i]) for i in index]
    reading = encoder.read_singly(texts)
    p = model.predict(reading.sentences, reading.surfaces, reading.demands).astype(np.float64)
    named = model.name_topics(reading.sentences, [text.text for text in texts])
    known = np.zeros(len(index), dtype=np.bool_)
    for committee in model.committees.values():
        known |= remembered(committee, reading.sentences)
    empty = np.array(reading.tokens) <= SPECIAL_TOKENS
    keep = np.flatnonzero(~empty & ~known)
    domains = named.get("domain", [None] * len(texts))
    _, text = by_text(reading.sentences)
    sample = Sample(p[:, 0], p[:, 1], domains, own, other, text).take(keep)
    scored = f"have {what} and a text to score that the artefact was not fitted to"
    _require(sample.own, rows.where, scored, besides)
    different = int(sample.text.max()) + 1
    if different < LEAST:
        raise LabelsError(
            f"{rows.where}: {different} different texts {scored}, at least {LEAST} are needed"
            f"{besides}"
        )
    others, whose_else = rows.other(base), rows.others(base)
    return _Material(
        sample=sample,
        unnamed=int(np.isin(index[keep], chosen.unnamed).sum()),
        left_out={
            **chosen.left_out,
            "empty": int(empty.sum()),
            "known": int((known & ~empty).sum()),
        },
        against=count_models((others[i], whose_else[i]) for i in index[keep]),
    )


def _words(rows: ModelRows, chosen: Chosen, target: str, base: Base) -> tuple[str, str]:
    """For errors: which labels count, and of how many it is otherwise, after a semicolon."""
    field = rows.field(base)
    if field == OK:
        return field, ""
    besides = ""
    if chosen.others:
        names = [*list(chosen.others)[:NAMES], *(["..."] if len(chosen.others) > NAMES else [])]
        besides += f"; {chosen.left_out['other_model']} are of other models ({', '.join(names)})"
    if many := chosen.left_out["unknown_model"]:
        besides += f"; {many} do not say of which model ({rows.named_by(base)})"
    return f"{field} of {target}", besides


def _require(labels: Floats, where: str, what: str, besides: str) -> None:
    """`what` says which rows these are, `besides` what others there are. Raises LabelsError."""
    if len(labels) < LEAST:
        raise LabelsError(
            f"{where}: too few rows: {len(labels)} {what}, at least {LEAST} are needed{besides}"
        )
    if labels.min() == labels.max():
        raise LabelsError(
            f"{where}: the label is {labels[0]:g} in each of the {len(labels)} rows that {what}; "
            "rows of both kinds are needed, answers that were good and answers that were not"
            f"{besides}"
        )


def _manifest(manifest: Manifest, report: CardReport, out: Path, seed: int) -> Manifest:
    """That of the base, with the card's rows, figures and seed beside those of the heads, which
    are as they were."""
    place, begin = f"{CARD}{report.target}", limit_of(report.target)
    figures = {f"{place}/{name}": value for name, value in report.metrics.items()}
    kept = {k: v for k, v in manifest.metrics.items() if k.rpartition("/")[0] != place}
    unnamed = f", {report.unnamed} of which name no model" if report.unnamed else ""
    limit = (
        f"{begin}on {report.base} to {report.rows} rows ({report.field}){unnamed}, seed {seed}: "
        "it says nothing of requests unlike them."
    )
    return msgspec.structs.replace(
        manifest,
        name=report.name.rpartition("/")[0],
        version=manifest.version + 1,
        created=today(),
        files=describe(out),
        rows={**manifest.rows, place: report.rows},
        metrics={**kept, **figures, f"{place}/seed": float(seed)},
        limits=[*(each for each in manifest.limits if not each.startswith(begin)), limit],
    )
