"""Texts to the numbers that heads look at: tokenizer, model and surface features together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from routers.heuristics import surface
from routers.onnx.render import Rendered
from routers.onnx.session import Session, load_session
from routers.onnx.spelling import load_known
from routers.onnx.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# [CLS] and [SEP]: a text of nothing but characters that the tokenizer drops leaves only these.
SPECIAL_TOKENS = 2


class Reading(msgspec.Struct, frozen=True):
    """`sentences` [n, width] of unit length, `surfaces` [n, features] raw, `demands` [n], `tokens`
    [n] counts with the special ones, cut to the model's maximum."""

    sentences: NDArray[np.float32]
    surfaces: NDArray[np.float32]
    demands: NDArray[np.float32]
    tokens: list[int]


class Encoder:
    """Called from one thread at a time."""

    def __init__(self, tokenizer: Tokenizer, session: Session) -> None:
        self._tokenizer = tokenizer
        self._session = session

    @property
    def provider(self) -> str:
        return self._session.provider

    @property
    def why_cpu(self) -> str | None:
        """Why the model does not run on a GPU; None where it does."""
        return self._session.why_cpu

    def read(self, batch: Sequence[Rendered]) -> Reading:
        """All in one run of the model."""
        import numpy as np

        tokens = [self._tokenizer.encode(rendered.text) for rendered in batch]
        sentences = self._session.embed(tokens)
        surfaces = np.array([surface(rendered) for rendered in batch], dtype=np.float32)
        demands = np.array([rendered.demand for rendered in batch], dtype=np.float32)
        return Reading(sentences, surfaces, demands, [len(ids) for ids in tokens])

    def read_singly(self, texts: Iterable[Rendered]) -> Reading:
        """Each in a run of its own, as a CPU serves them: dynamic quantisation makes a text's
        vector depend on its batch."""
        import numpy as np

        readings = [self.read([rendered]) for rendered in texts]
        return Reading(
            np.concatenate([reading.sentences for reading in readings]),
            np.concatenate([reading.surfaces for reading in readings]),
            np.concatenate([reading.demands for reading in readings]),
            [reading.tokens[0] for reading in readings],
        )


def load_encoder(directory: Path, max_tokens: int, *, gpu: bool = False) -> Encoder:
    """`gpu`: whether the model may run on one, as it does to serve. What is fitted or compared is
    so by the CPU's graph, which says the same on every machine. Raises ArtefactError."""
    known = load_known(directory)
    tokenizer = load_tokenizer(directory / "tokenizer.json", max_tokens, known)
    return Encoder(tokenizer, load_session(directory, gpu=gpu))
