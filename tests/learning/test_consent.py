"""Whose text may be kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.model import LearningConfig
from gateway.learning.consent import Consent, labels_of
from routers.types import Need, Score


def exchange(labels: tuple[str, ...] = (), seen: tuple[str, ...] | None = None) -> Any:
    return SimpleNamespace(
        labels=frozenset(labels),
        need=Need(labels=frozenset(labels)),
        score=None if seen is None else Score(0.5, 0.5, data_classes=seen),
        principal=SimpleNamespace(org="acme"),
    )


@pytest.mark.parametrize(
    ("settings", "ex", "may"),
    [
        (LearningConfig(), exchange(), False),
        (LearningConfig(capture=True), exchange(), True),
        (LearningConfig(capture=True), exchange(seen=("none",)), True),
        (LearningConfig(capture=True), exchange(("eu",)), False),
        (LearningConfig(capture=True), exchange(seen=("phi",)), False),
        (LearningConfig(capture=True, capture_labels=("phi",)), exchange(seen=("phi",)), True),
        (
            LearningConfig(capture=True, capture_labels=("phi",)),
            exchange(("phi",), ("pii",)),
            False,
        ),
        (LearningConfig(capture=True, capture_labels=("eu", "phi")), exchange(("phi",)), True),
        (LearningConfig(capture=False, capture_labels=("phi",)), exchange(("phi",)), False),
        (LearningConfig(capture=True, capture_orgs=("rival",)), exchange(), False),
        (LearningConfig(capture=True, capture_orgs=("acme",)), exchange(), True),
    ],
)
def test_every_label_must_be_listed(settings: LearningConfig, ex: Any, may: bool) -> None:
    assert Consent(settings).gives(ex) is may


def test_what_the_model_saw_counts_as_a_label() -> None:
    assert labels_of(exchange(("eu",), ("phi", "none"))) == {"eu", "phi"}
    assert labels_of(exchange(("none",))) == {"none"}
    assert labels_of(exchange()) == frozenset()
