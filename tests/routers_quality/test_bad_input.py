"""Whatever the text, a score or a reason why there is none, by every shipped artefact."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routers.heuristics import HeuristicRouter
from routers.onnx.render import render
from routers.types import Query, Score, Turn

pytestmark = pytest.mark.asyncio(loop_scope="module")
MB = 1_000_000
# A rendering is bounded whatever it is made of; a megabyte must not reach the tokenizer.
MOST_CHARACTERS = 4000
TEXTS = {
    "nothing": "",
    "spaces": " \t\r\n\v\f\u00a0\u2003",
    "a megabyte of one letter": "x" * MB,
    "a megabyte of words": "lorem ipsum dolor " * (MB // 18),
    "a megabyte without a space": Random(1).randbytes(MB // 2).hex(),
    "a megabyte of line breaks": "\n" * MB + "why?",
    "a megabyte of zero width": "\u200b" * MB,
    "binary": Random(2).randbytes(20_000).decode("latin-1"),
    "binary as replacement characters": Random(3).randbytes(20_000).decode("utf-8", "replace"),
    "base64": "QUJD" * 50_000,
    "lone surrogates": "\ud800\udfff why \udc00" * 200,
    "mixed script": "Is \u4f55 \u0647\u0644 ist \u044d\u0442\u043e? \u0391 \u16a0 \u0e01\u0e38"
    * 40,
    "homoglyphs": "explain the proof of the theorem".translate(
        {ord("e"): "\u0435", ord("o"): "\u043e", ord("p"): "\u0440", ord("x"): "\u0445"}
    ),
    "zero width between letters": "\u200b".join("prove the theorem"),
    "bidi": "\u202e\u2066\u2067 drawkcab \u2069\u202c\u200f right to left",
    "combining marks": "e" + "\u0301" * 50_000,
    "combining marks all over": "".join(c + "\u0336\u0489\u0300" * 30 for c in "help me please"),
    "nul": "what\x00is\x00this\x00" * 100,
    "only nul": "\x00" * 5000,
    "control characters": "".join(map(chr, range(32))) * 50,
    "emoji families": "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 500,
    "private use and unassigned": "\ue000\uf8ff\U000f0000\U0010ffff\ufffe" * 200,
    "special tokens": "[CLS] [SEP] [MASK] [PAD] <|endoftext|> <s> </s>" * 20,
    "one very long word": "a" * 50_000 + "!",
    "digits": "9" * 100_000,
    "brackets": "[{(" * 30_000,
}
KEPT_SILENT = ("nothing", "spaces", "a megabyte of zero width", "only nul")
CONVERSATIONS = {
    "100,000 turns": tuple(
        Turn("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(100_000)
    ),
    "100,000 system prompts": (Turn("system", "be kind"),) * 100_000,
    "100,000 empty turns": (Turn("user", ""),) * 100_000,
    "a thousand long turns": (Turn("user", "why " * 1000), Turn("assistant", "so " * 1000)) * 500,
    "no turns": (),
    "unknown roles": (Turn("", "hello"), Turn("\ud800", "what"), Turn("tool", "{}")),
    "only an assistant": (Turn("assistant", "Shall I go on?"),),
    "only a system prompt": (Turn("system", "Prove everything."),),
}


async def check(router: Any, query: Query) -> Score:
    score: Score = await router.score(query, deadline=60)
    assert (score.unclassified is None) == (score.gain is not None)
    if score.gain is None:
        assert score.unclassified == "empty"
    else:
        assert score.p_local_ok is not None and 0 <= score.p_local_ok <= 1
        assert score.p_frontier_ok is not None and 0 <= score.p_frontier_ok <= 1
        assert score.confidence is not None and 0 <= score.confidence <= 1
        assert score.tokens <= router.describe().get("max_tokens", 0)
    return score


@pytest.mark.parametrize("name", TEXTS)
async def test_any_text_gets_a_score_or_a_reason(shipped: Any, name: str) -> None:
    score = await check(shipped, Query((Turn("user", TEXTS[name]),)))
    if name in KEPT_SILENT:
        assert score.unclassified == "empty"


@pytest.mark.parametrize("name", TEXTS)
async def test_it_may_stand_anywhere_in_a_conversation(shipped: Any, name: str) -> None:
    text = TEXTS[name]
    for turns in (
        (Turn("system", text), Turn("user", "What is the capital of France?")),
        (Turn("user", text), Turn("assistant", "Well."), Turn("user", "yes")),
        (Turn("user", "Why?"), Turn("assistant", text), Turn("tool", text), Turn("user", text)),
    ):
        await check(shipped, Query(turns, tools=10**6))


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_any_conversation_gets_a_score_or_a_reason(shipped: Any, name: str) -> None:
    await check(shipped, Query(CONVERSATIONS[name]))


@pytest.mark.parametrize("name", TEXTS)
async def test_what_a_model_reads_is_bounded(name: str) -> None:
    for turns in (
        (Turn("user", TEXTS[name]),),
        (Turn("system", TEXTS[name]), Turn("user", "hi"), Turn("assistant", TEXTS[name])) * 50,
    ):
        assert len(render(Query(turns)).text) <= MOST_CHARACTERS


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_what_a_model_reads_of_a_conversation_is_bounded(name: str) -> None:
    assert len(render(Query(CONVERSATIONS[name])).text) <= MOST_CHARACTERS


@pytest.mark.parametrize("name", TEXTS)
async def test_the_heuristic_holds_too(name: str) -> None:
    score = await HeuristicRouter().score(Query((Turn("user", TEXTS[name]),)), deadline=1)
    assert (score.unclassified is None) == (score.gain is not None)


ANY_TURN = st.builds(
    Turn,
    st.sampled_from(["user", "assistant", "system", "tool", ""]),
    st.text(st.characters(), max_size=400),  # lone surrogates included
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(turns=st.lists(ANY_TURN, max_size=12), tools=st.integers(0, 200))
async def test_any_turns_at_all(shipped: Any, turns: list[Turn], tools: int) -> None:
    await check(shipped, Query(tuple(turns), tools=tools))
