from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from routers.onnx.committee import Views
from routers.refit.committee import Labels

Scene = Callable[..., tuple[Views, Labels]]


@pytest.fixture
def scene() -> Scene:
    """Rows whose first coordinate decides whether the local model is right; the frontier is right
    more often. `hidden`: the share of frontier labels that are not known."""

    def made(n: int = 120, hidden: float = 0.0, seed: int = 0) -> tuple[Views, Labels]:
        rng = np.random.default_rng(seed)
        sentences = rng.normal(size=(n, 12))
        sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
        topics = rng.dirichlet(np.ones(5), size=n)
        surfaces = rng.normal(size=(n, 6))
        local = (rng.random(n) < 1 / (1 + np.exp(-6 * sentences[:, 0]))).astype(float)
        frontier = np.where(local > 0, 1.0, rng.random(n) < 0.6).astype(float)
        frontier[rng.random(n) < hidden] = np.nan
        below = np.stack([rng.normal(size=n), rng.normal(size=n) * 0.1], axis=1)
        shown = (a.astype(np.float32) for a in (sentences, surfaces, topics, below))
        return Views(*shown), Labels(local, frontier)

    return made
