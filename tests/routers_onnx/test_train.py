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

from routers.evals import metrics
from routers.heuristics import SURFACE
from routers.onnx.heads import ARRAYS, HeadModel, load_heads, save_heads
from routers.onnx.manifest import ArtefactError
from routers.train import fit
from routers.train.data import DataError, Row, load_assumed, load_rows
from routers.train.fit import Floats, Table, fit_linear

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
    solved: list[dict[str, object]] = [
        {"id": f"gsm/{n}", "question": f"{n} apples?", "answer": "<<1+1=2>>" * n} for n in (1, 4, 9)
    ]
    write(tmp_path / "gsm8k_train.jsonl.gz", solved)
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
    rows = load_assumed(data)
    assert all(row.source.startswith("assumed/") for row in rows)
    requests = [row for row in rows if row.source == "assumed/requests"]
    assert len({row.text for row in requests}) == len(requests) > 200
    assert {(row.local, row.frontier) for row in requests} == {
        (0.96, 0.98),
        (0.75, 0.9),
        (0.45, 0.75),
    }
    assert len(rows) - len(requests) == 5
    # The more steps a worked solution has, the harder; nobody knows of the frontier.
    solved = [row for row in rows if row.source == "assumed/gsm8k"]
    levels = [row.local for row in solved if row.local is not None]
    assert len(levels) == 3
    assert levels == sorted(levels, reverse=True)
    assert all(0.3 < level < 0.95 for level in levels)
    assert all(row.frontier is None for row in solved)


def test_a_missing_file_is_named(data: Path) -> None:
    (data / "llmrouter.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"llmrouter\.jsonl\.gz"):
        load_rows(data)


def test_a_bad_line_is_named(data: Path) -> None:
    write(data / "mmlu_gold.jsonl.gz", [GOLD, {"id": 3}])
    with pytest.raises(DataError, match=r"mmlu_gold\.jsonl\.gz, line 2"):
        load_rows(data)


WHOLE = gzip.compress(b'{"id": "a"}' * 900)
DAMAGE = {
    "cut": WHOLE[:-12],
    "changed": WHOLE[:12] + bytes(12) + WHOLE[24:],
    "foreign": gzip.compress(b'{"id": "\xff"}'),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named(data: Path, kind: str) -> None:
    (data / "mmlu_gold.jsonl.gz").write_bytes(DAMAGE[kind])
    with pytest.raises(DataError, match=r"mmlu_gold\.jsonl\.gz"):
        load_rows(data)


COMBINED = SURFACE.index("combined")


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
    surfaces[:, COMBINED] = 0.0
    return Table(rows, sentences, surfaces)


SOURCES = {"mmlu_gold": 0.5, "llmrouter/easy": 4.0, "mmlu_pro/plain": -2.0}


def test_heads_learn_what_is_hard_and_not_where_it_came_from(tmp_path: Path) -> None:
    table = toy(SOURCES, 1500)
    save_heads(tmp_path, fit_linear(table))
    found = load_heads(tmp_path).predict(table.sentences, table.surfaces)
    assert np.corrcoef(found[:, 0], table.sentences[:, 0])[0, 1] > 0.8
    assert (found[:, 1] > found[:, 0]).mean() > 0.9
    # Probabilities are those of the reference source, whatever the others' level.
    gold = np.array([row.source == "mmlu_gold" for row in table.rows])
    for column, name in enumerate(("local", "frontier")):
        assert abs(found[gold, column].mean() - table.labels(name)[gold].mean()) < 0.05


def kinds(local: dict[str, float], n: int = 1200) -> Table:
    """Rows of sources that each lie on an axis of their own, with noise; `local`: their levels."""
    rng = np.random.default_rng(5)
    names = list(local)
    sentences = 0.3 * rng.normal(size=(n, 8))
    rows = []
    for i in range(n):
        source = names[i % len(names)]
        sentences[i, i % len(names)] += 1.0
        known = None if source.startswith("llmrouter/") else 0.9
        rows.append(Row(str(i), source, source, "", float(rng.random() < local[source]), known))
    sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
    surfaces = rng.normal(size=(n, len(SURFACE)))
    return Table(rows, sentences.astype(np.float32), surfaces.astype(np.float32))


def test_everyday_heads_know_the_levels_of_published_tasks() -> None:
    levels = {"assumed/clinc150": 0.95, "llmrouter/gsm8k": 0.85, "llmrouter/math": 0.2}
    table = kinds({**levels, "mmlu_pro/plain": 0.5})
    views = fit_linear(table).views(table.sentences, table.surfaces)
    assert views.away is not None
    gain = {name: views.away[at::4, 1].mean() for at, name in enumerate(levels)}
    assert gain["llmrouter/math"] > gain["llmrouter/gsm8k"] + 0.1
    assert gain["llmrouter/gsm8k"] > gain["assumed/clinc150"]
    # The heads for examinations are centred: there the levels of tasks do not count.
    exam = {name: views.below[at::4, 1].mean() for at, name in enumerate(levels)}
    assert abs(exam["llmrouter/math"] - exam["llmrouter/gsm8k"]) < 0.1


def test_what_is_harder_and_longer_than_its_kind_counts_within_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels = {"assumed/clinc150": 0.95, "llmrouter/gsm8k": 0.85, "llmrouter/math": 0.4}
    table = kinds({**levels, "mmlu_pro/plain": 0.5}, 4000)
    rng, rows = np.random.default_rng(6), []
    for row, sentence in zip(table.rows, table.sentences, strict=True):
        level = levels.get(row.source, 0.5)
        hard = level + 0.6 * sentence[6] if row.source.startswith("llmrouter/") else level
        rows.append(msgspec.structs.replace(row, local=float(rng.random() < hard)))
    table = Table(rows, table.sentences, table.surfaces)

    def gains() -> Floats:
        away = fit_linear(table).views(table.sentences, table.surfaces).away
        assert away is not None
        return away[:, 1]

    within = gains()
    monkeypatch.setattr(fit, "HARDER", 0.0)
    monkeypatch.setattr(fit, "LONGER", 0.0)
    plain = gains()
    for at, name in enumerate(levels):
        kind = slice(at, None, 4)
        assert abs(within[kind].mean() - plain[kind].mean()) < 0.02
        if name.startswith("llmrouter/"):
            for sign, what in ((-1, table.sentences[kind, 6]), (1, table.surfaces[kind, 0])):
                more, before = (np.corrcoef(found[kind], what)[0, 1] for found in (within, plain))
                assert sign * (more - before) > 0.04


def test_heads_for_examinations_lean_towards_more_steps() -> None:
    rng = np.random.default_rng(2)
    sentences = rng.normal(size=(900, 8)).astype(np.float32)
    sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
    rows = []
    for i, one in enumerate(sentences):
        # What decides the steps of worked solutions has nothing to do with the measured labels.
        if i % 3 == 0:
            local = 1 / (1 + float(np.exp(3 * one[1])))
            rows.append(Row(str(i), "assumed/gsm8k", "assumed/gsm8k", "", local, None))
        else:
            right = float(rng.random() < 0.5)
            rows.append(Row(str(i), "mmlu_pro/plain", "mmlu_pro/math", "", right, 1.0))
    surfaces = rng.normal(size=(900, len(SURFACE))).astype(np.float32)
    model = fit_linear(Table(rows, sentences, surfaces))
    logit = model.views(sentences, surfaces).below[:, 0]
    assert np.corrcoef(logit, sentences[:, 1])[0, 1] < -0.5
    unsolved = [row for row in rows if row.source != "assumed/gsm8k"]
    kept = np.arange(900) % 3 != 0
    model = fit_linear(Table(unsolved, sentences[kept], surfaces[kept]))
    logit = model.views(sentences, surfaces).below[:, 0]
    assert abs(np.corrcoef(logit, sentences[:, 1])[0, 1]) < 0.4


def test_a_question_of_several_at_once_is_harder_for_local_models_and_worth_more() -> None:
    table = toy(SOURCES, 900)
    surfaces = table.surfaces.copy()
    surfaces[::9, COMBINED] = 1.0
    model = fit_linear(Table(table.rows, table.sentences, surfaces))
    several, single = (
        model.views(table.sentences[::9], each[::9]) for each in (surfaces, table.surfaces)
    )
    fell = single.below[:, 0] - several.below[:, 0]
    # Nothing in these labels says so: fitted weights are small beside what is assumed.
    assert np.abs(fell - 0.6).max() < 0.3
    assert (several.below[:, 1] > single.below[:, 1]).mean() > 0.95


def test_the_reference_source_sets_the_level_and_nothing_else() -> None:
    table = toy(SOURCES, 900)
    gold = np.array([row.source == "mmlu_gold" for row in table.rows])
    # The same rows of the reference with other labels: what is harder than what stays.
    other = [
        Row(r.id, r.source, r.group, r.text, 1.0 - (r.local or 0.0), 1.0) if is_gold else r
        for r, is_gold in zip(table.rows, gold, strict=True)
    ]
    first = fit_linear(table)
    second = fit_linear(Table(other, table.sentences, table.surfaces))
    assert np.array_equal(first.arrays["weights"], second.arrays["weights"])
    assert not np.array_equal(first.arrays["bias"], second.arrays["bias"])


def test_rows_without_a_frontier_label_teach_the_local_head() -> None:
    table = toy({"llmrouter/easy": 2.0, "mmlu_pro/plain": 0.0}, 800)
    blind = [
        Row(r.id, r.source, r.group, r.text, r.local, None) if r.source[0] == "l" else r
        for r in table.rows
    ]
    model = fit_linear(Table(blind, table.sentences, table.surfaces))
    found = model.predict(table.sentences, table.surfaces)
    assert np.isfinite(found).all()
    assert np.corrcoef(found[:, 0], table.sentences[:, 0])[0, 1] > 0.8


def test_fitting_repeats() -> None:
    table = toy(SOURCES)
    first, second = fit_linear(table), fit_linear(table)
    assert first.heads == second.heads
    assert first.arrays.keys() == second.arrays.keys()
    assert all(np.array_equal(first.arrays[k], second.arrays[k]) for k in first.arrays)


def test_one_row_alone_is_scored_as_in_a_batch() -> None:
    table = toy(SOURCES)
    model = fit_linear(table)
    together = model.predict(table.sentences, table.surfaces)
    alone = [
        model.predict(table.sentences[i : i + 1], table.surfaces[i : i + 1])[0] for i in range(20)
    ]
    assert np.allclose(together[:20], alone, atol=1e-6)


def test_demand_lowers_the_local_probability_and_raises_the_gain() -> None:
    table = toy(SOURCES)
    model = fit_linear(table)
    n = len(table.rows)
    plain = model.predict(table.sentences, table.surfaces, np.zeros(n, dtype=np.float32))
    asked = model.predict(table.sentences, table.surfaces, np.ones(n, dtype=np.float32))
    assert np.array_equal(plain, model.predict(table.sentences, table.surfaces))
    assert (asked[:, 0] <= plain[:, 0]).all()
    assert (asked[:, 1] - asked[:, 0] >= plain[:, 1] - plain[:, 0] - 1e-6).all()


@given(st.lists(st.tuples(st.floats(-60, 60), st.floats(-2, 2)), min_size=1, max_size=20))
def test_probabilities_keep_the_gain_and_stay_in_range(pairs: list[tuple[float, float]]) -> None:
    model = fit_linear(toy(SOURCES, 60))
    logit, gain = np.array(pairs, dtype=np.float32).T
    found = model.probabilities(logit, gain)
    assert ((found > 0) & (found < 1)).all()
    assert np.allclose(found[:, 1] - found[:, 0], np.clip(gain, -0.9, 0.9), atol=1e-6)


def test_heads_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    model = fit_linear(toy(SOURCES))
    for name, array in model.arrays.items():
        broken = HeadModel(model.heads, model.arrays)
        broken.arrays[name] = array[..., :-1]
        save_heads(tmp_path, broken)
        with pytest.raises(ArtefactError, match="does not fit") as caught:
            load_heads(tmp_path)
        assert caught.value.file == ARRAYS
        broken.arrays.pop(name)
        save_heads(tmp_path, broken)
        with pytest.raises(ArtefactError, match=f"lacks the array '{name}'"):
            load_heads(tmp_path)


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
