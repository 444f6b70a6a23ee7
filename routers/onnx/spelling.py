"""Slips of the pen in words that the vocabulary does not hold.

A misspelt word falls apart into pieces that mean something else, and the decision on its request
with it. Four in five misspellings are one letter left out, one too many, one wrong, or two
swapped (Damerau, CACM 7(3), 1964), and the first letter is seldom the wrong one (Yannakoudakis and
Fawthrop, Information Processing & Management 19(2), 1983). So an unknown word that is one such slip
away from a word of the vocabulary is read as that word, the commonest if there are several. Words
that the training texts know are left alone, and so is a text most of whose words are unknown.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from routers.onnx.arrays import load_arrays, take

# Beside a model: the keys of the words that are known. Without it no word is mended.
FILE = "spelling.npz"
# Of shorter words too many are one slip apart; a longer one is no word.
SHORTEST, LONGEST = 4, 24
# A word so short is only mended where two letters are swapped.
SWAPPED_ONLY = 4
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, frozenset[str]]:
    """The keys around each key."""
    found: dict[str, set[str]] = {key: set() for row in _ROWS for key in row}
    for upper, row in enumerate(_ROWS):
        for at, key in enumerate(row):
            near = set(row[max(0, at - 1) : at + 2])
            if upper + 1 < len(_ROWS):
                near |= set(_ROWS[upper + 1][max(0, at - 1) : at + 1])
            for other in near - {key}:
                found[key].add(other)
                found[other].add(key)
    return {key: frozenset(others) for key, others in found.items()}


NEIGHBOURS = _neighbours()


def word_key(word: str) -> int:
    """By which a known word is remembered."""
    return zlib.crc32(word.encode("ascii"))


class Spelling:
    """`vocabulary`: ids by word, the commoner the lower; `known`: keys of words that are right
    though they are not in it (see `word_key`)."""

    def __init__(self, vocabulary: Mapping[str, int], known: Iterable[int]) -> None:
        self._words = {
            word: number
            for word, number in vocabulary.items()
            if SHORTEST <= len(word) <= LONGEST and word.isascii() and word.isalpha()
        }
        self._known = frozenset(known)
        # The words that a string is, or is without one of their letters. Several words are one
        # string, for a dict of strings alone takes half the memory and costs the garbage collector
        # nothing; one dict, for a look at what is not there is most of the work.
        near: dict[str, str] = {}
        for word in self._words:
            for rest in {word, *(word[:at] + word[at + 1 :] for at in range(1, len(word)))}:
                others = near.get(rest)
                near[rest] = word if others is None else f"{others} {word}"
        self._near = near

    def mend(self, word: str) -> str | None:
        """The word of the vocabulary that `word`, which is not in it, was meant to be; None where
        there is none. `word`: in lower case; only one of ASCII's letters is mended."""
        size = len(word)
        if not SHORTEST <= size <= LONGEST or not word.isalpha() or not word.isascii():
            return None
        if word_key(word) in self._known:
            return None
        short, near = size <= SWAPPED_ONLY, self._near
        found = [] if short else near.get(word, "").split()
        for at in range(1, size):
            rest = word[:at] + word[at + 1 :]
            others = near.get(rest)
            if others is None:
                continue
            swapped = word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
            keys = () if short else NEIGHBOURS[word[at]]
            for meant in others.split():
                if meant == rest:
                    fits = not short
                else:
                    replaced = meant[at] in keys and meant[:at] + meant[at + 1 :] == rest
                    fits = replaced or meant == swapped
                if fits:
                    found.append(meant)
        return min(found, key=self._words.__getitem__, default=None)


def load_known(directory: Path) -> frozenset[int] | None:
    """The keys in `spelling.npz` (`known` [n], unsigned integers), None where there is no such
    file. Raises ArtefactError."""
    path = directory / FILE
    if not path.exists():
        return None
    return frozenset(take(load_arrays(path), FILE, "known", "u", (None,)).tolist())
