"""Text to token ids, bounded before the tokenizer sees it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from routers.onnx.manifest import ArtefactError, RuntimeMissingError
from routers.onnx.wordpiece import WordPiece, wordpiece_of

# What the quick way must give the same ids for before it is taken.
_PROBES = (
    "Isn't it \u201codd\u201d that unbelievability's 7.5% of [x]?\tAsk\n3 electroencephalographers",
    "Na\u00efve \u4f60\u597d\u3002 \u041f\u0440\u0438\u0432\u0435\u0442, \u039f\u03a3 \ud55c "
    "\u304c a\u2192b",
)


class Tokenizer:
    """Encodes any `str` without raising, to at most `max_tokens` ids, specials included."""

    def __init__(self, inner: Any, quick: WordPiece | None = None) -> None:
        self._inner = inner
        self._quick = quick

    def encode(self, text: str) -> list[int]:
        found = self._quick.encode(text) if self._quick is not None else None
        return self.encode_fully(text) if found is None else found

    def encode_fully(self, text: str) -> list[int]:
        """By the library, whatever the text."""
        # A lone surrogate has no UTF-8 form, so the tokenizer would refuse the whole text.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._inner.encode(clean).ids
        return ids


def load_tokenizer(path: Path, max_tokens: int, known: Iterable[int] | None = None) -> Tokenizer:
    """With `known` (see `WordPiece.mend`), misspelt words of plain text are mended. Raises
    ArtefactError when the file is not a tokenizer."""
    try:
        import tokenizers
    except ImportError as exc:
        raise RuntimeMissingError("runtime", "no tokenizers: install the extra `cpu`") from exc
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises bare Exception for every kind of bad file
        raise ArtefactError(path.name, f"cannot be loaded: {exc}") from exc
    inner.enable_truncation(max_length=max_tokens)
    inner.no_padding()
    quick = wordpiece_of(msgspec.json.decode(path.read_bytes()), max_tokens)
    if quick is not None and any(quick.encode(text) != inner.encode(text).ids for text in _PROBES):
        quick = None
    if quick is not None and known is not None:
        quick.mend(known)
    return Tokenizer(inner, quick)
