"""A new artefact from labelled rows: the same encoder and lower layers, a committee of its own.

What it gains is measured by cross-validation: every figure is of rows that the fit which
predicted them had not seen. The new artefact is written either way, and the verdict says in words
whether it is better; nobody's traffic changes until an operator activates it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.cards import FILE as CARDS
from routers.cards import encode_cards, load_cards, without_base
from routers.drift import FILE as REFERENCE
from routers.drift import dump_reference, reference_of
from routers.evals import metrics
from routers.evals.folds import alike
from routers.labels import (
    FRONTIER,
    LOCAL,
    UNKNOWN,
    LabelRow,
    LabelsError,
    count_models,
    require_enough,
)
from routers.onnx.committee import GAIN, Committee, Views
from routers.onnx.encoder import SPECIAL_TOKENS, Reading, load_encoder
from routers.onnx.heads import OWN, HeadModel, load_heads, save_heads, under
from routers.onnx.manifest import OWN_ROWS, Manifest, load_manifest, write_manifest
from routers.onnx.render import render
from routers.refit.committee import Fitted, Floats, Labels, fit_committee
from routers.refit.files import (
    MEANING,
    copy_files,
    describe,
    require_apart,
    today,
    whole,
    without_cards,
)
from routers.steering.calibration import FILE as CALIBRATION
from routers.steering.calibration import Calibration, dump_calibration

LEAST = 50
# So many different texts are fitted at most: time grows with their cube and memory with their
# square, and more than 1,200 taught next to nothing more (docs/adr/0008-router.md).
MOST = 2500
FOLDS = 5
ROUNDS = 1000
# A layer knows the rows when that share of them is in its memory.
KNOWN = 0.1
# A row whose sentence vector is in a committee's memory was learnt from there.
SAME = 0.9995
Figures = dict[str, float | list[float]]


class RefitReport(msgspec.Struct, frozen=True):
    """`base` and `name`: artefacts as `name/version`. `better`: the held-out interval of the gain
    in APGR lies above 0, or that of the fall in Brier score, from before and from one probability
    for all rows, and neither lies below. `rows`: different texts; `merged`: rows that were of the
    text of another, whose labels were averaged; `passed_over`: texts beyond the most that are
    fitted; `compared`: those that the figures are of. `left_out`: layers of the base that knew rows
    already; the figures are of the rows that they did not know, or where these are too few, of all
    rows without these layers, and the verdict says so. `models`: of whose answers the labels are,
    counted by field and by `backend/model`, `unknown` where rows do not say."""

    name: str
    base: str
    rows: int
    seconds: float
    better: bool
    verdict: str
    metrics: Figures
    left_out: list[str] = []
    merged: int = 0
    passed_over: int = 0
    compared: int = 0
    models: dict[str, dict[str, int]] = {}


def run(
    rows: Sequence[LabelRow],
    base: Path,
    out: Path,
    *,
    name: str = "",
    seed: int = 0,
    most: int = MOST,
    where: str = "rows",
) -> RefitReport:
    """Fit `rows` on the artefact in `base`, write the new one into `out`. Needs at least 50 texts
    with both labels; of more than `most`, so many are drawn. `where`: the name under which errors
    speak of the rows. Raises LabelsError and ArtefactError; OSError when `out` cannot be written.
    """
    started = time.perf_counter()
    require_enough(list(rows), LEAST, where)
    require_apart(base, out)
    manifest = without_cards(load_manifest(base))
    model = load_heads(base)
    encoder = load_encoder(base, manifest.max_tokens)
    texts = [render(row.query) for row in rows]
    reading = encoder.read_singly(texts)
    usable = _usable(rows, reading, where)
    labels = _labels([rows[i] for i in usable])
    copies = draw(merge(reading.sentences, usable, labels, where), most, seed)
    keep, merged = copies.first, copies.labels
    part = Reading(
        reading.sentences[keep],
        reading.surfaces[keep],
        reading.demands[keep],
        [reading.tokens[i] for i in keep],
    )
    beneath = _beneath(model, part, merged)
    after = cross_validate(beneath.lower, merged, seed)
    fitted = fit_committee(beneath.lower, merged)
    compared = beneath.compared
    said = beneath.before[compared], after[compared]
    measured, better, verdict = compare(model, said, merged.take(compared), seed, beneath.without)
    new = with_layer(model, fitted, OWN, frozenset(beneath.left_out))
    named = new.name_topics(part.sentences, [texts[i].text for i in keep]).get("domain")
    # What happened is counted by requests, and not by texts: copies are requests too.
    drawn = np.flatnonzero(copies.text >= 0)
    of = copies.text[drawn]
    models = _models([rows[i] for i in usable[drawn]])
    material = Material(
        part.sentences[of],
        after[of],
        labels.take(drawn),
        [named[i] for i in of] if named else [],
    )
    report = RefitReport(
        name=f"{name or manifest.name + '-refit'}/{manifest.version + 1}",
        base=f"{manifest.name}/{manifest.version}",
        rows=len(keep),
        seconds=round(time.perf_counter() - started, 2),
        better=better,
        verdict=verdict,
        metrics=measured,
        left_out=beneath.left_out,
        merged=len(of) - len(keep),
        passed_over=copies.passed_over,
        compared=len(compared),
        models=models,
    )
    with whole(out) as half:
        _write(base, half, new, material)
        write_manifest(half, _manifest(manifest, report, half, seed))
    return report


class _Beneath(msgspec.Struct, frozen=True):
    """What the base says of the rows. `lower`: by the layers that the new one stands on, of which
    `left_out` are none, for they knew rows; `before` [n, 2]: by the base as it is, or `without`
    some layers; `compared`: the rows on which that can be held against the new one."""

    lower: Views
    before: Floats
    left_out: list[str]
    without: list[str]
    compared: NDArray[np.intp]


def _beneath(model: HeadModel, part: Reading, labels: Labels) -> _Beneath:
    shown = part.sentences, part.surfaces, part.demands
    known = {name: remembered(c, part.sentences) for name, c in model.committees.items()}
    left_out = [name for name, rows in known.items() if rows.mean() >= KNOWN]
    # What a layer was fitted to says nothing of how it does elsewhere.
    seen = np.zeros(len(part.tokens), dtype=np.bool_)
    for name in left_out:
        seen |= known[name]
    compared, without = np.flatnonzero(~seen), list[str]()
    if len(_paired(labels, compared)) < LEAST:
        compared, without = np.arange(len(seen)), left_out
    return _Beneath(
        lower=model.views(*shown, frozenset({OWN, *left_out})),
        before=model.views(*shown, frozenset(without)).below,
        left_out=left_out,
        without=without,
        compared=compared,
    )


def _manifest(base: Manifest, report: RefitReport, out: Path, seed: int) -> Manifest:
    """Of the artefact in `out`: that of the base, for other rows."""
    name = report.name.rpartition("/")[0]
    meaning = f"{MEANING}and p_frontier_ok refer to the rows of {name}{_whose(report.models)}."
    kept = {source: n for source, n in base.rows.items() if not source.startswith(OWN_ROWS)}
    return msgspec.structs.replace(
        base,
        name=name,
        version=base.version + 1,
        created=today(),
        files=describe(out),
        rows={**kept, f"{OWN_ROWS}{name}": report.rows},
        metrics=report.metrics,
        seed=seed,
        limits=[*(each for each in base.limits if not each.startswith(MEANING)), meaning],
    )


def _models(rows: Sequence[LabelRow]) -> dict[str, dict[str, int]]:
    """Of whose answers the labels are, by field and model."""
    return {
        LOCAL: count_models((row.local_ok, row.local_model) for row in rows),
        FRONTIER: count_models((row.frontier_ok, row.frontier_model) for row in rows),
    }


def _whose(models: dict[str, dict[str, int]]) -> str:
    """For the manifest, after the name of the rows; empty where no row names a model."""
    if not any(counts.keys() - {UNKNOWN} for counts in models.values()):
        return ""
    each = [
        f"{field} of " + " and ".join(f"{model} ({many})" for model, many in counts.items())
        for field, counts in models.items()
    ]
    return f", {', '.join(each)}"


class Copies(msgspec.Struct, frozen=True):
    """Rows by their text. `first` [t]: the first row of each text; `labels` [t]: the means of its
    rows, with the weight of their number; `text` [usable rows]: which of the texts a row is of, -1
    where that was not drawn."""

    first: NDArray[np.intp]
    labels: Labels
    text: NDArray[np.intp]
    passed_over: int = 0


def merge(
    sentences: NDArray[np.float32],
    usable: NDArray[np.intp],
    labels: Labels,
    where: str = "rows",
) -> Copies:
    """One row for each text: a copy on the other side of a split would tell what is to be
    predicted. Of `usable` (indices into `sentences`) with their labels. Raises LabelsError when
    too few texts have both labels."""
    first, text = by_text(sentences[usable])
    count = np.bincount(text).astype(np.float64)
    found = Labels(_means(labels.local, text), _means(labels.frontier, text), count)
    pairs = len(_paired(found, np.arange(len(first))))
    if pairs < LEAST:
        raise LabelsError(
            f"{where}: {pairs} different texts have local_ok and frontier_ok, {LEAST} are needed"
        )
    return Copies(usable[first], found, text)


def by_text(sentences: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first row of each different text, in their order, and [n] which of these a row is of."""
    _, first, group = np.unique(sentences, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[group.ravel()]


def draw(copies: Copies, most: int, seed: int) -> Copies:
    """`most` of the texts by chance, if there are more."""
    many = len(copies.first)
    if many <= most:
        return copies
    drawn = np.sort(np.random.default_rng(seed).permutation(many)[:most])
    place = np.full(many, -1, dtype=np.intp)
    place[drawn] = np.arange(most)
    return Copies(copies.first[drawn], copies.labels.take(drawn), place[copies.text], many - most)


def _means(label: Floats, group: NDArray[np.intp]) -> Floats:
    """By group, of the known ones; NaN where none is."""
    known = ~np.isnan(label)
    count = np.bincount(group, known)
    total = np.bincount(group, np.where(known, label, 0.0))
    found: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def cross_validate(views: Views, labels: Labels, seed: int, folds: int = FOLDS) -> Floats:
    """[n, 2]: logit and gain of each row by a committee fitted on the other folds."""
    fold = alike((labels.local, labels.target(GAIN)), folds, seed)
    held = np.zeros((len(fold), 2))
    for number in range(folds):
        out = np.flatnonzero(fold == number)
        rest = np.flatnonzero(fold != number)
        fitted = fit_committee(_rows(views, rest), labels.take(rest))
        held[out] = Committee(fitted.arrays, fitted.kernels).predict(_rows(views, out))[0]
    return held


def with_layer(model: HeadModel, fitted: Fitted, name: str, drop: frozenset[str]) -> HeadModel:
    """The heads with that committee on top, in place of one of the same name; those in `drop` are
    left out."""
    gone = {name, *drop}
    arrays = {k: a for k, a in model.arrays.items() if k.split("/")[0] not in gone}
    layers = {k: kernels for k, kernels in model.heads.layers.items() if k not in gone}
    heads = msgspec.structs.replace(model.heads, layers={**layers, name: fitted.kernels})
    return HeadModel(heads, arrays | under(fitted.arrays, name))


def compare(
    model: HeadModel,
    said: tuple[Floats, Floats],
    labels: Labels,
    seed: int,
    without: Sequence[str] = (),
) -> tuple[Figures, bool, str]:
    """Figures of the two predictions [n, 2] (logit, gain), before and after, on the same rows.
    `without`: layers that had no part in the first. A better level alone makes no better router,
    so a fall in Brier score counts where one probability for all rows would not do as well."""
    pairs = _paired(labels, np.arange(len(labels.local)))
    weak, strong = labels.local[pairs], labels.frontier[pairs]
    before, after = (each[pairs] for each in said)
    p = [model.probabilities(each[:, 0], each[:, 1])[:, 0].astype(float) for each in said]
    known = np.flatnonzero(~np.isnan(labels.local))
    local = labels.local[known]
    squares = [(each[known] - local) ** 2 for each in p]
    constant = (local.mean() - local) ** 2
    fall_ci = _mean_ci(squares[0] - squares[1], seed)
    beyond_ci = _mean_ci(constant - squares[1], seed)
    found: Figures = {
        "brier_before": float(squares[0].mean()),
        "brier_after": float(squares[1].mean()),
        "brier_of_mean": float(constant.mean()),
        "brier_fall_ci95": fall_ci,
        "ece_before": metrics.ece(p[0][known], local),
        "ece_after": metrics.ece(p[1][known], local),
    }
    gain_ci = [float("nan")] * 2
    if strong.mean() > weak.mean():
        more = metrics.difference(after[:, 1], before[:, 1], weak, strong, seed, ROUNDS)
        gain_ci = [more.low, more.high]
        found |= {
            "apgr_before": metrics.apgr(before[:, 1], weak, strong),
            "apgr_after": metrics.apgr(after[:, 1], weak, strong),
            "apgr_gain_ci95": gain_ci,
            "cpt50_after": metrics.cpt(after[:, 1], weak, strong, 0.5),
            "cpt80_after": metrics.cpt(after[:, 1], weak, strong, 0.8),
        }
    gains = gain_ci[0] > 0 or (fall_ci[0] > 0 and beyond_ci[0] > 0)
    better = gains and not (gain_ci[1] < 0 or fall_ci[1] < 0)
    word = "better than" if better else "no better than"
    if without:
        word += f" without the layers that knew these rows ({', '.join(without)})"
    else:
        word += " before"
    return {k: rounded(v) for k, v in found.items()}, better, _verdict(word, found, gain_ci)


def _mean_ci(values: Floats, seed: int) -> list[float]:
    return metrics.bootstrap(lambda i: float(values[i].mean()), len(values), seed, ROUNDS)


def _verdict(word: str, found: Figures, gain_ci: list[float]) -> str:
    brier = (
        f"Brier score {found['brier_before']:.3f} before, {found['brier_after']:.3f} after, "
        f"{found['brier_of_mean']:.3f} by one probability for all"
    )
    if "apgr_before" not in found:
        order = "the frontier is no better than the local model on the whole, so APGR says nothing"
    else:
        order = (
            f"APGR {found['apgr_before']:.3f} before, {found['apgr_after']:.3f} after "
            f"(gain {gain_ci[0]:+.3f} to {gain_ci[1]:+.3f})"
        )
    return f"{word} on held-out rows: {order}; {brier}"


def _paired(labels: Labels, index: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of the rows that have both labels."""
    both = ~np.isnan(labels.local) & ~np.isnan(labels.frontier)
    return index[both[index]]


def _usable(rows: Sequence[LabelRow], reading: Reading, where: str) -> NDArray[np.intp]:
    """Rows with a token to score. Raises LabelsError when they are too few."""
    keep = np.array([i for i, n in enumerate(reading.tokens) if n > SPECIAL_TOKENS], dtype=np.intp)
    left = [rows[i] for i in keep]
    if len(left) < len(rows):
        require_enough(left, LEAST, f"{where} with a text to score")
    frontier = [row.frontier_ok for row in left if row.frontier_ok is not None]
    local = [row.local_ok for row in left if row.frontier_ok is not None]
    if frontier == local:
        raise LabelsError(
            f"{where}: local_ok and frontier_ok are the same in every row: there is no gain"
        )
    return keep


def _labels(rows: Sequence[LabelRow]) -> Labels:
    return Labels(column([row.local_ok for row in rows]), column([row.frontier_ok for row in rows]))


def column(values: Sequence[float | None]) -> Floats:
    """[n], NaN for what is not known."""
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def remembered(committee: Committee, sentences: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[n]: which rows are in the memory."""
    if committee.memory.shape[1] != sentences.shape[1]:
        return np.zeros(len(sentences), dtype=np.bool_)
    # Packed to whole numbers, the memory's vectors are no longer quite of unit length.
    memory = committee.memory / np.linalg.norm(committee.memory, axis=1, keepdims=True)
    found: NDArray[np.bool_] = (sentences @ memory.T).max(axis=1) > SAME
    return found


def _rows(views: Views, index: NDArray[np.intp]) -> Views:
    return Views(
        views.sentences[index],
        views.surfaces[index],
        views.topics[index],
        views.below[index],
        None if views.away is None else views.away[index],
    )


def calibration_of(model: HeadModel, held: Floats, labels: Labels) -> Calibration:
    """Held-out predictions and outcomes of the rows that have both labels."""
    pairs = _paired(labels, np.arange(len(labels.local)))
    p = model.probabilities(held[pairs, 0], held[pairs, 1])
    local, frontier = (tuple(round(float(v), 5) for v in p[:, side]) for side in (0, 1))
    return Calibration(
        gain=tuple(round(f - w, 5) for w, f in zip(local, frontier, strict=True)),
        p_local=local,
        p_frontier=frontier,
        local_ok=tuple(labels.local[pairs].tolist()),
        frontier_ok=tuple(labels.frontier[pairs].tolist()),
    )


class Material(msgspec.Struct, frozen=True):
    """What the files beside the heads are made of: sentence vectors, held-out (logit, gain),
    labels and domains of the same rows."""

    sentences: NDArray[np.float32]
    held: Floats
    labels: Labels
    domains: Sequence[str | None]


def write_beside(out: Path, model: HeadModel, material: Material) -> None:
    """The calibration rows, and the reference for drift. Raises OSError."""
    calibration = calibration_of(model, material.held, material.labels)
    (out / CALIBRATION).write_bytes(dump_calibration(calibration))
    gains = model.probabilities(material.held[:, 0], material.held[:, 1])
    reference = reference_of(
        (gains[:, 1] - gains[:, 0]).tolist(), material.domains, material.sentences
    )
    (out / REFERENCE).write_bytes(dump_reference(reference))


def _write(base: Path, out: Path, model: HeadModel, material: Material) -> None:
    copy_files(base, out)
    save_heads(out, model)
    write_beside(out, model, material)
    # The probabilities now mean the operator's own models: what listed models are worth against
    # the former reference would count an ability twice.
    cards = without_base(without_base(load_cards(base), "local"), "frontier")
    (out / CARDS).write_bytes(encode_cards(cards))


def rounded(value: float | list[float]) -> float | list[float]:
    """To four places."""
    return [round(v, 4) for v in value] if isinstance(value, list) else round(value, 4)
