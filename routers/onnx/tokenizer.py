"""Text to token ids, bounded before the tokenizer sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routers.onnx.manifest import ArtefactError, RuntimeMissingError


class Tokenizer:
    """Encodes any `str` without raising, to at most `max_tokens` ids, specials included."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def encode(self, text: str) -> list[int]:
        # A lone surrogate has no UTF-8 form, so the tokenizer would refuse the whole text.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._inner.encode(clean).ids
        return ids


def load_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    """Raises ArtefactError when the file is not a tokenizer."""
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
    return Tokenizer(inner)
