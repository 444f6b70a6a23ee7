"""The robustness measure itself on small stand-ins, and the gate on the shipped artefacts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from routers.base import FixedRouter, Router
from routers.evals.robustness import (
    CHANGES,
    GATE,
    Robustness,
    changed,
    measure,
    shared_prompts,
    wilson,
)
from routers.types import Query, Score

pytestmark = pytest.mark.asyncio(loop_scope="module")
EACH = 40
TEXT = "Explain to me how the railways changed trade between the towns of the valley."


class Judging(FixedRouter):
    """Scores by a function of the last turn's text."""

    def __init__(self, gain: Callable[[str], float]) -> None:
        super().__init__(Score())
        self._gain = gain

    async def score(self, query: Query, *, deadline: float) -> Score:
        return Score(p_local_ok=0.0, p_frontier_ok=self._gain(query.turns[-1].text))


def numbered(count: int = 40) -> list[str]:
    return [f"{TEXT} {'More. ' * i}" for i in range(count)]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_repeats_and_changes_something(change: str) -> None:
    query = changed(TEXT, change)
    assert query == changed(TEXT, change)
    assert [(turn.role, turn.text) for turn in query.turns] != [("user", TEXT)]


async def test_typos_are_few_and_depend_on_the_seed() -> None:
    slipped = changed(TEXT, "typos", seed=1).turns[0].text
    pairs = zip(TEXT.split(), slipped.split(), strict=True)
    assert sum(a != b for a, b in pairs) == 1
    assert len({changed(TEXT, "typos", seed=seed).turns[0].text for seed in range(20)}) > 5


@given(st.sampled_from(sorted(CHANGES)), st.text(st.characters(), max_size=200))
async def test_any_text_can_be_changed(change: str, text: str) -> None:
    assert changed(text, change).turns[-1].role == "user"


async def test_a_router_that_sees_no_difference_keeps_every_decision() -> None:
    found = await measure(Judging(lambda text: text.lower().count("more") / 100), {"s": numbered()})
    assert {row.change for row in found} == set(CHANGES)
    kept = [row for row in found if row.change != "typos"]
    assert all(row.same == 1.0 and row.shift == 0.0 and row.prompts == 40 for row in kept)


async def test_a_router_that_minds_the_case_is_found_out() -> None:
    # Upper case moves every prompt above the median: half of the decisions change.
    router = Judging(lambda text: len(text) / 5000 + 0.5 * text.isupper())
    found = {row.change: row for row in await measure(router, {"s": numbered()})}
    assert found["upper case"].same == pytest.approx(0.5, abs=0.05)
    assert found["upper case"].share == 1.0
    assert found["upper case"].shift == pytest.approx(0.5)
    assert found["boilerplate"].same == 1.0


async def test_wilson() -> None:
    assert wilson(95, 100) == pytest.approx((0.8882, 0.9785), abs=1e-3)
    assert wilson(10, 10)[1] == 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def held(shipped: Router, routing_data: Path) -> list[Robustness]:
    return await measure(shipped, shared_prompts(routing_data, each=EACH))


# The first of these waits for about a thousand scores.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("change", CHANGES)
async def test_the_shipped_artefacts_hold(held: list[Robustness], change: str) -> None:
    of_change = [row for row in held if row.change == change]
    assert len(of_change) == 3
    assert fmean(row.same for row in of_change) >= GATE, of_change
