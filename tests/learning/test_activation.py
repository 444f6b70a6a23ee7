"""The operator activates an artefact: every worker takes it, no request is lost, and what cannot be
used is told and stood in for."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.learning import CONFIGURED
from routers.artefacts import find_artefact, shipped_artefacts
from tests.learning.conftest import Learner, Start, wait_for

ARTEFACT = find_artefact(shipped_artefacts()[0])
ACTIVE = "tollhouse_router_active"


def finished(learner: Learner, name: str, *, state: str = "done") -> Path:
    """A refit that ended, as if it had been proposed: the shipped artefact under another name."""
    folder = learner.gateway.folder / "data" / "artefacts" / name
    shutil.copytree(ARTEFACT, folder)
    with sqlite3.connect(learner.gateway.folder / "data" / "tollhouse.db", timeout=10) as database:
        more = {"metrics": {}, "rows": 6, "merged": 2, "passed_over": 1, "compared": 5}
        report = json.dumps({"better": True, "verdict": "better", "left_out": ["own"], **more})
        database.execute(
            "INSERT INTO learning_refits VALUES (?, ?, ?, 'admin', 'labels', 'base', 9, ?, '')",
            (name, state, time.time(), report if state == "done" else None),
        )
    database.close()
    return folder


def active(learner: Learner) -> dict[str, Any]:
    return dict(learner.admin("GET", "/learning").json()["router"])


def workers_running(learner: Learner, name: str) -> int:
    """How many workers say that they run it."""
    return round(learner.metric(ACTIVE, router_artefact=name))


class Load:
    """Requests without a pause, until it is left."""

    def __init__(self, learner: Learner) -> None:
        self.statuses: list[int] = []
        self._learner = learner
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(3)]

    def _run(self, number: int) -> None:
        count = 0
        with self._learner.gateway.client() as client:
            while not self._stop.is_set():
                count += 1
                text = f"thread {number} question {count}"
                body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
                reply = client.post("/v1/chat/completions", json=body)
                self.statuses.append(reply.status_code)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def test_two_workers_change_over_under_load(learn: Start) -> None:
    learner = learn(workers=2)
    finished(learner, "first")
    finished(learner, "second")
    with Load(learner) as load:
        for verb, name, running in (
            ("first:activate", "first", "first"),
            ("second:activate", "second", "second"),
            ("second:rollback", "first", "first"),
            ("first:rollback", CONFIGURED, CONFIGURED),
        ):
            before = len(load.statuses)
            reply = learner.admin("POST", f"/refits/{verb}")
            assert reply.status_code == 200, reply.text
            assert (reply.json()["name"], reply.json()["loaded"]) == (name, True)
            wait_for(lambda running=running: workers_running(learner, running) == 2)
            wait_for(lambda before=before: len(load.statuses) > before + 5)
    assert set(load.statuses) == {200}
    again = learner.admin("POST", f"/refits/{CONFIGURED}:rollback")
    assert again.status_code == 409
    log = learner.admin("GET", "/changes").json()["items"]
    assert [(e["action"], e["before"], e["after"]) for e in log] == [
        ("router.rollback", "first", CONFIGURED),
        ("router.rollback", "second", "first"),
        ("router.activate", "first", "second"),
        ("router.activate", CONFIGURED, "first"),
    ]


def test_what_was_activated_scores_and_survives_a_restart(learn: Start) -> None:
    learner = learn()
    folder = finished(learner, "mine")
    learner.chat("before")
    reply = learner.admin("POST", "/refits/mine:activate")
    assert reply.status_code == 200, reply.text
    learner.chat("after")
    wait_for(lambda: len(learner.routers()) == 2)
    after, before = learner.routers()
    assert before == "heuristic"
    assert after not in ("heuristic", "missing")
    again = learner.admin("POST", "/refits/mine:activate").json()
    assert again["since"] == reply.json()["since"]
    learner.gateway.stop()
    learner = learn(again=learner)
    assert active(learner)["name"] == "mine"
    learner.chat("after the restart")
    wait_for(lambda: learner.routers()[0] == after)
    learner.gateway.stop()

    (folder / "heads.json").write_bytes(b"{}")
    learner = learn(again=learner)
    state = active(learner)
    assert (state["name"], state["loaded"], state["model"]) == ("mine", False, "heuristic")
    assert "heads.json" in state["problem"]
    with learner.gateway.client() as client:
        ready = client.get("/readyz?verbose")
    assert ready.status_code == 200
    assert ready.json()["router"]["active"]["loaded"] is False
    assert "the configured one stands in" in learner.gateway.process.output
    assert learner.metric(ACTIVE, router_artefact="mine") == 0
    assert learner.chat("served all the same").status_code == 200
    wait_for(lambda: learner.routers()[0] == "heuristic")

    shutil.copy(ARTEFACT / "heads.json", folder / "heads.json")
    mended = learner.admin("POST", "/refits/mine:activate").json()
    assert (mended["loaded"], mended["problem"]) == (True, None)
    back = learner.admin("POST", "/refits/mine:rollback").json()
    assert (back["name"], back["model"]) == (CONFIGURED, "heuristic")


def test_what_cannot_be_used_is_not_activated(learn: Start) -> None:
    learner = learn()
    (finished(learner, "broken") / "model.onnx").write_bytes(b"not a model")
    finished(learner, "failed", state="failed")
    shutil.rmtree(finished(learner, "gone"))
    for name, status in (("broken", 409), ("failed", 409), ("gone", 409), ("never", 404)):
        reply = learner.admin("POST", f"/refits/{name}:activate")
        assert reply.status_code == status, (name, reply.text)
    for name, status in (("never", 409), (CONFIGURED, 409), ("..", 400)):
        assert learner.admin("POST", f"/refits/{name}:rollback").status_code in (status, 404)
    assert learner.admin("POST", "/refits/broken:destroy").status_code == 404
    nameless = learner.admin("POST", "/refits/:activate")
    assert (nameless.status_code, nameless.json()["errors"][0]["path"]) == (400, "name")
    assert active(learner)["name"] == CONFIGURED
    assert learner.admin("POST", f"/refits/{CONFIGURED}:activate").status_code == 200


def test_the_active_refit_is_not_deleted_and_no_rollback_goes_to_a_deleted_one(
    learn: Start,
) -> None:
    learner = learn()
    folders = {name: finished(learner, name) for name in ("first", "second")}
    for name in folders:
        assert learner.admin("POST", f"/refits/{name}:activate").status_code == 200
    kept = learner.admin("DELETE", "/refits/second")
    assert kept.status_code == 409
    assert "is active: activate another one first" in kept.json()["detail"]
    assert folders["second"].is_dir()
    gone = learner.admin("DELETE", "/refits/first")
    assert (gone.status_code, gone.json()["name"]) == (200, "first")
    assert not folders["first"].exists()
    assert learner.admin("DELETE", "/refits/first").status_code == 404
    assert learner.admin("POST", "/refits/first:activate").status_code == 404
    back = learner.admin("POST", "/refits/second:rollback")
    assert back.status_code == 409
    assert "'first', which was active before, is deleted" in back.json()["detail"]
    assert learner.admin("POST", f"/refits/{CONFIGURED}:activate").status_code == 200
    assert learner.admin("DELETE", "/refits/second").status_code == 200
    assert active(learner)["name"] == CONFIGURED


def test_a_heuristic_router_cannot_be_refitted(learn: Start) -> None:
    learner = learn()
    row = b'{"prompt": "x", "local_ok": 1, "frontier_ok": 0}\n'
    reply = learner.admin("POST", "/refits", content=row)
    assert reply.status_code == 409
    assert "heuristic" in reply.json()["detail"]
    named = learner.admin("POST", "/refits", params={"name": "Spring"}, content=row).json()
    assert (named["status"], named["detail"]) == (422, "The request is not valid.")
    assert named["errors"][0]["path"] == "name"
    assert named["errors"][0]["message"].startswith("1 to 63 of")
    assert learner.admin("GET", "/refits").json() == {"items": [], "next_cursor": None}
    assert learner.admin("GET", "/refits/none").status_code == 404
    assert learner.admin("GET", "/refits", params={"cursor": "x"}).status_code == 400


@pytest.mark.parametrize(
    "words",
    [
        ("refits",),
        ("refits", "mine"),
        ("activate", "mine"),
        ("rollback",),
        ("refits", "mine", "--delete"),
    ],
)
def test_the_commands_speak_to_the_gateway(
    command: Learner, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    from gateway.cli import main

    if command.admin("GET", "/refits/mine").status_code == 404:
        finished(command, "mine")
    command.admin("POST", f"/refits/{'mine' if words == ('rollback',) else CONFIGURED}:activate")
    remote = ["--url", command.gateway.url, "--token", command.gateway.admin_token]
    code = main(["router", *words, *remote])
    told = capsys.readouterr()
    assert code == 0, told.err
    expected = {
        ("refits",): ["better"],
        ("refits", "mine"): [
            "6 different texts, 2 more of the same, 1 passed over",
            "own, which knew rows already; compared on 5 texts",
        ],
        ("activate", "mine"): ["mine is active"],
        ("rollback",): ["configured is active"],
        ("refits", "mine", "--delete"): ["mine is deleted"],
    }
    assert all(said in told.out for said in expected[words]), told.out


@pytest.fixture(scope="module")
def command(learn: Start) -> Learner:
    return learn()
