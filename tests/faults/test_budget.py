"""Row 14: many calls at once, from several workers, on a budget that pays for some of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import PROMPT_TOKENS, Backend, Key, Raw, Scene, chat, completion, prompt

WORTH = 100
CALLS = 1000
OUTPUT = 5
PAID = Backend("paid", f"tokens={OUTPUT},latency=20ms")
LONGER = Backend("longer", f"tokens={OUTPUT},latency=21ms")
FREE = Backend("free", "tokens=2", input=0.0, output=0.0)
COST = PAID.cost(PROMPT_TOKENS, OUTPUT)
# What each call may cost at most when it is allowed four times what it uses.
WORST = LONGER.cost(PROMPT_TOKENS, 4 * OUTPUT)


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    usd = WORTH * COST / 1e9
    keys = (
        Key("exact", ("paid",), usd),
        Key("loose", ("longer",), usd),
        Key("local", ("paid", "free"), 5 * COST / 1e9),
        Key("limited", ("free",), None, "concurrency = 4"),
        Key("poor", ("paid",), 0.0001),
        Key("penniless", ("paid",), 0.0),
        Key("member", ("paid",), 10.0, 'org = "acme"\nteam = "broke"'),
    )
    team = '[[scopes]]\nid = "team:broke"\nbudget_usd = 0.0003\nwindow = "day"'
    return stage((PAID, LONGER, FREE), keys, extra=team, workers=4)


async def call_all(
    scene: Scene, key: str, count: int, *, first: int = 0, **more: Any
) -> Counter[int]:
    """So many different requests at once; how many got which status."""
    secret = scene.gateway.keys[key]

    async def one(number: int) -> int:
        raw = await Raw.connect(scene.gateway)
        try:
            await raw.send(secret, completion(prompt(number), **more))
            status = await raw.head()
            body = json.loads(await raw.rest())
        finally:
            await raw.close()
        if status == 402:
            assert body["error"]["code"] == "budget_exceeded"
        return status

    return Counter(await asyncio.gather(*(one(first + number) for number in range(count))))


async def test_exactly_what_the_budget_pays_for_is_answered(scene: Scene) -> None:
    statuses = await call_all(scene, "exact", CALLS, max_tokens=OUTPUT)
    assert statuses == {200: WORTH, 402: CALLS - WORTH}
    spent = await asyncio.to_thread(scene.balanced, "exact")
    assert spent == WORTH * COST == scene.charged("paid")
    paid = scene.sql(
        "SELECT COUNT(*) AS n FROM usage_records WHERE key_id = ? AND cost_nano = ?",
        scene.key_id("exact"),
        COST,
    )
    assert paid[0]["n"] == WORTH
    (upstream,) = scene.upstreams.values()
    assert sum(row["model"] == PAID.upstream for row in upstream.log()) == WORTH


async def test_the_workers_shared_the_calls(scene: Scene) -> None:
    statuses = await call_all(scene, "limited", 60)
    assert set(statuses) <= {200, 429}
    assert statuses[200] >= 4


async def test_no_instant_shows_more_than_the_budget(scene: Scene) -> None:
    budget = WORTH * COST
    seen: list[int] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            books = await asyncio.to_thread(scene.books, "loose")
            seen.append(books["spent"] + books["held"])
            await asyncio.sleep(0.02)

    watcher = asyncio.create_task(watch())
    total: Counter[int] = Counter()
    try:
        # What was held too much is given back, so that later calls pass until nothing fits.
        for round in range(20):
            statuses = await call_all(scene, "loose", 200, first=200 * round, max_tokens=4 * OUTPUT)
            total += statuses
            assert set(statuses) <= {200, 402}
            if not statuses[200]:
                break
    finally:
        done.set()
        await watcher
    assert max(seen) <= budget
    spent = await asyncio.to_thread(scene.balanced, "loose")
    assert spent == total[200] * COST == scene.charged("longer")
    assert budget - WORST < spent <= budget


async def test_over_budget_a_free_backend_still_answers(scene: Scene) -> None:
    before = scene.charged("paid")
    statuses = await call_all(scene, "local", 40, max_tokens=OUTPUT)
    assert statuses == {200: 40}
    spent = await asyncio.to_thread(scene.balanced, "local")
    assert spent == 5 * COST == scene.charged("paid") - before


def refusal(scene: Scene, key: str, body: dict[str, Any]) -> str:
    answer = scene.ask(key, body)
    assert answer.status == 402
    assert answer.error is not None
    assert answer.error["code"] == "budget_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    return str(answer.error["message"])


def test_a_refusal_says_which_budget_and_how_much_it_lacks(scene: Scene) -> None:
    needs = "does not pay the worst case of this request ($0.000416)"
    key = scene.key_id("poor")
    assert refusal(scene, "poor", completion(prompt(1), max_tokens=100)) == (
        f"The budget of key:{key} ($0.0001 left) {needs}; ask for fewer tokens (max_tokens)."
    )
    # Fewer tokens would not help.
    key = scene.key_id("penniless")
    assert refusal(scene, "penniless", completion(prompt(1), max_tokens=100)) == (
        f"The budget of key:{key} ($0.00 left) {needs}."
    )


def test_what_others_have_left_is_not_told(scene: Scene) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert refusal(scene, "member", completion(prompt(1), max_tokens=100)) == (
        f"The budget of team:broke (until {tomorrow}) does not pay the worst case of this request"
        " ($0.000416); ask for fewer tokens (max_tokens)."
    )


def test_the_record_of_a_refusal_names_the_budget(scene: Scene) -> None:
    answer = scene.ask("member", completion(prompt(2), max_tokens=100))
    decision = scene.decision(answer.request_id)
    assert decision is not None
    assert decision["refusal"] == "budget_exceeded"
    assert decision["rejected"][-1][1:] == [
        "budget",
        "the budget of team:broke cannot pay its worst case",
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": ["word " * 2_000]}]},
        {"messages": [{"role": "user", "content": "hi"}], "documents": [{"text": "word " * 2_000}]},
        {"messages": [{"role": "user", "content": "hi", "reasoning": "word " * 2_000}]},
    ],
)
def test_no_form_of_a_prompt_is_free(scene: Scene, body: dict[str, Any]) -> None:
    """The budget of the key pays for a hundred tokens."""
    answer = scene.ask("poor", {**chat("", max_tokens=1), **body})
    assert answer.status == 402
