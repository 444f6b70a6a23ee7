from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routers.heuristics import SURFACE, HeuristicRouter, combined, difficulty, surface
from routers.onnx import render as rendering
from routers.onnx.framing import unframed
from routers.onnx.manifest import ArtefactError
from routers.onnx.render import (
    FIRST,
    HEAD,
    LAST_OF_MANY,
    MAX_DEMAND,
    TAIL,
    TURNS,
    Rendered,
    cut,
    plain,
    render,
    tidy,
)
from routers.onnx.router import DEFAULT_ARTEFACT, confidence, looks_english
from routers.onnx.session import Session
from routers.onnx.tokenizer import Tokenizer, load_tokenizer
from routers.onnx.topics import term_ids
from routers.onnx.wordpiece import WordPiece
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


def one(text: str) -> Rendered:
    return render(Query((Turn("user", text),)))


@given(turns)
def test_a_rendering_is_bounded(conversation: list[Turn]) -> None:
    rendered = render(Query(tuple(conversation)))
    assert len(rendered.text) <= HEAD + TAIL + 2 * (TURNS + 1)
    assert rendered.chars <= sum(len(turn.text) for turn in conversation)
    assert rendered.demand == 0.0 or any(turn.role == "system" for turn in conversation[:2])


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "def f(x):\n    return x\n\nWhy does this fail?",
        "hi",
        "thanks",
        "Thank you so much!",
    ],
)
def test_a_short_turn_is_rendered_as_it_is_but_for_its_layout(text: str) -> None:
    assert one(text) == Rendered(tidy(text), len(tidy(text)))


@given(ANY_TEXT)
def test_tidying_twice_changes_nothing(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    assert "  " not in once
    assert "\n\n" not in once
    assert once == once.strip()


@given(ANY_TEXT)
def test_a_bare_text_is_part_of_the_tidy_one(text: str) -> None:
    whole = tidy(text)
    bare = plain(whole)
    assert bare in whole
    assert not whole or bare


@pytest.mark.parametrize(
    "wrapped",
    [
        "  {}  \n\n",
        "Hi! {}",
        "Hello there,\n\n{}",
        "Hey, {} Thanks!",
        "Good morning. {}\n\nThanks in advance!",
        "Please, {}",
        "Can you help me out with this: {}",
        "I have a question: {}",
        "Hi! Could you help me with this problem? {} Thank you so much for your help.",
        "Okay, thanks. By the way, {}",
        "\t{}\r\n\r\n\r\n",
    ],
)
def test_courtesies_and_layout_change_nothing(wrapped: str) -> None:
    question = "What is the integral of x squared from zero to three?"
    assert one(wrapped.format(question)) == one(question)


@pytest.mark.parametrize(
    "text",
    [
        "Great Britain left which union in 2020?",
        "How do I say thanks in Japanese to my teacher after class?",
    ],
)
def test_words_of_courtesy_that_mean_something_stay(text: str) -> None:
    assert one(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "Thank you letters: write three of them for wedding guests.",
        "Hello world in Rust, with a test and a build script",
    ],
)
def test_what_begins_like_a_greeting(text: str) -> None:
    assert one(text).text == text


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
def test_the_system_prompt_is_no_part_of_the_text(conversation: list[Turn], system: str) -> None:
    few = conversation[:10]
    without = [turn for turn in few if turn.role != "system"]
    bare = render(Query(tuple(without)))
    assume(bare.text)
    for role in ("system", "developer"):
        wrapped = render(Query((Turn(role, system), *few)))
        assert (wrapped.text, wrapped.chars) == (bare.text, bare.chars)


@given(ANY_TEXT)
def test_a_system_prompt_that_stands_alone_is_the_question(text: str) -> None:
    asked = render(Query((Turn("user", text),), tools=2))
    for turns in (
        (Turn("system", text),),
        (Turn("developer", text), Turn("user", " \n"), Turn("assistant", "")),
    ):
        assert render(Query(turns, tools=2)) == asked


def demand(system: str, tools: int = 0, role: str = "system") -> float:
    turns = (Turn(role, system), Turn("user", "Go on."))
    return render(Query(turns, tools=tools)).demand


def test_what_a_system_prompt_asks_for_is_demand() -> None:
    kind, strict = "You are a kind assistant.", "Prove every theorem rigorously, step by step."
    assert demand(kind) == demand("") == 0.0
    assert demand(strict) > demand("Prove it.") > 0.0
    # Saying it again is not asking for more, and boilerplate takes nothing back.
    assert demand(strict * 5) == demand(strict)
    assert demand(f"{kind} {strict} {kind}") == demand(strict)
    assert demand(strict, role="developer") == demand(strict)


def test_tools_are_demand_and_demand_is_bounded() -> None:
    assert 0.0 < demand("", tools=1) < demand("", tools=5)
    words = (
        "prove derive theorem lemma asymptotic complexity algorithm optimise concurrent "
        "exhaustive rigorous formal verify diagnose analyse critique trade-off"
    )
    assert demand(words, tools=10_000) == MAX_DEMAND


PLAN = "Migrate the payment service to event sourcing without downtime."


def talk(last: str) -> Rendered:
    return render(Query((Turn("user", PLAN), Turn("assistant", "Here it is."), Turn("user", last))))


@pytest.mark.parametrize(
    "last",
    [
        "yes",
        "go on",
        "Do it, but keep the old tables for a month.",
        "Now explain the second step of that in detail.",
        "What happens to the previous events?",
        "ok and why?",
    ],
)
def test_what_refers_back_keeps_the_conversation(last: str) -> None:
    assert PLAN in talk(last).text
    assert talk(last).text.endswith(plain(tidy(last)))


@pytest.mark.parametrize(
    "last",
    [
        "What is the capital of Mongolia?",
        "Translate 'good morning' into Spanish for me please.",
        "Write a haiku about the sea in winter.",
    ],
)
def test_a_new_topic_stands_for_itself(last: str) -> None:
    assert talk(last) == one(last)


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


LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = WordPiece(
    {name: n for n, name in enumerate(["[CLS]", "[SEP]", "[UNK]", *LETTERS, "##a", "##s"])},
    ("[CLS]", "[SEP]", "[UNK]"),
    MAX_TOKENS,
)
WORK: dict[str, Callable[[str], object]] = {
    "tidy": tidy,
    "plain": plain,
    "render": one,
    "render of many turns": lambda text: render(Query((Turn("user", text),) * 50)),
    "demand": lambda text: render(Query((Turn("system", text), Turn("user", "x")))),
    "unframed": unframed,
    "surface": lambda text: surface(Rendered(text, len(text))),
    "term_ids": term_ids,
    "wordpiece": PIECES.encode,
}
# What makes patterns try again: endless beginnings that never come to the end they hope for.
ADVERSARIAL = [
    "a",
    " ",
    "\n",
    " \n",
    "\r",
    "\t\u00a0",
    "hi ",
    "hi, ",
    "ok. thanks! ",
    "please ",
    "please, ",
    "by the way ",
    "can you help me ",
    "could you please help me out ",
    "i have a question ",
    "thanks ",
    "thank you so much ",
    "thanks in advance for your help ",
    "...",
    "!. ",
    "1,",
    "1.",
    "\\a",
    "$",
    "it ",
    "prove",
    "step by step ",
    "think step by step. ",
    "please, then, ",
    "answer: ",
    "answer in json: ",
    "you are an ",
    "the following question ",
    "### ",
    "<task>",
    "</task>",
    "\n{",
    "```",
    "A. ",
    "a. x, y and z\n",
    "(A) \n",
    "'",
    "_",
    "\u200b",
]


@pytest.mark.parametrize("name", WORK)
def test_no_pattern_is_worse_than_linear(name: str) -> None:
    work = WORK[name]

    def spent(text: str) -> float:
        best = math.inf
        for _ in range(3):
            start = time.process_time()
            work(text)
            best = min(best, time.process_time() - start)
        return best

    for piece in ADVERSARIAL:
        short, long = (piece * (size // len(piece)) + "\x00" for size in (10_000, 100_000))
        # Ten times the text: what is quadratic needs a hundred times as long. Texts that are cut
        # first need no longer, and what is over in a millisecond is not measured.
        assert spent(long) < max(0.001, 40 * spent(short)), piece


class Counted(str):
    """A text that counts how many characters were taken from it."""

    taken = 0

    def __getitem__(self, key: object) -> str:
        found = str.__getitem__(self, key)  # type: ignore[index]
        Counted.taken += len(found)
        return found


def test_a_megabyte_is_cut_before_it_is_looked_at() -> None:
    text = Counted("Why is it so? " * 80_000)
    Counted.taken = 0
    rendered = render(Query((Turn("user", text),) * 40))
    assert len(rendered.text) <= HEAD + TAIL + 2 * (TURNS + 1)
    assert 0 < Counted.taken <= 2 * rendering.ROUGH * (TURNS + 1)
    assert rendered.chars == len(text) * TURNS + len(text)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        (["true, true", "false, false", "true, false", "false, true"], 1.0, 1.0),
        (
            ["wrong, wrong", "wrong, not wrong", "not wrong, wrong", "not wrong, not wrong"],
            1.0,
            1.0,
        ),
        (["up and 25 m/s", "down and 25 m/s", "up and 35 m/s", "down and 35 m/s"], 0.5, 0.7),
        (["i and ii only", "i and iv only", "ii and iii only", "i, ii, iii and iv"], 0.8, 0.9),
        (["i only", "ii only", "iii only", "i and ii only"], 0.3, 0.4),
        (["oslo", "paris", "rome", "madrid"], 0.0, 0.0),
        (["it stores calcium", "it binds iron", "it makes fats and oils", "it rests"], 0.0, 0.0),
        (["2,000", "2,400", "2,500", "3,000"], 0.0, 0.0),
        (["", "", ""], 0.0, 1.0),
    ],
)
def test_options_that_combine_the_same_parts_are_told(
    options: list[str], low: float, high: float
) -> None:
    assert low <= combined(options) <= high


def test_only_questions_with_options_combine_them() -> None:
    both = "Two claims.\nA. True, True\nB. False, False\nC. True, False\nD. False, True"
    at = SURFACE.index("combined")
    assert surface(render(Query((Turn("user", both),))))[at] == 1.0
    assert (
        surface(render(Query((Turn("user", both.replace(". T", " T").replace(". F", " F")),))))[at]
        == 0.0
    )


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
    # A text of nothing that the tokenizer keeps has no direction.
    length = float((vector**2).sum())
    assert math.isclose(length, 1.0, abs_tol=1e-3) or (len(ids) == 2 and length == 0.0)


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
    for query in (ask(" \n"), Query(()), Query((Turn("system", "\t"),))):
        score = await router.score(query, deadline=1.0)
        assert score.unclassified == "empty"
        assert score.gain is None


@given(ANY_TEXT)
def test_the_heuristic_stays_in_range(text: str) -> None:
    assert 0.0 <= difficulty(render(Query((Turn("user", text),)))) <= 1.0


def test_a_long_last_turn_is_half_of_the_text_at_least() -> None:
    small = [
        turn
        for _ in range(6)
        for turn in (Turn("user", "What about it? " * 9), Turn("assistant", "Well. " * 9))
    ]
    last = "Prove it for every n, and say which of the steps above fails for n = 0. " * 2
    rendered = render(Query((*small, Turn("user", last))))
    assert rendered.text.endswith(last.strip())
    assert len(rendered.text) <= 2 * len(last) + TURNS


def test_a_short_last_turn_leaves_room_for_the_plan() -> None:
    plan = "Design the migration of a table of 900 million rows without downtime. " * 4
    rendered = render(
        Query((Turn("user", plan), Turn("assistant", "Like this."), Turn("user", "Yes, do it.")))
    )
    assert plan[:80] in rendered.text


def test_another_topic_does_not_count_what_was_before_it() -> None:
    report = "Sales were steady and the office moved in March. " * 400
    asked = "Which planet has the most moons in our solar system?"
    alone = render(Query((Turn("user", asked),)))
    after = render(Query((Turn("user", report), Turn("assistant", "I see."), Turn("user", asked))))
    assert (after.text, after.chars) == (alone.text, alone.chars)
