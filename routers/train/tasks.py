"""Rows and recipe of the task head: what kind of work a prompt asks for.

Labels are kept to those for which data or honest frames exist. The frames of `tasks.toml` are our
own wording, filled with texts of the shared data. All fillings of a frame are one group, so what
is measured is an instruction in words that were not learnt, and intents are held out whole.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.onnx.render import cut
from routers.onnx.topics import TopicHead
from routers.train.data import read_source
from routers.train.discriminant import Recipe, TopicError, TopicRow, fit_head

TASKS = (
    "code",
    "math",
    "reasoning",
    "knowledge_qa",
    "writing",
    "rewriting",
    "summarisation",
    "extraction",
    "classification",
    "translation",
    "command",
    "conversation",
    "support",
)
# Nobody published how often an operator's users ask for each, so all are equally likely. Words do
# not help here: an instruction is a few of them in a text about anything.
RECIPE = Recipe(prior=dict.fromkeys(TASKS, 1.0), least=0)
FRAMES = "tasks.toml"
# Characters of text in each filling of a frame. None shows the instruction alone, and counts twice.
FILLINGS = (0, 0, 60, 60, 120, 120, 200, 280)
LONG = 500

LLMROUTER = {
    "mbpp": "code",
    "human_eval": "code",
    "gsm8k": "math",
    "math": "math",
    "agentverse-logicgrid": "reasoning",
    "natural_qa": "knowledge_qa",
    "trivia_qa": "knowledge_qa",
    "arc_challenge": "knowledge_qa",
    "openbook_qa": "knowledge_qa",
    "commonsense_qa": "knowledge_qa",
}
ARENA = {"coding": "code", "math": "math", "creative_writing": "writing"}
# The three domains of clinc150 that are not orders to a device or an assistant's services.
CLINC = {"small_talk": "conversation", "meta": "conversation", "banking": None, "oos": None}
CLINC_EVERY, BANKING_EVERY, PRO_EVERY = 10, 20, 4
PRO = {"math": "math"}
KNOWLEDGE_DOMAINS = ("psychology", "biology", "economics")


class _Task(msgspec.Struct):
    id: str
    question: str
    task: str


class _Arena(msgspec.Struct):
    uid: str
    prompt: str
    subcategory: str


class _Intent(msgspec.Struct):
    text: str
    intent: str
    domain: str


class _Support(msgspec.Struct):
    text: str
    intent: str


class _Gold(msgspec.Struct):
    id: str
    subject: str
    prompt: str


class _Pro(msgspec.Struct):
    id: str
    question: str
    category: str


class _Clinical(msgspec.Struct):
    note: str
    dialogue: str


class FrameSet(msgspec.Struct, frozen=True):
    """`frames` hold one `{text}`, or none where the prompt stands alone."""

    frames: list[str]


def load_task_rows(data_dir: Path, without: Collection[str] = ()) -> list[TopicRow]:
    """All rows in file order, the frames last. Raises DataError, TopicError."""
    rows = [
        *_asked(data_dir, without),
        *_exams(data_dir, without),
        *_spoken(data_dir, without),
    ]
    return rows + list(frame_rows(frames(), _texts(data_dir, without)))


def frames() -> dict[str, FrameSet]:
    """The instructions that come with the package, by task."""
    text = resources.files("routers.train").joinpath(FRAMES).read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, FrameSet])


def frame_rows(sets: Mapping[str, FrameSet], texts: Sequence[str]) -> Iterator[TopicRow]:
    """Each frame with one text for each of FILLINGS, the same ones on every run; one without
    `{text}` once. Raises TopicError for an unknown task or when there are no texts to fill in."""
    for task, held in sets.items():
        if task not in TASKS:
            raise TopicError(f"{FRAMES}: {task!r} is not one of the tasks")
        for frame in held.frames:
            group = f"frame/{task}/{frame}"
            if "{text}" not in frame:
                yield TopicRow(frame, task, f"{task}/frames", "frames", 4.0, group)
                continue
            if not texts:
                raise TopicError(f"{FRAMES}: no texts to fill into {frame!r}")
            for number, chars in enumerate(FILLINGS):
                text = texts[_pick(f"{frame}/{number}", len(texts))]
                filled = frame.replace("{text}", cut(text, chars))
                yield TopicRow(filled, task, f"{task}/frames", "frames", 1.0, group)


def fit_tasks(
    sentences: NDArray[np.floating[Any]], rows: Sequence[TopicRow], seed: int
) -> tuple[TopicHead, NDArray[np.float32]]:
    """The head, and out-of-fold probabilities [n, tasks]. Sentences [n, width] of any encoder, in
    the order of the rows. Raises TopicError."""
    return fit_head(sentences, rows, RECIPE, seed)


def _asked(data_dir: Path, without: Collection[str]) -> Iterator[TopicRow]:
    for entry in read_source(data_dir, "llmrouter", _Task, without):
        task = LLMROUTER.get(entry.task)
        if task is not None:
            source = f"llmrouter/{entry.task}"
            yield TopicRow(entry.question, task, source, source, 1.0, entry.id)
    for prompt in read_source(data_dir, "arena_hard_v2.0", _Arena, without):
        task = ARENA.get(prompt.subcategory)
        if task is None:
            raise TopicError(f"arena_hard_v2.0: {prompt.uid}: unknown {prompt.subcategory!r}")
        source = f"arena_hard_v2.0/{prompt.subcategory}"
        yield TopicRow(prompt.prompt, task, source, source, 2.0, prompt.uid)


def _exams(data_dir: Path, without: Collection[str]) -> Iterator[TopicRow]:
    for gold in read_source(data_dir, "mmlu_gold", _Gold, without):
        if "mathematics" in gold.subject or gold.subject == "abstract_algebra":
            yield TopicRow(gold.prompt, "math", "mmlu/math", "mmlu_gold", 1.0, gold.id)
        elif gold.subject not in ("formal_logic", "moral_scenarios", "high_school_statistics"):
            yield TopicRow(gold.prompt, "knowledge_qa", "mmlu", "mmlu_gold", 0.5, gold.id)
    for number, record in enumerate(read_source(data_dir, "mmlu_pro", _Pro, without)):
        if record.category in PRO:
            task = PRO[record.category]
            yield TopicRow(record.question, task, "mmlu_pro/math", "mmlu_pro", 1.0, record.id)
        elif record.category in KNOWLEDGE_DOMAINS and number % PRO_EVERY == 0:
            row = TopicRow(record.question, "knowledge_qa", "mmlu_pro", "mmlu_pro", 1.0, record.id)
            yield row


def _spoken(data_dir: Path, without: Collection[str]) -> Iterator[TopicRow]:
    """A share of the intents: they are short and alike, and thousands teach no more."""
    for number, spoken in enumerate(read_source(data_dir, "clinc150", _Intent, without)):
        task = CLINC.get(spoken.domain, "command")
        if task is not None and number % CLINC_EVERY == 0:
            field = f"clinc150/{spoken.domain}"
            yield TopicRow(spoken.text, task, field, "clinc150", 1.0, f"{field}/{spoken.intent}")
    for number, asked in enumerate(read_source(data_dir, "banking77", _Support, without)):
        if number % BANKING_EVERY == 0:
            group = f"banking77/{asked.intent}"
            yield TopicRow(asked.text, "support", "banking77", "banking77", 1.0, group)


def _texts(data_dir: Path, without: Collection[str]) -> list[str]:
    """What the frames are filled with: notes, talks, letters of complaint, passages, prose."""
    texts: list[str] = []
    for number, visit in enumerate(read_source(data_dir, "clinical_dialogue", _Clinical, without)):
        if number % 8 == 0:
            texts += [visit.note, visit.dialogue]
    for number, asked in enumerate(read_source(data_dir, "banking77", _Support, without)):
        if number % 50 == 7:
            texts.append(asked.text)
    for entry in read_source(data_dir, "llmrouter", _Task, without):
        if entry.task == "mmlu" and len(entry.question) > LONG:
            texts.append(entry.question)
    return texts


def _pick(key: str, count: int) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % count
