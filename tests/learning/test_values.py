"""The small decisions of learning: verdicts, texts, merging, and what a configuration may say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.config import ConfigError
from gateway.config.load import parse_config
from gateway.learning.answers import answer_text
from gateway.learning.judge import (
    MAX_TOKENS,
    Verdict,
    local_first,
    most_tokens,
    parse_verdict,
    question,
    response_format,
)
from gateway.learning.types import Label, Source, conversation_of, encode_line, merge
from routers.labels import parse_rows
from routers.types import Turn

FIRST = next(f"dec_{i}" for i in range(99) if local_first(f"dec_{i}"))
SECOND = next(f"dec_{i}" for i in range(99) if not local_first(f"dec_{i}"))


def test_the_first_place_is_drawn_evenly_and_always_alike() -> None:
    drawn = [local_first(f"dec_{i:024x}") for i in range(2000)]
    assert drawn == [local_first(f"dec_{i:024x}") for i in range(2000)]
    assert 900 < sum(drawn) < 1100


def test_a_verdict_is_read_back_to_the_tiers() -> None:
    said = '{"a_ok": 1, "b_ok": 0}'
    assert parse_verdict(FIRST, said) == Verdict(local_ok=True, frontier_ok=False)
    assert parse_verdict(SECOND, said) == Verdict(local_ok=False, frontier_ok=True)
    assert parse_verdict(FIRST, f"```json\n{said}\n```\n") == Verdict(True, False)
    assert parse_verdict(FIRST, '{"a_ok": true, "b_ok": false}') == Verdict(True, False)


def test_a_judge_is_asked_for_no_more_than_it_gives() -> None:
    assert [most_tokens(model) for model in (1000, 100_000, 0)] == [1000, MAX_TOKENS, MAX_TOKENS]


@pytest.mark.parametrize("begun", ["<think>\n", ""])
def test_a_judge_may_think_aloud_before_its_verdict(begun: str) -> None:
    thoughts = f'{begun}Perhaps {{"a_ok": 0, "b_ok": 0}}? No: A is right.\n</think>\n\n'
    said = thoughts + '{"a_ok": 1, "b_ok": 0}'
    assert parse_verdict(FIRST, said) == Verdict(local_ok=True, frontier_ok=False)
    assert parse_verdict(FIRST, thoughts) is None


@pytest.mark.parametrize(
    "said",
    [
        "",
        "A is better.",
        '{"a_ok": 1}',
        '{"a_ok": 1, "b_ok": 2}',
        '{"a_ok": 1.0, "b_ok": 0.0}',
        '<think> {"a_ok": 1, "b_ok": 0}',
        '{"a_ok": 1, "b_ok": 0, "why": "x"}',
        '{"a_ok": 1, "b_ok": 0} {"a_ok": 0, "b_ok": 1}',
        'Verdict: {"a_ok": 1, "b_ok": 0}',
        '{"local_ok": 1, "frontier_ok": 0}',
        "[1, 0]",
        '{"a_ok": "1", "b_ok": "0"}',
    ],
)
def test_anything_else_is_no_verdict(said: str) -> None:
    assert parse_verdict(FIRST, said) is None


def test_the_judge_is_not_told_whose_answer_is_whose() -> None:
    turns = (Turn("system", "Be brief."), Turn("user", "x" * 50_000))
    for id, expected in ((FIRST, ("one", "two")), (SECOND, ("two", "one"))):
        asked = question(id, turns, "one", "two")
        shown = json.loads(asked["messages"][-1]["content"])
        assert (shown["answer_a"], shown["answer_b"]) == expected
        text = json.dumps(asked).lower()
        assert "local" not in text and "frontier" not in text
        assert len(text) < 20_000
    assert response_format(frozenset({"chat"})) is None
    strict = response_format(frozenset({"json_object", "json_schema"}))
    assert strict is not None and strict["type"] == "json_schema"


def body(content: Any, finish: str | None = "stop") -> bytes:
    choice = {"index": 0, "message": {"content": content}, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode()


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([body("hello")], "hello"),
        ([body("hel", None).replace(b"message", b"delta"), body("lo")], "hello"),
        ([body("hello", "length")], None),
        ([body("hello", None)], None),
        ([body(None, "tool_calls")], None),
        ([body("  ")], None),
        ([b'{"choices": []}'], None),
        ([b"{"], None),
        ([], None),
    ],
)
def test_only_an_answer_that_ended_by_itself_has_a_text(
    events: list[bytes], text: str | None
) -> None:
    assert answer_text(events) == text


def label(id: str, source: Source, local: float | None, frontier: float | None) -> Label:
    return Label(
        decision_id=id,
        source=source,
        org="acme",
        ts=1.0,
        created=2.0,
        conversation=conversation_of({"messages": [{"role": "user", "content": f"text of {id}"}]}),
        local_ok=local,
        frontier_ok=frontier,
    )


def test_people_go_before_the_judge_and_one_conversation_is_one_row() -> None:
    found = [
        label("b", "shadow", 0.0, 1.0),
        label("b", "feedback", 1.0, None),
        label("a", "shadow", 0.0, 0.0),
        label("c", "feedback", None, 0.5),
    ]
    rows = parse_rows([encode_line(line) for line in merge(found)], "rows")
    assert [(row.id, row.local_ok, row.frontier_ok) for row in rows] == [
        ("b", 1.0, 1.0),
        ("a", 0.0, 0.0),
        ("c", None, 0.5),
    ]
    assert rows[0].turns == (Turn("user", "text of b"),)
    assert list(merge([])) == []


def test_a_merged_row_names_the_model_of_the_label_that_it_took() -> None:
    def said(source: Source, **more: Any) -> Label:
        return msgspec.structs.replace(label("a", source, None, None), **more)

    judged = said(
        "shadow", local_ok=0.0, frontier_ok=1.0, local_model="home/m", frontier_model="ohio/m"
    )
    cases = [
        ([judged], ("home/m", "ohio/m")),
        ([judged, said("feedback", local_ok=1.0, local_model="attic/m")], ("attic/m", "ohio/m")),
        # Of before models were kept: its label is taken, so no other label's model is.
        ([judged, said("feedback", local_ok=1.0)], (None, "ohio/m")),
        ([said("feedback", frontier_ok=1.0, frontier_model="paris/m")], (None, "paris/m")),
    ]
    for labels, models in cases:
        (line,) = merge(labels)
        assert (line.local_model, line.frontier_model) == models
        (row,) = parse_rows([encode_line(line)], "rows")
        assert (row.local_model, row.frontier_model) == models


def test_a_conversation_keeps_turns_and_names_of_tools_only() -> None:
    call = {"function": {"name": "look", "arguments": '{"x": 1}'}}
    tools = [{"type": "function", "function": {"name": "look", "description": "d"}}, "odd", {}]
    kept = msgspec.json.decode(
        conversation_of(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                ],
                "tools": tools,
                "user": "somebody",
            }
        )
    )
    assert [m["content"] for m in kept["messages"]] == ["hi", 'look\n{"x": 1}']
    assert [t["function"]["name"] for t in kept["tools"]] == ["look", "", ""]
    assert set(kept) == {"messages", "tools"}


CONFIG = """
[backends.home]
provider = "scripted"
tier = "local"
models.m = {}
models.judge = {}
"""


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[learning]\nretention_days = 0", "learning.retention_days", "above 0"),
        ("[learning]\nmax_rows = 0", "learning.max_rows", "between"),
        ("[learning]\ncapture_labels = ['P H I']", "learning.capture_labels[0]", "malformed"),
        ("[learning]\ncaptures = true", "learning.captures", "did you mean 'capture'"),
        ("[learning.shadow]\nshare = 1.5", "learning.shadow.share", "between 0 and 1"),
        ("[learning.shadow]\njudge = 'moon/m'", "learning.shadow.judge", "unknown backend"),
        ("[learning.shadow]\njudge = 'home/x'", "learning.shadow.judge", "has no model"),
        ("[learning.shadow]\njudge = 'home'", "learning.shadow.judge", "has no model ''"),
        ("[learning.shadow]\nbackend = 'moon/m'", "learning.shadow.backend", "unknown backend"),
        ("[learning.shadow]\nconcurrency = 0", "learning.shadow.concurrency", "between"),
        ("[learning.shadow]\ntimeout = 0.0", "learning.shadow.timeout", "above 0"),
        ("[learning.shadow]\nmax_usd_per_day = -1.0", "learning.shadow.max_usd_per_day", "between"),
        (
            "[learning]\ncapture = true\n[learning.shadow]\nshare = 0.1",
            "learning.shadow.judge",
            "missing",
        ),
        (
            "[learning.shadow]\nshare = 0.1\njudge = 'home/judge'",
            "learning.shadow.share",
            "learning.capture",
        ),
    ],
)
def test_a_wrong_configuration_is_told_by_its_path(text: str, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG + text, {})
    assert caught.value.path == path
    assert message in caught.value.message
