"""Comparisons behind the client's answer: what they cost, where they go, what becomes of them."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from gateway.learning.judge import local_first
from tests.learning.conftest import Learner, Start, Talk, wait_for

NANO = 1_000_000_000


def shadow(judge: str = "home/judge", *, labels: str = "", **more: Any) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in more.items()]
    return f"""
[learning]
capture = true
capture_labels = [{labels}]
[learning.shadow]
share = 1.0
judge = "{judge}"
{chr(10).join(lines)}
"""


def usage(learner: Learner, org: str = "@shadow") -> list[dict[str, Any]]:
    return list(learner.admin("GET", "/usage", params={"org": org, "limit": 500}).json()["items"])


def filed(learner: Learner, reason: str) -> list[dict[str, Any]]:
    query = {"org": "acme", "reason": reason, "limit": 500}
    return list(learner.admin("GET", "/decisions", params=query).json()["items"])


def test_both_answers_are_judged_without_a_liking_for_a_place(learn: Start, talk: Talk) -> None:
    learner = learn(shadow())
    ids = []
    for i in range(12):
        reply = learner.chat(f"question {i}", stream=bool(i % 2), user="somebody")
        assert reply.headers["x-tollhouse-tier"] == "local"
        assert "LOCAL" in reply.text
        ids.append(reply.headers["x-tollhouse-decision-id"])
    learner.compared("labelled", 12)
    rows = learner.labelled(*ids)
    assert {(r["source"], r["local_ok"], r["frontier_ok"]) for r in rows.values()} == {
        ("shadow", 0.0, 1.0)
    }
    assert len(rows) == 12
    judged = [json.loads(b["messages"][-1]["content"]) for b in talk.asked if b["model"] == "judge"]
    first = {"LOCAL" in shown["answer_a"] for shown in judged}
    assert first == {local_first(id) for id in ids}
    assert all(("LOCAL" in s["answer_a"]) != ("LOCAL" in s["answer_b"]) for s in judged)
    asked = [body for body in talk.asked if body["model"] == "frontier"]
    assert all("user" not in body and not body.get("stream") for body in asked)
    _books_are_right(learner, set(ids))


def _books_are_right(learner: Learner, ids: set[str]) -> None:
    """The money is the gateway's own, the decisions are the client's organisation's."""
    wait_for(lambda: len(usage(learner)) == 24)
    rows = usage(learner)
    assert {row["tags"][0] for row in rows} == {"shadow", "judge"}
    assert {row["tags"][1] for row in rows} == {"org:acme"}
    assert {row["outcome"] for row in rows} == {"ok"}
    # 1,000 and 100 tokens at 2 and 10 USD per million, and at 1 and 4.
    assert {(r["tags"][0], r["cost_nano"]) for r in rows} == {
        ("shadow", 3_000_000),
        ("judge", 1_400_000),
    }
    spent = learner.admin("GET", "/learning").json()["shadow_spent_usd"]
    assert round(spent * NANO) == 12 * 4_400_000
    assert sum(row["cost_nano"] for row in usage(learner, "acme")) == 0
    decisions = filed(learner, "shadow")
    assert {row["requested_model"] for row in decisions} == {f"shadow:{id}" for id in ids}
    assert {tuple(row["plan"]) for row in decisions} == {("ohio/m",)}
    assert learner.admin("POST", "/audit:verify", json={"org": None}).json()["ok"] is True
    assert learner.metric("tollhouse_cost_usd_total", backend="ohio") > 0


PARIS = """
[backends.paris]
provider = "vllm"
base_url = "{url}/v1"
tier = "frontier"
facts = {{ jurisdiction = "de" }}
models.m = {{ upstream = "paris", input = 2.0, output = 10.0, max_output = 1000 }}
"""


def test_labels_bind_comparisons_as_they_bind_requests(learn: Start, talk: Talk) -> None:
    talk.asked.clear()
    learner = learn(shadow(labels='"phi"'))
    phi = {"x-tollhouse-residency": "phi"}
    for number, headers in enumerate((phi, {**phi, "x-tollhouse-policy": "lax"}), 1):
        # The policy `lax` asks nothing of `phi`; what the key's own policy asks holds all the same.
        assert learner.chat("about a patient", headers=headers).status_code == 200
        learner.compared("shadow_residency", number)
    assert set(talk.models()) == {"local"}
    unlisted = learner.chat("x", headers={"x-tollhouse-residency": "pii"})
    assert unlisted.headers["x-tollhouse-tier"] == "local"
    other = learner.chat("about no patient")
    learner.compared("labelled", 1)
    assert talk.models().count("frontier") == 1
    assert [row["decision_id"] for row in learner.labels()] == [
        other.headers["x-tollhouse-decision-id"]
    ]
    assert learner.metric("tollhouse_shadow_comparisons_total") == 3


def test_nothing_is_paid_when_the_judge_may_not_see_it(learn: Start, talk: Talk) -> None:
    talk.asked.clear()
    learner = learn(shadow("ohio/m", labels='"phi"') + PARIS.format(url=talk.url))
    learner.chat("about a patient", headers={"x-tollhouse-residency": "phi"})
    learner.compared("judge_residency")
    assert set(talk.models()) == {"local"}
    assert usage(learner) == []


def test_an_allowed_label_is_compared_where_it_may_go(learn: Start, talk: Talk) -> None:
    talk.asked.clear()
    learner = learn(shadow(labels='"phi"') + PARIS.format(url=talk.url))
    asked = learner.chat("about a patient", headers={"x-tollhouse-residency": "phi"})
    learner.compared("labelled")
    assert set(talk.models()) == {"local", "paris", "judge"}
    assert set(learner.labelled(asked.headers["x-tollhouse-decision-id"])) != set()
    # Decisions are filed a moment after they were taken.
    wait_for(lambda: bool(filed(learner, "judge")))
    assert [row["labels"] for row in filed(learner, "judge")] == [["phi"]]


def test_comparisons_stay_within_their_budget(learn: Start, talk: Talk) -> None:
    talk.asked.clear()
    learner = learn(shadow(max_usd_per_day=0.02, concurrency=1))
    for i in range(8):
        assert learner.chat(f"q{i}").status_code == 200
    name = "tollhouse_shadow_comparisons_total"
    wait_for(lambda: learner.metric(name) == 8)
    assert learner.metric(name, outcome="labelled") >= 1
    assert learner.metric(name, outcome="budget") >= 1
    assert learner.metric(name, outcome="labelled") + learner.metric(name, outcome="budget") == 8
    state = learner.admin("GET", "/learning").json()
    assert 0 < state["shadow_spent_usd"] <= state["shadow_limit_usd"] == 0.02
    wait_for(
        lambda: (
            sum(r["cost_nano"] for r in usage(learner)) == round(state["shadow_spent_usd"] * NANO)
        )
    )
    # Clients were served all the while.
    assert talk.models().count("local") == 8


def test_what_gives_no_label_is_counted_by_its_reason(
    learn: Start, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learn(shadow())
    for acts, outcome in (
        ({"judge": "prose"}, "verdict_unreadable"),
        ({"judge": "broken"}, "judge_error"),
        ({"frontier": "broken"}, "shadow_error"),
    ):
        monkeypatch.setattr(talk, "acts", acts)
        learner.chat("hello")
        learner.compared(outcome)
        assert learner.labels() == []
    assert learner.metric("tollhouse_shadow_comparisons_total") == 3


def test_a_slow_judge_delays_nobody_and_the_queue_is_bounded(learn: Start, talk: Talk) -> None:
    talk.asked.clear()
    talk.go.clear()
    learner = learn(shadow(concurrency=1, queue=2), judge="slow")
    assert learner.chat("first").status_code == 200
    wait_for(lambda: "slow" in talk.models())
    for i in range(5):
        assert learner.chat(f"q{i}").status_code == 200
    # One is being judged, two wait, three found no place; nobody waited for any of them.
    learner.compared("queue_full", 3)
    state = learner.admin("GET", "/learning").json()
    assert (state["shadow_busy"], state["shadow_waiting"]) == (1, 2)
    learner.gateway.stop()
    talk.go.set()
    rows = sqlite3.connect(learner.gateway.folder / "data" / "tollhouse.db").execute(
        "SELECT tags, outcome, cost_nano FROM usage_records WHERE org = '@shadow' ORDER BY ts"
    )
    # What was given up may have been worked on: it is booked, as an estimate.
    found = {(json.loads(tags)[0], outcome): cost for tags, outcome, cost in rows}
    assert set(found) == {("shadow", "ok"), ("judge", "cancelled")}
    assert found["judge", "cancelled"] > 0


def test_what_is_deleted_while_it_is_compared_gives_no_label(learn: Start, talk: Talk) -> None:
    talk.asked.clear()
    talk.go.clear()
    learner = learn(shadow(), frontier="slow")
    assert learner.chat("forget this").status_code == 200
    wait_for(lambda: "slow" in talk.models())
    assert learner.admin("DELETE", "/labels", params={"org": "acme"}).status_code == 200
    talk.go.set()
    learner.compared("deleted")
    assert learner.labels() == []
    # What is said afterwards is learnt from.
    assert learner.chat("keep this").status_code == 200
    learner.compared("labelled")
    assert [row["messages"][0]["content"] for row in learner.labels()] == ["keep this"]


def test_the_strong_tier_and_named_models_are_not_compared(learn: Start, talk: Talk) -> None:
    talk.asked.clear()
    learner = learn(shadow())
    learner.chat("a", headers={"x-tollhouse-policy": "strong"})
    learner.chat("b", model="home/m")
    tool = {"type": "function", "function": {"name": "look"}}
    learner.chat("c", tools=[tool])
    learner.chat("d", n=2)
    last = learner.chat("e")
    learner.compared("labelled")
    assert learner.metric("tollhouse_shadow_comparisons_total") == 1
    assert set(learner.labelled(last.headers["x-tollhouse-decision-id"])) != set()
