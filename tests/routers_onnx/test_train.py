"""Loaders, fitting and metrics on tiny rows: no torch, no shared data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.heuristics import SURFACE
from routers.onnx.heads import HeadModel, load_heads
from routers.onnx.manifest import ArtefactError
from routers.train import metrics
from routers.train.data import DataError, Row, load_assumed, load_rows
from routers.train.fit import Table, fit_heads, platt, recalibrate

PRO: dict[str, object] = {
    "question": "How much is it?",
    "options": ["1", "2"],
    "answer": "A",
    "category": "math",
    "scores": {"Yi-34B": 1, "Phi-3-mini-4k-instruct": None, "gemini-1.5-pro-002": 1},
}
ROUTER: dict[str, object] = {
    "id": "llmrouter/train/0",
    "question": "who sings",
    "task": "trivia_qa",
    "scores": {"llama-3.1-8b-instruct": 0.5, "codegemma-7b": 1.0},
}
GOLD: dict[str, object] = {
    "id": "mmlu/law/1",
    "subject": "law",
    "prompt": "Is it?\nAnswer:",
    "weak": 0,
    "strong": 1,
}


def write(path: Path, rows: list[dict[str, object]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "mmlu_pro.jsonl.gz", [{"id": f"p/{i}", **PRO} for i in range(20)])
    write(tmp_path / "llmrouter.jsonl.gz", [ROUTER])
    write(tmp_path / "mmlu_gold.jsonl.gz", [GOLD])
    intent: dict[str, object] = {
        "split": "train",
        "text": "play jazz",
        "intent": "play",
        "domain": "media",
    }
    write(tmp_path / "clinc150.jsonl.gz", [intent])
    write(tmp_path / "arena_hard_v0.1.jsonl.gz", [{"uid": "u", "prompt": "Write a compiler."}])
    return tmp_path


def test_rows_of_every_source(data: Path) -> None:
    rows = load_rows(data)
    by_source = {row.source: row for row in rows}
    assert len(rows) == 22
    assert by_source["mmlu_pro/plain"].text == "How much is it?"
    assert by_source["mmlu_pro/options"].text == "How much is it?\nA. 1\nB. 2\nAnswer:"
    # An answer that could not be parsed counts 0, a model that was not asked does not count.
    assert by_source["mmlu_pro/plain"].local == 0.5
    assert by_source["mmlu_pro/plain"].frontier == 1.0
    routed = by_source["llmrouter/trivia_qa"]
    assert (routed.local, routed.frontier) == (0.5, None)
    gold = by_source["mmlu_gold"]
    assert (gold.local, gold.frontier, gold.group) == (0.0, 1.0, "mmlu_gold/law")


def test_assumed_rows_are_marked(data: Path) -> None:
    assert all(row.source.startswith("assumed/") for row in load_assumed(data))
    assert len(load_assumed(data)) == 2


def test_a_missing_file_is_named(data: Path) -> None:
    (data / "llmrouter.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"llmrouter\.jsonl\.gz"):
        load_rows(data)


def test_a_bad_line_is_named(data: Path) -> None:
    write(data / "mmlu_gold.jsonl.gz", [GOLD, {"id": 3}])
    with pytest.raises(DataError, match=r"mmlu_gold\.jsonl\.gz, line 2"):
        load_rows(data)


def toy(sources: dict[str, float], n: int = 400) -> Table:
    """Rows whose first coordinate decides how hard they are, in sources that differ in level."""
    rng = np.random.default_rng(1)
    sentences = rng.normal(size=(n, 8)).astype(np.float32)
    sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
    names = list(sources)
    rows = []
    for i in range(n):
        source = names[i % len(names)]
        p = 1 / (1 + np.exp(-(3 * sentences[i, 0] + sources[source])))
        local = float(rng.random() < p)
        frontier = 1.0 if local else float(rng.random() < 0.6)
        rows.append(Row(str(i), source, f"{source}/{i % 4}", "", local, frontier))
    surfaces = rng.normal(size=(n, len(SURFACE))).astype(np.float32)
    return Table(rows, sentences, surfaces)


def test_heads_learn_what_is_hard_and_not_where_it_came_from(tmp_path: Path) -> None:
    table = toy({"mmlu_gold": 0.5, "llmrouter/easy": 4.0, "mmlu_pro/plain": -2.0}, 1500)
    heads = fit_heads(table)
    (tmp_path / "heads.json").write_bytes(msgspec.json.encode(heads))
    found = load_heads(tmp_path / "heads.json").predict(table.sentences, table.surfaces)
    assert np.corrcoef(found[:, 0], table.sentences[:, 0])[0, 1] > 0.8
    assert (found[:, 1] > found[:, 0]).mean() > 0.9
    # Probabilities are those of the reference source, whatever the others' level.
    gold = np.array([row.source == "mmlu_gold" for row in table.rows])
    assert abs(found[gold, 0].mean() - table.labels("local")[gold].mean()) < 0.05


def test_fitting_repeats() -> None:
    table = toy({"mmlu_gold": 0.0})
    assert fit_heads(table) == fit_heads(table)


def test_recalibrating_moves_the_logit() -> None:
    table = toy({"mmlu_gold": 0.0})
    heads = fit_heads(table)
    before = HeadModel(heads).predict(table.sentences, table.surfaces)[:, 0]
    after = HeadModel(recalibrate(heads, 2.0, 0.5)).predict(table.sentences, table.surfaces)[:, 0]
    logit = np.log(before / (1 - before))
    assert np.allclose(after, 1 / (1 + np.exp(-(2 * logit + 0.5))), atol=1e-3)


def test_ragged_heads_are_refused(tmp_path: Path) -> None:
    heads = fit_heads(toy({"mmlu_gold": 0.0}))
    heads.topics[0].pop()
    (tmp_path / "heads.json").write_bytes(msgspec.json.encode(heads))
    with pytest.raises(ArtefactError, match=r"heads\.json"):
        load_heads(tmp_path / "heads.json")


def test_platt_finds_the_slope() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(size=20_000) * 2
    label = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logit - 1)))).astype(float)
    slope, shift = platt(logit, label)
    assert slope == pytest.approx(0.5, abs=0.05)
    assert shift == pytest.approx(-1.0, abs=0.08)


def test_apgr_of_a_perfect_order_and_its_reverse() -> None:
    weak = np.array([0.0] * 50 + [1.0] * 50)
    strong = np.ones(100)
    helps = strong - weak
    # Half of the calls close the whole gap: 0, .2 ... 1, then 1 on to the end.
    assert metrics.apgr(helps, weak, strong) == pytest.approx(0.75)
    assert metrics.apgr(-helps, weak, strong) == pytest.approx(0.25)
    assert metrics.cpt(helps, weak, strong, 0.5) == pytest.approx(25.0)
    assert metrics.cpt(-helps, weak, strong, 0.5) == pytest.approx(75.0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_calibration_errors_are_bounded(pairs: list[tuple[float, bool]]) -> None:
    p = np.array([pair[0] for pair in pairs])
    label = np.array([float(pair[1]) for pair in pairs])
    error = metrics.ece(p, label)
    assert 0 <= error <= 1
    assert error**2 <= metrics.brier(p, label) + 1e-9
    assert metrics.ece(label, label) == 0.0


def test_the_bootstrap_covers_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=500)
    low, high = metrics.bootstrap(lambda i: float(values[i].mean()), 500, seed=0)
    assert low < float(values.mean()) < high
    assert high - low < 0.3
