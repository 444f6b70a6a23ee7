"""The gains of the last scored requests, in order of arrival and in order of size."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque


class GainWindow:
    """Holds the last `size` pairs of gain and strong tier's probability. A push costs two binary
    searches and two moves inside a list of `size` floats: about a microsecond at 512."""

    __slots__ = ("_arrived", "_frontier_sum", "_size", "_sorted")

    def __init__(self, size: int) -> None:
        self._size = size
        self._arrived: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []
        self._frontier_sum = 0.0

    def __len__(self) -> int:
        return len(self._sorted)

    def push(self, gain: float, p_strong: float) -> None:
        self._arrived.append((gain, p_strong))
        self._frontier_sum += p_strong
        insort(self._sorted, gain)
        if len(self._arrived) > self._size:
            gone, p_gone = self._arrived.popleft()
            self._frontier_sum -= p_gone
            del self._sorted[bisect_left(self._sorted, gone)]

    def rows(self) -> list[tuple[float, float]]:
        """Gain and strong tier's probability, oldest first."""
        return list(self._arrived)

    @property
    def mean_strong(self) -> float:
        """Mean of the strong tier's probability; 0 when empty."""
        return self._frontier_sum / len(self._sorted) if self._sorted else 0.0

    def upper(self, share: float) -> float:
        """The gain such that about `share` of the window is above it or, where gains tie with it,
        could be: the smallest gain of the window's top `share`, rounded up to a whole row. The
        largest gain for a share of 0. The window must not be empty."""
        ordered = self._sorted
        number = len(ordered)
        top = -int(-share * number // 1)  # rounded up
        return ordered[number - min(max(top, 1), number)]

    def share_above(self, gain: float) -> float:
        """The share of the window above this gain. The window must not be empty."""
        return 1.0 - bisect_right(self._sorted, gain) / len(self._sorted)

    def tie_share(self, gain: float, share: float) -> float:
        """Of the rows whose gain equals `gain`, the share that must be among the top `share` of
        the window; in [0, 1]. 0 when the window has no such row."""
        ordered = self._sorted
        first, last = bisect_left(ordered, gain), bisect_right(ordered, gain)
        if first == last:
            return 0.0
        number = len(ordered)
        wanted = share * number - (number - last)
        return min(1.0, max(0.0, wanted / (last - first)))

    def share_for_loss(self, loss: float) -> float:
        """The smallest share of strong calls, taken from the top, at which the gains forgone by
        the rest add up to at most `loss` per row. Negative gains forgone count for us."""
        ordered = self._sorted
        budget = loss * len(ordered)
        total, kept = 0.0, 0
        for at, gain in enumerate(ordered):
            total += gain
            if total > budget and gain > 0.0:
                break
            kept = at + 1
        return 1.0 - kept / len(ordered) if ordered else 1.0
