"""Labelled rows: what is accepted, and errors that name the row and the field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.labels import (
    LabelRow,
    LabelsError,
    count_models,
    load_rows,
    parse_rows,
    require_enough,
)
from routers.types import Turn

GOOD: dict[str, Any] = {"id": "a", "prompt": "Why?", "local_ok": True, "frontier_ok": 0.5}


def parse(*rows: Any) -> list[LabelRow]:
    return parse_rows([json.dumps(row).encode() + b"\n" for row in rows], "rows.jsonl")


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | fields).items() if value is not ...}


def test_a_prompt() -> None:
    assert parse(GOOD) == [LabelRow("a", (Turn("user", "Why?"),), 1.0, 0.5)]


def test_messages_with_parts_and_tools() -> None:
    content = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "x"}}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    found = parse(changed(prompt=..., messages=messages, tools=[{}, {}], id=..., local_ok=None))
    turns = (Turn("system", "Be brief."), Turn("user", "Look"))
    assert found == [LabelRow("1", turns, None, 0.5, 2)]
    assert found[0].query.tools == 2


def test_whose_answers_the_labels_are_of() -> None:
    (row,) = parse(changed(local_model="home/org/m", frontier_model=None))
    assert (row.local_model, row.frontier_model) == ("home/org/m", None)
    (silent,) = parse(GOOD)
    assert (silent.local_model, silent.frontier_model) == (None, None)
    counted = [(1.0, "home/m"), (0.0, None), (0.5, "home/n"), (1.0, "home/n"), (None, "home/m")]
    assert list(count_models(counted).items()) == [("home/n", 2), ("home/m", 1), ("unknown", 1)]


def test_other_fields_and_blank_lines_are_left_alone() -> None:
    lines = [
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b"\r\n",
        json.dumps(changed(id=7, source="x", weight=3)).encode(),
    ]
    assert [row.id for row in parse_rows(lines, "rows")] == ["a", "7"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (changed(local_ok=...), "local_ok is missing"),
        (changed(frontier_ok=...), "frontier_ok is missing"),
        (changed(local_ok="yes"), "local_ok must be true, false, a number from 0 to 1, or null"),
        (changed(frontier_ok=1.5), "frontier_ok must lie between 0 and 1, not be 1.5"),
        (changed(local_ok=-1), "local_ok must lie between 0 and 1"),
        (changed(local_ok=float("nan")), "local_ok must lie between 0 and 1"),
        (changed(local_ok=None, frontier_ok=None), "local_ok and frontier_ok are both null"),
        (changed(prompt=...), "has neither prompt nor messages"),
        (changed(messages=[]), "has both prompt and messages"),
        (changed(prompt=3), "prompt must be text, not a number"),
        (changed(prompt="  \n"), "prompt has no text"),
        (changed(prompt=..., messages=[]), "messages has no text"),
        (changed(prompt=..., messages="hi"), "messages must be a list, not text"),
        (changed(prompt=..., messages=["hi"]), r"messages\[0\] must be an object, not text"),
        (changed(prompt=..., messages=[{"content": "hi"}]), r"messages\[0\]\.role must be text"),
        (
            changed(prompt=..., messages=[{"role": "user", "content": 3}]),
            r"messages\[0\]\.content must be text or a list of parts, not a number",
        ),
        (changed(tools={}), "tools must be a list, not an object"),
        (changed(local_model=3), "local_model must be BACKEND/MODEL or null, not a number"),
        (changed(local_model="m"), "local_model must be BACKEND/MODEL or null, not 'm'"),
        (changed(frontier_model=""), "frontier_model must be BACKEND/MODEL or null, not ''"),
        (changed(frontier_model="/m"), "frontier_model must be BACKEND/MODEL or null, not '/m'"),
        (changed(frontier_model=[]), "frontier_model must be BACKEND/MODEL or null, not a list"),
        (changed(id=[]), "id must be text or a whole number, not a list"),
        ([GOOD], "must be a JSON object, not a list"),
    ],
)
def test_a_bad_row_is_named_with_its_field(row: Any, says: str) -> None:
    with pytest.raises(LabelsError, match=rf"^rows\.jsonl, line 2: {says}"):
        parse(GOOD, row, GOOD)


def test_anthropic_form_is_read_as_openai_form_is() -> None:
    call = {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Graz"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "18 degrees"}
    parts = {**result, "content": [{"type": "text", "text": "rain"}]}
    anthropic = changed(
        prompt=...,
        system=[{"type": "text", "text": "Be brief."}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Coat?"}, {"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]},
            {"role": "user", "content": [result, parts, {"type": "text", "text": "Well?"}]},
            {"role": "user", "content": [result]},
        ],
    )
    function = {"name": "weather", "arguments": '{"city": "Graz"}'}
    openai = changed(
        prompt=...,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Coat?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [{"function": function}]},
            {"role": "tool", "content": "18 degrees"},
            {"role": "tool", "content": "rain"},
            {"role": "user", "content": "Well?"},
            {"role": "tool", "content": "18 degrees"},
        ],
    )
    assert parse(anthropic) == parse(openai)


def test_a_system_prompt_counts_beside_a_prompt_as_beside_messages() -> None:
    for system in ("Be brief.", [{"type": "text", "text": "Be brief."}]):
        (row,) = parse(changed(system=system))
        assert row.turns == (Turn("system", "Be brief."), Turn("user", "Why?"))
        messages = [{"role": "user", "content": "Why?"}]
        assert parse(changed(system=system, prompt=..., messages=messages)) == [row]
    with pytest.raises(LabelsError, match="line 1: system must be text or a list of parts"):
        parse(changed(system=5))


def test_a_line_that_is_no_json_is_named() -> None:
    with pytest.raises(LabelsError, match=r"^x, line 2: is not JSON"):
        parse_rows([json.dumps(GOOD).encode(), b'{"prompt": '], "x")
    with pytest.raises(LabelsError, match=r"^x, line 1: is not JSON"):
        parse_rows([b"[" * 100_000], "x")


def test_what_is_no_text_at_all_is_named_for_what_it_seems(tmp_path: Path) -> None:
    line, file = json.dumps(GOOD), tmp_path / "rows.jsonl"
    for content, seems in (
        (gzip.compress(line.encode()), "compressed by gzip"),
        (line.encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + line.encode("utf-16-be"), "UTF-16"),
    ):
        file.write_bytes(content)
        with pytest.raises(LabelsError, match=rf"rows\.jsonl: seems to be {seems}"):
            load_rows(file)


def test_a_row_that_stands_twice_is_one() -> None:
    """Two exports may hold the same requests. Alike they may be, and each have been asked."""
    other = changed(id="b")
    unnamed = changed(id=...)
    later = changed(local_ok=False)
    found = parse(GOOD, other, unnamed, unnamed, changed(note="again"), later, other)
    assert [row.id for row in found] == ["a", "b", "3", "4", "a"]
    assert [row.local_ok for row in found] == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_foreign_bytes_and_lone_surrogates_are_read() -> None:
    rows = parse_rows(
        [
            b'{"prompt": "\\ud800 why", "local_ok": 1, "frontier_ok": 1}',
            b'{"prompt": "\xff\xfe why", "local_ok": 0, "frontier_ok": 1}',
        ],
        "x",
    )
    assert [row.turns[0].text for row in rows] == ["\ud800 why", "\ufffd\ufffd why"]


@pytest.mark.parametrize("lines", [[], [b"\n", b"  \n"]])
def test_a_file_without_rows(lines: list[bytes]) -> None:
    with pytest.raises(LabelsError, match=r"^x: has no rows"):
        parse_rows(lines, "x")


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_give_rows_or_an_error(lines: list[bytes]) -> None:
    try:
        assert parse_rows(lines, "x")
    except LabelsError as exc:
        assert str(exc).startswith("x")


def test_files(tmp_path: Path) -> None:
    plain, packed = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.gz"
    plain.write_text(json.dumps(GOOD))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load_rows(plain) == load_rows(packed) == parse(GOOD)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl.gz"
    for content in (b"not gzip", gzip.compress(json.dumps(GOOD).encode() * 50)[:-9]):
        broken.write_bytes(content)
        with pytest.raises(LabelsError, match=r"broken\.jsonl\.gz: cannot be read"):
            load_rows(broken)
    with pytest.raises(LabelsError, match=r"nowhere\.jsonl: cannot be read"):
        load_rows(tmp_path / "nowhere.jsonl")


def test_too_few_rows_say_what_is_missing() -> None:
    rows = parse(GOOD, changed(local_ok=False), changed(local_ok=None), changed(frontier_ok=None))
    require_enough(rows, 2)
    with pytest.raises(LabelsError) as failed:
        require_enough(rows, 3, "x")
    assert str(failed.value) == (
        "x: too few rows: 2 have both local_ok and frontier_ok, at least 3 are needed; 2 have one"
        " side only, as feedback gives them: use shadow comparison, or label both sides yourself"
        " (the card of one model, --model of refit and propose, needs one side only)"
    )
    with pytest.raises(LabelsError, match=r"^rows: .* at least 3 are needed$"):
        require_enough(parse(GOOD, changed(local_ok=False)), 3)


def test_one_class_only_is_refused() -> None:
    rows = parse(*[changed(local_ok=True, id=i) for i in range(30)])
    with pytest.raises(LabelsError, match="local_ok is true in every row"):
        require_enough(rows, 20)
