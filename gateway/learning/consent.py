"""Whose text may be kept: the one place that says so."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.config.model import LearningConfig
from gateway.exchange import Exchange

_NO_CLASS = "none"


def labels_of(ex: Exchange) -> frozenset[str]:
    """The labels of a request, and the classes of data that the router's model saw in it: for what
    is learnt behind the answer they count as labels, which may only tighten."""
    labels = ex.labels | ex.need.labels
    seen = ex.score.data_classes if ex.score is not None else ()
    return labels.union(seen) - {_NO_CLASS} if seen else labels


class Consent:
    """Nothing is kept unless the operator turned capture on; then never of a request that carries
    a label, however it came by it, which `capture_labels` does not list."""

    def __init__(self, settings: LearningConfig) -> None:
        self._on = settings.capture
        self._labels = frozenset(settings.capture_labels)
        self._orgs = frozenset(settings.capture_orgs)

    def org(self, org: str) -> bool:
        return not self._orgs or org in self._orgs

    def labels(self, labels: Iterable[str]) -> bool:
        return self._labels.issuperset(labels)

    def gives(self, ex: Exchange) -> bool:
        """Whether this request's text may be kept."""
        return self._on and self.org(ex.principal.org) and self.labels(labels_of(ex))
