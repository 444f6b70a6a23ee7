"""Cards fitted to labels of one model: 120 made-up requests, a model of known ability."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.cards import activated_cards
from gateway.cli import main
from gateway.config import parse_config
from routers.cards import Base, Card, CardError, apply_cards, load_cards, logit
from routers.labels import LabelRow, LabelsError
from routers.onnx.encoder import load_encoder
from routers.onnx.heads import load_heads
from routers.onnx.manifest import ArtefactError, load_manifest
from routers.onnx.render import render
from routers.onnx.router import OnnxRouter
from routers.refit import CardOrder, ModelRows, run, run_card
from routers.refit.run_card import Sample, compare, cross_validate
from routers.types import Query, Turn
from tests.routers_refit.conftest import BASE, ROWS, prompts

TARGET = "ward/special"
LOCAL = CardOrder(target=TARGET, base="local", name="ward")
CONFIG = """
[router]
artefact = "static-192"
[backends.ward]
provider = "vllm"
base_url = "http://127.0.0.1:9/v1"
tier = "local"
models = { special = {}, other = {}, "llama3.1:8b" = {} }
"""


def queries() -> list[Query]:
    return [Query((Turn("user", text),)) for text, _ in prompts()]


def p_of_the_artefact() -> Any:
    encoder = load_encoder(BASE, load_manifest(BASE).max_tokens)
    reading = encoder.read_singly([render(query) for query in queries()])
    return load_heads(BASE).predict(reading.sentences, reading.surfaces, reading.demands)


@pytest.fixture(scope="module")
def reference() -> Any:
    """[n, 2]: what the artefact says."""
    return p_of_the_artefact()


def answers(reference: Any, ability: float, side: int = 0, seed: int = 3) -> list[float | None]:
    """Outcomes of a model that lies this far, in logits, from the reference of that side."""
    z = np.array([logit(float(p)) for p in reference[:, side]])
    drawn = np.random.default_rng(seed).random(ROWS) < 1 / (1 + np.exp(-z - ability))
    return [float(ok) for ok in drawn]


def of_model(own: list[float | None], **more: list[float | None]) -> ModelRows:
    unknown: list[float | None] = [None] * len(own)
    columns = {"ok": own, "local_ok": unknown, "frontier_ok": unknown, **more}
    return ModelRows(queries()[: len(own)], columns)


def test_a_weaker_model_is_found_out(tmp_path: Path, reference: Any) -> None:
    report = run_card(LOCAL, of_model(answers(reference, -2.0)), BASE, tmp_path / "new")
    assert report.better, report.verdict
    assert report.verdict.startswith("better than before on held-out rows: Brier score ")
    assert (report.rows, report.field) == (ROWS, "ok")
    assert report.left_out == {"unlabelled": 0, "empty": 0, "known": 0}
    assert (report.unnamed, report.against) == (0, {})
    assert (report.before.base, report.before.offset) == ("local", 0.0)
    assert -2.6 < report.card.offset < -1.0
    assert (report.card.origin, report.card.rows) == ("fitted", ROWS)
    figures = report.metrics
    assert figures["brier_after"] < figures["brier_before"]  # type: ignore[operator]
    assert figures["share_ok_said_after"] == pytest.approx(figures["share_ok"], abs=0.05)


def test_all_but_the_card_is_as_it_was(tmp_path: Path, reference: Any) -> None:
    report = run_card(LOCAL, of_model(answers(reference, -2.0)), BASE, tmp_path / "new")
    old, new = load_manifest(BASE), load_manifest(tmp_path / "new")
    assert {n for n in old.files if new.files[n] != old.files[n]} == {"cards.json"}
    cards = load_cards(tmp_path / "new")
    assert cards.cards.pop(TARGET) == report.card
    assert cards == load_cards(BASE)
    # The manifest tells what was fitted, to how much, from what, and what came of it.
    assert (new.name, new.version, new.seed) == ("ward", old.version + 1, old.seed)
    assert new.rows == {**old.rows, f"card/{TARGET}": ROWS}
    measured = {f"card/{TARGET}/{name}": value for name, value in report.metrics.items()}
    assert new.metrics == {**old.metrics, **measured, f"card/{TARGET}/seed": 0.0}
    assert report.base == f"{old.name}/{old.version}"
    assert new.limits[:-1] == old.limits
    assert f"The card of {TARGET} was fitted on {report.base} to {ROWS} rows" in new.limits[-1]
    for file in ("manifest.json", "cards.json"):
        assert "goulash" not in (tmp_path / "new" / file).read_text()


async def test_the_card_moves_its_candidate_and_no_other(tmp_path: Path, reference: Any) -> None:
    run_card(LOCAL, of_model(answers(reference, -2.0)), BASE, tmp_path / "new")
    config = parse_config(CONFIG, {})
    query = Query((Turn("user", "How long does chicken curry keep in the fridge?"),))
    found = []
    for directory in (BASE, tmp_path / "new"):
        router = OnnxRouter.load(directory)
        score = await router.score(query, deadline=60.0)
        found.append(apply_cards(score, activated_cards(config, directory)))
        await router.aclose()
    before, after = found
    assert after.model == f"ward/{load_manifest(BASE).version + 1}"
    assert (after.p_local_ok, after.p_frontier_ok) == (before.p_local_ok, before.p_frontier_ok)
    listed = {"ward/llama3.1:8b"}
    assert before.p_ok.keys() == listed
    assert after.p_ok.keys() == listed | {TARGET}
    assert after.p_ok["ward/llama3.1:8b"] == before.p_ok["ward/llama3.1:8b"]
    assert before.p_local_ok is not None
    assert after.p_ok[TARGET] < before.p_local_ok - 0.2


def test_a_model_like_its_reference_is_no_better_than_before(
    tmp_path: Path, reference: Any
) -> None:
    report = run_card(LOCAL, of_model(answers(reference, 0.0)), BASE, tmp_path / "new")
    assert not report.better, report.verdict
    assert report.verdict.startswith("no better than before on held-out rows: ")
    # It is written all the same: whether to take it is the operator's choice.
    assert load_cards(tmp_path / "new").cards[TARGET] == report.card
    assert abs(report.card.offset) < 0.6


def test_a_row_is_predicted_by_cards_that_have_not_seen_it() -> None:
    rng = np.random.default_rng(5)
    p, own = rng.random(60), (rng.random(60) < 0.4).astype(float)
    sample = Sample(p, p, [None] * 60, own, np.full(60, np.nan), np.arange(60))
    start = Card(origin="prior", error=1.0)
    held = cross_validate(sample, start, seed=1)
    for row in (0, 17, 59):
        flipped = own.copy()
        flipped[row] = 1 - own[row]
        changed = msgspec.structs.replace(sample, own=flipped)
        other = cross_validate(changed, start, seed=1)
        assert other[row] == held[row]
        assert (other != held).any()


def test_copies_of_a_text_are_held_out_together() -> None:
    rng = np.random.default_rng(5)
    p, own = np.repeat(rng.random(30), 2), (rng.random(60) < 0.4).astype(float)
    sample = Sample(p, p, [None] * 60, own, np.full(60, np.nan), np.repeat(np.arange(30), 2))
    start = Card(origin="prior", error=1.0)
    held = cross_validate(sample, start, seed=1)
    for text in (0, 11, 29):
        flipped = own.copy()
        flipped[2 * text : 2 * text + 2] = 0.0 if own[2 * text] + own[2 * text + 1] else 1.0
        other = cross_validate(msgspec.structs.replace(sample, own=flipped), start, seed=1)
        assert (other[2 * text : 2 * text + 2] == held[2 * text : 2 * text + 2]).all()
        assert (other != held).any()


def test_copies_make_no_figure_surer() -> None:
    rng = np.random.default_rng(6)
    p = rng.random(60)
    own = (rng.random(60) < p).astype(float)
    unknown = np.full(60, np.nan)
    once = Sample(p, p, [None] * 60, own, unknown, np.arange(60))
    index = np.tile(np.arange(60), 20)
    start = Card(origin="prior", error=1.0)
    often = once.take(index)
    told = 1 - p
    found = [
        compare(sample, (start, said), "local", 0)
        for sample, said in ((once, told), (often, told[index]))
    ]
    (one, _, _), (many, _, _) = found
    assert many == one


@pytest.mark.parametrize("base", ["local", "frontier"])
def test_the_order_is_that_of_routing_between_the_model_and_the_other_side(base: Base) -> None:
    """A model that is good at half of the requests; nothing before told at which."""
    n = 400
    rng = np.random.default_rng(13)
    sure = np.where(np.arange(n) % 2, 0.9, 0.3)
    own = (rng.random(n) < sure).astype(float)
    other = (rng.random(n) < (0.95 if base == "local" else 0.2)).astype(float)
    guess = rng.uniform(0.4, 0.6, n)
    local, frontier = (guess, np.full(n, 0.95)) if base == "local" else (np.full(n, 0.2), guess)
    # The other side is known of most of them only.
    other[::8] = np.nan
    sample = Sample(local, frontier, [None] * n, own, other, np.arange(n))
    card = Card(base=base, origin="prior", error=1.0)
    figures, better, verdict = compare(sample, (card, sure), base, 0)
    assert better and verdict.startswith("better than before")
    assert figures["apgr_before"] == pytest.approx(0.5, abs=0.1)
    assert figures["apgr_after"] > 0.6  # type: ignore[operator]
    low, high = figures["apgr_gain_ci95"]  # type: ignore[misc]
    assert 0 < low < figures["apgr_after"] - figures["apgr_before"] < high  # type: ignore[operator]
    # The wrong way round it is worse, and said to be.
    turned, better, verdict = compare(sample, (card, 1.2 - sure), base, 0)
    assert not better and verdict.startswith("no better than before")
    assert turned["apgr_after"] < 0.4  # type: ignore[operator]


def test_what_orders_requests_worse_is_not_better_for_its_level() -> None:
    n = 400
    rng = np.random.default_rng(15)
    good = np.arange(n) % 2 == 1
    own = (rng.random(n) < np.where(good, 0.9, 0.3)).astype(float)
    before, after = np.where(good, 0.06, 0.01), np.where(good, 0.57, 0.62)
    sample = Sample(before, np.full(n, 0.95), [None] * n, own, np.ones(n), np.arange(n))
    figures, better, _ = compare(sample, (Card(origin="prior", error=1.0), after), "local", 0)
    assert figures["brier_fall_ci95"][0] > 0  # type: ignore[index]
    assert figures["apgr_gain_ci95"][1] < 0  # type: ignore[index]
    assert not better


def test_without_a_gap_between_the_two_there_is_no_order() -> None:
    rng = np.random.default_rng(14)
    p, own = rng.random(200), (rng.random(200) < 0.6).astype(float)
    sample = Sample(p, p, [None] * 200, own, own, np.arange(200))
    card = Card(origin="prior", error=1.0)
    assert "apgr_after" not in compare(sample, (card, p), "local", 0)[0]
    few = msgspec.structs.replace(sample, other=np.where(np.arange(200) < 49, 1.0, np.nan))
    assert "apgr_after" not in compare(few, (card, p), "local", 0)[0]
    enough = msgspec.structs.replace(sample, other=np.where(np.arange(200) < 50, 1.0, np.nan))
    assert "apgr_after" in compare(enough, (card, p), "local", 0)[0]


def test_labels_of_the_side_are_taken_where_they_are_of_the_model(
    tmp_path: Path, reference: Any
) -> None:
    sides = {"local_ok": answers(reference, -2.0), "frontier_ok": answers(reference, 1.0, side=1)}
    models: dict[Base, list[str | None]] = {
        "local": [TARGET] * ROWS,
        "frontier": ["openai/gpt-4o"] * ROWS,
    }
    rows = ModelRows(queries(), {**sides}, models=models)
    local = run_card(LOCAL, rows, BASE, tmp_path / "local")
    order = CardOrder(target="openai/gpt-4o", base="frontier")
    frontier = run_card(order, rows, BASE, tmp_path / "frontier")
    assert (local.field, local.card.base) == ("local_ok", "local")
    assert (frontier.field, frontier.card.base) == ("frontier_ok", "frontier")
    assert local.card.offset < -1.0 < 0.0 < frontier.card.offset
    assert (local.against, frontier.against) == ({"openai/gpt-4o": ROWS}, {TARGET: ROWS})
    # The other side's labels show what the card does to the order.
    assert "APGR" in local.verdict
    assert local.metrics.keys() >= {"apgr_before", "apgr_after", "apgr_gain_ci95"}
    named = ModelRows(queries(), {**sides, "ok": answers(reference, 1.5)})
    assert run_card(LOCAL, named, BASE, tmp_path / "named").card.offset > 0.5


def two_models(reference: Any, other: float, unnamed: int = 0) -> ModelRows:
    """Labels of the model, which is weaker than the artefact says, on all rows; then the same rows
    with labels of another one, that far from what the artefact says; then some of nobody."""
    own = [*answers(reference, -1.0), *answers(reference, other), *[1.0] * unnamed]
    whose: list[str | None] = [TARGET] * ROWS + ["ward/other"] * ROWS + [None] * unnamed
    many = len(own)
    columns = {"local_ok": own, "frontier_ok": [None] * many}
    each = (queries() * 3)[:many]
    return ModelRows(each, columns, models={"local": whose, "frontier": [None] * many})


def test_the_labels_of_another_model_of_the_tier_do_not_move_the_card(
    tmp_path: Path, reference: Any
) -> None:
    alone = ModelRows(
        queries(),
        {"local_ok": answers(reference, -1.0), "frontier_ok": [None] * ROWS},
        models={"local": [TARGET] * ROWS},
    )
    wanted = run_card(LOCAL, alone, BASE, tmp_path / "alone")
    for number, other in enumerate((-3.0, 2.0)):
        rows = two_models(reference, other, unnamed=7)
        found = run_card(LOCAL, rows, BASE, tmp_path / str(number))
        assert found.card == wanted.card
        assert found.metrics == wanted.metrics
        assert (found.rows, found.unnamed) == (ROWS, 0)
        left_out = {
            "unlabelled": 0,
            "other_model": ROWS,
            "unknown_model": 7,
            "empty": 0,
            "known": 0,
        }
        assert found.left_out == left_out
        # And it has a card of its own.
        order = msgspec.structs.replace(LOCAL, target="ward/other")
        theirs = run_card(order, rows, BASE, tmp_path / f"other-{number}")
        assert theirs.card.offset * other > 0
        assert abs(theirs.card.offset - wanted.card.offset) > 1


def test_unnamed_labels_are_of_the_only_model_of_their_side(tmp_path: Path, reference: Any) -> None:
    rows = ModelRows(
        queries(),
        {"local_ok": answers(reference, -2.0), "frontier_ok": [None] * ROWS},
        models={"local": [TARGET] * 60 + [None] * 60},
    )
    apart = run_card(LOCAL, rows, BASE, tmp_path / "apart")
    assert (apart.rows, apart.unnamed, apart.left_out["unknown_model"]) == (60, 0, 60)
    for sole, used in ((("frontier",), 0), (("local",), 60)):
        order = msgspec.structs.replace(LOCAL, sole=sole)
        report = run_card(order, rows, BASE, tmp_path / "new")
        assert (report.rows, report.unnamed) == (60 + used, used)
        limit = load_manifest(tmp_path / "new").limits[-1]
        assert ("60 of which name no model" in limit) is (used > 0)


def test_too_few_rows_of_the_model_say_what_the_others_are(tmp_path: Path, reference: Any) -> None:
    mixed: list[str | None] = [*[TARGET] * 40, *["ward/other"] * 71, *[None] * 9]
    many: list[str | None] = [f"ward/{i % 5}" for i in range(ROWS)]
    columns = {"local_ok": answers(reference, 0.0), "frontier_ok": [None] * ROWS}
    for names, message in (
        (
            mixed,
            f"rows: too few rows: 40 have local_ok of {TARGET}, at least 50 are needed; "
            "71 are of other models (ward/other); 9 do not say of which model (local_model)",
        ),
        (
            many,
            f"rows: too few rows: 0 have local_ok of {TARGET}, at least 50 are needed; "
            "120 are of other models (ward/0, ward/1, ward/2, ...)",
        ),
    ):
        rows = ModelRows(queries(), columns, models={"local": names})
        with pytest.raises(LabelsError) as caught:
            run_card(LOCAL, rows, BASE, tmp_path / "new")
        assert str(caught.value) == message
    assert not (tmp_path / "new").exists()


def test_a_name_that_tells_something_is_where_the_fit_starts(
    tmp_path: Path, reference: Any
) -> None:
    rows = of_model(answers(reference, -2.0))

    def before(order: CardOrder) -> str:
        return run_card(order, rows, BASE, tmp_path / "new").before.describe()

    assert before(CardOrder(target="ward/llama3.1:8b")).startswith("listed: like llama-3.1-8b")
    assert before(CardOrder(target="ward/qwen2.5:72b")).startswith("prior: local +")
    assert before(CardOrder(target=TARGET, like="mistral-7b-instruct-v0.3")).startswith(
        "listed: like mistral-7b-instruct-v0.3"
    )
    for order, message in (
        (CardOrder(target=TARGET), "the name of ward/special tells the artefact nothing"),
        (CardOrder(target=TARGET, like="lama-3.1-8b"), "near: .*llama-3.1-8b"),
    ):
        with pytest.raises(CardError, match=message):
            run_card(order, rows, BASE, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("target", ["special", "ward/", "/special", ""])
def test_a_target_is_a_backend_and_a_model(target: str) -> None:
    with pytest.raises(ValueError, match="is not BACKEND/MODEL"):
        CardOrder(target=target, base="local")
    with pytest.raises(ValueError, match="one of the two"):
        CardOrder(target=TARGET, base="local", like="llama-3.1-8b-instruct")


def test_a_card_that_is_fitted_again_is_replaced(tmp_path: Path, reference: Any) -> None:
    rows = of_model(answers(reference, -2.0))
    first = run_card(LOCAL, rows, BASE, tmp_path / "first")
    again = run_card(CardOrder(target=TARGET), rows, tmp_path / "first", tmp_path / "again")
    # The rows count once: the fit starts anew, and is compared with the card that held.
    assert again.card == first.card
    assert again.before == first.card
    assert not again.better
    manifest = load_manifest(tmp_path / "again")
    assert manifest.version == load_manifest(BASE).version + 2
    assert sum(TARGET in limit for limit in manifest.limits) == 1
    other = CardOrder(target=f"{TARGET}/other", base="local")
    run_card(other, rows, tmp_path / "again", tmp_path / "two")
    both = load_manifest(tmp_path / "two")
    assert {n for n in both.rows if n.startswith("card/")} == {
        f"card/{TARGET}",
        f"card/{TARGET}/other",
    }
    assert both.metrics.items() >= manifest.metrics.items()


def test_rows_that_the_artefact_was_fitted_to_do_not_count(tmp_path: Path, reference: Any) -> None:
    local, frontier = answers(reference, 0.0), answers(reference, 1.0, side=1)
    labelled = [
        LabelRow(str(i), query.turns, weak, strong)
        for i, (query, weak, strong) in enumerate(zip(queries(), local, frontier, strict=True))
    ]
    run(labelled[:60], BASE, tmp_path / "mine")
    own = answers(reference, -2.0)
    report = run_card(LOCAL, of_model(own), tmp_path / "mine", tmp_path / "new")
    assert (report.rows, report.left_out["known"]) == (60, 60)
    with pytest.raises(LabelsError, match=r"too few rows: 0 have ok and a text .* not fitted to"):
        run_card(LOCAL, of_model(own[:60]), tmp_path / "mine", tmp_path / "none")


def test_a_refit_of_the_heads_forgets_the_card(tmp_path: Path, reference: Any) -> None:
    own = answers(reference, -2.0)
    run_card(LOCAL, of_model(own), BASE, tmp_path / "carded")
    rows = [
        LabelRow(str(i), query.turns, label, 1.0)
        for i, (query, label) in enumerate(zip(queries(), own, strict=True))
    ]
    run(rows, tmp_path / "carded", tmp_path / "heads", name="heads")
    assert TARGET not in load_cards(tmp_path / "heads").cards
    assert TARGET not in (tmp_path / "heads" / "manifest.json").read_text()


def test_a_fit_repeats(tmp_path: Path, reference: Any) -> None:
    rows = of_model(answers(reference, -1.0))
    one, two = (run_card(LOCAL, rows, BASE, tmp_path / name) for name in ("one", "two"))
    assert one.metrics == two.metrics
    assert load_manifest(tmp_path / "one").files == load_manifest(tmp_path / "two").files


def test_rows_that_cannot_be_used_write_nothing(tmp_path: Path, reference: Any) -> None:
    own = answers(reference, 0.0)
    blank = ModelRows([Query((Turn("user", "\u200b"),))] * ROWS, of_model(own).columns)
    cases = [
        (of_model(own[:40]), "rows: too few rows: 40 have ok, at least 50 are needed"),
        (of_model([*own[:40], *[None] * 80]), "40 have ok"),
        (of_model([1.0] * ROWS), "the label is 1 in each of the 120 rows that have ok"),
        (blank, "0 have ok and a text to score"),
    ]
    for rows, message in cases:
        with pytest.raises(LabelsError, match=message):
            run_card(LOCAL, rows, BASE, tmp_path / "new")
    with pytest.raises(ArtefactError, match="starts from"):
        run_card(LOCAL, of_model(own), BASE, BASE)
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        run_card(LOCAL, of_model(own), tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_fits_a_card_and_says_what_came_of_it(
    tmp_path: Path, reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    each = zip(prompts(), answers(reference, -2.0), strict=True)
    lines = [json.dumps({"prompt": text, "ok": ok}) for (text, _), ok in each]
    file.write_text("\n".join(lines))
    args = ["router", "refit", "--labels", str(file), "--out", str(tmp_path / "ward")]
    args += ["--artefact", "static-192"]
    card = ["--model", TARGET, "--tier", "local"]
    assert main([*args, *card]) == 0
    said = capsys.readouterr().out
    assert "card before  prior: local +0.00" in said
    assert "120 by ok" in said
    assert said.splitlines()[-1].startswith("better than before on held-out rows: ")
    assert main([*args, *card, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["origin"] == "fitted"
    for wrong, message in (
        (["--model", TARGET], "tells the artefact nothing"),
        (["--model", "special", "--tier", "local"], "--model: 'special' is not BACKEND/MODEL"),
        (["--model", "", "--tier", "local"], "--model: '' is not BACKEND/MODEL"),
        (["--tier", "local"], "--tier and --like say of what kind --model is"),
    ):
        assert main([*args, *wrong]) == 2
        assert message in capsys.readouterr().err
    _only_rows_of_the_model_are_taken_from_an_export(file, args, capsys)
    file.write_text("\n".join([*lines, '{"prompt": "Why?"}']))
    assert main([*args, *card]) == 2
    assert f"{file}, line 121: ok is missing" in capsys.readouterr().err


def test_copies_do_not_make_few_texts_enough(tmp_path: Path, reference: Any) -> None:
    own = [each for each in answers(reference, 0.0)[:20] for _ in range(10)]
    asked = [query for query in queries()[:20] for _ in range(10)]
    unknown: list[float | None] = [None] * len(own)
    rows = ModelRows(asked, {"ok": own, "local_ok": unknown, "frontier_ok": unknown})
    with pytest.raises(LabelsError, match="20 different texts have ok"):
        run_card(LOCAL, rows, BASE, tmp_path / "new")


def _only_rows_of_the_model_are_taken_from_an_export(
    file: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    exported = [
        {
            "id": str(i),
            "messages": [{"role": "user", "content": text}],
            "local_ok": float(i % 4 == 0),
            "frontier_ok": 1.0,
            "local_model": (TARGET, "ward/other", None)[i % 3],
            "frontier_model": None,
        }
        for i, (text, _) in enumerate(prompts())
    ]
    card = ["--model", TARGET, "--tier", "local"]
    file.write_text("\n".join(map(json.dumps, exported)))
    assert main([*args, *card]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            f"{file}: too few rows: 40 have local_ok of {TARGET}, at least 50 are needed; "
            "40 are of other models (ward/other); 40 do not say of which model (local_model)"
        )
    )
    for row in exported[:60]:
        row["local_model"] = TARGET
    file.write_text("\n".join(map(json.dumps, exported)))
    assert main([*args, *card]) == 0
    said = capsys.readouterr().out
    assert "80 by local_ok\n" in said
    assert "20 of other models, 20 that do not say of which model\n" in said
    assert "APGR against  unknown 80\n" in said
    file.write_text(json.dumps({**exported[0], "local_model": "special"}))
    assert main([*args, *card]) == 2
    assert f"{file}, line 1: local_model must be BACKEND/MODEL" in capsys.readouterr().err
