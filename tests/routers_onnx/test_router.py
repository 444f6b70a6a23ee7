from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routers.base import Router
from routers.onnx.batcher import BatchLimits
from routers.onnx.render import Rendered
from routers.onnx.router import DEFAULT_ARTEFACT, MissingRouter, OnnxRouter, Verdict
from routers.types import Query, Turn

LONG = 30.0
EASY = [
    "hi",
    "What is the capital of France?",
    "Translate 'good morning' into Spanish.",
    "set an alarm for seven tomorrow morning",
]
HARD = [
    "Derive the time evolution of the expectation value of S_x for a spin-1/2 particle in a "
    "magnetic field along z, starting in the S_x eigenstate, with relaxation times T1 and T2.",
    "Prove that every finite integral domain is a field, and give a counterexample when "
    "finiteness is dropped.",
    "How many moles of NaOH are needed to neutralise 250 mL of 0.15 M H2SO4, and what is the pH "
    "after adding 10 mL in excess?",
    "A 2.5 kg block slides down a 30 degree incline with friction coefficient 0.2 and then hits a "
    "spring with k = 400 N/m. Find the maximum compression of the spring.",
]
VERDICT = Verdict(0.8, 0.9, 12)


class Counting:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, batch: Sequence[Rendered], /) -> Sequence[Verdict | None]:
        self.texts += [rendered.text for rendered in batch]
        return [VERDICT for _ in batch]


async def gains(router: Router, texts: list[str], ask: Callable[[str], Query]) -> list[float]:
    scores = [await router.score(ask(text), deadline=LONG) for text in texts]
    assert all(score.gain is not None for score in scores)
    return [score.gain for score in scores if score.gain is not None]


async def test_every_hard_prompt_gains_more_than_every_easy_one(
    router: OnnxRouter, ask: Callable[[str], Query]
) -> None:
    assert max(await gains(router, EASY, ask)) < min(await gains(router, HARD, ask))


async def test_a_remark_is_not_taken_for_hard(
    router: OnnxRouter, ask: Callable[[str], Query]
) -> None:
    assert (await gains(router, ["thanks, that is all"], ask))[0] < 0.1


async def test_a_short_request_for_code_is_not_taken_for_hard(
    router: OnnxRouter, ask: Callable[[str], Query]
) -> None:
    text = "Write a Python function that reverses a string."
    assert (await gains(router, [text], ask))[0] < 0.1


async def test_a_score_is_whole_and_repeats(
    router: OnnxRouter, ask: Callable[[str], Query]
) -> None:
    first = await router.score(ask(HARD[0]), deadline=LONG)
    assert first.unclassified is None
    assert first.p_local_ok is not None
    assert first.p_frontier_ok is not None
    assert 0 < first.p_local_ok < 1
    assert 0 < first.p_frontier_ok < 1
    assert first.model == str(router.describe()["model"])
    assert first.model.startswith(f"{DEFAULT_ARTEFACT.name}/")
    assert 20 < first.tokens < 160
    again = await router.score(ask(HARD[0]), deadline=LONG)
    assert again.cached
    assert (again.p_local_ok, again.p_frontier_ok) == (first.p_local_ok, first.p_frontier_ok)
    other = OnnxRouter.load()
    fresh = await other.score(ask(HARD[0]), deadline=LONG)
    assert not fresh.cached
    assert (fresh.p_local_ok, fresh.p_frontier_ok) == (first.p_local_ok, first.p_frontier_ok)
    await other.aclose()


async def test_an_approval_of_a_hard_plan_is_not_easy(
    router: OnnxRouter, ask: Callable[[str], Query]
) -> None:
    conversation = (Turn("user", HARD[0]), Turn("assistant", "Shall I?"), Turn("user", "yes"))
    approval = await router.score(Query(conversation), deadline=LONG)
    alone = await router.score(ask("yes"), deadline=LONG)
    assert approval.gain is not None
    assert alone.gain is not None
    assert approval.gain > alone.gain


async def test_describe_tells_what_really_runs(router: OnnxRouter) -> None:
    import onnxruntime

    facts = router.describe()
    expected = "CUDAExecutionProvider"
    if expected not in onnxruntime.get_available_providers():
        expected = "CPUExecutionProvider"
    assert facts["provider"] == expected
    hashes = facts["sha256"]
    assert isinstance(hashes, dict)
    assert set(hashes) >= {"heads.json", "heads.npz", "model.onnx", "tokenizer.json"}
    assert facts["last_error"] is None


@pytest.mark.parametrize("text", ["", "   \n\t", "\u200b" * 100, "\x00\x00"])
async def test_nothing_to_read_is_said_to_be_empty(
    router: OnnxRouter, ask: Callable[[str], Query], text: str
) -> None:
    score = await router.score(ask(text), deadline=LONG)
    assert score.unclassified == "empty"
    assert score.gain is None


async def test_no_text_is_empty(router: OnnxRouter) -> None:
    for turns in ((), (Turn("system", " "),), (Turn("user", ""), Turn("assistant", "\n"))):
        assert (await router.score(Query(turns), deadline=LONG)).unclassified == "empty"


async def test_a_prompt_in_the_system_turn_alone_is_scored_as_asked(
    router: OnnxRouter, ask: Callable[[str], Query]
) -> None:
    asked = await router.score(ask(HARD[0]), deadline=LONG)
    for role in ("system", "developer"):
        alone = await router.score(Query((Turn(role, HARD[0]),)), deadline=LONG)
        assert (alone.gain, alone.unclassified) == (asked.gain, None)


async def test_requests_that_the_cache_answers_are_watched_for_drift(
    ask: Callable[[str], Query],
) -> None:
    router = OnnxRouter.load()
    for _ in range(5):
        await router.score(ask(EASY[1]), deadline=LONG)
    await router.score(ask(HARD[0]), deadline=LONG)
    assert router.stats()["cached"] == 4
    report = router.drift()
    assert report is not None
    assert report.rows == 6
    await router.aclose()


async def test_the_real_router_never_raises(
    router: OnnxRouter, ask: Callable[[str], Query]
) -> None:
    for text in ("x" * 1_000_000, "\ud800 why?", "\n" * 100_000 + "?", "漢" * 9999):
        score = await router.score(ask(text), deadline=LONG)
        assert score.unclassified is None, text[:20]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.text(st.characters(), max_size=60))
def test_any_text_gets_a_score_or_is_empty(text: str) -> None:
    async def go() -> None:
        model = Counting()
        router = OnnxRouter(model, facts={})
        score = await router.score(Query((Turn("user", text),)), deadline=LONG)
        assert score.unclassified == (None if text.strip() else "empty")
        await router.aclose()

    asyncio.run(go())


async def test_the_verdict_cache_is_used_and_bounded(ask: Callable[[str], Query]) -> None:
    model = Counting()
    router = OnnxRouter(model, facts={}, cache_size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await router.score(ask(text), deadline=LONG)
    # "b" was the least recently used when "c" came.
    assert model.texts == ["a", "b", "c", "b"]
    stats = router.stats()
    assert (stats["scored"], stats["cached"], stats["cache_entries"]) == (4, 2, 2)
    assert stats["batch_sizes"] == {1: 4}
    await router.aclose()


async def test_texts_that_differ_only_where_they_are_cut_are_not_confused(
    ask: Callable[[str], Query],
) -> None:
    model = Counting()
    router = OnnxRouter(model, facts={})
    await router.score(ask("x" * 10_000), deadline=LONG)
    score = await router.score(ask("x" * 20_000), deadline=LONG)
    assert not score.cached
    assert model.texts[0] == model.texts[1]
    await router.aclose()


async def test_a_slow_model_is_unclassified_and_its_answer_dropped(
    ask: Callable[[str], Query],
) -> None:
    release = threading.Event()

    def slow(batch: Sequence[Rendered], /) -> Sequence[Verdict | None]:
        assert release.wait(LONG)
        return [VERDICT for _ in batch]

    router = OnnxRouter(slow, facts={})
    score = await router.score(ask("why?"), deadline=0.005)
    assert score.unclassified == "deadline"
    assert score.gain is None
    release.set()
    later = await router.score(ask("why?"), deadline=LONG)
    assert later.unclassified is None
    assert not later.cached
    assert router.stats()["deadline"] == 1
    await router.aclose()


async def test_a_raising_model_is_unclassified(ask: Callable[[str], Query]) -> None:
    def broken(batch: Sequence[Rendered], /) -> Sequence[Verdict | None]:
        raise RuntimeError("CUDA error: device lost")

    router = OnnxRouter(broken, facts={})
    for _ in range(2):
        score = await router.score(ask("why?"), deadline=LONG)
        assert score.unclassified == "model_failed"
    assert router.stats()["model_failed"] == 2
    assert "device lost" in str(router.describe()["last_error"])
    await router.aclose()


async def test_a_score_that_is_no_number_is_a_failure(ask: Callable[[str], Query]) -> None:
    nan = float("nan")
    router = OnnxRouter(lambda batch: [Verdict(nan, 0.5, 3) for _ in batch], facts={})
    score = await router.score(ask("why?"), deadline=LONG)
    assert score.unclassified == "model_failed"
    assert router.stats()["cache_entries"] == 0
    await router.aclose()


async def test_a_full_queue_is_too_busy(ask: Callable[[str], Query]) -> None:
    release, entered = threading.Event(), threading.Event()

    def held(batch: Sequence[Rendered], /) -> Sequence[Verdict | None]:
        entered.set()
        assert release.wait(LONG)
        return [VERDICT for _ in batch]

    router = OnnxRouter(held, facts={}, limits=BatchLimits(queue=1))
    running = asyncio.create_task(router.score(ask("one"), deadline=LONG))
    assert await asyncio.to_thread(entered.wait, LONG)
    waiting = asyncio.create_task(router.score(ask("two"), deadline=LONG))
    await asyncio.sleep(0)
    assert (await router.score(ask("three"), deadline=LONG)).unclassified == "too_busy"
    release.set()
    assert [score.unclassified for score in await asyncio.gather(running, waiting)] == [None] * 2
    await router.aclose()


async def test_the_missing_router_answers_at_once(ask: Callable[[str], Query]) -> None:
    router: Router = MissingRouter("model.onnx is not there")
    score = await router.score(ask("why?"), deadline=0.0)
    assert score.unclassified == "model_missing"
    assert router.describe()["missing"] == "model.onnx is not there"
    await router.aclose()
