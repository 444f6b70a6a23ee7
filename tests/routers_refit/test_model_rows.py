"""Rows about one model: which field is about it, and what is wrong with a row that has none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from routers.labels import LabelsError
from routers.model_rows import Chosen, parse_model_rows
from routers.refit import ModelRows, load_model_rows


def parsed(*rows: dict[str, Any]) -> ModelRows:
    return parse_model_rows([json.dumps(row).encode() for row in rows], "rows")


def test_without_a_label_of_the_model_the_side_says_whose_it_is() -> None:
    found = parsed(
        {"prompt": "a", "local_ok": True, "frontier_ok": None},
        {"messages": [{"role": "user", "content": "b"}], "local_ok": 0.5, "frontier_ok": 1},
    )
    assert (found.field("local"), found.field("frontier")) == ("local_ok", "frontier_ok")
    assert found.own("local") == found.other("frontier") == [1.0, 0.5]
    assert found.own("frontier") == found.other("local") == [None, 1.0]
    assert [query.turns[0].text for query in found.queries] == ["a", "b"]


MIXED = (
    {"prompt": "a", "local_ok": 1, "frontier_ok": 0, "local_model": "home/m"},
    {"prompt": "b", "local_ok": 0, "frontier_ok": 1, "local_model": "home/n"},
    {"prompt": "c", "local_ok": 0, "frontier_ok": None, "local_model": None},
    {"prompt": "d", "local_ok": None, "frontier_ok": 1, "local_model": "home/m"},
    {"prompt": "e", "local_ok": 1, "frontier_ok": 1, "frontier_model": "ohio/m"},
    {"prompt": "f", "local_ok": 1, "frontier_ok": 1, "local_model": "home/m"},
)


@pytest.mark.parametrize("sole", [False, True])
def test_only_labels_of_the_model_count_where_the_side_has_several(sole: bool) -> None:
    found = parsed(*MIXED)
    left_out = {"unlabelled": 1, "other_model": 1, "unknown_model": 2}
    # That others are named shows that it was not always the only one.
    assert found.of("home/m", "local", sole=sole) == Chosen([0, 5], [], left_out, {"home/n": 1})
    assert found.of("home/n", "local", sole=sole).index == [1]
    none = found.of("attic/m", "local", sole=sole)
    assert (none.index, none.others) == ([], {"home/m": 2, "home/n": 1})
    assert none.left_out == {"unlabelled": 1, "other_model": 3, "unknown_model": 2}
    assert found.others("local") == [None, None, None, None, "ohio/m", None]


def test_labels_that_name_no_model_count_where_there_is_no_other() -> None:
    found = parsed(MIXED[0], *MIXED[2:])
    apart = found.of("home/m", "local", sole=False)
    assert (apart.index, apart.unnamed) == ([0, 4], [])
    assert apart.left_out == {"unlabelled": 1, "other_model": 0, "unknown_model": 2}
    alone = found.of("home/m", "local", sole=True)
    assert (alone.index, alone.unnamed) == ([0, 1, 3, 4], [1, 3])
    assert alone.left_out == {"unlabelled": 1, "other_model": 0, "unknown_model": 0}
    # The same of the other side.
    frontier = found.of("ohio/m", "frontier", sole=True)
    assert (frontier.index, frontier.unnamed) == ([0, 2, 3, 4], [0, 2, 4])


def test_what_ok_says_is_of_the_model_whatever_stands_beside_it() -> None:
    found = parsed({"prompt": "a", "ok": 1, "local_ok": 0, "local_model": "home/n"})
    assert found.of("home/m", "local", sole=False) == Chosen([0], [], {"unlabelled": 0}, {})


def test_labels_of_the_model_come_first() -> None:
    found = parsed(
        {"prompt": "a", "ok": False, "frontier_ok": True},
        {"prompt": "b", "ok": None, "local_ok": 1, "tools": [{}, {}]},
    )
    assert found.field("local") == found.field("frontier") == "ok"
    assert found.own("local") == found.own("frontier") == [0.0, None]
    assert (found.other("local"), found.other("frontier")) == ([1.0, None], [None, 1.0])
    assert found.queries[1].tools == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "b"}, "line 2: ok is missing, which other rows have; write null"),
        ({"prompt": "b", "local_ok": 1, "frontier_ok": 1}, "line 2: ok is missing"),
        ({"prompt": "b", "ok": "yes"}, "line 2: ok must be true, false, a number .* not text"),
        ({"prompt": "b", "ok": 2}, "line 2: ok must lie between 0 and 1, not be 2"),
        ({"prompt": "b", "ok": 1, "local_ok": []}, "line 2: local_ok must be .* not a list"),
        ({"prompt": " ", "ok": 1}, "line 2: prompt has no text"),
        ({"ok": 1}, "line 2: has neither prompt nor messages"),
        ({"prompt": "b", "tools": 1, "ok": 1}, "line 2: tools must be a list"),
        ({"prompt": "b", "ok": 1, "local_model": "m"}, "line 2: local_model must be BACKEND/MODEL"),
    ],
)
def test_a_bad_row_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        parsed({"prompt": "a", "ok": 1}, row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, "line 1: has no label: neither ok nor local_ok and frontier_ok"),
        ({"prompt": "a", "local_ok": 1}, "line 1: frontier_ok is missing; write null"),
        ({"prompt": "a", "frontier_ok": 1}, "line 1: local_ok is missing; write null"),
    ],
)
def test_a_row_without_a_label_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        parsed(row)


def test_a_file_is_read_packed_or_not(tmp_path: Path) -> None:
    line = b'{"prompt": "a", "ok": true}\n'
    (tmp_path / "rows.jsonl").write_bytes(line)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(line))
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        found = load_model_rows(tmp_path / name)
        assert (found.own("local"), found.where) == ([1.0], str(tmp_path / name))
    for name, content, message in (("none", b"", "has no rows"), ("bad", b"{", "is not JSON")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LabelsError, match=message):
            load_model_rows(tmp_path / name)
