"""Do two sets of texts share passages? Word n-grams, as benchmarks are checked for contamination.

What a router was fitted to must not be what it is measured on. Eight words in a row are seldom
shared by chance (GPT-3 used 13-grams, arXiv 2005.14165; 8-grams find more).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

WORDS = 8
# Scripts that put no spaces between words: each character counts as one (Thai, Lao, Burmese, Khmer,
# kana, Chinese characters).
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Match(msgspec.Struct, frozen=True):
    """Row `row` shares `count` of its n-grams with the other set; the first of them is `gram`, and
    `against` is the first of the other rows that has it. Rows are counted from 0."""

    row: int
    against: int
    gram: str
    count: int


def overlap(rows: Iterable[str], against: Iterable[str], n: int = WORDS) -> list[Match]:
    """The rows that share `n` words in a row with any text of `against`, in order.

    Words are runs of letters, digits and underscores in lower case, so that case, punctuation and
    line breaks do not hide a copy; of scripts without spaces each character is one. A text of fewer
    than `n` words is compared whole, with others as short. Raises ValueError for an `n` below 1.
    """
    if n < 1:
        raise ValueError(f"n-grams need at least one word, not {n}")
    first: dict[str, int] = {}
    for number, text in enumerate(against):
        for gram in grams(text, n):
            first.setdefault(gram, number)
    found = []
    for number, text in enumerate(rows):
        shared = [gram for gram in grams(text, n) if gram in first]
        if shared:
            found.append(Match(number, first[shared[0]], shared[0], len(shared)))
    return found


def grams(text: str, n: int = WORDS) -> Iterator[str]:
    """The n-grams of a text in order, words joined by spaces; one that comes twice comes twice. A
    text that is too short for any is one gram by itself."""
    words = _WORD.findall(text.lower())
    if 0 < len(words) < n:
        yield " ".join(words)
    for start in range(len(words) - n + 1):
        yield " ".join(words[start : start + n])
