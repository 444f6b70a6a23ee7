"""What labelled rows teach beyond the linear heads: a memory of the rows, asked in four ways.

Each member predicts a label from one view of a text, and was fitted by ridge regression: `near`
by a Gaussian kernel over sentence vectors, `shape` by one over surface features, `topic` from the
topic's probabilities, `length` is the length alone; `below` is what the heads beneath say. Their
standardised predictions are added, which held up better than any single member or a joint fit.
Texts unlike every row of the memory are left to the heads beneath.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

MEMBERS = ("near", "shape", "topic", "length", "below")
LOCAL, GAIN = 0, 1
# A member far outside what it said of the rows says no more than this many standard deviations.
CLIP = 2.5
NEIGHBOURS = 5
# A text is of another kind altogether up to this probability of being of the rows' kind.
ASIDE = 0.1
# So little of the rows' kind that the memory need not be asked.
ELSEWHERE = 0.02


class Kernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Widths: exp(near * (cosine - 1)) and exp(-shape * mean squared difference)."""

    near: float
    shape: float


class Views(msgspec.Struct, frozen=True):
    """Texts as the members see them. `sentences` [n, width] of unit length, `surfaces`
    [n, features] standardised, `topics` [n, topics] probabilities, `below` [n, 2]: the logit of
    p_local_ok and the gain by the heads beneath; `away` [n, 2]: the same for a text that is of
    another kind than the committee's rows, None where that makes no difference."""

    sentences: Floats
    surfaces: Floats
    topics: Floats
    below: Floats
    away: Floats | None = None


class Committee:
    """Built by `routers.refit`; `arrays` is its whole state.

    `memory` [rows, width], `shapes` [rows, features]; `near` and `shape` [2, rows]: dual weights
    of the targets; `topic` [2, topics]; `start` [2, 3]: what near, shape and topic say of a text
    that they know nothing of; `centre`, `spread`, `weight` [2, members]; `line` [2, 2]: intercept
    and slope of the sum, towards a logit for local, towards a gain for the gain.
    `gate` [width + features + 1]: a logit, bias last, of a text being of the rows' kind (an
    examination question, not an everyday request); the less it is, the less the memory speaks.
    `familiar` [2]: mean cosine to the five nearest rows below which it does not speak, and from
    which it speaks alone. Raises ValueError for shapes that do not fit.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], kernels: Kernels) -> None:
        import numpy

        self._np = numpy
        try:
            self._a = {name: numpy.asarray(arrays[name], numpy.float32) for name in SHAPES}
        except KeyError as exc:
            raise ValueError(f"the committee lacks the array {exc}") from exc
        self._kernels = kernels
        self._check()
        a, width = self._a, kernels.shape / self._a["shapes"].shape[1]
        # As one row needs them: a product of a row with a transposed view costs half as much again.
        self._memory = numpy.ascontiguousarray(a["memory"].T)
        self._shapes = numpy.ascontiguousarray(2 * width * a["shapes"].T)
        self._squares = width * (a["shapes"] ** 2).sum(axis=1)
        self._width = width
        columns = a["memory"].shape[1]
        gate = a["gate"]
        self._gate = gate[:columns], gate[columns:-1], float(gate[-1])
        self._low, high = a["familiar"].tolist()
        self._range = max(high - self._low, 1e-6)

    @property
    def rows(self) -> int:
        return len(self._a["memory"])

    @property
    def views(self) -> tuple[int, int, int]:
        """Width, features and topics of the texts it can look at."""
        a = self._a
        return a["memory"].shape[1], a["shapes"].shape[1], a["topic"].shape[1]

    @property
    def memory(self) -> NDArray[np.float32]:
        """[rows, width]: the sentence vectors of the labelled rows."""
        return self._a["memory"]

    def predict(self, views: Views) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """[n, 2]: the logit of p_local_ok and the gain; and [n]: how far the memory spoke, 0..1."""
        xp, a = self._np, self._a
        home = self._at_home(views)
        if views.away is not None and float(home.max()) < ELSEWHERE:
            # Most requests of a chat: what the memory would say of them has no weight.
            return beneath(views, home).astype(xp.float32, copy=False), xp.zeros_like(home)
        cosines = views.sentences @ self._memory
        share = self._familiarity(cosines)
        share *= home
        if float(share.max()) < ELSEWHERE:
            return beneath(views, home).astype(xp.float32, copy=False), xp.zeros_like(home)
        deviation = (self._members(views, cosines) - a["centre"]) / a["spread"]
        total = (xp.minimum(xp.maximum(deviation, -CLIP), CLIP) * a["weight"]).sum(axis=2)
        line = a["line"]
        own = line[:, 0] + line[:, 1] * total
        mixed = share[:, None] * own + (1 - share[:, None]) * beneath(views, home)
        return mixed.astype(xp.float32, copy=False), share

    def _at_home(self, views: Views) -> NDArray[np.float32]:
        """[n], 0..1: how far a text is of the kind that the rows are, from 0 at a probability of
        ASIDE to 1 at certainty."""
        xp, (of_sentences, of_shapes, constant) = self._np, self._gate
        logits = (views.sentences @ of_sentences + views.surfaces @ of_shapes).tolist()
        found = [max(0.0, logistic(logit + constant) - ASIDE) / (1 - ASIDE) for logit in logits]
        home: NDArray[np.float32] = xp.array(found, dtype=xp.float32)
        return home

    def _members(self, views: Views, cosines: Floats) -> NDArray[np.float32]:
        """[n, 2, members], in the order of MEMBERS."""
        xp, a, surfaces = self._np, self._a, views.surfaces
        near = cosines - 1
        near *= self._kernels.near
        shape = surfaces @ self._shapes
        shape -= self._squares
        shape -= self._width * (surfaces**2).sum(axis=1)[:, None]
        found: NDArray[np.float32] = xp.empty((len(cosines), 2, len(MEMBERS)), dtype=xp.float32)
        found[:, :, 0] = xp.exp(near, out=near) @ a["near"].T
        found[:, :, 1] = xp.exp(shape, out=shape) @ a["shape"].T
        found[:, :, 2] = views.topics @ a["topic"].T
        found[:, :, :3] += a["start"]
        found[:, LOCAL, 3] = -surfaces[:, 0]
        found[:, GAIN, 3] = surfaces[:, 0]
        found[:, :, 4] = views.below
        return found

    def _familiarity(self, cosines: Floats) -> NDArray[np.float32]:
        xp = self._np
        if float(cosines.max()) <= self._low:
            # Nor is the mean of the nearest above it, and a maximum is found sooner.
            silent: NDArray[np.float32] = xp.zeros(len(cosines), dtype=xp.float32)
            return silent
        near = min(NEIGHBOURS, cosines.shape[1])
        nearest = xp.partition(cosines, cosines.shape[1] - near, axis=1)[:, -near:]
        share: NDArray[np.float32] = (nearest.sum(axis=1) / near - self._low) / self._range
        bounded: NDArray[np.float32] = xp.minimum(xp.maximum(share, 0.0), 1.0)
        return bounded

    def _check(self) -> None:
        sizes: dict[str, int] = {"target": 2, "member": len(MEMBERS), "pair": 2, "known": 3}
        for name, shape in SHAPES.items():
            found = self._a[name].shape
            if len(found) != len(shape):
                raise ValueError(f"{name} has {len(found)} dimensions, not {len(shape)}")
            for axis, size in zip(shape, found, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(f"{name} has {size} of {axis}, not {sizes[axis]}")
        if sizes["gate"] != sizes["width"] + sizes["feature"] + 1:
            raise ValueError(f"gate has {sizes['gate']} values")
        if not all(self._np.isfinite(array).all() for array in self._a.values()):
            raise ValueError("the committee holds a value that is no number")
        if (self._a["spread"] <= 0).any():
            raise ValueError("spread must be above 0")


def logistic(logit: float) -> float:
    """1 / (1 + exp(-logit)), by a function that no logit overflows."""
    return 0.5 + 0.5 * math.tanh(0.5 * logit)


def beneath(views: Views, home: Floats) -> Floats:
    """[n, 2]: what the heads beneath say, for texts so far at home."""
    if views.away is None:
        return views.below
    if not home.any():
        return views.away
    return home[:, None] * views.below + (1 - home[:, None]) * views.away


SHAPES = {
    "memory": ("row", "width"),
    "shapes": ("row", "feature"),
    "near": ("target", "row"),
    "shape": ("target", "row"),
    "gate": ("gate",),
    "topic": ("target", "topic"),
    "start": ("target", "known"),
    "centre": ("target", "member"),
    "spread": ("target", "member"),
    "weight": ("target", "member"),
    "line": ("target", "pair"),
    "familiar": ("pair",),
}
