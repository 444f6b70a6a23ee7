"""What a text is about: a linear head over sentence vectors, and a table of word weights.

A label such as "other" is many unlike subjects, so the head scores *fields* (a subject of an
examination, a kind of task), and a label's probability is the sum over its fields. Encoders of a
few hundred dimensions blur rare terms; words and pairs of neighbours bring those back for some
microseconds. Only terms that were learnt count, so a new one never borrows another's weights.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from routers.onnx.render import HEAD, TAIL, cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

WORD = re.compile(rb"[a-z]{3,32}")
LEAST = 1e-22


class LinearHead:
    """`weights` [fields, features] and `bias` [fields]; `groups` [fields] gives the label of each
    field as an index into `labels`.

    Raises ValueError when the shapes do not fit each other.
    """

    def __init__(
        self, labels: tuple[str, ...], groups: Sequence[int], weights: Floats, bias: Floats
    ) -> None:
        import numpy

        self._np = numpy
        self._least = numpy.float32(LEAST)
        self.labels = labels
        self.groups = numpy.asarray(groups, dtype=numpy.int64)
        self.weights = numpy.asarray(weights, dtype=numpy.float32)
        self.bias = numpy.asarray(bias, dtype=numpy.float32)
        fields = len(self.groups)
        if self.weights.ndim != 2 or len(self.weights) != fields or self.bias.shape != (fields,):
            raise ValueError(
                f"{fields} fields, but weights {self.weights.shape} and bias {self.bias.shape}"
            )
        if set(self.groups.tolist()) != set(range(len(labels))):
            raise ValueError("each label needs a field, and each field one of the labels")
        self._member = numpy.eye(len(labels), dtype=numpy.float32)[self.groups]
        self._columns = numpy.ascontiguousarray(self.weights.T)

    def odds(self, features: Floats) -> NDArray[np.float32]:
        """[n, labels]: what is proportional to them, and above 0."""
        xp = self._np
        logits = features @ self._columns
        logits += self.bias
        logits -= xp.maximum.reduce(logits, axis=1, keepdims=True)
        found: NDArray[np.float32] = xp.exp(logits, out=logits) @ self._member
        xp.maximum(found, self._least, out=found)
        return found


class WordTable:
    """`weights` [labels, terms]: how far a term speaks for each label; `keys` [terms]: the hashes
    of the terms, ascending (see `term_ids`). Raises ValueError where the two do not fit."""

    def __init__(self, weights: Floats, keys: NDArray[np.uint32]) -> None:
        import numpy

        self._np = numpy
        # Term first, so that the terms of a text are rows that lie together.
        self._rows = numpy.ascontiguousarray(numpy.asarray(weights, dtype=numpy.float32).T)
        self.keys = numpy.ascontiguousarray(keys, dtype=numpy.uint32)
        if self.keys.shape != (len(self._rows),):
            raise ValueError(f"{len(self._rows)} terms, but keys {self.keys.shape}")
        if not (self.keys[1:] > self.keys[:-1]).all():
            raise ValueError("the keys of terms must ascend")

    @property
    def weights(self) -> NDArray[np.float32]:
        """[labels, terms]."""
        return self._rows.T

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, labels]: sums over the distinct known terms, divided by the root of their count."""
        found = self._np.zeros((len(texts), self._rows.shape[1]), dtype=self._np.float32)
        for row, text in enumerate(texts):
            places = self._places(text)
            if len(places):
                rows = self._rows.take(places, axis=0)
                found[row] = self._np.add.reduce(rows, axis=0) / len(places) ** 0.5
        return found

    def _places(self, text: str) -> NDArray[np.intp]:
        if not len(self.keys):
            return self._np.zeros(0, dtype=self._np.intp)
        ids = self._np.array(term_ids(text), dtype=self._np.uint32)
        places = self.keys.searchsorted(ids)
        known: NDArray[np.intp] = places[self.keys.take(places, mode="clip") == ids]
        return known


class TopicHead:
    """The two together: softmax((log p + share * words) / temperature).

    Raises ValueError when the labels of head and words differ in number.
    """

    def __init__(
        self, linear: LinearHead, words: WordTable | None, share: float, temperature: float
    ) -> None:
        import numpy

        self._np = numpy
        if words is not None and words.weights.shape[0] != len(linear.labels):
            raise ValueError("the word table has other labels than the head")
        if not temperature > 0.0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.linear, self.words = linear, words
        self.share, self.temperature = share, temperature
        self._share = numpy.float32(share)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.linear.labels

    @property
    def width(self) -> int:
        """The sentence vectors' dimensions."""
        return int(self.linear.weights.shape[1])

    def surest(self, sentences: Floats, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The likeliest label of each text with its calibrated probability. Sentences [n, width],
        texts n."""
        return [self._surest(row) for row in self.logits(sentences, texts).tolist()]

    def _surest(self, logits: Sequence[float]) -> tuple[str, float]:
        # Few enough for plain numbers to be quicker than arrays.
        best = max(logits)
        total = sum(math.exp((logit - best) / self.temperature) for logit in logits)
        return self.labels[logits.index(best)], 1.0 / total

    def logits(self, sentences: Floats, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, labels], before the temperature, but for a constant of each row."""
        xp = self._np
        odds = self.linear.odds(sentences)
        found: NDArray[np.float32] = xp.log(odds, out=odds)
        if self.words is not None:
            found += self.words.scores(texts) * self._share
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` takes: plain arrays, small enough to ship (float16)."""
        xp = self._np
        table = self.words.weights if self.words is not None else xp.zeros((len(self.labels), 0))
        keys = self.words.keys if self.words is not None else xp.zeros(0, dtype=xp.uint32)
        return {
            "keys": keys,
            "labels": xp.array(self.labels),
            "groups": self.linear.groups.astype(xp.int16),
            "weights": self.linear.weights.astype(xp.float16),
            "bias": self.linear.bias,
            "words": table.astype(xp.float16),
            "scales": xp.array([self.share, self.temperature], dtype=xp.float32),
        }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> TopicHead:
    """The inverse of `TopicHead.arrays`. Raises ValueError."""
    try:
        labels = tuple(str(label) for label in arrays["labels"].tolist())
        groups = arrays["groups"].tolist()
        linear = LinearHead(labels, groups, arrays["weights"], arrays["bias"])
        table, keys = arrays["words"], arrays["keys"]
        share, temperature = arrays["scales"].tolist()
    except KeyError as exc:
        raise ValueError(f"the array {exc} is missing") from exc
    words = WordTable(table, keys) if table.shape[-1] else None
    return TopicHead(linear, words, share, temperature)


def term_ids(text: str) -> list[int]:
    """The hashes (32 bits) of the distinct words and pairs of neighbours, sorted. Only Latin
    letters count; the text is cut, as for the encoder, so the work is bounded."""
    words = _words(text)
    hashes = list(map(zlib.crc32, words))
    # The second word hashed on from the first, whose hash is changed by a bit: otherwise a pair
    # would be the word that the two make when written together.
    pairs = map(zlib.crc32, words[1:], [before ^ 1 for before in hashes])
    return sorted({*hashes, *pairs})


def _words(text: str) -> list[bytes]:
    return WORD.findall(cut(text, HEAD + TAIL).lower().encode("ascii", "replace"))
