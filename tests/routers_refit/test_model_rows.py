"""Rows about one model: which field is about it, and what is wrong with a row that has none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from routers.labels import LabelsError
from routers.model_rows import parse_model_rows
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
