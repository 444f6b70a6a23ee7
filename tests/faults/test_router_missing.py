"""Row 21: the router's model is missing, corrupt or slow."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from gateway.auth import new_key
from routers.artefacts import ARTEFACTS
from tests.faults.conftest import Stage
from tests.faults.scene import Backend, Key, Scene, chat, configuration
from tests.support import Process

ARTEFACT = ARTEFACTS / "static-192"
LOCAL = Backend("near", "tokens=3,chunk=1ms", tier="local", jurisdiction="de")
FRONTIER = Backend("far", "tokens=4,chunk=1ms", tier="frontier", jurisdiction="us")
KEY = Key("main", (), None)
POLICIES = """
[policies.default]
unclassified = "frontier"
labels.eu.facts.jurisdiction = ["de"]
[policies.careful]
unclassified = "local"
[policies.hurried]
unclassified = "frontier"
score_deadline_ms = 0.01
"""


def router(artefact: Path | str, on_missing: str) -> str:
    return f'[router]\nartefact = "{artefact}"\non_missing = "{on_missing}"\n{POLICIES}'


def broken(folder: Path, name: str) -> Path:
    """A copy of the shipped artefact with one byte changed."""
    copy = folder / f"broken-{name}"
    shutil.copytree(ARTEFACT, copy)
    file = copy / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    return copy


def test_a_missing_model_stops_the_start(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert str(nowhere) in refused(tmp_path, nowhere)


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "cards.json",
        "model.onnx",
        "heads.json",
        "heads.npz",
        "tokenizer.json",
        "classes.npz",
        "spelling.npz",
    ],
)
def test_a_corrupt_model_stops_the_start_and_names_the_file(tmp_path: Path, name: str) -> None:
    assert name in refused(tmp_path, broken(tmp_path, name))


def refused(folder: Path, artefact: Path) -> str:
    """What a start is told that this artefact stops."""
    config = folder / "tollhouse.toml"
    config.write_text(
        configuration("http://127.0.0.1:9", (LOCAL, FRONTIER), (KEY,), router(artefact, "fail"))
    )
    process = Process(
        [
            sys.executable,
            "-c",
            "import sys; from gateway.cli import main; sys.exit(main())",
            "serve",
            str(config),
            "--port",
            "0",
        ],
        {"MAIN": new_key(), "TEST_ADMIN_TOKEN": "a-token-for-the-test"},
        cwd=str(folder),
    )
    try:
        assert process.wait(60) == 2, process.output
        process.stop()
        assert "router.artefact" in process.output
        assert "Traceback" not in process.output
        return process.output
    finally:
        process.stop()


@pytest.fixture(scope="module")
def corrupt(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    artefact = broken(tmp_path_factory.mktemp("artefact"), "heads.json")
    return stage((LOCAL, FRONTIER), (KEY,), extra=router(artefact, "unclassified"))


@pytest.fixture(scope="module")
def slow(stage: Stage) -> Scene:
    return stage((LOCAL, FRONTIER), (KEY,), extra=router(ARTEFACT, "fail"))


def test_without_a_model_the_policy_decides_and_it_is_flagged(corrupt: Scene) -> None:
    answer = corrupt.ask("main", chat("What is two plus two?"))
    assert answer.complete
    assert answer.headers["x-tollhouse-score"] == "model_missing"
    assert answer.headers["x-tollhouse-reason"] == "unclassified"
    assert answer.headers["x-tollhouse-backend"] == "far"
    decision = corrupt.decision(answer.request_id)
    assert decision is not None
    assert decision["unclassified"] == "model_missing"
    careful = corrupt.ask("main", chat("What is two plus two?", model="auto:careful"))
    assert careful.complete
    assert careful.headers["x-tollhouse-backend"] == "near"


@pytest.mark.parametrize("name", ["manifest.json", "cards.json"])
def test_what_tells_of_a_corrupt_model_may_be_corrupt_itself(
    stage: Stage, tmp_path: Path, name: str
) -> None:
    scene = stage((LOCAL, FRONTIER), (KEY,), extra=router(broken(tmp_path, name), "unclassified"))
    answer = scene.ask("main", chat("What is two plus two?"))
    assert answer.complete
    assert answer.headers["x-tollhouse-score"] == "model_missing"


def test_readiness_tells_the_truth(corrupt: Scene) -> None:
    with corrupt.gateway.client() as client:
        report = client.get("/readyz?verbose").json()
    assert report["ready"] is True
    assert report["router"]["model"] is None
    assert "heads.json" in report["router"]["missing"]


def test_residency_needs_no_model(corrupt: Scene) -> None:
    answer = corrupt.ask("main", chat("Guten Tag"), x_tollhouse_residency="eu")
    assert answer.complete
    assert answer.headers["x-tollhouse-backend"] == "near"
    unknown = corrupt.ask("main", chat("Guten Tag"), x_tollhouse_residency="mars")
    assert unknown.status == 403
    found = corrupt.ask("main", chat("Refused", model="far/m"), x_tollhouse_residency="eu")
    assert found.status == 403
    assert corrupt.attempts(found.request_id) == []


def test_past_the_deadline_the_policy_decides_and_it_is_flagged(slow: Scene) -> None:
    answer = slow.ask("main", chat("Prove that two is prime.", model="auto:hurried"))
    assert answer.complete
    assert answer.headers["x-tollhouse-score"] == "deadline"
    assert answer.headers["x-tollhouse-reason"] == "unclassified"
    assert answer.headers["x-tollhouse-backend"] == "far"
    decision = slow.decision(answer.request_id)
    assert decision is not None
    assert decision["unclassified"] == "deadline"


def test_with_time_the_same_model_gives_a_score(slow: Scene) -> None:
    answer = slow.ask("main", chat("Prove that three is prime."))
    assert answer.complete
    assert -1 <= float(answer.headers["x-tollhouse-score"]) <= 1
    assert answer.headers["x-tollhouse-reason"] in ("score_above", "score_below")
