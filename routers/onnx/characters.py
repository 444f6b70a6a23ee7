"""What BERT's normaliser does to characters, for all that it and Python know alike.

The algorithm is that of google-research/bert (tokenization.py): accents are taken off, letters made
small, punctuation and Chinese characters stand alone. The tables of Python and of the tokenizer's
library are of different versions of Unicode, so only characters count as known that Unicode 3.2
had in the category that they are in today, and pictures; invisible ones are not known.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# Of these there are too many to be looked up one by one, and each block is of one kind.
_CHINESE = "\u3400-\u4db5\u4e00-\u9fa5"
_KOREAN = "\uac00-\ud7a3"
_PICTURES = "\U0001f300-\U0001f64f\U0001f680-\U0001f6c5"
_ASCII = r"\t\n\r -~"
_ASCII_SIGNS = r"!-/:-@\[-`{-~"
_BLOCKS = (range(0xA0, 0x3400), range(0xA000, 0xAC00), range(0xFB00, 0xFFFD))
# Letters, marks, numbers, punctuation, signs, spaces: what is no control and no gap.
_KINDS = frozenset("LMNPSZ")
# Python makes this one small by its neighbours, the library does not.
_SIGMA = "\u03a3", "\u03c3"


@cache
def _known() -> tuple[str, ...]:
    """The characters outside ASCII and the named blocks, rising."""
    now, then = unicodedata.category, unicodedata.ucd_3_2_0.category
    every = (chr(point) for block in _BLOCKS for point in block)
    return tuple(char for char in every if (kind := now(char)) == then(char) and kind[0] in _KINDS)


def _class_of(chars: Iterable[str]) -> str:
    """What stands between the brackets of a pattern for these characters, which rise."""
    runs: list[list[str]] = []
    for char in chars:
        if runs and ord(char) == ord(runs[-1][1]) + 1:
            runs[-1][1] = char
        else:
            runs.append([char, char])
    return "".join(f"{first}-{last}" for first, last in runs)


@cache
def readable() -> re.Pattern[str]:
    """Matches a text of nothing but known characters."""
    return re.compile(f"[{_ASCII}{_class_of(_known())}{_CHINESE}{_KOREAN}{_PICTURES}]*")


@cache
def words() -> re.Pattern[str]:
    """Finds the words and signs of a text that `opened` has made plain."""
    signs = _class_of(c for c in _known() if unicodedata.category(c)[0] == "P")
    alone = f"{_ASCII_SIGNS}{signs}{_CHINESE}"
    return re.compile(rf"[{alone}]|[^\s{alone}]+")


@cache
def _marks() -> re.Pattern[str]:
    return re.compile(f"[{_class_of(c for c in _known() if unicodedata.category(c) == 'Mn')}]+")


def opened(text: str) -> str:
    """A `readable` text in small letters, without accents."""
    apart = unicodedata.normalize("NFD", text.replace(*_SIGMA))
    return _marks().sub("", apart).lower()
