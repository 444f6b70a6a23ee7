"""Rows and recipe of the domain head: the fourteen categories of MMLU-Pro.

The graded rows handed out hold nine of them (their STEM half); the 57 subjects of MMLU cover the
rest, and `topics.toml` adds terms in our own words. MMLU-Pro merged the subjects into categories
(TIGER-AI-Lab/MMLU-Pro, field `src` such as "ori_mmlu-professional_accounting" beside `category`):
politics, culture, geography, accounting and the miscellany became "other".
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.onnx.topics import TopicHead
from routers.train.data import LETTERS, read_source
from routers.train.discriminant import Recipe, TopicError, TopicRow, fit_head

# Questions of each category in the public test set (TIGER-Lab/MMLU-Pro): the prior.
DOMAINS = {
    "math": 1351,
    "physics": 1299,
    "chemistry": 1132,
    "law": 1101,
    "engineering": 969,
    "other": 924,
    "economics": 844,
    "health": 818,
    "psychology": 798,
    "business": 789,
    "biology": 717,
    "philosophy": 499,
    "computer science": 410,
    "history": 381,
}
SUBJECTS = {
    "math": "abstract_algebra college_mathematics elementary_mathematics high_school_mathematics "
    "high_school_statistics",
    "physics": "astronomy college_physics conceptual_physics high_school_physics",
    "chemistry": "college_chemistry high_school_chemistry",
    "law": "international_law jurisprudence professional_law",
    "engineering": "electrical_engineering",
    "other": "global_facts high_school_geography high_school_government_and_politics "
    "human_sexuality miscellaneous professional_accounting public_relations security_studies "
    "sociology us_foreign_policy",
    "economics": "econometrics high_school_macroeconomics high_school_microeconomics",
    "health": "anatomy clinical_knowledge college_medicine human_aging medical_genetics nutrition "
    "professional_medicine virology",
    "psychology": "high_school_psychology professional_psychology",
    "business": "business_ethics management marketing",
    "biology": "college_biology high_school_biology",
    "philosophy": "formal_logic logical_fallacies moral_disputes moral_scenarios philosophy "
    "world_religions",
    "computer science": "college_computer_science computer_security high_school_computer_science "
    "machine_learning",
    "history": "high_school_european_history high_school_us_history high_school_world_history "
    "prehistory",
}
DOMAIN_OF = {subject: domain for domain, names in SUBJECTS.items() for subject in names.split()}
# Fields of the lexicon that are one of the subjects share its rows; the others stand alone.
SAME_FIELD = {
    "law.international": "international_law",
    "law.jurisprudence": "jurisprudence",
    "history.prehistory": "prehistory",
    "history.america": "high_school_us_history",
    "history.modern_europe": "high_school_european_history",
    "history.early_modern": "high_school_european_history",
    "philosophy.ethics": "moral_disputes",
    "philosophy.applied_ethics": "moral_disputes",
    "philosophy.metaphysics": "philosophy",
    "philosophy.knowledge": "philosophy",
    "philosophy.logic": "formal_logic",
    "philosophy.fallacies": "logical_fallacies",
    "philosophy.religions": "world_religions",
    "philosophy.moral_scenarios": "moral_scenarios",
    "health.anatomy": "anatomy",
    "health.clinical": "clinical_knowledge",
    "health.medicine": "professional_medicine",
    "health.genetics": "medical_genetics",
    "health.nutrition": "nutrition",
    "health.virology": "virology",
    "health.ageing": "human_aging",
    "health.physiology": "college_medicine",
    "business.marketing": "marketing",
    "business.management": "management",
    "business.ethics": "business_ethics",
    "business.finance": "stemez-Business",
    "other.accounting": "professional_accounting",
    "other.geography": "high_school_geography",
    "other.politics": "high_school_government_and_politics",
    "other.foreign_policy": "us_foreign_policy",
    "other.security": "security_studies",
    "other.sociology": "sociology",
    "other.sexuality": "human_sexuality",
    "other.communications": "public_relations",
    "other.facts": "global_facts",
    "other.trivia": "miscellaneous",
    "economics.econometrics": "econometrics",
    "economics.micro": "high_school_microeconomics",
    "economics.macro": "high_school_macroeconomics",
    "physics.astronomy": "astronomy",
    "computer science.security": "computer_security",
    "computer science.learning": "machine_learning",
    "math.statistics": "high_school_statistics",
    "math.elementary": "elementary_mathematics",
    "math.abstract": "abstract_algebra",
}
# Not the stock phrase of examinations ("Which of the following is true of ..."): with it, terms
# share eight words in a row with questions that routers are measured on.
FRAMES = ("{}", "Which of these is right about {}?")
LEXICON = "topics.toml"
LEXICON_WEIGHT = 0.6
GOLD_WEIGHT = 2.0
# One stylised template with two stories in each row: many rows, little to learn.
STYLISED, STYLISED_WEIGHT = "moral_scenarios", 0.2
TRIVIA, TRIVIA_WEIGHT = ("trivia_qa", "natural_qa"), 0.4
RECIPE = Recipe(prior=DOMAINS)
_OPTION = re.compile(r"\nA\. ")


class _Pro(msgspec.Struct):
    id: str
    question: str
    options: list[str]
    category: str
    src: str


class _Gold(msgspec.Struct):
    id: str
    subject: str
    prompt: str


class _Task(msgspec.Struct):
    id: str
    question: str
    task: str


def load_domain_rows(data_dir: Path, without: Collection[str] = ()) -> list[TopicRow]:
    """All rows in file order, each examination question with and without its options.

    Raises DataError for the files, TopicError for a subject or category without a domain.
    """
    rows: list[TopicRow] = []
    for gold in read_source(data_dir, "mmlu_gold", _Gold, without):
        rows += _gold_rows(gold)
    for record in read_source(data_dir, "mmlu_pro", _Pro, without):
        rows += _pro_rows(record)
    for entry in read_source(data_dir, "llmrouter", _Task, without):
        if entry.task in TRIVIA:
            source = f"llmrouter/{entry.task}"
            rows.append(TopicRow(entry.question, "other", "miscellaneous", source, TRIVIA_WEIGHT))
    return rows + list(lexicon_rows(lexicon()))


def lexicon() -> Mapping[str, Mapping[str, str]]:
    """The terms that come with the package: by domain and field, separated by semicolons."""
    text = resources.files("routers.train").joinpath(LEXICON).read_text(encoding="utf-8")
    return tomllib.loads(text)


def lexicon_rows(terms: Mapping[str, Mapping[str, str]]) -> Iterator[TopicRow]:
    """A row for each term and frame. Raises TopicError for an unknown domain, an empty term or
    one that stands twice."""
    seen: dict[str, str] = {}
    for domain, fields in terms.items():
        if domain not in DOMAINS:
            raise TopicError(f"{LEXICON}: {domain!r} is not one of the domains")
        for field, listed in fields.items():
            place = f"{domain}.{field}"
            for term in (part.strip() for part in listed.split(";")):
                if not term:
                    raise TopicError(f"{LEXICON}: {place} has an empty term")
                if term.lower() in seen:
                    raise TopicError(
                        f"{LEXICON}: {term!r} is in {seen[term.lower()]} and in {place}"
                    )
                seen[term.lower()] = place
                name = SAME_FIELD.get(place, place)
                for frame in FRAMES:
                    text = frame.format(term)
                    yield TopicRow(text, domain, name, "lexicon", LEXICON_WEIGHT)


def fit_domain(
    sentences: NDArray[np.floating[Any]], rows: Sequence[TopicRow], seed: int
) -> tuple[TopicHead, NDArray[np.float32]]:
    """The head, and out-of-fold probabilities [n, 14] (NaN for rows never held out).

    Sentences [n, width] of any encoder, in the order of the rows. Raises TopicError.
    """
    return fit_head(sentences, rows, RECIPE, seed)


def _gold_rows(gold: _Gold) -> Iterator[TopicRow]:
    domain = DOMAIN_OF.get(gold.subject)
    if domain is None:
        raise TopicError(f"mmlu_gold: {gold.id}: the subject {gold.subject!r} has no domain")
    weight = STYLISED_WEIGHT if gold.subject == STYLISED else GOLD_WEIGHT
    for kind, text in (("plain", without_options(gold.prompt)), ("options", gold.prompt)):
        yield TopicRow(text, domain, gold.subject, f"mmlu_gold/{kind}", weight, gold.id)


def _pro_rows(record: _Pro) -> Iterator[TopicRow]:
    if record.category not in DOMAINS:
        raise TopicError(f"mmlu_pro: {record.id}: {record.category!r} is not one of the domains")
    listed = (f"{a}. {b}" for a, b in zip(LETTERS, record.options, strict=False))
    options = "\n".join([record.question, *listed, "Answer:"])
    for kind, text in (("plain", record.question), ("options", options)):
        source = f"mmlu_pro/{kind}"
        yield TopicRow(text, record.category, record.src, source, group=record.id)


def without_options(prompt: str) -> str:
    """The question before the lettered answers."""
    match = _OPTION.search(prompt)
    return prompt[: match.start()] if match else prompt.removesuffix("\nAnswer:")
