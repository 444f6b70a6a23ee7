"""Shared passages between texts that are trained on and texts that are measured on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from routers.train.data import read_records
from routers.train.overlap import WORDS, Match, grams, overlap
from routers.train.tasks import frames
from routers.train.topics import lexicon, lexicon_rows

ASKED = "Which planet of the solar system has the most moons, and why?"


def test_eight_words_in_a_row_are_found_whatever_their_form() -> None:
    copied = "Quiz:\nwhich PLANET of the\tsolar system has the -- most -- moons"
    assert overlap(["nothing here", copied], ["other text", ASKED]) == [
        Match(1, 1, "which planet of the solar system has the", 3)
    ]


def test_seven_words_are_not_enough() -> None:
    assert overlap(["which planet of the solar system has moons"], [ASKED]) == []
    assert overlap(["which planet of the solar system has moons"], [ASKED], n=7) == [
        Match(0, 0, "which planet of the solar system has", 1)
    ]


def test_the_first_of_several_is_named() -> None:
    assert [match.against for match in overlap([ASKED], [ASKED, ASKED])] == [0]
    assert [match.row for match in overlap([ASKED, ASKED], [ASKED])] == [0, 1]


def test_short_texts_and_no_texts() -> None:
    assert overlap([""], [""]) == []
    assert overlap(["What is the time?"], ["the time", "what is the time"]) == [
        Match(0, 1, "what is the time", 1)
    ]
    assert overlap(["what is the time"], [f"{ASKED} What is the time"]) == []
    assert overlap([], [ASKED]) == []
    assert list(grams("a b", 2)) == ["a b"]
    with pytest.raises(ValueError, match="at least one word"):
        overlap([ASKED], [ASKED], n=0)


def test_other_scripts_have_words_too() -> None:
    text = "один два три четыре пять шесть семь восемь"
    assert len(overlap([text.upper()], [text])) == 1
    # No spaces between words.
    chinese = "请问这座城市里最老的图书馆在哪里 什么时候开门"
    assert len(overlap([f"你好。{chinese}"], [chinese])) == 1
    assert overlap(["这座城市"], [chinese]) == []
    thai = "ห้องสมุดที่เก่าแก่ที่สุดอยู่ที่ไหน"
    assert len(overlap([thai], [thai])) == 1


def test_our_own_wordings_share_nothing_with_questions(routing_data: Path) -> None:
    """The terms and frames in the package are in our own words."""
    ours = [row.text for row in lexicon_rows(lexicon())]
    ours += [frame for held in frames().values() for frame in held.frames]
    # A greeting is nobody's own.
    ours = [text for text in ours if len(text.split()) >= WORDS]
    fields = {
        "mmlu_gold": "prompt",
        "mmlu_pro": "question",
        "llmrouter": "question",
        "gsm8k_train": "question",
        "arena_hard_v0.1": "prompt",
        "arena_hard_v2.0": "prompt",
        "clinc150": "text",
        "banking77": "text",
    }
    for name, field in fields.items():
        rows = read_records(routing_data / f"{name}.jsonl.gz", dict)
        assert overlap(ours, [row[field] for row in rows]) == [], name


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, theirs = tmp_path / "mine.jsonl", tmp_path / "theirs.jsonl"
    said = [{"role": "user", "content": f"Tell me: {ASKED}"}]
    mine.write_text('{"prompt": "Hello there"}\n\n' + json.dumps({"messages": said}) + "\n")
    theirs.write_text(json.dumps({"question": ASKED, "answer": "Saturn"}) + "\n")
    call = ["router", "overlap", "--texts", str(mine), "--against", str(theirs)]
    assert main([*call, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "texts": 2,
        "against": 1,
        "overlaps": [
            {
                "line": 3,
                "against": 1,
                "shared": 5,
                "words": "which planet of the solar system has the",
            }
        ],
    }
    assert main([*call, "--words", "20"]) == 0
    assert "0 of 2 texts overlap" in capsys.readouterr().err
    theirs.write_text('{"answer": "Saturn"}\n')
    assert main(call) == 2
    error = capsys.readouterr().err
    assert f"{theirs}, line 1: has neither prompt nor messages" in error
    assert "question, text, dialogue" in error
    theirs.write_text("\n")
    assert main(call) == 2
    assert f"{theirs}: has no rows" in capsys.readouterr().err
