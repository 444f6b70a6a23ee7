"""The labelled rows: one shape for every source.

A row holds what a local and a frontier model made of one prompt. `source` is the group within
which labels are centred: pooled without that, a label mostly says which data set a row came
from, and routing gets worse than random.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import statistics
import tomllib
import zlib
from collections.abc import Callable, Collection, Iterator
from importlib import resources
from pathlib import Path
from typing import TypeVar

import msgspec

DATA_ENV = "TOLLHOUSE_DATA"
LETTERS = "ABCDEFGHIJ"
GOLD = "mmlu_gold"
EASY = "assumed/clinc150"
TALK = "assumed/clinc150_small_talk"
HARD = "assumed/arena_hard_v0.1"
SOLVED = "assumed/gsm8k"
REQUESTS = "assumed/requests"
ASSUMED = (EASY, TALK, HARD, SOLVED, REQUESTS)
REQUESTS_FILE = "requests.toml"
# What a local and a frontier model are assumed to make of a request.
SURE = {"easy": (0.96, 0.98), "several": (0.75, 0.9), "hard": (0.45, 0.75)}
TALK_DOMAINS = ("small_talk", "meta")

# Which models stand for a tier: open ones that fit one server, and the two frontier ones.
PRO_LOCAL = (
    "Mixtral-8x7B-Instruct-v0.1",
    "Meta-Llama-3_1-8B-Instruct",
    "Phi-3-mini-4k-instruct",
    "Yi-34B",
)
PRO_FRONTIER = ("gemini-1.5-pro-002", "gemini-1.5-flash-002")
LLMROUTER_LOCAL = ("llama-3.1-8b-instruct", "qwen2.5-7b-instruct", "gemma-2-9b-it")
# How often a frontier model is right on tasks that only open models were asked, so that everyday
# heads know which task is harder than which. GPT-4 on GSM8K and ARC: OpenAI, GPT-4 Technical
# Report, table 2; gpt-4-1106-preview on MATH: openai/simple-evals; on MBPP: EvalPlus, base tests,
# "GPT-4-Turbo (Nov 2023)". Nobody's figure: that of logic grids is assumed to be that of MATH.
# Tasks graded by overlap, and those whose format several models failed, say nothing of levels.
PUBLISHED = {
    "llmrouter/gsm8k": 0.920,
    "llmrouter/arc_challenge": 0.963,
    "llmrouter/math": 0.643,
    "llmrouter/mbpp": 0.857,
    "llmrouter/agentverse-logicgrid": 0.643,
}


class DataError(Exception):
    """A data file is missing or is not what it should be."""


class Row(msgspec.Struct, frozen=True):
    """`local` and `frontier` are mean scores in [0, 1] of the tier's models, None if unknown.
    `group` is the row's topic within its source."""

    id: str
    source: str
    group: str
    text: str
    local: float | None
    frontier: float | None


class _Pro(msgspec.Struct):
    id: str
    question: str
    options: list[str]
    category: str
    scores: dict[str, float | None]


class _Router(msgspec.Struct):
    id: str
    question: str
    task: str
    scores: dict[str, float | None]


class _Intent(msgspec.Struct):
    text: str
    domain: str


class _Prompt(msgspec.Struct):
    uid: str
    prompt: str


class _Solved(msgspec.Struct):
    id: str
    question: str
    answer: str


class _Gold(msgspec.Struct):
    id: str
    subject: str
    prompt: str
    weak: float
    strong: float


T = TypeVar("T")


def default_dir() -> Path:
    """The shared data beside the project, or where TOLLHOUSE_DATA points."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "routing"
    return Path(os.environ.get(DATA_ENV) or beside)


def load_rows(directory: Path, without: Collection[str] = ()) -> list[Row]:
    """All training rows in file order. Raises DataError."""
    rows: list[Row] = []
    for record in read_source(directory, "mmlu_pro", _Pro, without):
        rows.append(_pro_row(record))
    for entry in read_source(directory, "llmrouter", _Router, without):
        local = _mean(entry.scores, LLMROUTER_LOCAL)
        source = f"llmrouter/{entry.task}"
        rows.append(Row(entry.id, source, source, entry.question, local, None))
    for gold in read_source(directory, GOLD, _Gold, without):
        group = f"{GOLD}/{gold.subject}"
        rows.append(Row(gold.id, GOLD, group, gold.prompt, gold.weak, gold.strong))
    return rows


def load_assumed(directory: Path, without: Collection[str] = ()) -> list[Row]:
    """Rows whose labels nobody measured. Raises DataError.

    The labelled sources are examination questions. So that a greeting or a household command is
    not judged by how it resembles one, spoken intents are assumed easy for both tiers, and the
    prompts that Arena-Hard chose because they tell models apart are assumed hard; `requests.toml`
    adds both kinds for each of its topics, so that neither topic nor length is what makes a
    request hard, and requests for several calls of tools, assumed between the two. Of school
    mathematics, what takes more steps is assumed harder. The manifest counts these rows apart, and
    no metric is computed on them.
    """
    rows: list[Row] = []
    for number, intent in enumerate(read_source(directory, "clinc150", _Intent, without)):
        source = TALK if intent.domain in TALK_DOMAINS else EASY
        rows.append(Row(f"clinc150/{number}", source, source, intent.text, *SURE["easy"]))
    for prompt in read_source(directory, "arena_hard_v0.1", _Prompt, without):
        rows.append(Row(prompt.uid, HARD, HARD, prompt.prompt, *SURE["hard"]))
    return rows + _requests() + _solved(directory, without)


def _requests() -> list[Row]:
    """Those that come with the package. Raises DataError for one that stands twice."""
    text = resources.files("routers.train").joinpath(REQUESTS_FILE).read_text(encoding="utf-8")
    rows: list[Row] = []
    seen: set[str] = set()
    for topic, kinds in tomllib.loads(text).items():
        for kind, listed in kinds.items():
            for number, request in enumerate(listed.strip().splitlines()):
                if request in seen:
                    raise DataError(f"{REQUESTS_FILE}: {request!r} stands twice")
                seen.add(request)
                name = f"requests/{topic}/{kind}/{number}"
                rows.append(Row(name, REQUESTS, REQUESTS, request, *SURE[kind]))
    return rows


def _solved(directory: Path, without: Collection[str]) -> list[Row]:
    """School mathematics with a worked solution, the more calculations it marks (`<<48/2=24>>`)
    the harder: the local label falls from 0.9 at two standard deviations below the mean of the log
    of their number to 0.4 at two above."""
    records = list(read_source(directory, "gsm8k_train", _Solved, without))
    if not records:
        return []
    steps = [math.log1p(record.answer.count("<<")) for record in records]
    mean = statistics.fmean(steps)
    spread = statistics.pstdev(steps) or 1.0
    rows = []
    for record, count in zip(records, steps, strict=True):
        local = 1 / (1 + math.exp(0.7 * (count - mean) / spread - 0.9))
        rows.append(Row(record.id, SOLVED, SOLVED, record.question, local, None))
    return rows


def _pro_row(record: _Pro) -> Row:
    """Half of the questions keep their options, so that the heads do not learn that a multiple
    choice list is what makes a prompt hard. Each half is a source of its own."""
    plain = hashlib.blake2b(record.id.encode(), digest_size=1).digest()[0] % 2 == 0
    text = record.question if plain else _with_options(record)
    source = "mmlu_pro/plain" if plain else "mmlu_pro/options"
    local, frontier = _mean(record.scores, PRO_LOCAL), _mean(record.scores, PRO_FRONTIER)
    return Row(record.id, source, f"mmlu_pro/{record.category}", text, local, frontier)


def _with_options(record: _Pro) -> str:
    listed = zip(LETTERS, record.options, strict=False)
    return "\n".join([record.question, *(f"{a}. {b}" for a, b in listed), "Answer:"])


def _mean(scores: dict[str, float | None], models: tuple[str, ...]) -> float | None:
    """An answer that could not be parsed counts 0; a model that was not asked does not count."""
    asked = [scores[model] or 0.0 for model in models if model in scores]
    return sum(asked) / len(asked) if asked else None


def read_source(
    directory: Path, name: str, shape: type[T], without: Collection[str] = ()
) -> Iterator[T]:
    """The lines of a source's file; none of a source that is left out, whose file need not be
    there. Raises DataError."""
    if name not in without:
        yield from read_records(directory / f"{name}.jsonl.gz", shape)


def read_records(path: Path, shape: type[T]) -> Iterator[T]:
    """The lines of a gzip JSON Lines file. Raises DataError naming the line."""
    decode: Callable[[bytes], T] = msgspec.json.Decoder(shape).decode
    try:
        with gzip.open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                    raise DataError(f"{path.name}, line {number}: {exc}") from exc
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"{path}: {exc}") from exc
