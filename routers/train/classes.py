"""Training of the data-class model: texts with personal or clinical data against other prompts.

Tried and lost: the windows' regression alone (4 to 5 points of recall less on new frames), windows
of 48 tokens, no frames of our own (5 points less), questions of trivia as full negatives (they
name people and places, so they teach that names mean nothing).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.onnx.arrays import save_arrays
from routers.onnx.classes import FILE, NAMES, DataClassModel
from routers.patterns import detect
from routers.train.class_fit import SEED, fit_classes
from routers.train.class_texts import ENGLISH, SENTENCES, SMALL_TALK, Text, load_texts
from routers.train.lexicon import lexicon_of, nameless
from routers.train.linear import sigmoid

FOLDS = 5
# The share of the everyday prompts that may be flagged by either class. `phi` is easy to tell from
# them, so its threshold is where this share of held-out clinical text is still found.
ALARMS = 0.02
CLINICAL_RECALL = 0.99
# The share of the texts about nobody in other languages that may be flagged where the language is
# recognised.
ALARMS_ABROAD = 0.02
CLINICAL = ("dialogue", "dialogue without speakers", "note", "wrapped")
# Less than any logit.
NOWHERE = -100.0
EVERYDAY = ("mmlu_pro", "gsm8k_train", "arena_hard_v0.1", "clinc150", "banking77")


class ClassFigures(msgspec.Struct, frozen=True):
    """By source, the share of held-out rows flagged by the model alone and with the patterns."""

    model: dict[str, float]
    with_patterns: dict[str, float]
    thresholds: dict[str, float]
    abroad: float


class _Limits(msgspec.Struct, frozen=True):
    """`thresholds` [2]: logits from which on a text is flagged; `abroad`: what is taken off the
    logit of `pii` in other languages."""

    thresholds: NDArray[np.float64]
    abroad: float

    def logits(self, evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, 2] from `DataClassModel.evidence` of each text."""
        phi, english, abroad = evidence.T
        return np.stack([phi, np.maximum(english, abroad - self.abroad)], axis=1)

    def flagged(self, evidence: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[n]: whether either class is found."""
        reached: NDArray[np.bool_] = self.logits(evidence) >= self.thresholds
        return reached[:, 0] | reached[:, 1]


def write(out_dir: Path, data_dir: Path, seed: int = SEED) -> ClassFigures:
    """Fit on every row, write `classes.npz` into `out_dir`, and return the figures of the
    cross-validation by template. Some minutes. Raises DataError, OSError."""
    texts = load_texts(data_dir, seed)
    evidence = cross_validate(texts, seed)
    limits = _limits(texts, evidence)
    arrays = fit_classes(texts)
    arrays["thresholds"] = sigmoid(limits.thresholds).astype(np.float32)
    arrays["abroad"] = np.array([limits.abroad], dtype=np.float32)
    save_arrays(out_dir / FILE, arrays)
    return _figures(texts, evidence, limits)


def cross_validate(texts: Sequence[Text], seed: int) -> NDArray[np.float64]:
    """[n, 3]: what models say (`DataClassModel.evidence`) that have seen no row of the same group;
    NaN for rows of our own. Personal data is held out by template, so these are figures for new
    frames."""
    rng = random.Random(seed)
    fold: dict[str, int] = {}
    for source in sorted({text.source for text in texts if text.held}):
        groups = sorted({text.group for text in texts if text.source == source and text.held})
        rng.shuffle(groups)
        for number, group in enumerate(groups):
            fold.setdefault(group, number % FOLDS)
    evidence = np.full((len(texts), len(NAMES) + 1), np.nan)
    for k in range(FOLDS):
        model = DataClassModel(fit_classes([t for t in texts if fold.get(t.group) != k]))
        for number, text in enumerate(texts):
            if text.held and fold[text.group] == k:
                evidence[number] = model.evidence(text.text)
    # Quantiles need numbers, also of a window that there is not.
    known: NDArray[np.float64] = np.maximum(evidence, NOWHERE)
    return known


def _limits(texts: Sequence[Text], evidence: NDArray[np.float64]) -> _Limits:
    """`phi` by CLINICAL_RECALL, then `pii` so that everyday prompts are flagged as either at the
    rate ALARMS, then what is taken off by ALARMS_ABROAD."""
    clinical = evidence[[t.source in CLINICAL and t.held for t in texts]]
    everyday = evidence[[t.source in EVERYDAY and t.held for t in texts]]
    phi = np.quantile(clinical[:, 0], 1 - CLINICAL_RECALL)
    flagged = everyday[:, 0] >= phi
    left = max(0.0, ALARMS - float(flagged.mean())) * len(everyday) / (~flagged).sum()
    pii = float(np.quantile(everyday[~flagged, 1:].max(axis=1), 1 - left))
    abroad = evidence[_of_nobody_abroad(texts), 2]
    abroad = abroad[abroad > NOWHERE]
    more = float(np.quantile(abroad, 1 - ALARMS_ABROAD)) - pii if len(abroad) else 0.0
    return _Limits(np.array([phi, pii]), max(0.0, more))


def _of_nobody_abroad(texts: Sequence[Text]) -> list[bool]:
    """Which texts are held out, in another language than English, and name nobody."""
    lexicon = lexicon_of(texts)
    return [
        text.lang != ENGLISH
        and (
            text.source == SMALL_TALK
            or (text.source.startswith(SENTENCES) and nameless(text.text, text.lang, lexicon))
        )
        for text in texts
    ]


def _figures(texts: Sequence[Text], evidence: NDArray[np.float64], limits: _Limits) -> ClassFigures:
    model: dict[str, list[bool]] = {}
    union: dict[str, list[bool]] = {}
    for text, flagged in zip(texts, limits.flagged(evidence).tolist(), strict=True):
        if text.held:
            model.setdefault(text.source, []).append(flagged)
            either = flagged or bool(detect(text.text).labels)
            union.setdefault(text.source, []).append(either)
    shown = dict(zip(NAMES, sigmoid(limits.thresholds).round(6).tolist(), strict=True))
    return ClassFigures(_rates(model), _rates(union), shown, round(limits.abroad, 4))


def _rates(flagged: dict[str, list[bool]]) -> dict[str, float]:
    return {name: round(sum(rows) / len(rows), 4) for name, rows in flagged.items()}
