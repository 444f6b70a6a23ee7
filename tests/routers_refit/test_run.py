"""Refits of a shipped artefact: 120 made-up rows each."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.cli.output import fitted, print_fields
from routers.labels import LabelRow, LabelsError
from routers.onnx.encoder import load_encoder
from routers.onnx.heads import OWN, load_heads
from routers.onnx.manifest import (
    ArtefactError,
    describe_file,
    load_manifest,
    read_manifest,
    write_manifest,
)
from routers.onnx.render import render
from routers.onnx.router import OnnxRouter
from routers.refit import run
from routers.refit.committee import Labels
from routers.refit.run import compare, cross_validate, merge
from routers.steering.calibration import FILE as CALIBRATION
from routers.steering.calibration import load_calibration
from routers.steering.conformal import conformal_threshold
from routers.types import Query, Turn
from tests.routers_refit.conftest import BASE, ROWS, prompts


def row(number: int, text: str, local: float, frontier: float) -> LabelRow:
    return LabelRow(str(number), (Turn("user", text),), local, frontier)


def kitchen_trouble() -> list[LabelRow]:
    """A local model that can calculate and cannot cook: the opposite of what anybody expects."""
    rng = np.random.default_rng(0)
    sure = rng.random(ROWS) < 0.95
    return [row(i, text, float(sure[i] != food), 1.0) for i, (text, food) in enumerate(prompts())]


def as_the_base_says() -> list[LabelRow]:
    """Outcomes drawn from the probabilities of the artefact itself: nothing is left to learn."""
    rng = np.random.default_rng(3)
    texts = [text for text, _ in prompts()]
    encoder = load_encoder(BASE, load_manifest(BASE).max_tokens)
    reading = encoder.read_singly([render(Query((Turn("user", text),))) for text in texts])
    p = load_heads(BASE).predict(reading.sentences, reading.surfaces)
    drawn = (rng.random(p.shape) < p).astype(float)
    return [row(i, text, *drawn[i].tolist()) for i, text in enumerate(texts)]


def test_what_can_be_learnt_makes_it_better(tmp_path: Path) -> None:
    report = run(kitchen_trouble(), BASE, tmp_path / "new", name="kitchen")
    assert report.better, report.verdict
    assert report.verdict.startswith("better than before on held-out rows: APGR ")
    assert (report.rows, report.left_out) == (ROWS, [])
    metrics = report.metrics
    assert metrics["apgr_after"] > metrics["apgr_before"]  # type: ignore[operator]
    assert metrics["brier_after"] < metrics["brier_before"]  # type: ignore[operator]
    base, manifest = load_manifest(BASE), load_manifest(tmp_path / "new")
    assert (manifest.name, manifest.version) == ("kitchen", base.version + 1)
    assert manifest.rows["own/kitchen"] == ROWS
    assert manifest.metrics == metrics
    assert report.base == f"{base.name}/{base.version}"
    calibration = load_calibration((tmp_path / "new" / CALIBRATION).read_bytes())
    assert calibration.rows == ROWS


async def test_the_new_artefact_serves_what_it_learnt(tmp_path: Path) -> None:
    run(kitchen_trouble(), BASE, tmp_path / "new")
    old, new = OnnxRouter.load(BASE), OnnxRouter.load(tmp_path / "new")
    cook = Query((Turn("user", "How long does chicken curry keep in the fridge?"),))
    integrate = Query((Turn("user", "Find the antiderivative of x*cos(x)."),))
    gains = []
    for router in (old, new):
        scores = [await router.score(query, deadline=60.0) for query in (cook, integrate)]
        assert all(score.gain is not None for score in scores)
        gains.append((scores[0].gain or 0.0) - (scores[1].gain or 0.0))
        await router.aclose()
    assert gains[1] > gains[0]
    assert gains[1] > 0.3


def test_chance_is_no_better_than_before(tmp_path: Path) -> None:
    report = run(as_the_base_says(), BASE, tmp_path / "new")
    assert not report.better, report.verdict
    assert report.verdict.startswith("no better than before on held-out rows: ")
    # It is written all the same: whether to take it is the operator's choice.
    assert OWN in load_heads(tmp_path / "new").committees


def test_a_level_alone_is_no_better_than_before(tmp_path: Path) -> None:
    """Labels that no text explains, at another level than the artefact expects."""
    rng = np.random.default_rng(8)
    drawn = (rng.random((ROWS, 2)) < [0.3, 0.6]).astype(float)
    rows = [row(i, text, *drawn[i].tolist()) for i, (text, _) in enumerate(prompts())]
    report = run(rows, BASE, tmp_path / "new")
    metrics = report.metrics
    assert metrics["brier_fall_ci95"][0] > 0  # type: ignore[index]
    assert metrics["brier_after"] > metrics["brier_of_mean"] - 0.01  # type: ignore[operator]
    assert not report.better, report.verdict
    assert report.verdict.endswith("by one probability for all")


@pytest.mark.parametrize(
    ("order", "level", "better"), [(1, 1, True), (-1, 1, False), (1, -1, False)]
)
def test_what_is_worse_in_one_way_is_not_better(order: int, level: int, better: bool) -> None:
    """`order` and `level`: whether the new artefact has the gains, and the local probabilities,
    rather than the old one."""
    n = 400
    rng = np.random.default_rng(16)
    easy = np.arange(n) % 2 == 1
    local = (rng.random(n) < np.where(easy, 0.9, 0.3)).astype(float)
    right, wrong = np.where(easy, 0.1, 0.6), np.where(easy, 0.6, 0.1)
    true, false = np.where(easy, 2.2, -0.8), np.full(n, -4.0)
    before = np.stack([(true, false)[level > 0], (right, wrong)[order > 0]], axis=1)
    after = np.stack([(false, true)[level > 0], (wrong, right)[order > 0]], axis=1)
    found, said, verdict = compare(load_heads(BASE), (before, after), Labels(local, np.ones(n)), 0)
    fall, gain = found["brier_fall_ci95"], found["apgr_gain_ci95"]
    assert (fall[0] > 0, fall[1] < 0) == (level > 0, level < 0)  # type: ignore[index]
    assert (gain[0] > 0, gain[1] < 0) == (order > 0, order < 0)  # type: ignore[index]
    assert said == better
    assert verdict.startswith("better than before" if better else "no better than before")


def test_what_knew_the_rows_is_compared_on_those_that_it_did_not_know(tmp_path: Path) -> None:
    rows = kitchen_trouble()
    first = run(rows[:60], BASE, tmp_path / "first", name="mine")
    assert (first.left_out, first.compared) == ([], 60)
    again = run(rows, tmp_path / "first", tmp_path / "again", name="mine")
    assert (again.left_out, again.compared, again.rows) == ([OWN], 60, ROWS)
    assert " than before on held-out rows: " in again.verdict
    # Before, half of what can be learnt was known already.
    assert again.metrics["apgr_before"] > first.metrics["apgr_before"]  # type: ignore[operator]
    same = run(rows, tmp_path / "again", tmp_path / "same", name="mine")
    assert (same.left_out, same.compared) == ([OWN], ROWS)
    assert same.verdict.startswith("better than without the layers that knew these rows (own) on ")


def test_copies_of_a_text_are_one_text(tmp_path: Path) -> None:
    """With a copy of each row on the other side of every split, chance would look like a gain."""
    rng = np.random.default_rng(11)
    labels = (rng.random((ROWS, 2)) < [0.6, 0.8]).astype(float)
    texts = [text for text, _ in prompts()]
    rows = [row(i * ROWS + j, text, *labels[j].tolist())
            for i in range(5) for j, text in enumerate(texts)]  # fmt: skip
    report = run(rows, BASE, tmp_path / "copies")
    assert (report.rows, report.merged) == (ROWS, 4 * ROWS)
    once = run(rows[:ROWS], BASE, tmp_path / "once")
    assert (once.rows, once.merged) == (ROWS, 0)
    assert not report.better, report.verdict
    assert not once.better, once.verdict
    # Held out are the same texts with the same labels; a text seen five times weighs more in a fit.
    for name in ("brier_before", "ece_before", "apgr_before"):
        assert report.metrics[name] == once.metrics[name]
    assert report.metrics["brier_after"] == pytest.approx(once.metrics["brier_after"], abs=2e-3)


def test_labels_of_copies_are_averaged_and_unknown_ones_left_out() -> None:
    vectors = np.repeat(np.eye(60, dtype=np.float32)[::-1], 2, axis=0)
    local, frontier = np.tile([1.0, 0.0], 60), np.tile([np.nan, 1.0], 60)
    frontier[:2] = np.nan
    found = merge(vectors, np.arange(120), Labels(local, frontier))
    labels = found.labels
    assert found.first.tolist() == list(range(0, 120, 2))
    assert found.text.tolist() == np.repeat(np.arange(60), 2).tolist()
    assert (labels.local == 0.5).all()
    assert np.isnan(labels.frontier[0])
    assert (labels.frontier[1:] == 1.0).all()
    with pytest.raises(LabelsError, match="49 different texts"):
        merge(vectors[:100], np.arange(100), Labels(local[:100], frontier[:100]))


def test_copies_are_requests_of_their_own_in_the_calibration(tmp_path: Path) -> None:
    """A mean of six good answers in nine is no good answer: three of nine requests failed."""
    rows = [
        row(at, text, float(copy % 3 > 0), 1.0)
        for at, (text, _) in enumerate(prompts())
        for copy in range(9)
    ]
    run(rows, BASE, tmp_path / "new")
    calibration = load_calibration((tmp_path / "new" / CALIBRATION).read_bytes())
    assert calibration.rows == len(rows)
    assert calibration.local_ok.count(0.0) == len(rows) // 3
    assert calibration.p_local[:9] == calibration.p_local[:1] * 9
    share = np.mean(calibration.p_local)
    assert share == pytest.approx(2 / 3, abs=0.05)
    strict = conformal_threshold(
        calibration.gain, calibration.local_ok, calibration.frontier_ok, alpha=0.2
    )
    assert strict is None or strict < 1.0


def test_of_many_texts_some_are_drawn(tmp_path: Path) -> None:
    rows = [*kitchen_trouble(), *kitchen_trouble()]
    report = run(rows, BASE, tmp_path / "new", most=100)
    assert (report.rows, report.merged, report.passed_over) == (100, 100, 20)
    again = run(rows, BASE, tmp_path / "again", most=100)
    assert again.metrics == report.metrics
    assert load_heads(tmp_path / "new").committees[OWN].rows == 100
    calibration = load_calibration((tmp_path / "new" / CALIBRATION).read_bytes())
    assert calibration.rows == 200


async def test_what_is_calibrated_is_what_serves(tmp_path: Path) -> None:
    """Tools and a system prompt are in the labels already; they do not count once more."""
    system = Turn("system", "Prove, derive and verify rigorously, step by step.")
    rng = np.random.default_rng(4)
    rows = [
        LabelRow(str(i), (system, Turn("user", text)), float(rng.random() < 0.6), 1.0, tools=5)
        for i, (text, _) in enumerate(prompts())
    ]
    run(rows, BASE, tmp_path / "new")
    calibration = load_calibration((tmp_path / "new" / CALIBRATION).read_bytes())
    router = OnnxRouter.load(tmp_path / "new")
    scores = [await router.score(each.query, deadline=60.0) for each in rows]
    served = np.array([[score.p_local_ok, score.p_frontier_ok] for score in scores], dtype=float)
    await router.aclose()
    labels = np.mean([each.local_ok or 0.0 for each in rows])
    assert served[:, 0].mean() == pytest.approx(labels, abs=0.06)
    assert np.mean(calibration.p_local) == pytest.approx(labels, abs=0.06)
    assert served[:, 1].mean() == pytest.approx(np.mean(calibration.p_frontier), abs=0.06)
    # Held-out predictions are of requests as they are served, with what they ask for.
    model, encoder = load_heads(BASE), load_encoder(BASE, load_manifest(BASE).max_tokens)
    reading = encoder.read_singly([render(each.query) for each in rows])
    assert (reading.demands > 0.5).all()
    outcomes = Labels(np.array([each.local_ok for each in rows], dtype=float), np.ones(ROWS))
    held = []
    for demands in (reading.demands, None):
        views = model.views(reading.sentences, reading.surfaces, demands)
        said = cross_validate(views, outcomes, seed=0)
        held.append(model.probabilities(said[:, 0], said[:, 1])[:, 0])
    assert np.allclose(calibration.p_local, held[0], atol=1e-4)
    assert not np.allclose(calibration.p_local, held[1], atol=1e-3)


def test_the_limits_say_once_what_the_probabilities_are_of(tmp_path: Path) -> None:
    run(kitchen_trouble(), BASE, tmp_path / "first", name="mine")
    run(kitchen_trouble(), tmp_path / "first", tmp_path / "second", name="ours")
    limits = load_manifest(tmp_path / "second").limits
    assert [each for each in limits if each.startswith("p_local_ok")] == [
        "p_local_ok and p_frontier_ok refer to the rows of ours."
    ]
    assert len(limits) == len(load_manifest(BASE).limits)


def test_a_refit_says_whose_answers_its_labels_are_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = run(kitchen_trouble(), BASE, tmp_path / "silent", name="mine")
    assert silent.models == {"local_ok": {"unknown": ROWS}, "frontier_ok": {"unknown": ROWS}}
    names = (*["home/n"] * 30, *["home/m"] * 80, *[None] * 10)
    rows = [
        msgspec.structs.replace(row, local_model=name, frontier_model="ohio/m")
        for row, name in zip(kitchen_trouble(), names, strict=True)
    ]
    report = run(rows, BASE, tmp_path / "mixed", name="mine")
    assert list(report.models["local_ok"].items()) == [
        ("home/m", 80),
        ("home/n", 30),
        ("unknown", 10),
    ]
    assert report.models["frontier_ok"] == {"ohio/m": ROWS}
    # All rows of a tier are fitted, whosever they are.
    assert (report.rows, report.metrics) == (silent.rows, silent.metrics)
    (meaning,) = [x for x in load_manifest(tmp_path / "mixed").limits if x.startswith("p_local_ok")]
    assert meaning == (
        "p_local_ok and p_frontier_ok refer to the rows of mine, local_ok of home/m (80) and "
        "home/n (30) and unknown (10), frontier_ok of ohio/m (120)."
    )
    print_fields(fitted(msgspec.to_builtins(report)))
    said = capsys.readouterr().out
    assert "local_ok of     home/m 80, home/n 30, unknown 10 (a mix: --model fits" in said
    assert "frontier_ok of  ohio/m 120\n" in said
    assert "_ok of" not in dict(fitted(msgspec.to_builtins(silent)))


def test_a_former_artefact_is_replaced_and_other_files_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "new"
    run(kitchen_trouble(), BASE, out, name="first")
    # Something that only the former one brought.
    (out / "extra.npz").write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"extra\.npz: is in .* no artefact"):
        run(kitchen_trouble(), BASE, out, name="second")
    assert read_manifest(out).name == "first"
    manifest = read_manifest(out)
    extra = {"extra.npz": describe_file(out / "extra.npz")}
    write_manifest(out, msgspec.structs.replace(manifest, files={**manifest.files, **extra}))
    run(kitchen_trouble(), BASE, out, name="second")
    assert load_manifest(out).name == "second"
    assert not (out / "extra.npz").exists()


def test_a_fit_that_fails_leaves_the_former_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new"
    run(kitchen_trouble(), BASE, out, name="first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    # By its module: the package has a function of the same name.
    monkeypatch.setattr(importlib.import_module("routers.refit.run"), "write_manifest", full)
    with pytest.raises(OSError, match="No space"):
        run(kitchen_trouble(), BASE, out, name="second")
    assert load_manifest(out).name == "first"


def test_a_file_that_nobody_pinned_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "new"
    run(kitchen_trouble(), BASE, out)
    (out / ".DS_Store").write_bytes(b"")
    (out / "labels").mkdir()
    load_manifest(out)
    manifest = read_manifest(out)
    files = {name: entry for name, entry in manifest.files.items() if name != CALIBRATION}
    write_manifest(out, msgspec.structs.replace(manifest, files=files))
    with pytest.raises(ArtefactError, match=r"calibration\.json: is not in the manifest"):
        load_manifest(out)


def test_a_refit_repeats(tmp_path: Path) -> None:
    rows = kitchen_trouble()
    first, second = (run(rows, BASE, tmp_path / name, name="x") for name in ("one", "two"))
    assert first.metrics == second.metrics
    assert first.verdict == second.verdict
    one, two = load_manifest(tmp_path / "one"), load_manifest(tmp_path / "two")
    assert one.files == two.files
    assert set(one.files) >= set(load_manifest(BASE).files)


def test_a_refit_of_a_refit_replaces_its_rows(tmp_path: Path) -> None:
    rows = kitchen_trouble()
    run(rows, BASE, tmp_path / "first", name="mine")
    again = run(rows[:100], tmp_path / "first", tmp_path / "second", name="mine")
    manifest = load_manifest(tmp_path / "second")
    assert manifest.version == load_manifest(BASE).version + 2
    assert manifest.rows["own/mine"] == 100
    assert load_heads(tmp_path / "second").committees[OWN].rows == 100
    # The layer beneath knew these rows already, so nothing is compared with it.
    assert again.left_out == [OWN]


def test_rows_that_cannot_be_used_write_nothing(tmp_path: Path) -> None:
    rows = kitchen_trouble()
    same = [
        row(i, r.turns[0].text, r.local_ok or 0.0, r.local_ok or 0.0) for i, r in enumerate(rows)
    ]
    cases: list[tuple[list[LabelRow], str]] = [
        (rows[:20], "too few rows"),
        ([r for r in rows if r.local_ok == 1.0], "in every row"),
        (same, "no gain"),
        ([row(i, "\u200b", i % 2, 1.0) for i in range(ROWS)], "with a text to score: too few"),
    ]
    for bad, message in cases:
        with pytest.raises(LabelsError, match=message):
            run(bad, BASE, tmp_path / "new")
    with pytest.raises(ArtefactError, match="starts from"):
        run(rows, BASE, BASE)
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        run(rows, tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_prompts_and_labels_stay_out_of_the_manifest(tmp_path: Path) -> None:
    run(kitchen_trouble(), BASE, tmp_path / "new", name="kitchen")
    for file in ("manifest.json", "heads.json", CALIBRATION):
        text = json.dumps(json.loads((tmp_path / "new" / file).read_bytes()))
        assert "goulash" not in text
