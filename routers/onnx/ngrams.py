"""Texts as hashed pieces: what the small text models read.

A piece is a run of characters, or a word with its neighbour; it is known by a 32-bit hash, so no
vocabulary is kept. Everything is bounded by the caller's cut, and no text is refused: lone
surrogates, NUL and unassigned characters are characters like any other.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint32]

# Odd constants of the golden ratio and of murmur3's finaliser: they spread bits well.
_CHARACTER = 0x9E3779B1
_ROLL = 0x85EBCA6B
_FINAL = 0x7FEB352D
BLOCK_SHIFT = 7
_BLOCK_SEED = 0x51ED270B

_FENCED = re.compile(r"```[^`]*(?:```|$)")
_LINK = re.compile(r"(?:https?://|www\.)\S{1,400}")
# Everything that is no letter or mark of any script: ASCII but the apostrophe, Latin-1 signs but
# the Spanish ones, general punctuation, arrows to boxes, CJK punctuation, full-width signs, emojis.
_NO_LETTERS = re.compile(
    r"[\x00-\x26\x28-\x40\[-`{-\xa0\xa2-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbe"
    r"\u2000-\u2018\u201a-\u206f"
    r"\u20a0-\u20cf\u2190-\u2bff\u3000-\u3004\u3008-\u3020\ufe00-\ufe0f\uff01-\uff20\ufffd"
    r"\U0001f000-\U0001ffff]+"
)
# Apostrophes; and Romanian with a comma below as with the older cedilla.
_SAME = (("\u2019", "'"), ("\u2018", "'"), ("\u0219", "\u015f"), ("\u021b", "\u0163"))
# Enough raw text to find the wanted letters in after signs and code are gone.
_RAW = 4
_ENOUGH_LETTERS = 12


def letters(text: str, most: int) -> str:
    """The first words of a text in lower case, about `most` characters, a space around each.

    Links, digits, signs and fenced code are dropped (the code stays where nothing else is left);
    what remains is NFC. Empty when there is no letter.
    """
    text = text[: most * _RAW]
    if "```" in text:
        prose = _plain(_FENCED.sub(" ", text), most)
        if len(prose) >= _ENOUGH_LETTERS:
            return prose
    return _plain(text, most)


def _plain(text: str, most: int) -> str:
    if "//" in text or "www." in text:
        text = _LINK.sub(" ", text)
    words = text.lower()
    if not words.isascii():
        for old, new in _SAME:
            words = words.replace(old, new)
        words = unicodedata.normalize("NFC", words)
    words = _NO_LETTERS.sub(" ", words)[: most + 1].strip(" '")
    return f" {words} " if words else ""


def code_points(text: str) -> Hashes:
    """[n] code points; lone surrogates are kept as they are."""
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def blocks(points: Hashes) -> Hashes:
    """The block of 128 code points that each one lies in."""
    import numpy as np

    return points >> np.uint32(BLOCK_SHIFT)


def character_grams(text: str, orders: int) -> Hashes:
    """Hashes of every run of 1 to `orders` characters and of every character's block (128 code
    points), so that a script is known even where each of its characters is new. Some tens of
    microseconds for 200 characters."""
    import numpy as np

    points = code_points(text)
    single = points * np.uint32(_CHARACTER)
    parts = [blocks(points) * np.uint32(_ROLL) + np.uint32(_BLOCK_SEED)]
    run = single
    for order in range(1, min(orders, len(points)) + 1):
        if order > 1:
            head = run[:-1]
            run = (head ^ (head >> np.uint32(15))) * np.uint32(_ROLL) + single[order - 1 :]
        parts.append(run)
    return finish(np.concatenate(parts))


def finish(hashes: Hashes) -> Hashes:
    """Spread the bits, so that the highest ones can be used as a bucket."""
    import numpy as np

    spread = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(_FINAL)
    return spread ^ (spread >> np.uint32(15))
