from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from routers.artefacts import find_artefact
from routers.onnx.committee import Views
from routers.refit.committee import Labels

Scene = Callable[..., tuple[Views, Labels]]

BASE = find_artefact("static-192")
ROWS = 120
DISHES = (
    "lentil soup, apple pie, risotto, pancakes, goulash, falafel, tiramisu, ramen, gazpacho, naan"
)
WAYS = (
    "How long does {} keep in the fridge?",
    "Write a shopping list for {}.",
    "What can I serve with {} for six guests?",
    "My {} came out too salty. What now?",
    "Give me a vegan version of {}.",
    "Which wine goes with {}?",
)
THINGS = (
    "sin(x)^2, x*exp(x), ln(x)/x, 1/(1+x^2), x^3*cos(x), sqrt(1-x^2), tan(x), x^x, 1/x^2, x*ln(x)"
)
TASKS = (
    "Find the antiderivative of {}.",
    "Differentiate {} twice.",
    "Show that {} has no maximum on the real line.",
    "Expand {} into a power series around x = 1.",
    "Compute the definite integral of {} from 1 to 2.",
    "For which x is {} convex?",
)


def prompts() -> list[tuple[str, bool]]:
    """Sixty about food and sixty about calculus, in turn; and whether it is food."""
    food = [w.format(d) for d, w in itertools.product(DISHES.split(", "), WAYS)]
    sums = [t.format(f) for f, t in itertools.product(THINGS.split(", "), TASKS)]
    pairs = zip(food, sums, strict=True)
    return [(text, about) for one, other in pairs for text, about in ((one, True), (other, False))]


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
