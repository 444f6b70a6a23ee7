"""How far the traffic has moved from what the router was trained on.

Two distributions are compared by the population stability index, PSI = sum of (seen - expected) *
ln(seen / expected) over the bins, a symmetrised Kullback-Leibler divergence; in credit scoring,
where it comes from, below 0.1 counts as stable and above 0.25 as changed. What two samples of one
distribution would show, (bins - 1) * (1 / rows + 1 / requests) on average (Yurdakul, 2018), is
taken off: a refit on 50 rows has a coarse reference, which is no drift. Where texts lie as a whole
is told by the cosine distance between the mean of their sentence vectors and that of the training
rows.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

FILE = "reference.json"
CHANGED = 0.25
WINDOW = 2000
BINS = 10
# Fewer requests than this differ from any reference by chance.
MIN_ROWS = 200
# The window of vectors moves in this many steps: a whole one would hold megabytes.
BLOCKS = 8
# A bin that holds nothing counts as half a row.
_HALF = 0.5


class DriftError(Exception):
    """The reference is not what it should be; the message names the field."""


class DriftReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training rows look like. `edges`: inner edges of the bins of gains, ascending; `shares`:
    the share of rows in each bin, one more than edges. `domains`: the share of rows of each
    domain, empty where no domain is known. `embedding`: the mean sentence vector, empty where
    none is known. `rows`: how many rows there are; `named`: how many of these have a domain, 0 for
    all of them."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    domains: dict[str, float] = {}
    embedding: tuple[float, ...] = ()
    rows: int = 0
    named: int = 0


class DriftReport(msgspec.Struct, frozen=True):
    """Over the last `rows` requests. `gain` and `domain` are PSI, `embedding` a cosine distance in
    [0, 2]; None where the reference does not have it or too few rows were seen. `changed`: one of
    the PSI is above 0.25."""

    rows: int
    gain: float | None = None
    domain: float | None = None
    embedding: float | None = None
    changed: bool = False


@runtime_checkable
class Drifting(Protocol):
    """A router that watches for drift; None when its artefact brings no reference."""

    def drift(self) -> DriftReport | None: ...


_DECODER = msgspec.json.Decoder(DriftReference)
_ENCODER = msgspec.json.Encoder(order="deterministic")


def load_reference(raw: bytes) -> DriftReference:
    """Raises DriftError."""
    try:
        found = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DriftError(f"not a drift reference: {exc}") from exc
    if len(found.shares) != len(found.edges) + 1:
        raise DriftError(f"shares has {len(found.shares)} bins for {len(found.edges)} edges")
    if list(found.edges) != sorted(set(found.edges)):
        raise DriftError("edges do not ascend")
    for name, shares in (("shares", found.shares), ("domains", tuple(found.domains.values()))):
        if shares and (min(shares) < 0.0 or abs(sum(shares) - 1.0) > 1e-3):
            raise DriftError(f"{name} are not shares of one whole")
    return found


def dump_reference(reference: DriftReference) -> bytes:
    return _ENCODER.encode(reference)


def reference_of(
    gains: Sequence[float],
    domains: Iterable[str | None] = (),
    embeddings: Sequence[Sequence[float]] | NDArray[Any] | None = None,
) -> DriftReference:
    """From predictions on rows that the model was not fitted on: gains on fitted rows are more
    extreme than those of new ones. `domains`: of the same rows, None where unknown; `embeddings`:
    rows by dimensions. Bins hold about equal numbers of rows; where gains tie there are fewer.
    Raises DriftError for too few rows."""
    import numpy as np

    if len(gains) < BINS:
        raise DriftError(f"gains has {len(gains)} rows, at least {BINS} are needed")
    ordered = sorted(float(gain) for gain in gains)
    number = len(ordered)
    cuts = {round(ordered[number * at // BINS], 6) for at in range(1, BINS)}
    edges = tuple(sorted(cut for cut in cuts if cut > ordered[0]))
    counts = [0] * (len(edges) + 1)
    for gain in ordered:
        counts[bisect_right(edges, gain)] += 1
    known = Counter(name for name in domains if name is not None)
    mean: tuple[float, ...] = ()
    if embeddings is not None and len(embeddings):
        average = np.asarray(embeddings, dtype=np.float64).mean(axis=0)
        mean = tuple(round(float(value), 6) for value in average)
    return DriftReference(
        edges=edges,
        shares=tuple(count / number for count in counts),
        domains={name: count / known.total() for name, count in sorted(known.items())},
        embedding=mean,
        rows=number,
        named=known.total(),
    )


class DriftMonitor:
    """Watches the last `window` requests against a reference. `observe` costs a binary search, a
    few additions and, given a vector, one addition of vectors. Not thread-safe."""

    def __init__(self, reference: DriftReference, window: int = WINDOW) -> None:
        self._reference = reference
        self._edges = reference.edges
        self._window = window
        self._rows: deque[tuple[int, str | None]] = deque()
        self._bins = [0] * len(reference.shares)
        self._domains: Counter[str | None] = Counter()
        self._blocks: deque[tuple[Vector, int]] = deque(maxlen=BLOCKS)
        self._sum: Vector | None = None
        self._summed = 0

    def observe(self, gain: float, domain: str | None, embedding: Vector | None = None) -> None:
        """One scored request. `embedding`: its sentence vector, float32; it is not kept."""
        at = bisect_right(self._edges, gain)
        self._rows.append((at, domain))
        self._bins[at] += 1
        self._domains[domain] += 1
        if len(self._rows) > self._window:
            gone, was = self._rows.popleft()
            self._bins[gone] -= 1
            self._domains[was] -= 1
        if embedding is not None and self._reference.embedding:
            self._add(embedding)

    def report(self) -> DriftReport:
        rows = len(self._rows)
        if rows < MIN_ROWS:
            return DriftReport(rows)
        expected, number = dict(enumerate(self._reference.shares)), self._reference.rows
        gain = psi(expected, dict(enumerate(self._bins)), number)
        domain = None
        known = {n: c for n, c in self._domains.items() if n is not None and c}
        if self._reference.domains and sum(known.values()) >= MIN_ROWS:
            domain = psi(self._reference.domains, known, self._reference.named or number)
        changed = gain > CHANGED or (domain is not None and domain > CHANGED)
        return DriftReport(rows, gain, domain, self._distance(), changed)

    def _add(self, embedding: Vector) -> None:
        if self._sum is None:
            self._sum = embedding.astype("float32").copy()
        else:
            self._sum += embedding
        self._summed += 1
        if self._summed >= self._window // BLOCKS:
            self._blocks.append((self._sum, self._summed))
            self._sum, self._summed = None, 0

    def _distance(self) -> float | None:
        """Cosine distance of the mean vector to the reference's."""
        import numpy as np

        blocks = list(self._blocks)
        if self._sum is not None:
            blocks.append((self._sum, self._summed))
        if sum(number for _, number in blocks) < MIN_ROWS:
            return None
        # The sum points where the mean does.
        seen = np.sum([total for total, _ in blocks], axis=0, dtype=np.float64)
        reference = np.asarray(self._reference.embedding, dtype=np.float64)
        if seen.shape != reference.shape:
            return None
        length = float(np.linalg.norm(seen) * np.linalg.norm(reference))
        return max(0.0, 1.0 - float(seen @ reference) / length) if length > 0.0 else None


def psi(expected: Mapping[Any, float], counts: Mapping[Any, int], rows: int = 0) -> float:
    """The population stability index of `counts` against the shares `expected`, less what chance
    would show, at least 0. `rows`: of how many these are shares; 0 of so many that it makes no
    difference. A bin that one side lacks counts as half a row there, so that it weighs much but not
    without end."""
    number = max(sum(counts.values()), 1)
    least = _HALF / number
    rare = _HALF / rows if rows else least
    bins = {*expected, *counts}
    total = 0.0
    for name in bins:
        e = max(expected.get(name, 0.0), rare)
        a = max(counts.get(name, 0) / number, least)
        total += (a - e) * math.log(a / e)
    chance = (len(bins) - 1) * (1 / number + (1 / rows if rows else 0.0))
    return max(0.0, total - chance)
