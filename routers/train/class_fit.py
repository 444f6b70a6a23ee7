"""Fitting of the data-class model: which features count, then its tokens, then its windows.

A feature that is seen in one row, or in the fillings of one frame, says nothing of new ones: it is
dropped, and leaves its bucket to others. The windows are fitted on top of what a model of tokens
says that has not seen the text, so they learn where to doubt a name, as in the sums of a school
book, and where to believe in one that is half known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.onnx.classes import BEFORE, BITS, FEW, NAMES, buckets, windows
from routers.onnx.tokens import FEATURES, HASHING, Tokens
from routers.train.class_texts import SENTENCES, Text
from routers.train.lexicon import MOST_CHARACTERS, Lexicon, inside, lexicon_of, nameless
from routers.train.linear import Recipe, Window, fit_tokens, fit_windows

SEED = 20_261_123
# Rows, templates or frames that a feature must be seen in.
SHARED = 2
MOST_WINDOWS = 12
MOST_TOKENS = 300
SHARPNESS = 0.4
WINDOWED = Recipe(epochs=8, batch=256, rate=0.3, ridge=1e-6, seed=SEED)
TOKENED = Recipe(epochs=10, batch=2048, rate=0.5, ridge=1e-7, seed=SEED)
# Tokens are fitted so often, each time without one part of the groups, to judge that part.
PARTS = 3
# Made-up characters in sums would teach the tokens that names mean nothing; the windows know them.
NO_TOKENS = ("gsm8k_train",)

Arrays = dict[str, NDArray[Any]]


class _Read(msgspec.Struct, frozen=True):
    """`places` [tokens, FEATURES]: the bucket of each feature, one up; 0 where it does not count.
    `part`: which of PARTS its group belongs to."""

    text: Text
    places: NDArray[np.int32]
    part: int


class _TokenWeights(msgspec.Struct, frozen=True):
    """`weights` [1 + (BEFORE + 1) * 2**BITS], the first of them 0."""

    weights: NDArray[np.float32]
    bias: float

    def logits(self, places: NDArray[np.int32]) -> NDArray[np.float32]:
        """[tokens]"""
        sums: NDArray[np.float32] = self.weights.take(_token_rows(places)).sum(axis=1)
        return sums * SHARPNESS + self.bias


def fit_classes(texts: Sequence[Text]) -> Arrays:
    """The arrays of `DataClassModel`, with thresholds of one half."""
    lexicon = lexicon_of(texts)
    reader = Tokens(lexicon)
    pairs = [
        (text, reader.features(text.text[:MOST_CHARACTERS]))
        for text in texts
        if text.weight and _teaches(text, lexicon)
    ]
    pairs = [(text, found) for text, found in pairs if len(found)]
    kept = _shared(pairs)
    read = [_Read(t, _places(found, kept), crc32(t.group.encode()) % PARTS) for t, found in pairs]
    rows: list[Window] = []
    for part in range(PARTS):
        judge = _fit_tokens([one for one in read if one.part != part])
        rows += [row for one in read if one.part == part for row in _windows(one, judge)]
    weights, bias = fit_windows(rows, 1 << BITS, WINDOWED)
    tokens = _fit_tokens(read)
    own = tokens.weights[1:].reshape(BEFORE + 1, 1 << BITS)
    steps = [*(np.abs(weights).max(axis=1) / 127), np.abs(own).max() / 127]
    return {
        "hashing": np.array([HASHING], dtype=np.int32),
        "lexicon": lexicon,
        "windows": np.round(weights / np.array(steps[:2])[:, None]).astype(np.int8),
        "tokens": np.round(own / steps[2]).astype(np.int8),
        "scale": np.array([*steps[:2], steps[2] * SHARPNESS], dtype=np.float32),
        "bias": np.array([*bias, tokens.bias], dtype=np.float32),
        "abroad": np.zeros(1, dtype=np.float32),
        "thresholds": np.full(len(NAMES), 0.5, dtype=np.float32),
    }


def _teaches(text: Text, lexicon: Lexicon) -> bool:
    """Not a sentence of a newspaper that may name somebody."""
    return not text.source.startswith(SENTENCES) or nameless(text.text, text.lang, lexicon)


def _shared(pairs: Sequence[tuple[Text, NDArray[np.uint32]]]) -> NDArray[np.uint32]:
    """The hashes of the features that SHARED groups have, rising."""
    groups: dict[str, int] = {}
    seen = [
        np.unique(found).astype(np.uint64) << np.uint64(32)
        | np.uint64(groups.setdefault(text.group, len(groups)))
        for text, found in pairs
    ]
    hashes = (np.unique(np.concatenate(seen)) >> np.uint64(32)).astype(np.uint32)
    features, counts = np.unique(hashes, return_counts=True)
    return features[counts >= SHARED]


def _places(found: NDArray[np.uint32], kept: NDArray[np.uint32]) -> NDArray[np.int32]:
    where = np.searchsorted(kept, found)
    known = kept.take(where, mode="clip") == found
    return np.where(known, buckets(found) + 1, 0).astype(np.int32)


def _fit_tokens(read: Sequence[_Read]) -> _TokenWeights:
    rows, targets, importance = [], [], []
    for text, places in ((one.text, one.places[:MOST_TOKENS]) for one in read):
        if text.label != "phi" and text.source not in NO_TOKENS:
            wanted = inside(text.text, text.spans)[:MOST_TOKENS]
            rows.append(_token_rows(places))
            targets.append(wanted)
            # The words around personal data are no data, but they are no counterexample either.
            side = 0.5 if text.label else text.weight
            importance.append(np.where(wanted > 0, 1.0, side).astype(np.float32))
    found, bias = fit_tokens(
        np.concatenate(rows),
        np.concatenate(targets),
        np.concatenate(importance),
        TOKENED,
        SHARPNESS,
    )
    weights = np.zeros(1 + ((BEFORE + 1) << BITS), dtype=np.float32)
    weights[: len(found)] = found
    return _TokenWeights(weights, bias)


def _windows(read: _Read, judge: _TokenWeights) -> list[Window]:
    text, places = read.text, read.places
    target = tuple(float(text.label == name) for name in NAMES)
    tokens = judge.logits(places)
    rows = []
    for a, b in windows(len(places))[:MOST_WINDOWS]:
        flat = places[a:b].ravel()
        known = (0.0, float(tokens[a:b].max()))
        size = float(np.sqrt(b - a + FEW))
        rows.append(Window(flat[flat > 0] - 1, size, target, text.weight, known))
    # Of a window whose features all were dropped there is nothing to learn.
    return [row for row in rows if len(row.buckets)]


def _token_rows(places: NDArray[np.int32]) -> NDArray[np.int32]:
    """[tokens, 3 * FEATURES]: the places of a token and of the two before it."""
    rows = np.zeros((len(places), (BEFORE + 1) * FEATURES), dtype=np.int32)
    for before in range(min(BEFORE + 1, len(places))):
        part = places[: len(places) - before]
        shifted = np.where(part > 0, part + (before << BITS), 0)
        rows[before:, before * FEATURES : (before + 1) * FEATURES] = shifted
    return rows
