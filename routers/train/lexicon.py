"""The lexicon of the data-class model: which words are common, and which are parts of names.

The words of other languages than English have bits of their own, so that what is learnt of texts
in them changes nothing in English ones. German has one for itself: its nouns have a capital as
names have elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from routers.onnx.tokens import (
    ABROAD,
    ANYWHERE,
    COMMON,
    ELSEWHERE,
    GERMAN,
    LEXICON_BITS,
    slots_of,
    spans_of,
)
from routers.train.class_texts import ENGLISH, SENTENCES, Spans, Text
from routers.train.values import gazetteer

# Words in so many training texts are common; the lexicon knows this share of our names.
OFTEN = 3
NAMED = 0.6
NAMED_SEED = 7
# Of another language there are fewer texts.
OFTEN_ABROAD = 2
NOUNS_WITH_CAPITALS = "de"
# The share of its texts in which a word must stand in small letters, elsewhere.
SMALL = 0.5
# A common English word says nothing of the language where it is so many times as common in one as
# in the other, or less; shares are told from so many texts on.
COMMONER = 4.0
TOLD = 100
# Bits of parts of names, and of words that are none.
NAMES = 0b1110
_PLAIN = COMMON | ABROAD | GERMAN
# Of a text no more is read here.
MOST_CHARACTERS = 12_000

Lexicon = NDArray[np.uint8]


def lexicon_of(texts: Sequence[Text]) -> Lexicon:
    """[2**LEXICON_BITS]: bit 0 for common words, 1 given names, 2 family names, 3 places, 4 common
    words of other languages, 5 of German; 6 and 7 as `routers.onnx.tokens` says."""
    table = np.zeros(1 << LEXICON_BITS, dtype=np.uint8)
    counted = [text for text in texts if text.weight]
    counts: Counter[str] = Counter()
    for text in counted:
        if text.lang == ENGLISH:
            counts.update(_small_words(text))
    common = [word for word, count in counts.items() if count >= OFTEN]
    for bit, words in enumerate((common, *gazetteer(NAMED, NAMED_SEED))):
        table[slots_of(words)] |= 1 << bit
    english = (table & COMMON) > 0
    # Only where there is nothing yet: what is known in English stays as it is.
    free = table == 0
    names = {word.lower() for part in gazetteer(1.0, NAMED_SEED) for word in part}
    abroad, german = _abroad(counted, False), _abroad(counted, True)
    for bit, found in ((ABROAD, abroad), (GERMAN, german)):
        slots = slots_of(sorted(found - names))
        table[slots[free[slots]]] |= bit
    elsewhere, anywhere = _not_only_english(counted, abroad | german)
    for bit, found in ((ELSEWHERE, elsewhere), (ANYWHERE, anywhere)):
        slots = slots_of(sorted(found))
        table[slots[english[slots]]] |= bit
    return table


def _not_only_english(texts: Sequence[Text], words: set[str]) -> tuple[set[str], set[str]]:
    """Those of the words that are commoner in another language than in English, and those of which
    one cannot tell."""
    totals: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[tuple[str, str], str]] = Counter()
    for text in texts:
        if text.lang == ENGLISH or text.source.startswith(SENTENCES):
            kind = (text.lang, text.source)
            totals[kind] += 1
            counts.update({(kind, word.lower()) for word in _words(text.text)})
    english: dict[str, float] = {}
    abroad: dict[str, float] = {}
    for (kind, word), count in counts.items():
        if totals[kind] >= TOLD:
            shares = english if kind[0] == ENGLISH else abroad
            shares[word] = max(shares.get(word, 0.0), count / totals[kind])
    ratios = {
        word: (abroad.get(word, 0.0) + 1e-9) / (english.get(word, 0.0) + 1e-9) for word in words
    }
    commoner = {word for word, ratio in ratios.items() if ratio > COMMONER}
    return commoner, {word for word, ratio in ratios.items() if ratio * COMMONER >= 1} - commoner


def nameless(text: str, lang: str, lexicon: Lexicon) -> bool:
    """Whether nothing in a sentence of another language looks like a name or a number."""
    words = list(_words(text))
    if any(char.isdigit() for char in text) or text.lower() == text.upper() or not words:
        return False
    capitals = [word != word.lower() for word in words]
    known = lexicon[slots_of(words)]
    odd = [
        capital and (not bits & _PLAIN or bool(bits & NAMES))
        for capital, bits in zip(capitals, known.tolist(), strict=True)
    ]
    if lang == NOUNS_WITH_CAPITALS:
        named = any(c and bits & NAMES for c, bits in zip(capitals, known.tolist(), strict=True))
        return not named and not any(a and b for a, b in pairwise(odd))
    return not any(odd)


def _abroad(texts: Sequence[Text], german: bool) -> set[str]:
    """Words in lower case that are common in German, or in any of the other languages."""
    seen: Counter[tuple[str, str]] = Counter()
    small: Counter[tuple[str, str]] = Counter()
    said: set[str] = set()
    for text in texts:
        if text.lang == ENGLISH or text.spans or (text.lang == NOUNS_WITH_CAPITALS) != german:
            continue
        words = set(_words(text.text))
        if not text.source.startswith(SENTENCES):
            said |= {word.lower() for word in words}
        seen.update({(text.lang, word.lower()) for word in words})
        small.update({(text.lang, word) for word in words if word == word.lower()})
    often = {
        word
        for (lang, word), count in seen.items()
        if count >= OFTEN_ABROAD
        and (lang == NOUNS_WITH_CAPITALS or small[lang, word] >= SMALL * count)
    }
    return {word for word in often | said if len(word) > 1}


def _words(text: str) -> Iterator[str]:
    starts, ends = spans_of(text[:MOST_CHARACTERS])
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        if text[a].isalpha():
            yield text[a:b]


def _small_words(text: Text) -> set[str]:
    """Words in lower case that are no personal data."""
    start = text.text[:MOST_CHARACTERS]
    starts, ends = spans_of(start)
    plain = inside(start, text.spans) == 0
    tokens = zip(starts[plain].tolist(), ends[plain].tolist(), strict=True)
    words: Iterable[str] = {start[a:b] for a, b in tokens}
    return {word for word in words if word.islower() and word.isalpha()}


def inside(text: str, spans: Spans) -> NDArray[np.float32]:
    """[tokens]: 1 where a token lies in one of the spans."""
    starts, ends = spans_of(text)
    wanted = np.zeros(len(starts), dtype=np.float32)
    for start, end in spans:
        wanted[(starts < end) & (ends > start)] = 1.0
    return wanted
