"""Whose text may be kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.model import LearningConfig
from gateway.learning.consent import Consent, Look
from routers.types import Need


def exchange(*labels: str) -> Any:
    return SimpleNamespace(
        labels=frozenset(labels),
        need=Need(labels=frozenset(labels)),
        principal=SimpleNamespace(org="acme"),
    )


@pytest.mark.parametrize(
    ("settings", "ex", "may"),
    [
        (LearningConfig(), exchange(), False),
        (LearningConfig(capture=True), exchange(), True),
        (LearningConfig(capture=True), exchange("eu"), False),
        (LearningConfig(capture=True, capture_labels=("phi",)), exchange("phi", "pii"), False),
        (LearningConfig(capture=True, capture_labels=("eu", "phi")), exchange("phi"), True),
        (LearningConfig(capture=False, capture_labels=("phi",)), exchange("phi"), False),
        (LearningConfig(capture=True, capture_orgs=("rival",)), exchange(), False),
        (LearningConfig(capture=True, capture_orgs=("acme",)), exchange(), True),
    ],
)
def test_every_label_must_be_listed(settings: LearningConfig, ex: Any, may: bool) -> None:
    assert Consent(settings).gives(ex) is may


def test_the_model_looks_once() -> None:
    asked: list[str] = []

    def detect(text: str) -> frozenset[str]:
        asked.append(text)
        return frozenset()

    look = Look("hello", detect)
    assert asked == []
    assert look.classes() == look.classes() == frozenset()
    assert asked == ["hello"]
