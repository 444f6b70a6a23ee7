"""A field that the first backend's API has no place for: the next one that has it is asked, under
the same rules as after any failure."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import Backend, Key, Scene, chat, prompt

CLAUDE = Backend("claude", "tokens=4", tier="frontier", provider="anthropic")
TWIN = Backend("twin", "tokens=5", tier="frontier", provider="anthropic")
SPARE = Backend("spare", "tokens=6", jurisdiction="us", input=2.0, output=8.0)
FREE = Backend("free", "tokens=7", provider="anthropic", input=0.0, output=0.0)
FAILING = Backend("failing", "status=500,tokens=9")
FIELDS: dict[str, Any] = {
    "temperature": 1.5,
    "logit_bias": {"50": -100},
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
}
POLICIES = """
[policies.default]
route = "strong"
labels.de.facts.jurisdiction = ["de"]
"""


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    keys = (
        Key("both", ("claude", "twin", "spare")),
        Key("twins", ("claude", "twin")),
        Key("poor", ("free", "spare"), budget_usd=0.000000001),
        Key("unlucky", ("failing", "free")),
    )
    return stage((CLAUDE, TWIN, FAILING, FREE, SPARE), keys, extra=POLICIES)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_a_backend_that_takes_the_field_is_asked(scene: Scene, field: str, stream: bool) -> None:
    body = chat(prompt(1), stream=stream, **{field: FIELDS[field]})
    answer = scene.ask("both", body)
    assert answer.complete, answer.body
    assert answer.text == "w0 w1 w2 w3 w4 w5"
    named = [answer.headers[f"x-tollhouse-{name}"] for name in ("backend", "tier", "reason")]
    assert named == ["spare", "local", "capability"]
    assert answer.headers["x-tollhouse-attempts"] == "1"
    assert [row["model"] for row in scene.attempts(answer.request_id)] == [SPARE.upstream]
    (record,) = scene.usage(answer.request_id)
    assert (record["backend"], record["attempt"], record["outcome"]) == ("spare", 1, "ok")
    decision = scene.decision(answer.request_id)
    assert decision is not None
    assert decision["plan"] == ["spare/m"]
    assert decision["reason"] == "capability"
    why = f"its API cannot carry the request's {field}"
    gone = [row for row in decision["rejected"] if row[1] == "capability"]
    assert gone == [["claude/m", "capability", why], ["twin/m", "capability", why]]
    scene.balanced("both")


def test_without_the_field_the_first_is_asked(scene: Scene) -> None:
    answer = scene.ask("both", chat(prompt(2), temperature=0.5))
    assert answer.headers["x-tollhouse-backend"] == "claude"


@pytest.mark.parametrize(
    ("model", "more"),
    [("auto", {}), ("claude/m", {}), ("auto", {"x_tollhouse_residency": "de"})],
    ids=["nobody takes it", "named", "label"],
)
def test_nobody_else_is_asked(scene: Scene, model: str, more: dict[str, str]) -> None:
    """When the plan is used up the field is named; neither a name nor a label is widened."""
    key = "both" if more else "twins"
    answer = scene.ask(key, chat(prompt(3), model=model, temperature=1.5), **more)
    assert answer.status == 400
    assert answer.error is not None
    assert (answer.error["param"], answer.error["code"]) == ("temperature", "unsupported_parameter")
    assert answer.headers["x-tollhouse-attempts"] == "0"
    assert scene.attempts(answer.request_id) == []
    assert scene.balanced(key) >= 0
    decision = scene.decision(answer.request_id)
    assert decision is not None
    if not more:
        # A label's decision is recorded before anybody is asked.
        assert (decision["plan"], decision["refusal"]) == ([], "unsupported_parameter")
    assert scene.sql("SELECT 1 FROM usage_records WHERE request_id = ?", answer.request_id) == []


def test_a_dearer_backend_must_be_affordable(scene: Scene) -> None:
    answer = scene.ask("poor", chat(prompt(4), temperature=1.5))
    assert answer.status == 402
    assert scene.attempts(answer.request_id) == []
    assert scene.balanced("poor") == 0


def test_what_no_backend_takes_is_not_passed_on(scene: Scene) -> None:
    result = {"role": "tool", "tool_call_id": "call_nobody_made", "content": "42"}
    body = chat(prompt(5))
    answer = scene.ask("both", {**body, "messages": [*body["messages"], result]})
    assert answer.status == 400
    assert answer.error is not None
    assert answer.error["param"] == "messages[1].tool_call_id"
    assert answer.error["code"] == "invalid_value"
    assert scene.attempts(answer.request_id) == []


def test_a_failure_before_it_is_what_the_client_hears_of(scene: Scene) -> None:
    """The one that could have answered may do so later."""
    answer = scene.ask("unlucky", chat(prompt(6), temperature=1.5))
    assert answer.status == 502
    asked = {row["model"] for row in scene.attempts(answer.request_id)}
    assert asked == {FAILING.upstream}
    assert answer.headers["x-tollhouse-attempts"] == str(len(scene.attempts(answer.request_id)))


def test_a_conversation_without_a_user_goes_where_it_is_taken(scene: Scene) -> None:
    body = {"model": "auto", "messages": [{"role": "system", "content": prompt(7)}]}
    answer = scene.ask("both", body)
    assert answer.complete, answer.body
    assert answer.headers["x-tollhouse-backend"] == "spare"
