"""Data classes of a text by a trained model: `pii` and `phi`, beside `routers.patterns`.

The patterns know what has a form (a card, a record number); this model knows how texts that hold
names, places, addresses, or clinical matter about somebody are written. All it needs is the text:
hashed words, shapes of words, ends of words, and a lexicon of common words, names and places, by
which an unknown name in a new sentence looks like the known ones. Two logistic regressions are
added up for `pii`: one says of each token whether it belongs to such data, the other of a window of
tokens whether people write so where there is some. `phi` needs only the second.
Every character is read; the window that scores highest counts.

What counts as `pii` follows the labelled data: a text that names a person, a place, an address, an
organisation or a date in somebody's affairs, as people write about themselves and others; a lone
city or a well-known artist too. Examination questions are no such texts, although their made-up
characters have names. `phi` is a clinical note or a consultation, not a question about medicine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routers.onnx.arrays import load_arrays, take
from routers.onnx.manifest import ArtefactError
from routers.onnx.tokens import LEXICON_BITS, features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "classes.npz"
NAMES = ("phi", "pii")
BITS = 17
# Tokens. A window is what one paragraph has; each begins in the middle of the one before.
WINDOW = 128
STRIDE = 64
# Softens the score of a text of a few words.
FEW = 4.0
# A token is judged by its own features and those of the two before it, each in a table of its own.
TOKEN_BITS = 16
BEFORE = 2
# How much a window's score weighs against that of its most telling token.
STYLE = 1.5
# Characters whose features are in memory at a time, and how far pieces overlap.
PIECE = 1 << 16
OVERLAP = 256
_MATTER = re.compile(r"[^\W_]")


class DataClassModel:
    """Built from the arrays of `classes.npz`.

    `windows` [2, 2**17] int8 (for `phi` and `pii`), `tokens` [3 * 2**16] int8, `scale` [3] (what
    one step of a weight is worth: phi, pii, tokens), `bias` [3], `thresholds` [2] in (0, 1),
    `lexicon` [2**19] uint8 (see `routers.onnx.tokens`).
    Raises ArtefactError when they are anything else.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._windows = take(arrays, FILE, "windows", "i", (len(NAMES), 1 << BITS))
        self._lexicon = take(arrays, FILE, "lexicon", "u", (1 << LEXICON_BITS,)).astype("uint8")
        self._tokens = take(arrays, FILE, "tokens", "i", ((BEFORE + 1) << TOKEN_BITS,))
        self._scale = take(arrays, FILE, "scale", "f", (3,)).astype("float64")
        self._bias = take(arrays, FILE, "bias", "f", (3,)).astype("float64")
        thresholds = take(arrays, FILE, "thresholds", "f", (len(NAMES),)).astype("float64")
        if not ((thresholds > 0) & (thresholds < 1)).all():
            raise ArtefactError(FILE, "'thresholds' must lie between 0 and 1")
        self._thresholds = dict(zip(NAMES, thresholds.tolist(), strict=True))

    @property
    def thresholds(self) -> dict[str, float]:
        return dict(self._thresholds)

    def predict(self, text: str) -> dict[str, float]:
        """A score in [0, 1] by class, 0 for a text without a token; calibrated for nothing but
        the thresholds.

        Linear in the text (run long ones in a thread). Never raises for any text.
        """
        import numpy as np

        logits = self.logits(text)
        p = 1.0 / (1.0 + np.exp(-np.clip(logits, -50.0, 50.0)))
        p[np.isneginf(logits)] = 0.0
        return dict(zip(NAMES, p.tolist(), strict=True))

    def detect(self, text: str) -> frozenset[str]:
        """The classes whose score reaches their threshold; none where there is no letter or digit:
        signs alone are unlike everything that the model has learnt from."""
        if _MATTER.search(text) is None:
            return frozenset()
        found = self.predict(text)
        return frozenset(name for name, p in found.items() if p >= self._thresholds[name])

    def logits(self, text: str) -> NDArray[np.float64]:
        """[2]: the highest logit of any window for `phi` and for `pii`; -inf without a token."""
        import numpy as np

        highest = np.full(len(NAMES), -np.inf)
        for start in range(0, max(1, len(text) - OVERLAP), PIECE):
            found = features(text[start : start + PIECE + OVERLAP], self._lexicon)
            if len(found):
                highest = np.maximum(highest, self._of_piece(found))
        return highest

    def _of_piece(self, found: NDArray[np.uint32]) -> NDArray[np.float64]:
        """From hashes [tokens, FEATURES]."""
        import numpy as np

        starts, ends = windows(len(found))
        size = np.sqrt(ends - starts + FEW)
        buckets = window_buckets(found)
        logits = np.empty((len(NAMES), len(starts)))
        for row, weights in enumerate(self._windows):
            each = weights.take(buckets).sum(axis=1, dtype=np.int32)
            total = np.concatenate([[0], np.cumsum(each, dtype=np.int64)])
            logits[row] = (total[ends] - total[starts]) / size * self._scale[row] + self._bias[row]
        logits[1] = STYLE * logits[1] + highest_in_windows(self._of_tokens(found))
        best: NDArray[np.float64] = logits.max(axis=1)
        return best

    def _of_tokens(self, found: NDArray[np.uint32]) -> NDArray[np.float64]:
        """[tokens] logits."""
        import numpy as np

        buckets = token_buckets(found)
        sums = np.zeros(len(found), dtype=np.int32)
        for before in range(min(BEFORE + 1, len(found))):
            own = self._tokens[before << TOKEN_BITS : (before + 1) << TOKEN_BITS].take(buckets)
            sums[before:] += own.sum(axis=1, dtype=np.int32)[: len(found) - before]
        logits: NDArray[np.float64] = sums * self._scale[2] + self._bias[2]
        return logits


def window_buckets(found: NDArray[np.uint32]) -> NDArray[np.intp]:
    return (found >> (32 - BITS)).astype("intp")


def token_buckets(found: NDArray[np.uint32]) -> NDArray[np.intp]:
    return (found >> (32 - TOKEN_BITS)).astype("intp")


def windows(tokens: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Starts and ends of the windows over so many tokens, at least one."""
    import numpy as np

    starts = np.arange(0, max(1, tokens - STRIDE), STRIDE)
    return starts, np.minimum(starts + WINDOW, tokens)


def highest_in_windows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest value in each of the windows: each is one stride and the next one."""
    import numpy as np

    each = np.maximum.reduceat(values, np.arange(0, len(values), STRIDE))
    both = np.maximum(each[:-1], each[1:]) if len(each) > 1 else each
    largest: NDArray[np.float64] = both
    return largest


def load_classes(path: Path) -> DataClassModel:
    """Raises ArtefactError naming the file."""
    return DataClassModel(load_arrays(path))
