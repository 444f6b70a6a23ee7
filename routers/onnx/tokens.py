"""Words and their shapes as hashed features, for a whole text at once in numpy.

A token is a run of letters, a run of digits, or a run of one sign; spaces only separate, line
breaks are signs. Digits are all alike, so "4021" is a shape of length four. A lexicon (a table of
bits by hash) says of a word whether it is common, a given or family name, or a place.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from routers.onnx.ngrams import code_points, finish

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint32]

_SPREAD = 0x9E3779B1
_BASE = 0x01000193
_PAIR = 0x85EBCA6B
# Kinds of characters; signs are their code point plus _SIGN.
_SPACE, _LETTER, _DIGIT, _SIGN = 0, 1, 2, 8
_ENDS = ".!?:\n\"'>|-"
_LONGEST = 24
FEATURES = 13
# A lexicon has 2**19 bytes, one bit of each for every list of words; about one word in twenty is
# taken for another's.
LEXICON_BITS = 19
_LISTED = 0x2545F491


def features(text: str, lexicon: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """[tokens, FEATURES] hashes whose highest bits are good buckets. Linear in the text.

    `lexicon` [2**LEXICON_BITS]: the lists that the word of each slot is in, one bit for each."""
    import numpy as np

    # The one character whose lower case is longer than itself.
    text = text.replace("\u0130", "I")
    points, lower = code_points(text), code_points(text.lower())
    if not len(points) or len(points) != len(lower):
        return np.zeros((0, FEATURES), dtype=np.uint32)
    kinds = _kinds(points)
    fresh = np.empty(len(kinds), dtype=np.bool_)
    fresh[0] = True
    np.not_equal(kinds[1:], kinds[:-1], out=fresh[1:])
    runs = np.flatnonzero(fresh)
    kept = kinds[runs] != _SPACE
    if not kept.any():
        return np.zeros((0, FEATURES), dtype=np.uint32)
    length = np.diff(np.append(runs, len(points)))
    place = np.arange(len(points)) - np.repeat(runs, length)
    back = np.repeat(length, length) - 1 - place
    capital = points != lower
    spread = np.where(kinds == _DIGIT, np.uint32(48), lower) * np.uint32(_SPREAD)
    spread ^= spread >> np.uint32(15)
    word = _sums(spread, place, runs, _LONGEST)[kept]
    front = _sums(spread, place, runs, 3)[kept]
    tail = _sums(spread, back, runs, 3)[kept]
    short_tail = _sums(spread, back, runs, 2)[kept]
    shape = _shapes(kinds[runs][kept], length[kept], capital[runs][kept],
                    np.add.reduceat(capital, runs, dtype=np.int32)[kept])  # fmt: skip
    lists = lexicon.take(slots(word)).astype(np.uint32) + np.uint32(1)
    lists = np.where(kinds[runs][kept] == _LETTER, lists, np.uint32(0))
    known = shape ^ lists * np.uint32(_LISTED)
    return _joined(np.stack([word, shape, known, front, tail, short_tail]))


def slots(word: Hashes) -> Hashes:
    """Where the lexicon keeps the words of these hashes."""
    import numpy as np

    return finish(word) >> np.uint32(32 - LEXICON_BITS)


def slots_of(words: Iterable[str]) -> Hashes:
    """Where the lexicon keeps these words, which are letters only."""
    import numpy as np

    hashes = [np.zeros(0, dtype=np.uint32)]
    for word in words:
        spread = code_points(word.lower()) * np.uint32(_SPREAD)
        spread ^= spread >> np.uint32(15)
        hashes.append(_sums(spread, np.arange(len(spread)), np.zeros(1, np.intp), _LONGEST))
    return slots(np.concatenate(hashes))


def spans_of(text: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the tokens of `features` start and end."""
    import numpy as np

    kinds = _kinds(code_points(text.replace("\u0130", "I")))
    runs = np.flatnonzero(np.append(True, kinds[1:] != kinds[:-1])) if len(kinds) else kinds
    ends = np.append(runs[1:], len(kinds))[: len(runs)]
    kept = kinds[runs] != _SPACE
    return runs[kept].astype(np.intp), ends[kept].astype(np.intp)


# What each feature joins: rows of the table that `_joined` makes. 0 is nothing; `_KNOWN` is the
# shape and what the lexicon says.
_NONE, _WORD, _SHAPE, _KNOWN, _FRONT, _TAIL, _SHORT, _WORD1, _KNOWN1, _WORD2, _KNOWN2 = range(11)
_COLUMNS = (
    (_WORD, _NONE, _NONE),
    (_WORD, _SHAPE, _NONE),
    (_FRONT, _SHAPE, _NONE),
    (_TAIL, _SHAPE, _NONE),
    (_SHORT, _KNOWN, _KNOWN1),
    (_WORD, _WORD1, _NONE),
    (_WORD, _KNOWN1, _NONE),
    (_KNOWN, _WORD1, _NONE),
    (_WORD, _WORD1, _KNOWN2),
    (_WORD, _KNOWN1, _KNOWN2),
    (_KNOWN, _WORD1, _WORD2),
    (_KNOWN, _KNOWN1, _KNOWN2),
    (_KNOWN, _NONE, _NONE),
)


def _joined(own: Hashes) -> Hashes:
    """Single tokens, their ends, and words and shapes with the next two: [tokens, FEATURES], from
    the rows `_WORD` to `_SHORT`."""
    import numpy as np

    many = own.shape[1]
    table = np.zeros((11, many), dtype=np.uint32)
    table[_WORD : _SHORT + 1] = own
    table[_WORD1, :-1], table[_KNOWN1, :-1] = table[_WORD, 1:], table[_KNOWN, 1:]
    if many > 1:
        table[_WORD2, :-2], table[_KNOWN2, :-2] = table[_WORD, 2:], table[_KNOWN, 2:]
    # All at once: for a short text the calls cost more than what they do.
    mixed = np.arange(1, FEATURES + 1, dtype=np.uint32)[:, None] * np.uint32(_SPREAD)
    for part in zip(*_COLUMNS, strict=True):
        mixed = (mixed ^ table[list(part)]) * np.uint32(_PAIR)
        mixed ^= mixed >> np.uint32(13)
    return finish(mixed).T


def _sums(spread: Hashes, place: NDArray[np.intp], runs: NDArray[np.intp], most: int) -> Hashes:
    """A hash of the first `most` places of every run."""
    import numpy as np

    weighted = spread * _powers(most)[np.minimum(place, most)]
    sums: Hashes = np.add.reduceat(weighted, runs, dtype=np.uint32)
    return sums


@cache
def _powers(most: int) -> Hashes:
    """[most + 1]: powers of the base, and 0 for every place beyond."""
    import numpy as np

    powers = [pow(_BASE, place, 1 << 32) for place in range(most)]
    return np.array([*powers, 0], dtype=np.uint32)


def _shapes(
    kind: NDArray[np.uint32],
    length: NDArray[np.intp],
    first: NDArray[np.bool_],
    capitals: NDArray[np.int32],
) -> Hashes:
    """One small number per token: a sign is itself, digits count their length, words tell how
    they are capitalised and whether they begin a sentence."""
    import numpy as np

    shape = kind.copy()
    shape[kind == _DIGIT] = 0x20_0000 + np.minimum(length[kind == _DIGIT], 12)
    letters = kind == _LETTER
    style = np.where(capitals == 0, 0, np.where(first & (capitals == 1), 1, 3))
    style = np.where((capitals == length) & (length > 1), 2, style)
    begins = np.empty(len(kind), dtype=np.bool_)
    begins[0] = True
    begins[1:] = _ending()[np.minimum(kind[:-1], 255)]
    single = (length == 1).astype(np.uint32)
    coded = 0x30_0000 + style.astype(np.uint32) * 4 + (begins & (style == 1)) * 2 + single
    shape[letters] = coded.astype(np.uint32)[letters]
    spread: Hashes = (shape + np.uint32(1)) * np.uint32(_SPREAD)
    return spread ^ (spread >> np.uint32(16))


def _kinds(points: Hashes) -> Hashes:
    import numpy as np

    table = _table()
    beyond = points >= len(table)
    if not beyond.any():
        kinds: Hashes = table[points]
        return kinds
    return np.where(beyond, points + np.uint32(_SIGN), table[np.where(beyond, 0, points)])


@cache
def _table() -> Hashes:
    """The kind of each character of the basic plane; made once, some milliseconds."""
    import numpy as np

    return np.array([_kind(chr(point)) for point in range(1 << 16)], dtype=np.uint32)


@cache
def _ending() -> NDArray[np.bool_]:
    """[256]: whether a sign of this kind ends a sentence, or a name before what was said."""
    import numpy as np

    ends = np.zeros(256, dtype=np.bool_)
    ends[[ord(char) + _SIGN for char in _ENDS]] = True
    return ends


def _kind(char: str) -> int:
    if char == "\n":
        return ord(char) + _SIGN
    if char.isspace():
        return _SPACE
    if char.isalpha():
        return _LETTER
    return _DIGIT if char.isdecimal() else ord(char) + _SIGN
