"""The demo's tour does what it says, and says when it does not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from gateway.demo import show
from gateway.demo.setup import STAND_IN, frontier
from gateway.demo.tour import Seen, chat, steps, went
from gateway.demo.tour import Step as TourStep
from tests.support import Gateway, Process

TITLES = [step.title for step in steps("x/y")]


def test_the_tour(tmp_path: Path) -> None:
    script = "import sys; from gateway.cli import main; sys.exit(main())"
    process = Process(
        [sys.executable, "-c", script, "demo", "--once"],
        {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": ""},
        cwd=str(tmp_path),
    )
    code = process.wait(110)
    process.stop()
    assert code == 0, process.output
    for title in TITLES:
        assert re.search(rf"^{re.escape(title)}\s", process.output, re.M), title
    assert "a scripted stand-in, no real model" in process.output
    assert "curl http://127.0.0.1" in process.output
    assert not list(tmp_path.iterdir())


def test_a_step_that_goes_wrong_is_reported(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = TourStep("goes elsewhere", chat("Hello", "local/ok"), went(tier="frontier"))
    right = TourStep("goes there", chat("Hello", "local/ok"), went(tier="local"))
    failures = show.run(gateway.url, {"main": gateway.key}, (wrong, right))
    assert failures == ["goes elsewhere: tier is 'local', expected 'frontier'"]
    assert "not as expected" in capsys.readouterr().out


def test_a_refusal_is_shown_with_its_code() -> None:
    seen = Seen(403, {}, {"error": {"code": "residency_not_available"}})
    assert "403 residency_not_available" in show.row(steps("x/y")[0], seen)


def test_a_real_frontier_is_preferred() -> None:
    assert frontier({})[0] == STAND_IN
    assert frontier({})[1].stand_in
    name, backend = frontier({"ANTHROPIC_API_KEY": "k"})
    assert (name, backend.stand_in) == ("anthropic", False)
