"""From feedback-like rows to a router that serves: the command line, the gateway, the fitting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from routers.artefacts import shipped_artefacts
from tests.learning.conftest import Learner, Start, wait_for

pytest.importorskip("routers.refit")


def rows(count: int) -> list[dict[str, object]]:
    """Easy and hard questions; the local model fails on the hard ones, mostly."""
    found: list[dict[str, object]] = []
    for i in range(count):
        hard = i % 2 == 1
        text = (
            f"Prove that the {i}-th integral of this stochastic differential equation converges."
            if hard
            else f"Say hello to friend number {i}."
        )
        local = (i % 10 == 9) if hard else (i % 10 != 8)
        messages = [{"role": "user", "content": text}]
        found.append({"id": str(i), "messages": messages, "local_ok": int(local), "frontier_ok": 1})
    return found


def bed_rows() -> bytes:
    """Rows about one model, which is wrong three times out of four."""
    asked = (f"Which ward has bed number {i} of the {i % 7}th floor?" for i in range(80))
    lines = [{"prompt": text, "ok": int(i % 4 == 0)} for i, text in enumerate(asked)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture(scope="module")
def learner(learn: Start) -> Learner:
    return learn(artefact=shipped_artefacts()[0])


def test_rows_become_the_router_of_the_gateway(
    learner: Learner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gateway.cli import main

    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(300)))
    remote = ["--url", learner.gateway.url, "--token", learner.gateway.admin_token]
    code = main(["router", "propose", "--labels", str(file), "--name", "mine", *remote])
    told = capsys.readouterr()
    assert code == 0, told
    found = learner.admin("GET", "/refits/mine").json()
    assert (found["state"], found["rows"]) == ("done", 300)
    assert isinstance(found["better"], bool)
    assert found["verdict"] in told.out
    learner.chat("before")
    assert main(["router", "activate", "mine", *remote]) == 0
    learner.chat("after")
    wait_for(lambda: len(learner.routers()) == 2)
    after, before = learner.routers()
    assert after != before
    # A refit of a refit starts from it.
    fewer = b"".join(file.read_bytes().splitlines(keepends=True)[:200])
    again = learner.admin("POST", "/refits", params={"name": "next"}, content=fewer)
    assert again.json()["base"] == "mine"
    wait_for(lambda: learner.admin("GET", "/refits/next").json()["state"] == "done", 90)


def test_the_card_of_a_model_is_proposed_and_activated(
    learner: Learner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gateway.cli import main

    file = tmp_path / "ward.jsonl"
    file.write_bytes(bed_rows())
    remote = ["--url", learner.gateway.url, "--token", learner.gateway.admin_token]
    propose = ["router", "propose", "--labels", str(file), "--model", "ward/own"]
    assert main([*propose, "--name", "unknown", *remote]) == 1
    assert "say its tier" in capsys.readouterr().out
    assert main([*propose, "--tier", "local", "--name", "card", *remote]) == 0
    told = capsys.readouterr().out
    assert "ward/own" in told
    assert "80 by ok" in told
    found = learner.admin("GET", "/refits/card").json()
    assert (found["state"], found["report"]["target"]) == ("done", "ward/own")
    assert found["report"]["card"]["offset"] < -1
    assert main(["router", "activate", "card", *remote]) == 0
    bad = learner.admin("POST", "/refits", params={"model": "ward"}, content=file.read_bytes())
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (422, "model")
    bad = learner.admin("POST", "/refits", params={"tier": "middle", "model": "ward/own"})
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (400, "tier")


def test_too_few_rows_are_told(learner: Learner) -> None:
    body = "".join(json.dumps(row) + "\n" for row in rows(4)).encode()
    assert learner.admin("POST", "/refits", params={"name": "few"}, content=body).status_code == 202
    wait_for(lambda: learner.admin("GET", "/refits/few").json()["state"] != "running", 60)
    failed = learner.admin("GET", "/refits/few").json()
    assert failed["state"] == "failed"
    assert "rows" in failed["error"]


def test_rows_that_come_through_a_pipe_are_the_ones_that_are_fitted(learner: Learner) -> None:
    run = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]
    remote = ["--url", learner.gateway.url, "--token", learner.gateway.admin_token]
    words = ["router", "propose", "--labels", "/dev/stdin", "--name", "piped", "--no-wait"]
    lines = "".join(json.dumps(row) + "\n" for row in rows(4))
    done = subprocess.run(
        [*run, *words, *remote], input=lines, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = learner.admin("GET", "/refits/piped").json()
    assert (found["source"], found["rows"]) == ("upload", 4)
    wait_for(lambda: learner.admin("GET", "/refits/piped").json()["state"] != "running", 60)


@pytest.mark.parametrize(
    "meant",
    [
        {"headers": {"content-type": "application/x-ndjson"}, "content": b""},
        {"content": iter(())},
    ],
)
def test_rows_that_were_lost_on_the_way_are_not_taken_for_the_collected_ones(
    learner: Learner, meant: dict[str, object]
) -> None:
    refused = learner.admin("POST", "/refits", params={"name": "lost"}, **meant)
    assert refused.status_code == 422, refused.text
    (error,) = refused.json()["errors"]
    assert error["path"] == "body"
    assert "has no rows" in error["message"]
    assert learner.admin("GET", "/refits/lost").status_code == 404


def test_a_deletion_names_the_refits_that_hold_the_same_vectors(
    learner: Learner, capsys: pytest.CaptureFixture[str]
) -> None:
    from gateway.cli import main

    def proposed(name: str, content: bytes, **params: str) -> None:
        made = learner.admin("POST", "/refits", params={"name": name, **params}, content=content)
        assert made.status_code == 202, made.text
        wait_for(lambda: learner.admin("GET", f"/refits/{name}").json()["state"] != "running", 90)
        assert learner.admin("GET", f"/refits/{name}").json()["state"] == "done"

    remote = ["--url", learner.gateway.url, "--token", learner.gateway.admin_token]
    labelled = "".join(json.dumps(row) + "\n" for row in rows(120)).encode()
    proposed("base", labelled)
    assert main(["router", "activate", "base", *remote]) == 0
    proposed("after", labelled[: labelled.rindex(b"\n", 0, -1) + 1])
    proposed("copy", bed_rows(), model="ward/own", tier="local")
    assert learner.admin("GET", "/refits/copy").json()["base"] == "base"
    assert main(["router", "activate", "copy", *remote]) == 0
    # Fitted to rows of its own, though it started from there.
    assert learner.admin("DELETE", "/refits/after").json() == {"name": "after", "vectors_in": []}
    capsys.readouterr()
    assert main(["router", "refits", "base", "--delete", *remote]) == 0
    told = capsys.readouterr().out
    assert "base is deleted" in told
    assert "the vectors of its texts are also in: copy\n" in told
    assert main(["router", "activate", "configured", *remote]) == 0
    assert learner.admin("DELETE", "/refits/copy").json() == {"name": "copy", "vectors_in": []}
