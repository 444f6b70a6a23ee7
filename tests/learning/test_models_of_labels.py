"""Which model of its tier a label is of: from the answer to the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from routers.artefacts import shipped_artefacts
from routers.labels import load_rows
from tests.learning.conftest import Learner, Start, Talk
from tests.routers_refit.conftest import prompts

ATTIC = """
[learning]
capture = true

[backends.attic]
provider = "vllm"
base_url = "{url}/v1"
tier = "local"
models.m = {{ upstream = "attic", input = 0.0, output = 0.0 }}
"""
SHADOW = """
[learning.shadow]
share = 1.0
judge = "court/judge"

[backends.court]
provider = "vllm"
base_url = "{url}/v1"
tier = "court"
models.judge = {{ upstream = "judge", input = 1.0, output = 4.0, max_output = 1000 }}
"""
ROWS = 60


def answered(learner: Learner, text: str, by: str, *, key: str = "main", **more: Any) -> str:
    """The id of the decision."""
    reply = learner.chat(text, key=key, **more)
    assert reply.status_code == 200, reply.text
    assert f"{reply.headers['x-tollhouse-backend']}/m" == by
    return reply.headers["x-tollhouse-decision-id"]


def models(learner: Learner, decision: str) -> dict[str, tuple[str | None, str | None]]:
    """By source."""
    return {
        row["source"]: (row["local_model"], row["frontier_model"])
        for row in learner.labels(limit=500)
        if row["decision_id"] == decision
    }


def test_labels_name_the_model_that_answered_and_the_one_it_was_compared_with(
    learn: Start, talk: Talk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    second = 'allow = ["home/m", "attic/m", "ohio/m", "court/judge"]'
    learner = learn((ATTIC + SHADOW).format(url=talk.url), second=second)
    weak = answered(learner, "hello", "home/m")
    strong = answered(learner, "prove it", "ohio/m", headers={"x-tollhouse-policy": "strong"})
    streamed = answered(learner, "again", "home/m", stream=True)
    learner.compared("labelled", 2)
    # Another model of the tier stands in for one that fails.
    monkeypatch.setattr(talk, "acts", {"local": "broken", "judge": "both"})
    stood_in = answered(learner, "anybody there?", "attic/m", key="second")
    learner.compared("labelled", 3)
    for id in (weak, strong, stood_in):
        assert learner.feedback({"decision_id": id, "outcome": 1}).json()["usable"] is True
    assert models(learner, weak) == {"feedback": ("home/m", None), "shadow": ("home/m", "ohio/m")}
    assert models(learner, strong) == {"feedback": (None, "ohio/m")}
    assert models(learner, streamed) == {"shadow": ("home/m", "ohio/m")}
    assert models(learner, stood_in) == {
        "feedback": ("attic/m", None),
        "shadow": ("attic/m", "ohio/m"),
    }
    out = tmp_path / "rows.jsonl"
    assert main(["router", "labels", "--out", str(out), *remote(learner)]) == 0
    assert {row.id: (row.local_model, row.frontier_model) for row in load_rows(out)} == {
        weak: ("home/m", "ohio/m"),
        strong: (None, "ohio/m"),
        streamed: ("home/m", "ohio/m"),
        stood_in: ("attic/m", "ohio/m"),
    }


def remote(learner: Learner) -> list[str]:
    return ["--url", learner.gateway.url, "--token", learner.gateway.admin_token]


@pytest.fixture(scope="module")
def learner(learn: Start, talk: Talk) -> Learner:
    """Requests of its second key go to the attic, others to the home."""
    return learn(
        ATTIC.format(url=talk.url),
        artefact=shipped_artefacts()[0],
        second='allow = ["attic/m", "ohio/m"]',
    )


def collect(learner: Learner, key: str, by: str, good: int) -> None:
    """Feedback on as many answers, of every fourth that it is as good as this."""
    for number, (text, _) in enumerate(prompts()[:ROWS]):
        id = answered(learner, text, by, key=key)
        outcome = good if number % 4 == 0 else 1 - good
        given = learner.feedback({"decision_id": id, "outcome": outcome}, key=key).json()
        assert (given["usable"], given["label"]) == (True, "local_ok"), given


def proposed(learner: Learner, model: str, name: str) -> dict[str, Any]:
    propose = ["router", "propose", "--model", model, "--tier", "local", "--name", name]
    code = main([*propose, *remote(learner)])
    found = learner.admin("GET", f"/refits/{name}").json()
    assert code == 0, found["error"]
    return dict(found["report"])


def test_the_card_of_a_model_is_not_moved_by_labels_of_another_one_of_its_tier(
    learner: Learner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect(learner, "main", "home/m", good=0)
    alone = proposed(learner, "home/m", "alone")
    assert alone["card"]["offset"] > 0
    collect(learner, "second", "attic/m", good=1)
    capsys.readouterr()
    both = proposed(learner, "home/m", "both")
    assert both["card"] == alone["card"]
    assert both["metrics"] == alone["metrics"]
    assert (both["rows"], both["unnamed"], both["left_out"]["other_model"]) == (ROWS, 0, ROWS)
    said = capsys.readouterr().out
    assert f"{ROWS} by local_ok\n" in said
    assert f"left out  {ROWS} of other models\n" in said
    other = proposed(learner, "attic/m", "other")
    assert other["card"]["offset"] < alone["card"]["offset"] - 1
    assert other["left_out"]["other_model"] == ROWS
    # The same by the file that is exported.
    out = tmp_path / "rows.jsonl"
    assert main(["router", "labels", "--out", str(out), *remote(learner)]) == 0
    refit = ["router", "refit", "--labels", str(out), "--out", str(tmp_path / "carded"), "--json"]
    refit += ["--artefact", shipped_artefacts()[0], "--model", "home/m", "--tier", "local"]
    capsys.readouterr()
    assert main(refit) == 0
    assert json.loads(capsys.readouterr().out)["card"] == alone["card"]
    # Of a model that has not answered there are no labels, whatever the others say.
    unheard = ["router", "propose", "--model", "home/new", "--tier", "local", "--name", "unheard"]
    assert main([*unheard, *remote(learner)]) == 1
    assert (
        f"0 have local_ok of home/new, at least 50 are needed; {2 * ROWS} are of other models"
        in capsys.readouterr().out
    )


def test_labels_that_name_no_model_count_where_the_gateway_has_one(
    learner: Learner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": text, "local_ok": number % 4 == 0, "frontier_ok": number % 3 > 0}
        for number, (text, _) in enumerate(prompts()[:ROWS])
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    propose = ["router", "propose", "--labels", str(file), *remote(learner)]
    assert main([*propose, "--model", "ohio/m", "--tier", "frontier", "--name", "sole"]) == 0
    said = capsys.readouterr().out
    assert (
        f"{ROWS} by frontier_ok, {ROWS} of them name no model: no other one answers there" in said
    )
    assert main([*propose, "--model", "home/m", "--tier", "local", "--name", "several"]) == 1
    assert f"0 have local_ok of home/m, at least 50 are needed; {ROWS} do not say of which" in (
        capsys.readouterr().out
    )
