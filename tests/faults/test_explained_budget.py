"""What `explain` says of a request whose budget is spent is what becomes of the request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import Backend, Key, Scene, chat, prompt

HOME = Backend("home", "tokens=2", input=0.0, output=0.0)
DEAR = Backend("dear", "tokens=10", tier="frontier", input=10.0, output=40.0)
# Ten tokens of the dear backend's output are paid for once, not twice.
LITTLE = 0.000_800


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    keys = (
        Key("saving", ("home", "dear"), budget_usd=LITTLE),
        Key("alone", ("dear",), budget_usd=LITTLE),
        Key("fresh", ("dear",), budget_usd=LITTLE),
        Key("team", ("dear",), budget_usd=None, more='org = "poor"'),
    )
    more = '[policies.default]\nroute = "strong"\ncache_ttl = 0\n'
    more += '[[scopes]]\nid = "org:poor"\nbudget_usd = 0.0008\nwindow = "total"\n'
    return stage((HOME, DEAR), keys, extra=more)


def explained(scene: Scene, key: str, body: dict[str, Any]) -> dict[str, Any]:
    given = {"request": body, "key": scene.key_id(key)}
    with scene.gateway.admin() as admin:
        answer = admin.post("/explain", json=given)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def first(found: dict[str, Any]) -> str:
    return found["plan"][0]["backend"] if found["plan"] else ""


def test_a_spent_budget_turns_the_request_to_what_it_can_pay(scene: Scene) -> None:
    body = chat(prompt(1), max_tokens=10)
    assert first(explained(scene, "saving", body)) == "dear"
    assert scene.ask("saving", body).headers["x-tollhouse-backend"] == "dear"
    books = scene.balanced("saving")
    found = explained(scene, "saving", body)
    answer = scene.ask("saving", body)
    assert first(found) == answer.headers["x-tollhouse-backend"] == "home"
    assert found["reason"] == answer.headers["x-tollhouse-reason"] == "budget"
    assert f"key:{scene.key_id('saving')}" in found["text"]
    assert scene.balanced("saving") == books


@pytest.mark.parametrize(("key", "scope"), [("alone", "key"), ("team", "org:poor")])
def test_a_spent_budget_refuses_where_nobody_else_is_left(
    scene: Scene, key: str, scope: str
) -> None:
    body = chat(prompt(2), max_tokens=10)
    assert scene.ask(key, body).status == 200
    refused = scene.ask(key, body)
    found = explained(scene, key, body)
    assert (refused.status, found["plan"], found["refusal"]) == (
        402,
        [],
        refused.json["error"]["code"],
    )
    assert scope in found["rejected"][-1]["reason"]


def test_a_budget_without_books_yet_is_whole(scene: Scene) -> None:
    assert first(explained(scene, "fresh", chat(prompt(3), max_tokens=10))) == "dear"
    assert scene.books("fresh")["spent"] in (0, None)
