from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.heuristics import SURFACE, HeuristicRouter, difficulty, surface
from routers.onnx.manifest import ArtefactError
from routers.onnx.render import FIRST, HEAD, LAST_OF_MANY, TAIL, Rendered, cut, render
from routers.onnx.router import DEFAULT_ARTEFACT, confidence, looks_english
from routers.onnx.session import Session
from routers.onnx.tokenizer import Tokenizer, load_tokenizer
from routers.types import Query, Turn

ANY_TEXT = st.text(st.characters(), max_size=300)  # lone surrogates included
MAX_TOKENS = 160
HORRORS = [
    "\x00" * 50,
    "\u200b\u200d\ufeff" * 500,
    "\ud800",
    "ok \udfff then \ud83d",
    "a\u0301" * 1000,
    "\u202e\u2066right to left",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 100,
    "x" * 1_000_000,
    "\n" * 1_000_000 + "question?",
    "\u200b" * 1_000_000,
    "漢" * 5000,
    "[CLS] [SEP] [MASK] [PAD]",
]
turns = st.lists(
    st.builds(Turn, st.sampled_from(["system", "user", "assistant", "tool"]), ANY_TEXT),
    max_size=30,
)


@given(turns)
def test_a_rendering_is_bounded(conversation: list[Turn]) -> None:
    rendered = render(Query(tuple(conversation)))
    assert len(rendered.text) <= HEAD + TAIL + 2 * len(conversation) + 1
    assert rendered.chars <= sum(len(turn.text) for turn in conversation)


@given(ANY_TEXT)
def test_a_short_single_turn_is_rendered_as_it_is(text: str) -> None:
    assert render(Query((Turn("user", text),))) == Rendered(text, len(text))


@given(st.text(), st.integers(1, 50))
def test_a_cut_keeps_head_and_tail(text: str, budget: int) -> None:
    kept = cut(text, budget)
    if len(text) <= budget:
        assert kept == text
    else:
        assert len(kept) == budget + 1
        head = budget * HEAD // (HEAD + TAIL)
        assert text.startswith(kept[:head])
        assert text.endswith(kept[head + 1 :])


@given(turns, ANY_TEXT)
def test_the_system_prompt_changes_nothing(conversation: list[Turn], system: str) -> None:
    few = conversation[:10]
    without = [turn for turn in few if turn.role != "system"]
    assert render(Query((Turn("system", system), *few))) == render(Query(tuple(without)))


def test_an_approval_carries_the_plan_it_approves() -> None:
    plan = "Migrate the payment service to event sourcing without downtime."
    conversation = (
        Turn("user", plan),
        Turn("assistant", "Here is the plan. Shall I go on?"),
        Turn("user", "yes"),
    )
    rendered = render(Query(conversation))
    assert plan in rendered.text
    assert rendered.text.endswith("yes")
    assert rendered.chars == len(plan) + 3


def test_the_task_survives_a_long_conversation() -> None:
    middle = [Turn(role, "m" * 500) for _ in range(50) for role in ("assistant", "user")]
    conversation = (Turn("user", "THE TASK"), *middle, Turn("user", "L" * 5000))
    rendered = render(Query(conversation))
    assert rendered.text.startswith("THE TASK\n")
    assert rendered.text.count("L") == LAST_OF_MANY
    assert len(rendered.text) <= HEAD + TAIL + 100
    assert FIRST < LAST_OF_MANY


@given(ANY_TEXT)
def test_surface_features_are_finite(text: str) -> None:
    found = surface(render(Query((Turn("user", text),))))
    assert len(found) == len(SURFACE)
    assert all(math.isfinite(value) and 0 <= value <= 30 for value in found)


@pytest.mark.parametrize("text", HORRORS, ids=range(len(HORRORS)))
def test_horrors_are_tokenised_and_embedded(
    tokenizer: Tokenizer, session: Session, text: str
) -> None:
    rendered = render(Query((Turn("user", text),)))
    ids = tokenizer.encode(rendered.text)
    assert 2 <= len(ids) <= MAX_TOKENS
    vector = session.embed([ids])[0]
    assert math.isclose(float((vector**2).sum()), 1.0, abs_tol=1e-3)


def test_any_text_is_tokenised(tokenizer: Tokenizer) -> None:
    @given(ANY_TEXT)
    @settings(max_examples=300)
    def encode(text: str) -> None:
        assert 2 <= len(tokenizer.encode(text)) <= MAX_TOKENS

    encode()


def test_padding_leaves_a_vector_in_place(tokenizer: Tokenizer, session: Session) -> None:
    short, long = tokenizer.encode("hi"), tokenizer.encode("word " * 100)
    alone = session.embed([short])[0]
    beside = session.embed([long, short])[1]
    # Not equal: activations are quantised over the whole batch.
    assert float((alone * beside).sum()) > 0.97


def test_a_model_is_no_tokenizer() -> None:
    with pytest.raises(ArtefactError, match=r"model\.onnx"):
        load_tokenizer(DEFAULT_ARTEFACT / "model.onnx", MAX_TOKENS)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("hi", True),
        ("Write a Python function that reverses a string.", True),
        ("Bitte fasse diesen langen Brief in zwei kurzen Absätzen zusammen.", False),
        ("Quelle est la meilleure façon de préparer des crêpes bretonnes ?", False),
        ("猫は屋根の上にいますか", False),
        ("Привет, как дела", False),
    ],
)
def test_other_languages_lower_the_confidence(text: str, english: bool) -> None:
    assert looks_english(text) is english
    assert confidence(text, 0.9) == pytest.approx(0.8 if english else 0.2)


async def test_the_heuristic_orders_easy_before_hard(ask: Callable[[str], Query]) -> None:
    router = HeuristicRouter()
    easy = await router.score(ask("hi"), deadline=1.0)
    hard = await router.score(
        ask(
            "Derive the asymptotic complexity of this algorithm and prove it optimal:\n"
            "for (i = 0; i < n; i++) { a[i] = b[i] ^ (c[i] * x) / 2; }"
        ),
        deadline=1.0,
    )
    assert easy.gain is not None
    assert hard.gain is not None
    assert easy.gain < 0.1 < hard.gain
    await router.aclose()


async def test_the_heuristic_says_when_there_is_nothing(ask: Callable[[str], Query]) -> None:
    router = HeuristicRouter()
    for query in (ask(" \n"), Query(()), Query((Turn("system", "Be kind."),))):
        score = await router.score(query, deadline=1.0)
        assert score.unclassified == "empty"
        assert score.gain is None


@given(ANY_TEXT)
def test_the_heuristic_stays_in_range(text: str) -> None:
    assert 0.0 <= difficulty(render(Query((Turn("user", text),)))) <= 1.0
