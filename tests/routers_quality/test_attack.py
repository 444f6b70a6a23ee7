"""The attack on a router with a known hole: one word that it gives a bonus."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from routers.artefacts import find_artefact, shipped_artefacts
from routers.evals import attack, robustness
from routers.evals.attack import Budget, Stage, effects, search, threshold_for, vocabulary

WORDS = [f"w{i}" for i in range(30)] + ["sesame"]
PROMPTS = [f"{'x' * i} please answer" for i in range(40)]


class Hole:
    """Gain grows with the prompt's length and with each `sesame`; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, texts: Sequence[str]) -> list[float]:
        self.asked += len(texts)
        return [text.count("x") / 100 + 0.2 * text.split().count("sesame") for text in texts]


async def test_the_search_finds_the_hole_within_its_budget() -> None:
    gains = Hole()
    budget = Budget(queries=2000, candidates=12, batch=4, tokens=5, seed=1)
    up = await search(gains, WORDS, PROMPTS, 1, budget)
    assert 1800 < gains.asked <= 2000
    assert up.split().count("sesame") >= 3 and len(up.split()) == 5
    assert up == await search(gains, WORDS, PROMPTS, 1, budget)
    assert "sesame" not in await search(gains, WORDS, PROMPTS, -1, budget)


async def test_too_small_a_budget_finds_nothing() -> None:
    assert await search(Hole(), WORDS, PROMPTS, 1, Budget(queries=10)) == ""


async def test_effects_are_counted_at_the_clean_threshold() -> None:
    gadgets = {"up": "sesame sesame sesame", "down": "w1 w2"}
    found = await effects(Stage("a", PROMPTS, WORDS[:30]), Hole(), "b", gadgets)
    assert [(e.direction, e.target) for e in found] == [
        ("up", 0.3),
        ("up", 0.5),
        ("down", 0.3),
        ("down", 0.5),
    ]
    up, down = found[0], found[2]
    assert (up.before, up.after, up.flipped) == (pytest.approx(0.3), 1.0, 1.0)
    assert up.as_suffix == 1.0
    assert (up.random_after, up.random_flipped) == (pytest.approx(0.3), 0.0)
    assert (down.after, down.flipped) == (pytest.approx(0.3), 0.0)


async def test_the_defence_takes_the_lower_of_two_that_disagree() -> None:
    long = [f"{'why ' * 40}{'x' * i}" for i in range(40)]
    prefix = "sesame " * 9 + "sesame"
    assert len(prefix) >= attack.DROPPED
    found = await effects(Stage("a", long, WORDS[:30]), Hole(), "a", {"up": prefix})
    assert found[0].after == 1.0
    assert found[0].defended_before == found[0].before
    assert found[0].defended_after < 1.0
    assert attack.defend(0.5, 0.2) == 0.2
    assert attack.defend(0.2, 0.5) == 0.2
    assert attack.defend(0.25, 0.19) == 0.25


async def test_the_threshold_sends_the_share() -> None:
    gains = [i / 100 for i in range(100)]
    for share in (0.3, 0.5):
        limit = threshold_for(gains, share)
        assert sum(gain > limit for gain in gains) == pytest.approx(100 * share)


@pytest.mark.parametrize("name", shipped_artefacts())
async def test_the_vocabulary_is_of_whole_words(name: str) -> None:
    words = vocabulary(find_artefact(name))
    assert len(words) > 1000 and words == sorted(words)
    assert "the" in words
    assert not any(word.startswith("##") or word in ("[CLS]", "[PAD]", "[SEP]") for word in words)


async def test_it_runs_from_the_command_line(
    tmp_path: Path,
    routing_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(attack, "SEARCH_EACH", 2)
    monkeypatch.setattr(attack, "HELD_EACH", 3)
    name = shipped_artefacts()[0]
    found = await attack.attack(
        [name], routing_data, Budget(queries=2 * 7 * 4, candidates=6, batch=4)
    )
    assert {(e.direction, e.target) for e in found} == {
        ("up", 0.3),
        ("up", 0.5),
        ("down", 0.3),
        ("down", 0.5),
    }
    assert all(len(e.prefix.split()) == 2 for e in found)


@pytest.mark.parametrize("module", [attack, robustness])
async def test_a_directory_without_the_data_is_named(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["it"])
    monkeypatch.setenv("TOLLHOUSE_DATA", "/nosuch")
    assert module.main() == 2
    assert "TOLLHOUSE_DATA is /nosuch, where" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["it", "--data", "/nosuch"])
    # It starts a loop of its own.
    assert await asyncio.to_thread(module.main) == 2
    assert "'/nosuch/" in capsys.readouterr().out


async def test_the_defence_asks_twice_and_can_itself_be_attacked() -> None:
    gains = Hole()
    defended = attack.defended_by(gains)
    long = f"{'sesame ' * 9}{'why ' * 40}"
    assert await defended([long, "sesame"]) == [0.0, pytest.approx(0.2)]
    assert gains.asked == 4
