"""How the heads order requests across kinds of tasks, and on kinds that they never saw.

    python -m routers.train.transfer --artefact DIR --cache DIR

No task but MMLU's has labels of a frontier model, so the better of two open models of about 50B
stands for it here, against one small open model; tasks are pooled as a day's traffic would be.
These two fail where the small ones fail, so each task by itself is ranked against a model that is
always right. `held rows`: heads fitted without the row's fold. `held tasks`: heads fitted without
the row's task.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.evals import metrics
from routers.onnx.manifest import read_manifest
from routers.train.data import GOLD, default_dir, read_records
from routers.train.fit import Floats, Table
from routers.train.measure import hold_out, shipped
from routers.train.pipeline import SEED, load_inputs, table_of
from routers.train.vectors import Vectors

WEAK = ("llama-3.1-8b-instruct", "qwen2.5-7b-instruct")
STRONG = ("llama-3.1-nemotron-51b-instruct", "llama-3.3-nemotron-super-49b-v1")
# Graded right or wrong, and in a format that all four models kept to.
TASKS = ("gsm8k", "math", "mbpp", "agentverse-logicgrid")


class _Scored(msgspec.Struct):
    id: str
    scores: dict[str, float | None]


class Line(msgspec.Struct, frozen=True):
    """One pool of tasks under one small model."""

    weak: str
    pool: str
    split: str
    rows: int
    length: float
    router: metrics.Figure
    over_length: metrics.Figure


def compare(table: Table, scores: Mapping[str, Mapping[str, float | None]]) -> list[Line]:
    """`scores`: by row id and model; a model without a score was not asked or could not be
    parsed, and counts 0."""
    sources = np.array([row.source for row in table.rows])
    held = hold_out(table, SEED)
    gains = {"held rows": held.p[:, 1] - held.p[:, 0], "held tasks": _unseen(table, sources)}
    tasks = [f"llmrouter/{task}" for task in TASKS]
    pools = {"tasks": tasks, "tasks and MMLU": [*tasks, GOLD]}
    pools |= {task: [f"llmrouter/{task}"] for task in TASKS}
    lines = []
    for weak in WEAK:
        for pool, names in pools.items():
            index = np.flatnonzero(np.isin(sources, names))
            small, large = _labels(table, index, scores, weak)
            labels = small, (np.ones_like(large) if pool in TASKS else large)
            for split, gain in gains.items():
                if not np.isnan(gain[index]).any():
                    lines.append(_line(table, (weak, pool, split), index, gain, labels))
    return lines


def _unseen(table: Table, sources: NDArray[np.str_]) -> Floats:
    """[n]: gains by heads fitted without the row's task; NaN for rows of other sources."""
    found = np.full(len(sources), np.nan)
    for task in TASKS:
        here = np.flatnonzero(sources == f"llmrouter/{task}")
        if len(here):
            model = shipped(table.take(np.flatnonzero(sources != f"llmrouter/{task}")))
            part = table.take(here)
            found[here] = model.views(part.sentences, part.surfaces).below[:, 1]
    return found


def _labels(
    table: Table,
    index: NDArray[np.intp],
    scores: Mapping[str, Mapping[str, float | None]],
    weak: str,
) -> tuple[Floats, Floats]:
    """What the small model and what stands for the frontier made of each row."""
    small, large = [], []
    for row in (table.rows[i] for i in index.tolist()):
        if row.source == GOLD:
            small.append(row.local or 0.0)
            large.append(row.frontier or 0.0)
        else:
            known = scores[row.id]
            small.append(known.get(weak) or 0.0)
            large.append(max(known.get(model) or 0.0 for model in STRONG))
    return np.array(small), np.array(large)


def _line(
    table: Table,
    name: tuple[str, str, str],
    index: NDArray[np.intp],
    gain: Floats,
    labels: tuple[Floats, Floats],
) -> Line:
    length = table.surfaces[index, 0].astype(np.float64)
    ranked = metrics.rankings(
        {"router": gain[index], "length": length}, *labels, base="length", seed=SEED
    )
    router = ranked["router"]
    return Line(*name, len(index), ranked["length"].apgr.value, router.apgr, router.over_base)


def show(lines: Sequence[Line]) -> None:
    print(f"{'small model':<22} {'pool':<20} {'split':<11} rows length APGR [95 %]  over length")
    for line in lines:
        a, o = line.router, line.over_length
        print(
            f"{line.weak:<22} {line.pool:<20} {line.split:<11} {line.rows:>4} {line.length:6.3f} "
            f"{a.value:.3f} [{a.low:.3f}, {a.high:.3f}] [{o.low:+.3f}, {o.high:+.3f}]"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m routers.train.transfer", description=__doc__)
    parser.add_argument("--data", type=Path, default=default_dir())
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    given = parser.parse_args()
    inputs = load_inputs(given.data)
    vectors = Vectors(given.artefact, read_manifest(given.artefact).max_tokens, given.cache)
    vectors.learn(row.text for row in inputs.rows)
    asked = read_records(given.data / "llmrouter.jsonl.gz", _Scored)
    show(compare(table_of(inputs.rows, vectors), {one.id: one.scores for one in asked}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
