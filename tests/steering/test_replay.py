"""The replay tool: what it reports of promises, on rows made here and on the real prompts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from loadtest.replay import Prompt, Scored, Setup, prompts, replay, score_all, show
from routers.decide import Odds
from routers.train.data import default_dir
from routers.types import Target


@pytest.fixture
def rows(traffic):
    odds = traffic("easy", 4000, 1) + traffic("hard", 4000, 1)
    return [Scored("made", each, 3_000_000 + at % 7 * 500_000) for at, each in enumerate(odds)]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_windows_are_what_was_decided(rows, workers, capsys):
    outcome = replay(Target(share=0.3), rows, Setup(None, "m", workers))
    assert outcome.promise == "share 0.3"
    assert [window.begin for window in outcome.windows] == [0, 2000, 4000, 6000]
    assert outcome.worst == max(abs(window.share - 0.3) for window in outcome.windows)
    assert outcome.worst <= outcome.worst_anywhere <= 0.02
    assert min(outcome.captured) > 0.9
    show(outcome)
    printed = capsys.readouterr().out
    assert "4000-5999" in printed and "<- shift" in printed and "points" in printed


def test_a_miss_is_to_the_wrong_side_only(rows):
    cost = replay(Target(cost=1000.0), rows, Setup(None, "m"))
    assert cost.worst == cost.worst_anywhere == 0
    assert max(window.usd_per_1000 for window in cost.windows) < 10
    quality = replay(Target(quality=0.9), rows, Setup(None, "m"))
    assert quality.worst <= 0.002
    assert quality.windows[0].share < 0.05 < quality.windows[-1].share


def test_scores_are_read_from_the_cache_of_the_same_artefact(tmp_path: Path):
    artefact = tmp_path / "tiny"
    artefact.mkdir()
    (artefact / "manifest.json").write_text("{}")
    pin = hashlib.sha256(b"{}").hexdigest()[:16]
    line = {"id": "a/0", "weak": 0.5, "strong": 0.75}
    (tmp_path / f"tiny-{pin}.jsonl").write_text(json.dumps(line) + "\n")
    found = score_all([Prompt("a/0", "a", "?")], artefact, tmp_path)
    assert found == {"a/0": Odds(0.5, 0.75)}


def test_the_replay_has_twenty_thousand_prompts_and_a_shift():
    if not default_dir().is_dir():
        pytest.skip("the labelled data is not here: set TOLLHOUSE_DATA to its directory")
    found = prompts(default_dir(), 0)
    assert len({prompt.id for prompt in found}) == len(found) == 20_000
    first, second = ({p.source for p in half} for half in (found[:10_000], found[10_000:]))
    assert not first & second
    assert prompts(default_dir(), 0) == found
