"""Rows about three labels in two fields each, and vectors that tell the fields apart."""

from __future__ import annotations

import numpy as np
import pytest

from routers.train.discriminant import Recipe, TopicRow

WIDTH = 12
FIELDS = {
    "law": ("contracts", "crimes"),
    "health": ("anatomy", "nutrition"),
    "other": ("trivia", "travel"),
}


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(prior={"law": 2.0, "health": 1.0, "other": 1.0})


@pytest.fixture
def taught() -> tuple[np.ndarray, list[TopicRow]]:
    """Vectors [n, WIDTH] and rows. The two fields of "other" lie on opposite sides of the rest,
    so that one direction for the label cannot find both."""
    noise = np.random.default_rng(5)
    centres = noise.normal(size=(6, WIDTH))
    centres[5] = -centres[4]
    vectors, rows = [], []
    for number, (label, field) in enumerate(
        (label, field) for label, fields in FIELDS.items() for field in fields
    ):
        for copy in range(30):
            vectors.append(centres[number] + noise.normal(size=WIDTH))
            group = f"{field}/{copy}"
            rows.append(TopicRow(f"a question on {field}", label, field, "made", 1.0, group))
    return np.array(vectors), rows
