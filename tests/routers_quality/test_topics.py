"""Domain and task as a score says them. A label that is left out is one that nobody can use."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from routers.base import Router
from routers.types import Query, Turn

pytestmark = pytest.mark.asyncio(loop_scope="module")
MOST_LEFT_OUT = 0.02
QUESTIONS = {
    "A spring of 200 N/m is stretched by 10 cm. How much energy does it store?": "physics",
    "Which enzyme unwinds the double helix when DNA is copied?": "biology",
    "Is a contract with a minor binding if he kept the goods?": "law",
    "What happens to the price of bread when the supply of flour falls?": "economics",
}


async def test_questions_have_the_domain_that_they_are_from(
    shipped: Router, routing_data: Path
) -> None:
    with gzip.open(routing_data / "mmlu_pro.jsonl.gz", "rt") as file:
        records = [json.loads(line) for line in file][::25]
    said = [await _domain(shipped, record["question"]) for record in records]
    unsaid = sum(domain is None for domain in said) / len(said)
    right = [d == r["category"] for d, r in zip(said, records, strict=True)]
    assert unsaid <= MOST_LEFT_OUT
    # These questions were learnt from, so this is no measure of quality.
    assert sum(right) / len(right) > 0.85


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_question_in_plain_words_has_a_domain(shipped: Router, question: str) -> None:
    assert await _domain(shipped, question) == QUESTIONS[question]


async def _domain(router: Router, text: str) -> str | None:
    return (await router.score(Query((Turn("user", text),)), deadline=60)).domain
