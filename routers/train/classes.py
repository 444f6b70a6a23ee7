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
from routers.train.class_texts import Text, load_texts
from routers.train.linear import sigmoid

FOLDS = 5
# The share of the everyday prompts that may be flagged by either class. `phi` is easy to tell from
# them, so its threshold is where this share of held-out clinical text is still found.
ALARMS = 0.02
CLINICAL_RECALL = 0.99
CLINICAL = ("dialogue", "dialogue without speakers", "note", "wrapped")
EVERYDAY = ("mmlu_pro", "gsm8k_train", "arena_hard_v0.1", "clinc150", "banking77")


class ClassFigures(msgspec.Struct, frozen=True):
    """By source, the share of held-out rows flagged by the model alone and with the patterns."""

    model: dict[str, float]
    with_patterns: dict[str, float]
    thresholds: dict[str, float]


def write(out_dir: Path, data_dir: Path, seed: int = SEED) -> ClassFigures:
    """Fit on every row, write `classes.npz` into `out_dir`, and return the figures of the
    cross-validation by template. Some minutes. Raises DataError, OSError."""
    texts = load_texts(data_dir, seed)
    logits = cross_validate(texts, seed)
    thresholds = _thresholds(texts, logits)
    arrays = fit_classes(texts)
    arrays["thresholds"] = sigmoid(thresholds).astype(np.float32)
    save_arrays(out_dir / FILE, arrays)
    return _figures(texts, logits, thresholds)


def cross_validate(texts: Sequence[Text], seed: int) -> NDArray[np.float64]:
    """[n, 2]: logits of models that have seen no row of the same group; NaN for rows of our own.
    Personal data is held out by template, so these are figures for new frames."""
    rng = random.Random(seed)
    fold: dict[str, int] = {}
    for source in sorted({text.source for text in texts if text.held}):
        groups = sorted({text.group for text in texts if text.source == source and text.held})
        rng.shuffle(groups)
        for number, group in enumerate(groups):
            fold.setdefault(group, number % FOLDS)
    logits = np.full((len(texts), len(NAMES)), np.nan)
    for k in range(FOLDS):
        model = DataClassModel(fit_classes([t for t in texts if fold.get(t.group) != k]))
        for number, text in enumerate(texts):
            if text.held and fold[text.group] == k:
                logits[number] = model.logits(text.text)
    return logits


def _thresholds(texts: Sequence[Text], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2] logits above which a text is flagged: `phi` by CLINICAL_RECALL, then `pii` so that
    everyday prompts are flagged as either at the rate ALARMS."""
    clinical = logits[[t.source in CLINICAL and t.held for t in texts]]
    everyday = logits[[t.source in EVERYDAY and t.held for t in texts]]
    phi = np.quantile(clinical[:, 0], 1 - CLINICAL_RECALL)
    flagged = everyday[:, 0] >= phi
    left = max(0.0, ALARMS - float(flagged.mean())) * len(everyday) / (~flagged).sum()
    return np.array([phi, np.quantile(everyday[~flagged, 1], 1 - left)])


def _figures(
    texts: Sequence[Text], logits: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> ClassFigures:
    model: dict[str, list[bool]] = {}
    union: dict[str, list[bool]] = {}
    for text, logit in zip(texts, logits, strict=True):
        if text.held:
            flagged = bool((logit >= thresholds).any())
            model.setdefault(text.source, []).append(flagged)
            either = flagged or bool(detect(text.text).labels)
            union.setdefault(text.source, []).append(either)
    shown = dict(zip(NAMES, sigmoid(thresholds).round(6).tolist(), strict=True))
    return ClassFigures(_rates(model), _rates(union), shown)


def _rates(flagged: dict[str, list[bool]]) -> dict[str, float]:
    return {name: round(sum(rows) / len(rows), 4) for name, rows in flagged.items()}
