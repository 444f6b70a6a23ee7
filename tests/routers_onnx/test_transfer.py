"""Pools of several tasks, on made-up rows whose first coordinate decides how hard they are."""

from __future__ import annotations

import numpy as np
import pytest

from routers.heuristics import SURFACE
from routers.train.data import GOLD, Row
from routers.train.fit import Table
from routers.train.transfer import STRONG, TASKS, WEAK, Line, compare, show

SOURCES = [GOLD, "mmlu_pro/plain", *(f"llmrouter/{task}" for task in TASKS)]
Scores = dict[str, dict[str, float | None]]


def made_up(n: int = 900) -> tuple[Table, Scores]:
    rng = np.random.default_rng(3)
    sentences = rng.normal(size=(n, 8)).astype(np.float32)
    sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
    scores: Scores = {}
    rows = []
    for i, (one, source) in enumerate(zip(sentences, SOURCES * n, strict=False)):
        right = bool(rng.random() < 1 / (1 + np.exp(4 * one[0])))
        graded = source in (GOLD, "mmlu_pro/plain")
        rows.append(Row(str(i), source, source, "", float(right), 1.0 if graded else None))
        # The second large model is always right; the small ones are the row's local label.
        scores[str(i)] = {**dict.fromkeys(WEAK, float(right)), STRONG[0]: None, STRONG[1]: 1.0}
    surfaces = rng.normal(size=(n, len(SURFACE))).astype(np.float32)
    return Table(rows, sentences, surfaces), scores


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return compare(*made_up())


def test_every_pool_under_every_small_model(lines: list[Line]) -> None:
    # MMLU is no task to leave out here: its pool is only of rows held out.
    kinds = [("tasks", "held rows"), ("tasks", "held tasks"), ("tasks and MMLU", "held rows")]
    kinds += [(task, split) for task in TASKS for split in ("held rows", "held tasks")]
    assert [(line.weak, line.pool, line.split) for line in lines] == [
        (weak, *kind) for weak in WEAK for kind in kinds
    ]
    assert [line.rows for line in lines[: len(kinds)]] == [600, 600, 750] + [150] * 8


def test_what_decides_is_found_and_length_is_not(lines: list[Line]) -> None:
    for line in lines:
        if line.pool not in TASKS:  # those have few rows
            assert line.router.low > 0.55
            assert line.over_length.low > 0
            assert abs(line.length - 0.5) < 0.1


def test_the_table_names_each_line(lines: list[Line], capsys: pytest.CaptureFixture[str]) -> None:
    show(lines)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + len(lines)
    assert "tasks and MMLU" in printed[3]
    assert f"{lines[2].router.value:.3f}" in printed[3]
