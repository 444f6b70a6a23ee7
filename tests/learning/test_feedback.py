"""What clients say of answers, and what becomes of it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from routers.labels import load_rows
from tests.learning.conftest import Learner, Start, wait_for


@pytest.fixture(scope="module")
def learner(learn: Start) -> Learner:
    """Keeps what unlabelled requests say, and what `pii` ones do."""
    return learn('[learning]\ncapture = true\ncapture_labels = ["pii"]\n')


def decision(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.headers["x-tollhouse-decision-id"]


def test_without_capture_feedback_counts_and_is_not_usable(learn: Start) -> None:
    learner = learn()
    asked = learner.chat("What is the capital of France?")
    given = learner.feedback({"decision_id": decision(asked), "outcome": "good", "comment": "ok"})
    assert given.status_code == 200
    assert given.json() == {
        "decision_id": decision(asked),
        "request_id": asked.headers["x-request-id"],
        "outcome": 1.0,
        "replaced": False,
        "usable": False,
        "reason": "capture_off",
        "label": None,
        "comment_kept": False,
    }
    assert learner.labels() == []
    assert learner.metric("tollhouse_feedback_total", outcome="good", usable="no") == 1
    # Nothing of the conversation is in the database, and the comment is not either.
    learner.gateway.stop()
    for file in Path(learner.gateway.folder / "data").glob("tollhouse.db*"):
        assert b"capital of France" not in file.read_bytes()


def test_feedback_labels_the_tier_that_answered(learner: Learner) -> None:
    weak = learner.chat("What is the capital of France?")
    strong = learner.chat("Prove it.", headers={"x-tollhouse-policy": "strong"})
    assert weak.headers["x-tollhouse-tier"] == "local"
    assert strong.headers["x-tollhouse-tier"] == "frontier"
    by_request = {"request_id": weak.headers["x-request-id"], "outcome": "bad"}
    first = learner.feedback(by_request).json()
    assert (first["usable"], first["label"], first["reason"]) == (True, "local_ok", None)
    second = learner.feedback({"decision_id": decision(strong), "outcome": 0.75}).json()
    assert (second["usable"], second["label"]) == (True, "frontier_ok")
    rows = learner.labelled(decision(weak), decision(strong))
    assert rows[decision(weak)]["local_ok"] == 0.0
    assert rows[decision(weak)]["frontier_ok"] is None
    assert rows[decision(strong)]["local_ok"] is None
    assert rows[decision(strong)]["frontier_ok"] == 0.75
    row = rows[decision(weak)]
    assert row["messages"] == [{"role": "user", "content": "What is the capital of France?"}]
    assert (row["source"], row["org"], row["artefact"]) == ("feedback", "acme", "heuristic")
    assert row["threshold"] == 1.0
    assert 0 < row["p_local_ok"] < 1


def test_a_second_word_replaces_the_first_and_keys_are_averaged(learner: Learner) -> None:
    asked = decision(learner.chat("hello there"))
    told = [
        learner.feedback({"decision_id": asked, "outcome": outcome}, key=key).json()["replaced"]
        for outcome, key in (("bad", "main"), ("good", "main"), ("good", "main"), (0.5, "second"))
    ]
    assert told == [False, True, True, False]
    assert learner.labelled(asked)[asked]["local_ok"] == 0.75


def test_only_the_owner_may_speak_and_nobody_learns_what_exists(learner: Learner) -> None:
    before = learner.metric("tollhouse_feedback_total")
    asked = learner.chat("hello")
    named: list[dict[str, Any]] = [
        {"decision_id": decision(asked)},
        {"request_id": asked.headers["x-request-id"]},
        {"decision_id": "dec_000000000000000000000000"},
    ]
    answers = [learner.feedback({**name, "outcome": "bad"}, key="stranger") for name in named]
    assert [reply.status_code for reply in answers] == [404, 404, 404]
    assert len({reply.json()["error"]["message"] for reply in answers}) == 1
    # Both ids must be of the same request.
    other = learner.chat("again")
    mixed = {"decision_id": decision(asked), "request_id": other.headers["x-request-id"]}
    assert learner.feedback({**mixed, "outcome": "bad"}).status_code == 404
    assert learner.labelled(decision(asked), decision(other)) == {}
    assert learner.metric("tollhouse_feedback_total") == before
    with learner.gateway.client("th-000000000000-" + "x" * 43) as client:
        assert client.post("/v1/feedback", json={}).status_code == 401


BAD = [
    (b"{", None),
    (b"[]", None),
    ({"outcome": "good"}, "decision_id"),
    ({"decision_id": "dec_1"}, "outcome"),
    ({"decision_id": "dec_1", "outcome": "fine"}, "outcome"),
    ({"decision_id": "dec_1", "outcome": 1.5}, "outcome"),
    ({"decision_id": "dec_1", "outcome": True}, "outcome"),
    ({"decision_id": "dec_1", "outcome": None}, "outcome"),
    ({"decision_id": 7, "outcome": 1}, "decision_id"),
    ({"decision_id": "d" * 65, "outcome": 1}, "decision_id"),
    ({"request_id": "", "outcome": 1}, "request_id"),
    ({"request_id": "caf\u00e9", "outcome": 1}, "request_id"),
    ({"decision_id": "dec_1", "outcome": 1, "comment": "x" * 501}, "comment"),
    ({"decision_id": "dec_1", "outcome": 1, "comment": 3}, "comment"),
    ({"decision_id": "dec_1", "outcome": 1, "rating": 3}, "rating"),
]


def test_bad_input_names_the_field(learner: Learner) -> None:
    with learner.gateway.client() as client:
        for body, field in BAD:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            reply = client.post("/v1/feedback", content=raw)
            assert reply.status_code == 400, (body, reply.text)
            assert reply.json()["error"]["param"] == field, (body, reply.text)
        assert client.post("/v1/feedback", content=b" " * (65 << 10)).status_code == 413
        assert client.get("/v1/feedback").status_code == 405


def test_labelled_conversations_are_kept_only_when_the_label_is_allowed(learner: Learner) -> None:
    phi = learner.chat("hello", headers={"x-tollhouse-residency": "phi"})
    pii = learner.chat("hello", headers={"x-tollhouse-residency": "pii"})
    both = learner.chat("hello", headers={"x-tollhouse-residency": "pii,phi"})
    found = learner.chat("My IBAN is DE89 3704 0044 0532 0130 00, is it valid?")
    assert found.headers["x-tollhouse-residency"] == "pii"
    given = [
        learner.feedback({"decision_id": decision(r), "outcome": "good", "comment": "c"}).json()
        for r in (phi, pii, both, found)
    ]
    # A single tier was left for phi, so the router was not even asked; the label comes first.
    reasons = [(row["reason"], row["comment_kept"]) for row in given]
    assert reasons == [("labels", False), (None, True), ("labels", False), (None, True)]
    kept = learner.labelled(*(decision(r) for r in (phi, pii, both, found)))
    assert set(kept) == {decision(pii), decision(found)}


def test_an_org_that_is_not_listed_is_not_captured(learn: Start) -> None:
    learner = learn('[learning]\ncapture = true\ncapture_orgs = ["rival"]\n')
    mine = decision(learner.chat("hello"))
    theirs = decision(learner.chat("hello", key="stranger"))
    assert learner.feedback({"decision_id": mine, "outcome": 1}).json()["reason"] == "capture_off"
    given = learner.feedback({"decision_id": theirs, "outcome": 1}, key="stranger").json()
    assert given["usable"] is True
    assert [row["org"] for row in learner.labels()] == ["rival"]


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        ("", "capture_off"),
        ('[learning]\ncapture = true\ncapture_orgs = ["rival"]\n', "capture_off"),
        ("[learning]\ncapture = true\n", "labels"),
    ],
)
def test_what_was_captured_before_gives_no_label_where_capture_ended(
    learn: Start, later: str, reason: str
) -> None:
    before = learn('[learning]\ncapture = true\ncapture_labels = ["pii"]\n')
    asked = decision(before.chat("Where does Anna live?", headers={"x-tollhouse-residency": "pii"}))
    wait_for(lambda: before.metric("tollhouse_captures_total", outcome="kept") == 1)
    before.gateway.stop()
    after = learn(later, again=before)
    given = after.feedback({"decision_id": asked, "outcome": "good", "comment": "c"}).json()
    assert (given["usable"], given["reason"], given["label"]) == (False, reason, None)
    assert given["comment_kept"] is False
    assert after.labels() == []


def test_what_was_not_scored_or_came_from_the_cache_gives_no_row(learner: Learner) -> None:
    named = decision(learner.chat("hello", model="home/m"))
    policy = {"x-tollhouse-policy": "cached"}
    learner.chat("the same", headers=policy)
    again = learner.chat("the same", headers=policy)
    assert again.headers["x-tollhouse-cache"] == "hit"
    reasons = [
        learner.feedback({"decision_id": id, "outcome": 1}).json()["reason"]
        for id in (named, decision(again))
    ]
    assert reasons == ["unscored", "cached"]
    assert learner.labelled(named, decision(again)) == {}


def test_an_export_into_a_pipe_leaves_it_there(learner: Learner, tmp_path: Path) -> None:
    learner.feedback({"decision_id": decision(learner.chat("into a pipe")), "outcome": 1})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Opened for both, it waits for nobody.
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        done = cli(learner, "router", "labels", "--out", str(pipe))
        assert done.returncode == 0, done.stderr
        assert pipe.is_fifo()
        assert os.read(reader, 65536).startswith(b"{")
    finally:
        os.close(reader)


@pytest.mark.parametrize("json_too", [False, True])
def test_an_export_goes_on_in_the_file_behind_standard_output(
    learner: Learner, tmp_path: Path, json_too: bool
) -> None:
    asked = decision(learner.chat("appended"))
    learner.feedback({"decision_id": asked, "outcome": 1})
    file = tmp_path / "all.jsonl"
    file.write_text("first\n")
    words = ["router", "labels", "--out", "/dev/stdout", *(["--json"] if json_too else [])]
    with file.open("ab") as appended:
        done = cli(learner, *words, stdout=appended)
        assert done.returncode == 0, done.stderr
        appended.write(b"last\n")
    first, *lines, last = file.read_text().splitlines()
    assert (first, last) == ("first", "last")
    assert json.loads(lines[0])["id"] == asked
    assert all("messages" in json.loads(line) for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


def test_export_is_what_refit_reads(learner: Learner, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "description": "secret of a tool"}}
    ids = [
        decision(learner.chat(f"question {i}", **({"tools": [tool]} if i == 2 else {})))
        for i in range(3)
    ]
    for i, id in enumerate(ids):
        learner.feedback({"decision_id": id, "outcome": i / 2})
    out = tmp_path / "rows.jsonl"
    done = cli(learner, "router", "labels", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = [row for row in load_rows(out) if row.id in ids]
    assert [row.id for row in rows] == list(reversed(ids))
    assert [(row.local_ok, row.frontier_ok) for row in rows] == [
        (1.0, None),
        (0.5, None),
        (0.0, None),
    ]
    assert [row.tools for row in rows] == [1, 0, 0]
    assert rows[0].turns[0].text == "question 2"
    assert "secret of a tool" not in out.read_text()
    assert out.stat().st_mode & 0o077 == 0


def test_a_page_of_long_conversations_is_bounded(learn: Start, tmp_path: Path) -> None:
    learner = learn("[learning]\ncapture = true\n")
    text = json.dumps({"messages": [{"role": "user", "content": "x" * 250_000}]})
    row = ("feedback", "acme", text, 2.0, 1.0, "m/1")
    # Of today: older ones than retention allows are deleted at any moment.
    now = time.time()
    with sqlite3.connect(learner.gateway.folder / "data" / "tollhouse.db") as database:
        database.executemany(
            "INSERT INTO learning_labels (decision_id, ts, source, org, conversation, created, "
            "local_ok, artefact) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(f"dec_{i:02}", now + i, *row) for i in range(60)],
        )
    database.close()
    reply = learner.admin("GET", "/labels", params={"limit": 500})
    assert 4 << 20 < len(reply.content) < 9 << 20
    assert len(reply.json()["items"]) < 60
    out = tmp_path / "rows.jsonl"
    assert cli(learner, "router", "labels", "--out", str(out)).returncode == 0
    assert [row.id for row in load_rows(out)] == [f"dec_{i:02}" for i in reversed(range(60))]


def test_pages_and_deletion(learn: Start) -> None:
    learner = learn("[learning]\ncapture = true\n")
    mine = [decision(learner.chat(f"q{i}")) for i in range(5)]
    theirs = decision(learner.chat("q", key="stranger"))
    for id in mine:
        learner.feedback({"decision_id": id, "outcome": 1})
    learner.feedback({"decision_id": theirs, "outcome": 1}, key="stranger")
    seen, cursor = [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = learner.admin("GET", "/labels", params=query).json()
        seen += [row["decision_id"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [theirs, *reversed(mine)]
    assert learner.admin("GET", "/labels", params={"cursor": "x"}).status_code == 400
    assert learner.admin("DELETE", "/labels").status_code == 400
    gone = learner.admin("DELETE", "/labels", params={"org": "acme"}).json()
    assert gone == {"labels": 5, "captures": 5, "feedback": 5}
    assert [row["decision_id"] for row in learner.labels()] == [theirs]
    assert learner.admin("DELETE", "/labels", params={"before": 1}).json()["labels"] == 0
    assert learner.admin("DELETE", "/labels", params={"before": 4e9}).json()["labels"] == 1
    # Forgotten is forgotten: the decision is there still, its conversation is not.
    again = learner.feedback({"decision_id": theirs, "outcome": 0}, key="stranger").json()
    assert (again["usable"], again["reason"]) == (False, "not_captured")
    log = learner.admin("GET", "/changes").json()["items"]
    assert [entry["action"] for entry in log] == ["labels.delete"] * 3


def test_a_comment_goes_with_a_conversation_that_is_older_than_it(learn: Start) -> None:
    learner = learn("[learning]\ncapture = true\n")
    asked = decision(learner.chat("What is the capital of France?"))
    wait_for(lambda: learner.metric("tollhouse_captures_total", outcome="kept") == 1)
    between = time.time()
    said = {"decision_id": asked, "outcome": "bad", "comment": "it is Paris"}
    assert learner.feedback(said).json()["comment_kept"] is True
    gone = learner.admin("DELETE", "/labels", params={"before": between}).json()
    assert gone == {"labels": 1, "captures": 1, "feedback": 1}
    with sqlite3.connect(learner.gateway.folder / "data" / "tollhouse.db") as database:
        assert list(database.execute("SELECT comment FROM learning_feedback")) == []
    database.close()


def test_the_state_says_what_is_learnt(learner: Learner) -> None:
    before = learner.metric("tollhouse_captures_total", outcome="kept")
    asked = decision(learner.chat("hello"))
    learner.feedback({"decision_id": asked, "outcome": 1})
    state = learner.admin("GET", "/learning").json()
    assert state["capture"] is True
    assert state["labels"]["feedback.local"] >= 1
    assert state["router"]["name"] == "configured"
    wait_for(lambda: learner.metric("tollhouse_captures_total", outcome="kept") > before)


def cli(
    learner: Learner, *words: str, stdout: int | IO[bytes] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    remote = ("--url", learner.gateway.url, "--token", learner.gateway.admin_token)
    run = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]
    return subprocess.run(
        [*run, *words, *remote], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120
    )


def test_export_into_nowhere_is_told(learner: Learner) -> None:
    out = "/nonexistent-folder/rows.jsonl"
    done = cli(learner, "router", "labels", "--out", out)
    assert done.returncode == 1
    assert out in done.stderr
