"""What the router's model sees in a conversation holds it back, although nothing labelled it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routers.patterns import detect
from tests.learning.conftest import Start, Talk

LETTER = (
    "My name is Jonathan Whitfield and I live at 14 Maple Grove, Sheffield. Please write a letter "
    "to my landlord, Margaret Ashworth, about the damp in the bedroom."
)
NOTE = (
    "Presented with chest pain radiating to the left arm; started on aspirin and metoprolol. "
    "Summarise the course for the discharge letter."
)
PLAIN = "Write a function that reverses a list."
CONFIG = """
[learning]
capture = true
capture_labels = {labels}
[learning.shadow]
share = 1.0
judge = "home/judge"
"""


@pytest.mark.parametrize(
    ("text", "labels", "captured", "compared", "asked"),
    [
        (LETTER, [], "data_class", "data_class", {"local"}),
        (LETTER, ["pii"], "kept", "labelled", {"local", "frontier", "judge"}),
        # What is seen binds like a label: the policy keeps `phi` away from the frontier.
        (NOTE, ["phi"], "kept", "shadow_residency", {"local"}),
    ],
)
def test_what_the_model_sees_counts_as_a_label(
    learn: Start,
    talk: Talk,
    text: str,
    labels: list[str],
    captured: str,
    compared: str,
    asked: set[str],
) -> None:
    assert not detect(text).labels
    talk.asked.clear()
    learner = learn(CONFIG.format(labels=json.dumps(labels)), artefact="static-192")
    answer = learner.chat(text)
    assert answer.headers["x-tollhouse-tier"] == "local"
    said = {"decision_id": answer.headers["x-tollhouse-decision-id"], "outcome": "good"}
    told = learner.feedback({**said, "comment": "spot on"}).json()
    learner.compared(compared)
    assert (told["usable"], told["comment_kept"]) == (captured == "kept", captured == "kept")
    assert told["reason"] == (None if captured == "kept" else "data_class")
    assert learner.metric("tollhouse_captures_total", outcome=captured) == 1
    assert learner.metric("tollhouse_captures_total") == 1
    assert {b["model"] for b in talk.asked if text in json.dumps(b)} == asked
    assert bool(learner.labels()) is (captured == "kept")


def test_what_the_model_sees_in_the_answer_is_shown_to_no_judge(
    learn: Start, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = talk._text

    def told(body: dict[str, Any], model: str) -> str:
        return NOTE if model == "local" else answers(body, model)

    monkeypatch.setattr(talk, "_text", told)
    talk.asked.clear()
    learner = learn(CONFIG.format(labels="[]"), artefact="static-192")
    learner.chat(PLAIN)
    learner.compared("data_class")
    assert talk.models() == ["local"]


def test_where_the_model_sees_nothing_all_is_learnt(learn: Start, talk: Talk) -> None:
    learner = learn(CONFIG.format(labels="[]"), artefact="static-192")
    id = learner.chat(PLAIN).headers["x-tollhouse-decision-id"]
    assert learner.feedback({"decision_id": id, "outcome": "good"}).json()["usable"] is True
    learner.compared("labelled")
