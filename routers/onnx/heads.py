"""From a sentence vector and surface features to two probabilities.

`p_local_ok` is a logistic head. The frontier's head says how often it succeeds **where the local
model fails**: p_frontier_ok = p_local_ok * keep + (1 - p_local_ok) * recovery. Two independent
heads rank as well on labelled questions, but on prompts so hard that both tiers look bad their
difference falls to zero and the hardest prompts stay local.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from routers.heuristics import SURFACE
from routers.onnx.manifest import ArtefactError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Linear(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A logit: weights over the features, and a bias."""

    weights: list[float]
    bias: float


class Scales(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors of the three feature groups, and `sharpness` of the softmax over topics."""

    topic: float
    sentence: float
    surface: float
    sharpness: float


class Heads(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`topics`: unit centroids, [topics][width]. `keep`: P(frontier ok | local ok)."""

    surface: list[str]
    surface_mean: list[float]
    surface_std: list[float]
    topics: list[list[float]]
    scales: Scales
    local: Linear
    recovery: Linear
    keep: float


_DECODER = msgspec.json.Decoder(Heads)
CLIP = 3.0


class HeadModel:
    """The heads as arrays. Pure arithmetic, some tens of microseconds for one row."""

    def __init__(self, heads: Heads) -> None:
        import numpy

        self._np = numpy
        self._scales = heads.scales
        self._mean = numpy.asarray(heads.surface_mean, dtype=numpy.float32)
        self._std = numpy.asarray(heads.surface_std, dtype=numpy.float32)
        self._topics = numpy.asarray(heads.topics, dtype=numpy.float32)
        self._weights = numpy.asarray([heads.local.weights, heads.recovery.weights], numpy.float32)
        self._bias = numpy.asarray([heads.local.bias, heads.recovery.bias], dtype=numpy.float32)
        self._keep = heads.keep

    @property
    def consistent(self) -> bool:
        """Whether the shapes fit each other."""
        width = self._topics.shape[-1] if self._topics.ndim == 2 else -1
        features = len(self._topics) + width + len(self._mean)
        return self._mean.shape == self._std.shape and self._weights.shape == (2, features)

    def features(
        self, sentences: NDArray[np.float32], surfaces: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """[n, topics + width + surface] from [n, width] and [n, surface]."""
        xp = self._np
        topic = xp.exp(self._scales.sharpness * (sentences @ self._topics.T))
        topic /= topic.sum(axis=1, keepdims=True)
        shape = xp.clip((surfaces - self._mean) / self._std, -CLIP, CLIP)
        joined: NDArray[np.float32] = xp.hstack(
            [
                topic * self._scales.topic,
                sentences * self._scales.sentence,
                shape * self._scales.surface,
            ]
        ).astype(xp.float32)
        return joined

    def predict(
        self, sentences: NDArray[np.float32], surfaces: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """[n, 2]: p_local_ok and p_frontier_ok."""
        xp = self._np
        logits = self.features(sentences, surfaces) @ self._weights.T + self._bias
        local, recovery = (1.0 / (1.0 + xp.exp(-logits))).T
        frontier = local * self._keep + (1.0 - local) * recovery
        both: NDArray[np.float32] = xp.stack([local, frontier], axis=1).astype(xp.float32)
        return both


def load_heads(path: Path) -> HeadModel:
    """Raises ArtefactError."""
    try:
        heads = _DECODER.decode(path.read_bytes())
    except OSError as exc:
        raise ArtefactError(path.name, f"cannot be read: {exc.strerror}") from exc
    except msgspec.DecodeError as exc:
        raise ArtefactError(path.name, str(exc)) from exc
    if tuple(heads.surface) != SURFACE:
        raise ArtefactError(path.name, "was fitted on other surface features than this version's")
    try:
        model = HeadModel(heads)
    except ValueError as exc:  # ragged lists
        raise ArtefactError(path.name, str(exc)) from exc
    if not model.consistent:
        raise ArtefactError(path.name, "has weights that do not fit its features")
    return model
