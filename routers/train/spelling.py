"""The words that are right though the encoder's vocabulary does not hold them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from routers.onnx.arrays import save_arrays
from routers.onnx.characters import opened
from routers.onnx.spelling import FILE, LONGEST, SHORTEST, word_key

# In one text alone, a word may be a slip.
LEAST_TEXTS = 2
_WORD = re.compile("[a-z0-9]+")


def vocabulary_of(tokenizer: Path) -> dict[str, int]:
    """Ids by word, from a `tokenizer.json`. Raises OSError."""
    found: dict[str, int] = msgspec.json.decode(tokenizer.read_bytes())["model"]["vocab"]
    return found


def known_words(texts: Iterable[str], vocabulary: Mapping[str, int]) -> list[str]:
    """Those in at least two different texts, in alphabetical order."""
    counts = Counter(
        word
        for text in sorted(set(texts))
        for word in set(_WORD.findall(opened(text))) - vocabulary.keys()
        if SHORTEST <= len(word) <= LONGEST and word.isalpha()
    )
    return sorted(word for word, count in counts.items() if count >= LEAST_TEXTS)


def write_known(out: Path, words: Iterable[str]) -> None:
    """Write `spelling.npz` into `out`. Raises OSError."""
    keys = np.array(sorted({word_key(word) for word in words}), dtype=np.uint32)
    save_arrays(out / FILE, {"known": keys})
