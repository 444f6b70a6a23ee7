"""Which of 75 languages a text is written in, from the first 20 characters on.

Naive Bayes over hashed character n-grams (Cavnar and Trenkle 1994 counted the same pieces): the
sum of one small integer per piece and language, which is exact, and cheap enough for every
request. The pieces that tell languages apart were chosen in training; others are ignored.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routers.onnx.arrays import check_rising, load_arrays, take
from routers.onnx.manifest import ArtefactError
from routers.onnx.ngrams import BLOCK_SHIFT, blocks, character_grams, code_points, letters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "language.npz"
ORDERS = 5
BITS = 17
# Later characters change next to nothing: 0.1 points between 150 and 300.
CHARACTERS = 200
UNKNOWN = ("", 0.0)
ENGLISH = "en"
# So many of the words that are English only, and at least this share of a text's distinct words,
# and it is English. Of 14,800 sentences of the other 74 languages, two are taken for it by words
# learnt from four fifths of the others, and the model takes one of the two for English as well.
_FEWEST, _SHARE = 3, 4
# In so few different ASCII letters ("hi", "ok") a language is not to be told.
_LEAST_LETTERS = 6


class LanguageModel:
    """Built from the arrays of `language.npz`.

    `names` [L] (ISO 639-1, `<U3`), `buckets` [V] (rising, below 2**17), `weights` [V, L] int8,
    `blocks` [S] (rising): the blocks of 128 code points that the languages are written in,
    `english` [W]: words in small letters that are common in English and rare elsewhere,
    `scale` [2] float32: the sharpness of a probability, and the exponent by which it falls with
    the number of pieces (they repeat each other, so evidence does not simply add up).
    Raises ArtefactError when they do not fit each other.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        import numpy as np

        if "english" not in arrays:
            raise ArtefactError(FILE, "is of an earlier version: fit the artefact anew")
        names = take(arrays, FILE, "names", "U", (None,))
        buckets = take(arrays, FILE, "buckets", "u", (None,))
        self._weights = take(arrays, FILE, "weights", "i", (len(buckets), len(names)))
        self._scale = [float(v) for v in take(arrays, FILE, "scale", "f", (2,))]
        self._names: list[str] = names.tolist()
        # One slot for every bucket: a piece is found without a search. 0 is "not known".
        slots = np.zeros(1 << BITS, dtype=np.uint16)
        check_rising(buckets, FILE, "buckets", 1 << BITS)
        slots[buckets] = np.arange(1, len(buckets) + 1, dtype=np.uint16)
        self._slots = slots
        self._known = np.zeros((sys.maxunicode >> BLOCK_SHIFT) + 1, dtype=np.bool_)
        blocks = take(arrays, FILE, "blocks", "u", (None,))
        check_rising(blocks, FILE, "blocks", len(self._known))
        self._known[blocks] = True
        self._english: frozenset[str] = frozenset(
            take(arrays, FILE, "english", "U", (None,)).tolist()
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def predict(self, text: str) -> tuple[str, float]:
        """The ISO 639-1 code and its probability in [0, 1]; ("", 0.0) for a text without letters,
        or in letters that no language of the model has. Reads the beginning only, so a megabyte
        costs what 200 characters do: about 0.1 ms. Never raises for any text."""
        return self._predict(letters(text, CHARACTERS))

    def code(self, text: str, floor: float) -> str | None:
        """The code, None where its probability is below `floor` or a word or two of Latin letters
        is all there is. What is plainly English, as most requests are, costs a tenth."""
        words = letters(text, CHARACTERS)
        if self.plainly_english(words):
            return ENGLISH
        if words.isascii() and sum(map(len, set(words.split()))) < _LEAST_LETTERS:
            return None
        code, p = self._predict(words)
        return code if p >= floor else None

    def plainly_english(self, words: str) -> bool:
        """Of a text that `letters` has made plain: whether its commonest words say so."""
        if not words.isascii():
            return False
        distinct = set(words.split())
        said = len(distinct & self._english)
        return said >= _FEWEST and said * _SHARE >= len(distinct)

    def _predict(self, words: str) -> tuple[str, float]:
        import numpy as np

        sums, pieces = self._evidence(words)
        if pieces == 0:
            return UNKNOWN
        logits = sums * (self._scale[0] / pieces ** self._scale[1])
        best = int(logits.argmax())
        return self._names[best], 1.0 / float(np.exp(logits - logits[best]).sum())

    def evidence(self, text: str) -> tuple[NDArray[np.float32], int]:
        """[L] summed weights, and how many pieces they come from."""
        return self._evidence(letters(text, CHARACTERS))

    def _evidence(self, words: str) -> tuple[NDArray[np.float32], int]:
        import numpy as np

        if not words or 2 * self._known[blocks_of(words)].sum() < len(words.replace(" ", "")):
            return np.zeros(len(self._names), dtype=np.float32), 0
        slots = self._slots[buckets_of(words)]
        rows = self._weights.take(slots[slots > 0].astype(np.intp) - 1, axis=0)
        # Sums of small integers are exact in float32, and twice as fast there.
        sums = np.ones(len(rows), dtype=np.float32) @ rows.astype(np.float32)
        return sums, len(rows)


def buckets_of(words: str) -> NDArray[np.uint32]:
    """The buckets of the pieces of a text that `letters` has made plain."""
    import numpy as np

    return character_grams(words, ORDERS) >> np.uint32(32 - BITS)


def blocks_of(words: str) -> NDArray[np.uint32]:
    """The blocks of the letters of a text, spaces left out."""
    return blocks(code_points(words.replace(" ", "")))


def load_language(path: Path) -> LanguageModel:
    """Raises ArtefactError naming the file."""
    return LanguageModel(load_arrays(path))
