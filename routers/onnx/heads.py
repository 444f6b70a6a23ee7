"""From a sentence vector and surface features to two probabilities, in up to three layers.

The lowest is linear: `p_local_ok` is a logistic head, and the frontier's head says how often it
succeeds **where the local model fails**: p_frontier_ok = p_local_ok * keep + (1 - p_local_ok) *
recovery. Two independent heads rank as well on labelled questions, but on prompts so hard that
both tiers look bad their difference falls to zero and the hardest prompts stay local.

On it stand committees (see `routers.onnx.committee`): one over the rows that ship with labels of
both tiers, and one over the rows of an operator, if there was a refit. What a system prompt and
tools ask for (`Rendered.demand`) counts between the two: no row that ships has any, and an
operator's labels say themselves what it was worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from routers.heuristics import SURFACE
from routers.onnx.arrays import load_arrays, save_arrays
from routers.onnx.committee import Committee, Kernels, Views, logistic
from routers.onnx.manifest import ArtefactError
from routers.onnx.topics import TopicHead, from_arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

META, ARRAYS = "heads.json", "heads.npz"
# The layer of an operator's rows, the highest.
OWN = "own"
CLIP = 3.0
LINEAR = ("surface_mean", "surface_std", "topics", "weights", "bias")
# Probabilities never reach 0 or 1: no count of labels shows "never".
EDGE = 0.005
# The gain per unit of demand. Assumed, as demand itself is.
MADE_UP = 0.1


class Scales(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors of the three feature groups, and `sharpness` of the softmax over topics."""

    topic: float
    sentence: float
    surface: float
    sharpness: float


class Heads(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the arrays do not say. `keep`: P(frontier ok | local ok). `layers`: the kernels of the
    committees by name (`shipped`, `own`), from the lowest. `topics`: names of the topic heads
    there are (`domain`, `task`), and the probability from which their label is told."""

    surface: list[str]
    scales: Scales
    keep: float
    layers: dict[str, Kernels] = {}
    topics: dict[str, float] = {}


class Linear:
    """The lowest layer. `topics` [topics, width]: unit centroids; `weights` [4, features] and
    `bias` [4] of the local and the recovery head for questions like the measured ones, and of the
    same two for everyday requests. Pure arithmetic."""

    def __init__(self, heads: Heads, arrays: Arrays) -> None:
        import numpy

        self._np = numpy
        self._scales, self._keep = heads.scales, heads.keep
        self._a = {name: numpy.asarray(arrays[name], numpy.float32) for name in LINEAR}
        a = self._a
        width = a["topics"].shape[-1] if a["topics"].ndim == 2 else -1
        features = len(a["topics"]) + width + len(heads.surface)
        if a["surface_mean"].shape != a["surface_std"].shape or a["surface_mean"].shape != (
            len(heads.surface),
        ):
            raise ValueError("surface_mean and surface_std do not fit the surface features")
        if a["weights"].shape != (4, features) or a["bias"].shape != (4,):
            raise ValueError("weights that do not fit the features")
        self.width = width
        # What `features @ weights.T` is, without joining the features: the parts of the weights
        # with the scales in them, contiguous for the one row that is usual.
        many, scales = len(a["topics"]), heads.scales
        parts = numpy.split(a["weights"].T, [many, many + width])
        factors = (scales.topic, scales.sentence, scales.surface)
        self._of_topics, of_sentences, self._of_shapes = (
            numpy.ascontiguousarray(part * numpy.float32(factor))
            for part, factor in zip(parts, factors, strict=True)
        )
        # Both products that take the sentence vector are one: cosines first.
        sharp = a["topics"].T * numpy.float32(scales.sharpness)
        self._of_sentences = numpy.ascontiguousarray(numpy.hstack([sharp, of_sentences]))
        self._sharpness = numpy.float32(scales.sharpness)
        self._high, self._low = numpy.float32(CLIP), numpy.float32(-CLIP)
        self._inverse = 1 / a["surface_std"]

    @property
    def views_of(self) -> tuple[int, int, int]:
        """Width, features and topics of what it says."""
        return self.width, len(self._a["surface_mean"]), len(self._a["topics"])

    def shapes(self, surfaces: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardised surface features, [n, features]."""
        xp = self._np
        deviation = surfaces - self._a["surface_mean"]
        deviation *= self._inverse
        xp.maximum(deviation, self._low, out=deviation)
        found: NDArray[np.float32] = xp.minimum(deviation, self._high, out=deviation)
        return found

    def topics(self, sentences: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, topics]: probabilities."""
        return self._shares(sentences @ self._of_sentences[:, : len(self._a["topics"])])

    def _shares(self, sharp: NDArray[np.float32]) -> NDArray[np.float32]:
        xp = self._np
        found: NDArray[np.float32] = xp.exp(sharp - self._sharpness)
        found /= xp.add.reduce(found, axis=1, keepdims=True)
        return found

    def features(
        self, sentences: NDArray[np.float32], surfaces: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """[n, topics + width + surface] from [n, width] and raw surfaces."""
        scales = self._scales
        shapes, topics = self.shapes(surfaces), self.topics(sentences)
        found: NDArray[np.float32] = self._join(sentences, shapes, topics, scales)
        return found

    def _join(self, sentences: Any, shapes: Any, topics: Any, scales: Scales) -> Any:
        xp = self._np
        parts = [topics * scales.topic, sentences * scales.sentence, shapes * scales.surface]
        return xp.hstack(parts).astype(xp.float32)

    def views(self, sentences: NDArray[np.float32], surfaces: NDArray[np.float32]) -> Views:
        """The texts with what this layer says of them."""
        many = len(self._a["topics"])
        product = sentences @ self._of_sentences
        shapes, topics = self.shapes(surfaces), self._shares(product[:, :many])
        below = topics @ self._of_topics
        below += product[:, many:]
        below += shapes @ self._of_shapes
        below += self._a["bias"]
        # For the one row that is usual, plain numbers are quicker than a dozen calls on arrays.
        said = self._np.array(
            [
                (here, _gain(here, more, self._keep), away, _gain(away, more_away, self._keep))
                for here, more, away, more_away in below.tolist()
            ],
            dtype=self._np.float32,
        ).reshape(-1, 4)
        return Views(sentences, shapes, topics, said[:, :2], said[:, 2:])


class HeadModel:
    """The heads as one model. Some hundred microseconds for one row.

    Raises ValueError for arrays that do not fit each other.
    """

    def __init__(self, heads: Heads, arrays: Arrays) -> None:
        import numpy

        self._np = numpy
        self.heads, self.arrays = heads, dict(arrays)
        self.linear = Linear(heads, arrays)
        self.committees = {
            name: Committee(within(arrays, name), kernels) for name, kernels in heads.layers.items()
        }
        self.topics: dict[str, TopicHead] = {
            name: from_arrays(within(arrays, name)) for name in heads.topics
        }
        widths = {self.linear.width}
        for name, committee in self.committees.items():
            if committee.views != self.linear.views_of:
                raise ValueError(f"{name} looks at {committee.views}, not {self.linear.views_of}")
        widths |= {head.width for head in self.topics.values()}
        if len(widths) > 1:
            raise ValueError(f"heads for sentence vectors of different widths: {sorted(widths)}")

    @property
    def width(self) -> int:
        """The sentence vectors' dimensions."""
        return self.linear.width

    def predict(
        self,
        sentences: NDArray[np.float32],
        surfaces: NDArray[np.float32],
        demand: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """[n, 2]: p_local_ok and p_frontier_ok, from [n, width] and raw surfaces [n, features].
        `demand` [n]: see `Rendered`."""
        below = self.views(sentences, surfaces, demand).below
        return self.probabilities(below[:, 0], below[:, 1])

    def views(
        self,
        sentences: NDArray[np.float32],
        surfaces: NDArray[np.float32],
        demand: NDArray[np.float32] | None = None,
        without: frozenset[str] = frozenset(),
    ) -> Views:
        """The texts with what all layers, but for those in `without`, say of them."""
        views = self.linear.views(sentences, surfaces)
        for name, committee in self.committees.items():
            if name not in without and name != OWN:
                views = _with(views, committee)
        if demand is not None and demand.any():
            views = _asked(views, demand)
        own = self.committees.get(OWN)
        return views if own is None or OWN in without else _with(views, own)

    def name_topics(
        self, sentences: NDArray[np.float32], texts: Sequence[str]
    ) -> dict[str, list[str | None]]:
        """For each topic head the label of each text, None where it is unsure."""
        return {
            name: [
                label if p >= self.heads.topics[name] else None
                for label, p in head.surest(sentences, texts)
            ]
            for name, head in self.topics.items()
        }

    def probabilities(
        self, logit: NDArray[np.float32], gain: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """[n, 2]. The gain is kept exactly, since it decides: where p_local_ok + gain would leave
        [EDGE, 1 - EDGE], p_local_ok gives way."""
        both = [
            _probabilities(said, more)
            for said, more in zip(logit.tolist(), gain.tolist(), strict=True)
        ]
        found: NDArray[np.float32] = self._np.array(both, dtype=self._np.float32).reshape(-1, 2)
        return found


def _with(views: Views, committee: Committee) -> Views:
    said, _ = committee.predict(views)
    return msgspec.structs.replace(views, below=said, away=None)


def _asked(views: Views, demand: NDArray[np.float32]) -> Views:
    """With what is asked for beside the text: the local model loses by it, and the frontier makes
    up for a part of that."""
    change = demand[:, None] * (-1.0, MADE_UP)
    away = None if views.away is None else views.away + change
    return msgspec.structs.replace(views, below=views.below + change, away=away)


def _gain(local: float, recovery: float, keep: float) -> float:
    """From the logits of both heads: how much more often the frontier model is right."""
    p = logistic(local)
    return p * keep + (1 - p) * logistic(recovery) - p


def _probabilities(logit: float, gain: float) -> tuple[float, float]:
    gain = min(max(gain, -0.9), 0.9)
    local = logistic(logit)
    local = max(local, EDGE, EDGE - gain)
    local = min(local, 1 - EDGE, 1 - EDGE - gain)
    return local, local + gain


def within(arrays: Arrays, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of one part: those under `name/`, without that prefix."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}


def under(arrays: Arrays, name: str) -> dict[str, NDArray[Any]]:
    """The inverse of `within`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}


_DECODER = msgspec.json.Decoder(Heads)
_ENCODER = msgspec.json.Encoder(order="deterministic")


def load_heads(directory: Path) -> HeadModel:
    """Raises ArtefactError."""
    try:
        heads = _DECODER.decode((directory / META).read_bytes())
    except OSError as exc:
        raise ArtefactError(META, f"cannot be read: {exc.strerror}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArtefactError(META, str(exc)) from exc
    if tuple(heads.surface) != SURFACE:
        raise ArtefactError(META, "was fitted on other surface features than this version's")
    arrays = load_arrays(directory / ARRAYS)
    try:
        return HeadModel(heads, unpacked(arrays))
    except KeyError as exc:
        raise ArtefactError(ARRAYS, f"lacks the array {exc}") from exc
    except (ValueError, TypeError, IndexError) as exc:
        raise ArtefactError(ARRAYS, f"does not fit: {exc}") from exc


def save_heads(directory: Path, model: HeadModel) -> None:
    """Write both files. Raises OSError."""
    (directory / META).write_bytes(_ENCODER.encode(model.heads) + b"\n")
    save_arrays(directory / ARRAYS, packed(model.arrays))


def packed(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Memories as int8 with one scale for all (their values lie in [-1, 1]); the rest as it is."""
    import numpy as np

    found: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if name.endswith("/memory"):
            scale = max(float(np.abs(array).max()), 1e-6) / 127
            found[name] = np.rint(np.asarray(array) / scale).astype(np.int8)
            found[f"{name}_scale"] = np.array([scale], dtype=np.float32)
        else:
            found[name] = array
    return found


def unpacked(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """The inverse of `packed`, but for rounding. Raises KeyError for a memory without scale."""
    import numpy as np

    found: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if name.endswith("/memory"):
            scale = float(arrays[f"{name}_scale"].ravel()[0])
            found[name] = array.astype(np.float32) * np.float32(scale)
        elif not name.endswith("/memory_scale"):
            found[name] = array
    return found
