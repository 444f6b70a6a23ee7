"""Training without a source: its file may be missing, and names are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from routers.train.cards import load_evidence
from routers.train.data import DataError
from routers.train.pipeline import load_inputs


@pytest.fixture
def without_gold(routing_data: Path, tmp_path: Path) -> Path:
    """The labelled data as somebody has it who was given no mmlu_gold."""
    for file in routing_data.glob("*.jsonl.gz"):
        if file.name != "mmlu_gold.jsonl.gz":
            (tmp_path / file.name).symlink_to(file)
    return tmp_path


def test_what_is_left_out_need_not_be_there(without_gold: Path) -> None:
    inputs = load_inputs(without_gold, ["mmlu_gold"])
    for part in (inputs.rows, inputs.domains, inputs.tasks):
        sources = {row.source.split("/")[0] for row in part}
        assert "mmlu_pro" in sources
        assert "mmlu_gold" not in sources
    known = {row.id: (0.5, 0.7) for row in inputs.rows}
    evidence = load_evidence(without_gold, known, ["mmlu_gold"])
    assert {one.source for one in evidence} == {"mmlu_pro", "llmrouter"}
    with pytest.raises(DataError, match=r"mmlu_gold\.jsonl\.gz"):
        load_inputs(without_gold)


def test_a_part_of_a_source_can_be_left_out(routing_data: Path) -> None:
    sources = {row.source for row in load_inputs(routing_data, ["llmrouter/mmlu"]).rows}
    assert "llmrouter/math" in sources
    assert "llmrouter/mmlu" not in sources


@pytest.mark.parametrize("name", ["mmlugold", "llmrouter/", "languages"])
def test_a_source_that_nothing_is_learnt_from_is_an_error(routing_data: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"leave_out: no rows are from '{name}'"):
        load_inputs(routing_data, [name])
