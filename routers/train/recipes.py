"""Every recipe that was compared for the heads, on the same rows and folds, beside the baselines.

    python -m routers.train.recipes --artefact DIR --cache DIR --out recipes.json

`--artefact` is a trained one, whose encoder is used; `--cache` is that of the training, which
holds its sentence vectors.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec
import numpy as np

from routers.evals import metrics
from routers.evals.scoring import score_and_close
from routers.heuristics import HeuristicRouter
from routers.onnx.manifest import read_manifest
from routers.train.data import GOLD, default_dir
from routers.train.fit import Floats, Table, fit_linear
from routers.train.measure import PAIRED, Fit, Held, Memory, hold_out, paired, shipped
from routers.train.pipeline import SEED, load_inputs, table_of
from routers.train.vectors import Vectors
from routers.types import Query, Turn

WITHOUT, ALWAYS = (False,), (True,)
RECIPES: dict[str, Fit] = {
    "linear heads": fit_linear,
    "committee on mmlu_gold, without the linear heads": lambda t: shipped(
        t, Memory(others=0, belows=WITHOUT, gate=False)
    ),
    "committee on mmlu_gold, linear heads a member": lambda t: shipped(
        t, Memory(others=0, belows=ALWAYS)
    ),
    "committee on both sources, linear heads a member": lambda t: shipped(t, Memory(belows=ALWAYS)),
    "committee on both sources, other rows at 0.1": lambda t: shipped(t, Memory(belief=0.1)),
    "committee on both sources, for every request": lambda t: shipped(t, Memory(gate=False)),
    "shipped": shipped,
}


class Line(msgspec.Struct, frozen=True):
    """One recipe on one source: `split` is `cv5`, `without source`, or `baseline`."""

    recipe: str
    source: str
    split: str
    apgr: metrics.Figure
    over_length: metrics.Figure
    cpt50: float
    cpt80: float


def compare(table: Table, seed: int) -> list[Line]:
    """All recipes and baselines on every source with both labels."""
    held = {name: hold_out(table, seed, fit) for name, fit in RECIPES.items()}
    return [line for source in PAIRED for line in _lines(table, source, held, seed)]


def _lines(table: Table, source: str, held: dict[str, Held], seed: int) -> list[Line]:
    index = paired(table, source)
    if len(index) < 2:
        return []
    part = table.take(index)
    scores: dict[tuple[str, str], Floats] = {
        ("length", "baseline"): part.surfaces[:, 0].astype(np.float64),
        ("heuristic", "baseline"): _heuristic(part),
        ("random", "baseline"): np.zeros(len(index)),
    }
    for name, one in held.items():
        scores[name, "cv5"] = one.p[index, 1] - one.p[index, 0]
        scores[name, "without source"] = one.blind[index]
    ranked = metrics.rankings(
        {"/".join(key): score for key, score in scores.items()},
        part.labels("local"),
        part.labels("frontier"),
        base="length/baseline",
        seed=seed,
    )
    return [
        Line(name, source, split, r.apgr, r.over_base, r.cpt["cpt50"].value, r.cpt["cpt80"].value)
        for name, split in scores
        for r in (ranked[f"{name}/{split}"],)
    ]


def _heuristic(part: Table) -> Floats:
    queries = [Query((Turn("user", row.text),)) for row in part.rows]
    found = asyncio.run(score_and_close(HeuristicRouter(), queries))
    return np.array([score.gain or 0.0 for score in found])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m routers.train.recipes")
    parser.add_argument("--data", type=Path, default=default_dir())
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    inputs = load_inputs(given.data)
    vectors = Vectors(given.artefact, read_manifest(given.artefact).max_tokens, given.cache)
    vectors.learn(row.text for row in inputs.rows)
    lines = compare(table_of(inputs.rows, vectors), SEED)
    print(f"{'recipe':<52} {'split':<15} {'APGR':>6} {'95 %':>15} {'over length':>17} CPT50 CPT80")
    for source in dict.fromkeys(line.source for line in lines):
        print(f"\n{source}" + (" (reference)" if source == GOLD else ""))
        for line in (line for line in lines if line.source == source):
            a, o = line.apgr, line.over_length
            print(
                f"{line.recipe:<52} {line.split:<15} {a.value:6.3f} [{a.low:5.3f}, {a.high:5.3f}] "
                f"[{o.low:+.3f}, {o.high:+.3f}] {line.cpt50:5.1f} {line.cpt80:5.1f}"
            )
    if given.out is not None:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(lines), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
