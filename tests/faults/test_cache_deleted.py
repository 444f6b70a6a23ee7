"""Cached answers are deleted by the operator: over the real path, with two workers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import Answer, Backend, Key, Scene, chat, eventually

PLAIN = Backend("plain", "tokens=5,chunk=1ms")
SLOW = Backend("slow", "tokens=5,latency=700ms")
NAMES = ("plain", "slow")


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    keys = (Key("one", NAMES, more='org = "one"'), Key("two", NAMES, more='org = "two"'))
    return stage((PLAIN, SLOW), keys, workers=2)


def invalidate(scene: Scene, **body: Any) -> int:
    with scene.gateway.admin() as admin:
        reply = admin.post("/cache:invalidate", json=body)
        assert reply.status_code == 200, reply.text
        return int(reply.json()["answers"])


def hit(answer: Answer) -> bool:
    assert answer.complete, answer.body
    return answer.headers["x-tollhouse-cache"] == "hit"


def test_the_answers_of_one_organisation_go(scene: Scene) -> None:
    body = chat("Hello", model="plain/m")
    for key in ("one", "two"):
        scene.ask(key, body)
        assert hit(scene.ask(key, body))
    assert invalidate(scene, org="one") == 1
    assert not hit(scene.ask("one", body))
    assert hit(scene.ask("two", body))
    assert invalidate(scene, all=True) == 2
    assert not hit(scene.ask("two", body))


def test_the_file_of_the_store_is_free_of_them(scene: Scene) -> None:
    def held() -> int:
        files = (scene.gateway.folder / "data" / "store" / "appendonlydir").iterdir()
        return sum(file.read_bytes().count(b"th:{one}:x:") for file in files)

    scene.ask("one", chat("On disk", model="plain/m"))
    assert eventually(lambda: held() > 0)
    with scene.gateway.admin() as admin:
        reply = admin.post("/cache:invalidate", json={"org": "one"}).json()
    assert (reply["answers"] > 0, reply["file_rewritten"], held()) == (True, True, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_under_way_is_given_but_not_kept(scene: Scene, stream: bool) -> None:
    body = chat("Under way", model="slow/m", stream=stream)
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(scene.ask("one", body)))
    before = len(scene.upstreams["scripted"].log())
    asking.start()
    assert eventually(lambda: len(scene.upstreams["scripted"].log()) > before)
    invalidate(scene, org="one")
    asking.join()
    assert not hit(answers[0])
    assert not hit(scene.ask("one", body))
    assert hit(scene.ask("one", body))
