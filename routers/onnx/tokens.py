"""Words and their shapes as hashed features, remembered from text to text.

A token is a run of letters, of digits, of line breaks, of signs that often come in runs, or
another sign alone; spaces only separate. Digits are all alike, so "4021" is a shape of length four.
A lexicon (a table of bits by hash) says of a word whether it is common, a given or family name, or
a place, and whether it is of another language than English.

What is known of a token by itself is found once, for most words of a text were in the texts before
it; only how it is joined with its neighbours is computed for each text, in a few steps over all.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint32]

# Goes up with every change of what a text's features are, or of how their weights are added up:
# weights fit one version only.
HASHING = 4
FEATURES = 13
# A lexicon has 2**20 bytes, one bit of each for every list of words; about one unknown word in
# forty is taken for a listed one.
LEXICON_BITS = 20
# Bits of the lexicon that are features: common in English, given name, family name, place, common
# in other languages, common in German.
COMMON, ABROAD, GERMAN = 1, 1 << 4, 1 << 5
LISTS = 0x3F
# Of common English words: in other languages they are commoner, or as common.
ELSEWHERE, ANYWHERE = 1 << 6, 1 << 7
# From here on no letter is Latin.
_NOT_LATIN = 0x370
# Tokens in memory, about 10 MB; when there would be more, all are forgotten.
KEPT = 1 << 15

_TOKEN = re.compile(r"[^\W\d_]{1,48}|\d{1,24}|\n{1,24}|[.=*#_!?-]{1,24}|[^\w\s]")
_DIGIT = re.compile("[0-9]")
_ENDS = frozenset(".!?:\n\"'>|-")
_DIGITS, _LETTERS, _LONGEST_NUMBER = 0x20_0000, 0x30_0000, 12
_SPREAD, _LISTED, _MASK = 0x9E3779B1, 0x2545F491, 0xFFFF_FFFF
# What is known of a token by itself. `_KNOWN` is the shape and what the lexicon says; `_FRONT`,
# `_TAIL` and `_SHORT` are the first three, last three and last two characters.
_WORD, _SHAPE, _KNOWN, _FRONT, _TAIL, _SHORT = range(6)
_OWN = 6
# What each feature joins: of a token itself, of the next one, and of the one after that. Those
# that look ahead stand together, so that each step of `_joined` adds to neighbouring columns.
_JOINED: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    ((_WORD,), (), ()),
    ((_KNOWN,), (), ()),
    ((_WORD, _SHAPE), (), ()),
    ((_FRONT, _SHAPE), (), ()),
    ((_TAIL, _SHAPE), (), ()),
    ((_SHORT, _KNOWN), (_KNOWN,), ()),
    ((_WORD,), (_WORD,), ()),
    ((_WORD,), (_KNOWN,), ()),
    ((_KNOWN,), (_WORD,), ()),
    ((_WORD,), (_WORD,), (_KNOWN,)),
    ((_WORD,), (_KNOWN,), (_KNOWN,)),
    ((_KNOWN,), (_WORD,), (_WORD,)),
    ((_KNOWN,), (_KNOWN,), (_KNOWN,)),
)
_NEXT, _AFTER = 5, 9
_AHEAD = 2


class Tokens:
    """Features of texts, by one lexicon: [2**LEXICON_BITS], the lists that the word of each slot
    is in, one bit for each. Safe to use from several threads."""

    def __init__(self, lexicon: NDArray[np.uint8]) -> None:
        # Bytes, for one is looked up at a time.
        self._lexicon = lexicon.tobytes()
        self._lock = threading.Lock()
        self._known = _Known(KEPT)

    def features(self, text: str) -> Hashes:
        """[tokens, FEATURES] hashes whose highest bits are good buckets. Linear in the text."""
        return self.read(text)[0]

    def read(self, text: str) -> tuple[Hashes, NDArray[np.int32]]:
        """The features, and of each token what it says of the language [tokens]: 1 for another
        than English, -1 for English, 0 for neither."""
        import numpy as np

        words = _TOKEN.findall(_DIGIT.sub("0", text))
        if not words:
            return np.zeros((0, FEATURES), dtype=np.uint32), np.zeros(0, dtype=np.int32)
        known = self._known
        places = list(map(known.places.get, words))
        if None in places:
            known = self._learn(words)
            places = list(map(known.places.get, words))
        found = np.array(places, dtype=np.intp)
        columns = np.zeros(len(found) + _AHEAD, dtype=np.intp)
        np.bitwise_and(found, -2, out=columns[: len(found)])
        columns[0] += 1
        columns[1 : len(found)] += found[:-1] & 1
        rows = known.rows.take(columns, axis=0)
        return _joined(rows), rows[:-_AHEAD, -1].view(np.int32)

    def _learn(self, words: Sequence[str]) -> _Known:
        """What is known of all of these, and of others."""
        distinct = dict.fromkeys(words)
        with self._lock:
            known = self._known
            new = [word for word in distinct if word not in known.places]
            if len(known.places) + len(new) > KEPT:
                new = list(distinct)
                known = _Known(max(KEPT, len(new)))
                if len(new) <= KEPT:
                    self._known = known
            known.add(new, self._lexicon)
            return known


class _Known:
    """Two rows for every token, within a sentence and beginning one, of what it adds to its own
    features and to those of the two tokens before it, and, last, of what it says of the language.
    Its place is the first of them, plus one where a sentence ends with it; row 0 is of no token.
    Rows are written before their place is told, and never again."""

    def __init__(self, most: int) -> None:
        import numpy as np

        self.places: dict[str, int] = {}
        self._used = 2
        self.rows = np.zeros((2 * most + 2, _factors().shape[1] + 1), dtype=np.uint32)

    def add(self, words: Sequence[str], lexicon: bytes) -> None:
        import numpy as np

        first, self._used = self._used, self._used + 2 * len(words)
        if words:
            own = np.array([_own(word, lexicon) for word in words], dtype=np.uint32)
            own = own.reshape(-1, _OWN + 1)
            self.rows[first : self._used, :-1] = own[:, :-1] @ _factors()
            self.rows[first : self._used, -1] = own[:, -1]
        places = range(first, self._used, 2)
        self.places.update((w, p + (w[0] in _ENDS)) for w, p in zip(words, places, strict=True))


def _own(token: str, lexicon: bytes) -> tuple[int, ...]:
    """What is known of the token within a sentence, then of the same at the beginning of one; at
    the end of each, what it says of the language."""
    first, lower = token[0], token.lower()
    word, begins = _hash(lower), 0
    lists = said = 0
    if first.isalnum() and not first.isdecimal():
        style = _style(token, lower)
        shape = _LETTERS + 4 * style + (len(token) == 1)
        begins = 2 * (style == 1)
        bits = lexicon[_slot(word)]
        lists = ((bits & LISTS) + 1) * _LISTED
        said = _language(first, bits) & _MASK
    elif first.isdecimal():
        word = _hash("0" * len(token))
        shape = _DIGITS + min(len(token), _LONGEST_NUMBER)
    else:
        shape = ord(first)
    ends = _hash(lower[:3]), _hash(lower[-3:]), _hash(lower[-2:])
    within, beginning = _spread(shape), _spread(shape + begins)
    listed = lists & _MASK
    return (
        *(word, within, within ^ listed, *ends, said),
        *(word, beginning, beginning ^ listed, *ends, said),
    )


def _language(first: str, bits: int) -> int:
    """1 for a word of another language than English, -1 for an English one, 0 where it may be
    either; from its first letter and what the lexicon says."""
    if ord(first) >= _NOT_LATIN or bits & (ABROAD | GERMAN | ELSEWHERE):
        return 1
    return -1 if bits & (COMMON | ANYWHERE) == COMMON else 0


def _style(word: str, lower: str) -> int:
    """0 for small letters, 1 for a capital first, 2 for capitals, 3 for a mixture."""
    if word == lower:
        return 0
    if len(word) > 1 and word.isupper():
        return 2
    return 1 if word[1:] == lower[1:] else 3


def _hash(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


def _spread(shape: int) -> int:
    spread = (shape + 1) * _SPREAD & _MASK
    return spread ^ (spread >> 16)


def _slot(word: int) -> int:
    return (word * _SPREAD & _MASK) >> (32 - LEXICON_BITS)


def slots_of(words: Iterable[str]) -> NDArray[np.intp]:
    """Where the lexicon keeps these words, which are letters only."""
    import numpy as np

    return np.array([_slot(_hash(word.lower())) for word in words], dtype=np.intp)


def spans_of(text: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the tokens of a text start and end."""
    import numpy as np

    spans = np.array([found.span() for found in _TOKEN.finditer(text)], dtype=np.intp)
    return spans.reshape(-1, 2)[:, 0], spans.reshape(-1, 2)[:, 1]


def _joined(rows: Hashes) -> Hashes:
    """[tokens, FEATURES] from rows of `_Known` for the tokens and for none at the end: sums of what
    is joined. A few steps over all, for in a short text each costs more than its work."""
    joined = rows[:-_AHEAD, :FEATURES].copy()
    joined[:, _NEXT:] += rows[1:-1, FEATURES : 2 * FEATURES - _NEXT]
    joined[:, _AFTER:] += rows[_AHEAD:, 2 * FEATURES - _NEXT : -1]
    return joined


@cache
def _factors() -> Hashes:
    """[_OWN, columns of a row of `_Known`]: odd numbers where a feature joins that part of a token,
    else 0. First for the features of the token itself, then for those of the token before it that
    look ahead, then for those of the one before that."""
    import numpy as np

    steps = (_JOINED, _JOINED[_NEXT:], _JOINED[_AFTER:])
    columns = [joined[step] for step, features in enumerate(steps) for joined in features]
    drawn = hashlib.shake_128(b"factors").digest(4 * _OWN * len(columns))
    factors = np.frombuffer(drawn, dtype="<u4").reshape(_OWN, -1).astype(np.uint32) | np.uint32(1)
    joins = [[part in column for column in columns] for part in range(_OWN)]
    factors[~np.array(joins)] = 0
    return factors
