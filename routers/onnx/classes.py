"""Data classes of a text by a trained model: `pii` and `phi`, beside `routers.patterns`.

The patterns know what has a form (a card, a record number); this model knows how texts that hold
names, places, addresses, or clinical matter about somebody are written. All it needs is the text:
hashed words, shapes of words, ends of words, and a lexicon of common words, names and places, by
which an unknown name in a new sentence looks like the known ones. Two logistic regressions are
added up for `pii`: one says of each token whether it belongs to such data, the other of a window of
tokens how far to believe the most telling of them there. `phi` needs only the second.
Every character is read; the window that scores highest counts. Nearly all that it has learnt from
is English. A window in which the lexicon knows more words of other languages must score higher.

What counts as `pii` follows the labelled data: a text that names a person, a place, an address, an
organisation or a date in somebody's affairs, as people write about themselves and others; a lone
city or a well-known artist too. Examination questions are no such texts, although their made-up
characters have names. `phi` is a clinical note or a consultation, not a question about medicine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routers.onnx.arrays import load_arrays, take
from routers.onnx.manifest import ArtefactError
from routers.onnx.tokens import HASHING, LEXICON_BITS, Tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "classes.npz"
NAMES = ("phi", "pii")
# With fewer, different words share a bucket too often: 17 bits found 0.2 to 0.5 points less.
BITS = 18
# Tokens. A window is what one paragraph has; each begins in the middle of the one before.
WINDOW = 128
STRIDE = 64
# Softens the score of a text of a few words.
FEW = 4.0
# A token is judged by its own features and those of the two before it, each in a table of its own.
BEFORE = 2
# Characters whose features are in memory at a time, and how far pieces overlap.
PIECE = 1 << 14
OVERLAP = 256
_MATTER = re.compile(r"[^\W_]")


class DataClassModel:
    """Built from the arrays of `classes.npz`.

    `windows` [2, 2**18] int8 (for `phi` and `pii`), `tokens` [3, 2**18] int8, `scale` [3] (what one
    step of a weight is worth: phi, pii, tokens), `bias` [3], `thresholds` [2] in (0, 1), `abroad`
    [1] (what is taken off the logit of `pii` where the words are of other languages than English, 0
    or more), `lexicon` [2**20] uint8 and `hashing` [1] (see `routers.onnx.tokens`).
    Raises ArtefactError when they are anything else.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        if "hashing" not in arrays or arrays["hashing"].tolist() != [HASHING]:
            raise ArtefactError(FILE, "is of another version: fit the artefact anew")
        windows = take(arrays, FILE, "windows", "i", (len(NAMES), 1 << BITS))
        tokens = take(arrays, FILE, "tokens", "i", (BEFORE + 1, 1 << BITS))
        self._weights = _packed(windows, tokens)
        self._tokens = Tokens(take(arrays, FILE, "lexicon", "u", (1 << LEXICON_BITS,)).astype("u1"))
        self._scale = take(arrays, FILE, "scale", "f", (3,)).tolist()
        self._bias = take(arrays, FILE, "bias", "f", (3,)).tolist()
        (self._abroad,) = take(arrays, FILE, "abroad", "f", (1,)).tolist()
        if not 0 <= self._abroad < math.inf:
            raise ArtefactError(FILE, "'abroad' must be 0 or more, and finite")
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
        return dict(zip(NAMES, map(_sigmoid, self.logits(text)), strict=True))

    def detect(self, text: str) -> frozenset[str]:
        """The classes whose score reaches their threshold; none where there is no letter or digit:
        signs alone are unlike everything that the model has learnt from."""
        if _MATTER.search(text) is None:
            return frozenset()
        found = self.predict(text)
        return frozenset(name for name, p in found.items() if p >= self._thresholds[name])

    def logits(self, text: str) -> tuple[float, float]:
        """The highest logit of any window for `phi` and for `pii`; -inf without a token."""
        phi, english, abroad = self.evidence(text)
        return phi, max(english, abroad - self._abroad)

    def evidence(self, text: str) -> tuple[float, float, float]:
        """The highest logit of any window for `phi`, of those in English for `pii`, and of those in
        other languages for `pii`, before anything is taken off; -inf without such a window."""
        phi = english = abroad = -math.inf
        for start in range(0, max(1, len(text) - OVERLAP), PIECE):
            found, said = self._tokens.read(text[start : start + PIECE + OVERLAP])
            if len(found):
                for of_phi, of_pii, foreign in self._of_windows(found, said):
                    phi = max(phi, of_phi)
                    if foreign:
                        abroad = max(abroad, of_pii)
                    else:
                        english = max(english, of_pii)
        return phi, english, abroad

    def _of_windows(
        self, found: NDArray[np.uint32], said: NDArray[np.int32]
    ) -> Iterator[tuple[float, float, bool]]:
        """Of each window the logits, and whether most of its words are of other languages; from
        hashes [tokens, FEATURES] and what each token says of the language."""
        import numpy as np

        # A row for each feature: sums down long columns are the quick ones.
        packed = self._weights.take(buckets(found).T)
        each = packed.view(np.int8).sum(axis=0, dtype=np.int32).reshape(len(found), -1)
        tokens = each[:, len(NAMES)].copy()
        for before in range(1, min(BEFORE + 1, len(tokens))):
            tokens[before:] += each[:-before, len(NAMES) + before]
        strides = range(0, len(found), STRIDE)
        sums = np.add.reduceat(each, strides, axis=0)[:, : len(NAMES)].tolist()
        tops = np.maximum.reduceat(tokens, strides).tolist()
        words = np.add.reduceat(said, strides).tolist()
        (phi, pii, token), (no_phi, no_pii, no_token) = self._scale, self._bias
        for start, end in windows(len(found)):
            strides_of_it = slice(start // STRIDE, start // STRIDE + 2)
            size = math.sqrt(end - start + FEW)
            of_phi, of_pii = map(sum, zip(*sums[strides_of_it], strict=True))
            style = of_pii / size * pii + no_pii
            yield (
                of_phi / size * phi + no_phi,
                style + max(tops[strides_of_it]) * token + no_token,
                sum(words[strides_of_it]) > 0,
            )


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(min(-logit, 50.0))) if logit > -math.inf else 0.0


def _packed(windows: NDArray[Any], tokens: NDArray[Any]) -> NDArray[np.uint64]:
    """[2**BITS]: the weights of a bucket in all tables, a byte each, for one look-up."""
    import numpy as np

    packed = np.zeros((1 << BITS, 8), dtype=np.int8)
    packed[:, : len(NAMES) + BEFORE + 1] = np.concatenate([windows, tokens]).T
    return packed.view(np.uint64)[:, 0]


def buckets(found: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Where the weights of such hashes are."""
    return (found >> (32 - BITS)).astype("intp")


def windows(tokens: int) -> list[tuple[int, int]]:
    """Starts and ends of the windows over so many tokens, at least one."""
    starts = range(0, max(1, tokens - STRIDE), STRIDE)
    return [(start, min(start + WINDOW, tokens)) for start in starts]


def load_classes(path: Path) -> DataClassModel:
    """Raises ArtefactError naming the file."""
    return DataClassModel(load_arrays(path))
