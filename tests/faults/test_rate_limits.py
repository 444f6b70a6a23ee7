"""A rate limit of an upstream: its backend is passed over until then, for that model alone."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import Backend, Key, Scene, chat, completion, prompt

SPARE = Backend("spare", "tokens=4")
SHARED = (
    Backend("said", "status=429,retry_after=60,tokens=1"),
    Backend("unsaid", "status=429,tokens=2"),
    Backend("said_alone", "status=429,retry_after=59,tokens=1"),
)


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    # Of another operation, so that no request for the first goes there.
    capabilities = 'capabilities = ["chat", "stream"]'
    more = "".join(
        f'[backends.{backend.name}.models.other]\nupstream = "scripted:tokens=3"\n'
        f"input = 1.0\noutput = 4.0\nmax_output = 100\n{capabilities}\n"
        for backend in SHARED
    )
    keys = (
        *(Key(b.name, (b.name, "spare"), budget_usd=None) for b in SHARED[:2]),
        Key("said_alone", ("said_alone",), budget_usd=None),
        *(Key(f"{b.name}_neighbour", (b.name,), budget_usd=None) for b in SHARED),
    )
    return stage((*SHARED, SPARE), keys, extra=more)


def asked(scene: Scene, name: str, number: int) -> tuple[str, int]:
    """Who answered, and how often the limited model was asked."""
    answer = scene.ask(name, completion(prompt(number)))
    assert answer.complete, answer.body
    rows = [row for row in scene.attempts(answer.request_id) if row["status"] == 429]
    return answer.headers["x-tollhouse-backend"], len(rows)


def test_a_backend_is_passed_over_until_its_retry_after(scene: Scene) -> None:
    assert asked(scene, "said", 1) == ("spare", 1)
    assert [asked(scene, "said", number) for number in range(2, 9)] == [("spare", 0)] * 7


def test_the_client_is_told_when_where_nobody_else_is_left(scene: Scene) -> None:
    for number in (1, 2):
        answer = scene.ask("said_alone", completion(prompt(number)))
        assert answer.status == 429
        assert 50 <= int(answer.headers["retry-after"]) <= 59
        assert len(scene.attempts(answer.request_id)) == (1 if number == 1 else 0)


@pytest.mark.parametrize("name", ["said", "unsaid", "said_alone"])
def test_other_models_of_the_backend_go_on(scene: Scene, name: str) -> None:
    for number in range(10, 18):
        scene.ask(name, completion(prompt(number)))
    body = chat(prompt(18), model=f"{name}/other")
    answer = scene.ask(f"{name}_neighbour", body)
    assert answer.complete, answer.body
    with scene.gateway.admin() as admin:
        rows = admin.get("/backends").json()["items"]
    (row,) = (row for row in rows if row["name"] == name)
    assert (row["healthy"], row["replicas"][0]["breaker"]) == (True, "closed")
    assert list(row["replicas"][0]["rests"]) == [scene.backends[name].upstream]
