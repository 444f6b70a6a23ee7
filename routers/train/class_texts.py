"""What the data-class model is fitted on: labelled texts, frames of our own, and other prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from routers.train.abroad import GREETINGS, REQUESTS
from routers.train.abroad import PERSONAL as PERSONAL_ABROAD
from routers.train.data import LETTERS, read_records
from routers.train.frames import PERSONAL, fill
from routers.train.language import Sentence
from routers.train.names import words
from routers.train.prompts import IMPERSONAL, MEDICINE, REPLIES

FILLINGS = 8
LOWERED = 0.15
# A note of fewer characters ("None.") says nothing of anybody.
SHORT_NOTE = 30
# Source, field, most rows, weight. Trivia and reading passages name real people and places.
NEGATIVES = (
    ("mmlu_pro", "question", 3000, 1.0),
    ("gsm8k_train", "question", 1500, 1.0),
    ("arena_hard_v0.1", "prompt", 500, 2.0),
    ("clinc150", "text", 2500, 1.0),
    ("banking77", "text", 2000, 1.0),
    ("arena_hard_v2.0", "prompt", 750, 1.0),
    ("llmrouter", "question", 1200, 0.3),
)
# The share of the examination questions that are shown with their options.
OFFERED = 0.6
WRAPPERS = (
    "Summarise this note: {}",
    "Please summarize the following conversation:\n\n{}",
    "Turn this visit into a SOAP note.\n{}",
    "Extract all medications from the text below.\n\n{}",
    "Here is what was said:\n{}\nWrite the discharge letter.",
)

ENGLISH = "en"
# Sentences of newspapers and the web by language. They name people and places: those in which
# nothing looks like it are negatives, and all show how often such texts are flagged.
SENTENCES = "sentences"
# What people say to an assistant in other languages.
SMALL_TALK = "small talk"
SENTENCE_WEIGHT = 1.0
SMALL_TALK_WEIGHT = 3.0
# The languages whose sentences are a source of their own.
LARGER = words("en de fr es it pt nl pl sv tr ru ar hi ja zh")

Spans = list[tuple[int, int]]


class Text(msgspec.Struct, frozen=True):
    """`label`: `pii`, `phi` or "" for neither. `group`: rows of one group share a fold. `spans`:
    where the personal data stands. `held`: whether the row counts when it is held out. `lang`: ISO
    639-1, as far as it is known."""

    text: str
    label: str
    source: str
    group: str
    spans: Spans = []
    weight: float = 1.0
    held: bool = True
    lang: str = ENGLISH


class _Span(msgspec.Struct):
    start: int
    end: int


class _Template(msgspec.Struct):
    text: str
    template: str
    spans: list[_Span]


class _Visit(msgspec.Struct):
    note: str
    dialogue: str


def load_texts(data_dir: Path, seed: int) -> list[Text]:
    """Every labelled text and our own. Raises DataError."""
    rng = random.Random(seed)
    english = [*_personal(data_dir, rng), *_clinical(data_dir, rng), *_others(data_dir, rng)]
    return [*english, *_abroad(data_dir, random.Random(seed))]


def _personal(data_dir: Path, rng: random.Random) -> list[Text]:
    texts = []
    for row in read_records(data_dir / "pii_templates.jsonl.gz", _Template):
        spans = [(span.start, span.end) for span in row.spans]
        text = Text(row.text, "pii", "pii_templates", row.template, spans)
        texts.append(text)
        if rng.random() < LOWERED:
            texts.append(_lowered(text))
    for number, frame in enumerate(PERSONAL):
        for _ in range(FILLINGS):
            filled, spans = fill(frame, rng)
            text = Text(filled, "pii", "own frames", f"frame/{number}", spans, held=False)
            texts.append(_lowered(text) if rng.random() < LOWERED else text)
    return texts


def _lowered(text: Text) -> Text:
    lower = text.text.lower()
    kept = lower if len(lower) == len(text.text) else text.text
    return msgspec.structs.replace(text, text=kept, held=False)


def _clinical(data_dir: Path, rng: random.Random) -> list[Text]:
    texts = []
    for number, visit in enumerate(read_records(data_dir / "clinical_dialogue.jsonl.gz", _Visit)):
        wrapped = rng.choice(WRAPPERS).replace("{}", rng.choice((visit.note, visit.dialogue)))
        for source, text in (
            ("dialogue", visit.dialogue),
            ("dialogue without speakers", without_speakers(visit.dialogue)),
            ("note" if len(visit.note) >= SHORT_NOTE else "note, short", visit.note),
            ("wrapped", wrapped),
        ):
            weight = 0.0 if source == "note, short" else 1.0
            texts.append(Text(text, "phi", source, f"visit/{number}", weight=weight))
    return texts


def without_speakers(dialogue: str) -> str:
    return "\n".join(line.partition(": ")[2] for line in dialogue.splitlines())


def _others(data_dir: Path, rng: random.Random) -> list[Text]:
    texts = []
    for name, field, most, weight in NEGATIVES:
        rows = list(read_records(data_dir / f"{name}.jsonl.gz", dict[str, Any]))
        for number in sorted(rng.sample(range(len(rows)), min(most, len(rows)))):
            text = str(rows[number][field])
            if "options" in rows[number] and rng.random() < OFFERED:
                text = _with_options(text, rows[number]["options"], rng)
            texts.append(Text(text, "", name, f"{name}/{number}", weight=weight))
    for number, prompt in enumerate((*IMPERSONAL, *REPLIES, *MEDICINE)):
        texts.append(Text(prompt, "", "own prompts", f"prompt/{number}", weight=5.0, held=False))
    return texts


def _with_options(question: str, options: Sequence[str], rng: random.Random) -> str:
    """The question as an examination prints it, with four options or all of them."""
    shown = options[:4] if rng.random() < 0.7 else options
    mark = rng.choice(("{}. ", "{}) ", "({}) "))
    listed = [mark.format(letter) + text for letter, text in zip(LETTERS, shown, strict=False)]
    end = rng.choice((["Answer:"], [], ["Answer with the letter only."]))
    return "\n".join([question, *listed, *end])


def _abroad(data_dir: Path, rng: random.Random) -> list[Text]:
    """Texts in other languages, and English sentences to compare with."""
    texts = []
    for number, frame in enumerate(PERSONAL_ABROAD):
        for _ in range(FILLINGS):
            filled, spans = fill(frame, rng)
            text = Text(filled, "pii", "own frames", f"abroad/{number}", spans, held=False, lang="")
            texts.append(_lowered(text) if rng.random() < LOWERED else text)
    for lang, phrases in (*GREETINGS.items(), *REQUESTS.items()):
        for phrase in phrases.split("|"):
            # The same words in small letters or without a sign are the same phrase.
            group = "said/" + "".join(filter(str.isalnum, phrase.lower()))
            text = Text(phrase, "", SMALL_TALK, group, weight=SMALL_TALK_WEIGHT, lang=lang)
            texts.append(text)
    for number, row in enumerate(read_records(data_dir / "languages.jsonl.gz", Sentence)):
        source = f"{SENTENCES} {row.lang if row.lang in LARGER else 'other'}"
        weight = 0.0 if row.lang == ENGLISH else SENTENCE_WEIGHT
        group = f"{SENTENCES}/{number}"
        texts.append(Text(row.text, "", source, group, weight=weight, lang=row.lang))
    return texts
