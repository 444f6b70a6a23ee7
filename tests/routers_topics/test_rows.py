"""The rows of the domain and task heads, from small files and from the shared data."""

from __future__ import annotations

import gzip
from collections import Counter

import msgspec
import pytest

from routers.train import tasks, topics
from routers.train.data import default_dir
from routers.train.discriminant import TopicError

shared = pytest.mark.skipif(not default_dir().is_dir(), reason="the shared data is not here")


def write(path, records):
    with gzip.open(path, "wb") as file:
        file.writelines(msgspec.json.encode(record) + b"\n" for record in records)


@pytest.fixture
def data(tmp_path):
    prompt = "Who may sue?\nA. The buyer\nB. The seller\nAnswer:"
    gold = {"id": "g1", "subject": "professional_law", "prompt": prompt}
    pro = {"id": "p1", "question": "How fast?", "options": ["1", "2"], "category": "physics"}
    task = {"id": "t1", "question": "Who sang it?", "task": "trivia_qa"}
    write(tmp_path / "mmlu_gold.jsonl.gz", [gold])
    write(tmp_path / "mmlu_pro.jsonl.gz", [pro | {"src": "stemez-Physics"}])
    write(tmp_path / "llmrouter.jsonl.gz", [task, task | {"task": "gsm8k"}])
    return tmp_path


def test_a_question_comes_with_and_without_its_options(data):
    rows = topics.load_domain_rows(data)
    graded = [row for row in rows if row.group is not None]
    assert [(row.text, row.label, row.field, row.group) for row in graded] == [
        ("Who may sue?", "law", "professional_law", "g1"),
        ("Who may sue?\nA. The buyer\nB. The seller\nAnswer:", "law", "professional_law", "g1"),
        ("How fast?", "physics", "stemez-Physics", "p1"),
        ("How fast?\nA. 1\nB. 2\nAnswer:", "physics", "stemez-Physics", "p1"),
    ]
    assert [row.label for row in rows if row.source == "llmrouter/trivia_qa"] == ["other"]


def test_an_unknown_subject_is_named(data):
    write(
        data / "mmlu_gold.jsonl.gz", [{"id": "g7", "subject": "alchemy", "prompt": "Lead to gold?"}]
    )
    with pytest.raises(TopicError, match=r"g7.*alchemy"):
        topics.load_domain_rows(data)


def test_an_unknown_category_is_named(data):
    odd = {"id": "p9", "question": "q", "options": [], "category": "magic", "src": "s"}
    write(data / "mmlu_pro.jsonl.gz", [odd])
    with pytest.raises(TopicError, match=r"p9.*magic"):
        topics.load_domain_rows(data)


def test_every_subject_has_one_domain():
    assert len(topics.DOMAIN_OF) == 57
    assert set(topics.SUBJECTS) == set(topics.DOMAINS)
    assert len(topics.DOMAINS) == 14


def test_the_lexicon_covers_every_domain_and_joins_known_fields():
    rows = list(topics.lexicon_rows(topics.lexicon()))
    counts = Counter(row.label for row in rows)
    assert set(counts) == set(topics.DOMAINS)
    assert min(counts.values()) >= 200
    places = {f"{d}.{f}" for d, fields in topics.lexicon().items() for f in fields}
    assert set(topics.SAME_FIELD) <= places
    for place, field in topics.SAME_FIELD.items():
        assert topics.DOMAIN_OF.get(field, "business") == place.split(".")[0]


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"magic": {"wands": "wand"}}, "magic"),
        ({"law": {"torts": "battery; ; nuisance"}}, "law.torts has an empty term"),
        ({"law": {"torts": "battery"}, "physics": {"cells": "Battery"}}, "physics.cells"),
    ],
)
def test_a_faulty_lexicon_is_refused(terms, said):
    with pytest.raises(TopicError, match=said):
        list(topics.lexicon_rows(terms))


def test_a_frame_is_filled_and_its_fillings_stay_together():
    sets = {"translation": tasks.FrameSet(["Into Dutch: {text}"])}
    rows = list(tasks.frame_rows(sets, ["one {braced}", "two", "three"]))
    assert len(rows) == len(tasks.FILLINGS)
    assert len({row.group for row in rows}) == 1
    assert all(row.text.startswith("Into Dutch: ") and "{text}" not in row.text for row in rows)
    assert rows == list(tasks.frame_rows(sets, ["one {braced}", "two", "three"]))


def test_faulty_frames_are_refused():
    with pytest.raises(TopicError, match="juggling"):
        list(tasks.frame_rows({"juggling": tasks.FrameSet(["Throw!"])}, ["x"]))
    with pytest.raises(TopicError, match="no texts"):
        list(tasks.frame_rows({"translation": tasks.FrameSet(["Now: {text}"])}, []))


def test_frames_are_of_known_tasks():
    assert set(tasks.frames()) <= set(tasks.TASKS)


@shared
def test_the_shared_data_covers_every_domain_and_task():
    domains = topics.load_domain_rows(default_dir())
    assert {row.label for row in domains} == set(topics.DOMAINS)
    todo = tasks.load_task_rows(default_dir())
    assert {row.label for row in todo} == set(tasks.TASKS)
    assert min(Counter(row.label for row in todo).values()) >= 100
