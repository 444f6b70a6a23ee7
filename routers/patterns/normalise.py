"""Undoing what hides data from patterns without hiding it from a model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from routers.patterns.escapes import (
    codes_resolved,
    escapes_resolved,
    has_more_than_codes,
    percent_resolved,
    references_resolved,
)
from routers.patterns.windows import WINDOW, Steps, joined

# Soft hyphen, joiners and marks of direction, byte order mark, variation selectors, tag letters.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]+"
)
_DASHES = re.compile("[\u2010-\u2015\u2043\u2212\u30fc\ufe58\ufe63\uff0d\u00b7\u2022\u2024]")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
# What NFKC leaves of marks: lines through or under a character, frames around it.
_MARKS_LEFT = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u20d0-\u20ff\ufe20-\ufe2f]+")

# Characters that are folded at a time, and marks in a row that are looked through for a cut.
_PIECE = 256
_MARKS = 64


def readings(text: str) -> Iterator[str | None]:
    r"""The text as it stands, with `\uXXXX` resolved; and, where that makes a difference, with all
    escapes of JSON strings resolved, and with character references of HTML and percent codes too.
    All count: in JSON `\nDE89` is an account in a line of its own, in a path or a formula `\nhs` is
    no line's end. None between them: there the work gives way, see `Steps`."""
    yield (yield from normalise((yield from codes_resolved(text))))
    plain = yield from escapes_resolved(text)
    if has_more_than_codes(text):
        yield (yield from normalise(plain))
    resolved = yield from percent_resolved((yield from references_resolved(plain)))
    if resolved != plain:
        yield (yield from normalise(resolved))


def normalise(text: str) -> Steps[str]:
    """The text as a model reads it: invisible characters gone, every digit one of 0-9, every dash a
    hyphen, compatibility forms folded (NFKC). Costs next to nothing for plain ASCII. Linear."""
    if text.isascii():
        return text
    cuts = range(0, len(text), WINDOW)
    visible = yield from joined(_INVISIBLE.sub("", text[cut : cut + WINDOW]) for cut in cuts)
    return (yield from joined(map(_folded, _between_letters(visible))))


def _folded(piece: str) -> str:
    if piece.isascii():
        return piece
    folded = _DASHES.sub("-", unicodedata.normalize("NFKC", piece))
    return _MARKS_LEFT.sub(_unless_on_ascii, _FOREIGN_DIGIT.sub(_digit, folded))


def _between_letters(text: str) -> Iterator[str]:
    """The text cut where what follows joins nothing before it. Marks in a row without end, which
    NFKC would put in order in quadratic time, are cut all the same: no letter has so many."""
    start, size = 0, len(text)
    while start < size:
        end = start + _PIECE
        if end < size:
            cut = end
            while cut > end - _MARKS and _joins(text[cut]):
                cut -= 1
            end = end if _joins(text[cut]) else cut
        yield text[start:end]
        start = end


def _joins(character: str) -> bool:
    """Whether NFKC may join the character with what stands before it: a mark, or the second or
    third part of a Korean syllable."""
    if character < "\u0300":
        return False
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] == "M" or "\u1160" <= first <= "\u11ff"


def _unless_on_ascii(match: re.Match[str]) -> str:
    """Nothing for marks on a digit or a letter of ASCII, where they only hide it."""
    on = match.string[max(0, match.start() - 1) : match.start()]
    return "" if on.isascii() and on.isalnum() else match[0]


def _digit(match: re.Match[str]) -> str:
    return str(unicodedata.decimal(match[0]))
