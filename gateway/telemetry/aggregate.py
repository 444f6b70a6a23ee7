"""Histograms and counters as plain numbers.

OpenTelemetry's instruments cost 7-14 us for each measurement, mostly for looking up attributes;
the seven measurements of a request would take a third of its whole CPU budget. Here a series is
looked up once for each combination of labels and then costs an addition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.telemetry.names import Metric

OTHER = "_other"


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """`counts` holds one number per bucket and one for everything above the last bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def record(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Series = TypeVar("Series", Counter, Histogram)


class Family(Generic[Series]):
    """One metric's series by label values. Past `limit` series, new combinations of labels share
    one series whose labels all read `_other`, so that memory stays bounded whatever happens."""

    __slots__ = ("_limit", "_make", "metric", "series")

    def __init__(self, metric: Metric, make: Callable[[], Series], limit: int) -> None:
        self.metric = metric
        self.series: dict[tuple[str, ...], Series] = {}
        self._make: Callable[[], Series] = make
        self._limit = limit

    def at(self, *labels: str) -> Series:
        found = self.series.get(labels)
        if found is not None:
            return found
        if len(self.series) >= self._limit:
            labels = (OTHER,) * len(labels)
        return self.series.setdefault(labels, self._make())


def histograms(metric: Metric, limit: int) -> Family[Histogram]:
    return Family(metric, lambda: Histogram(metric.bounds), limit)


def counters(metric: Metric, limit: int) -> Family[Counter]:
    return Family(metric, Counter, limit)
