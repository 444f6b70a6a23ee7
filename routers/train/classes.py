"""Training of the data-class model: texts with personal or clinical data against other prompts.

Tried and lost: the windows' regression alone (4 to 5 points of recall less on new frames), windows
of 48 tokens, no frames of our own (5 points less), questions of trivia as full negatives (they
name people and places, so they teach that names mean nothing).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.onnx.arrays import save_arrays
from routers.onnx.classes import (
    BEFORE,
    BITS,
    FEW,
    FILE,
    NAMES,
    DataClassModel,
    buckets,
    windows,
)
from routers.onnx.tokens import FEATURES, HASHING, LEXICON_BITS, Tokens, slots_of, spans_of
from routers.patterns import detect
from routers.train.data import LETTERS, read_records
from routers.train.frames import PERSONAL, fill
from routers.train.linear import Recipe, Window, fit_tokens, fit_windows
from routers.train.prompts import IMPERSONAL, MEDICINE, REPLIES
from routers.train.values import gazetteer

SEED = 20_261_123
FOLDS = 5
FILLINGS = 16
LOWERED = 0.15
# The lexicon: words in so many training texts are common; it knows this share of our names.
COMMON = 3
NAMED = 0.6
NAMED_SEED = 7
# A note of fewer characters ("None.") says nothing of anybody.
SHORT_NOTE = 30
MOST_WINDOWS = 12
MOST_TOKENS = 300
MOST_CHARACTERS = MOST_TOKENS * 40
SHARPNESS = 0.4
WINDOWED = Recipe(epochs=8, batch=256, rate=0.3, ridge=1e-6, seed=SEED)
TOKENED = Recipe(epochs=10, batch=2048, rate=0.5, ridge=1e-7, seed=SEED)
# The share of the everyday prompts that may be flagged by either class. `phi` is easy to tell from
# them, so its threshold is where this share of held-out clinical text is still found.
ALARMS = 0.02
CLINICAL_RECALL = 0.99
CLINICAL = ("dialogue", "dialogue without speakers", "note", "wrapped")
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
EVERYDAY = ("mmlu_pro", "gsm8k_train", "arena_hard_v0.1", "clinc150", "banking77")
# Their made-up characters would teach the tokens that names mean nothing; the windows know them.
NO_TOKENS = ("gsm8k_train",)
# The share of the examination questions that are shown with their options.
OFFERED = 0.6
WRAPPERS = (
    "Summarise this note: {}",
    "Please summarize the following conversation:\n\n{}",
    "Turn this visit into a SOAP note.\n{}",
    "Extract all medications from the text below.\n\n{}",
    "Here is what was said:\n{}\nWrite the discharge letter.",
)

Arrays = dict[str, NDArray[Any]]
Spans = list[tuple[int, int]]


class Text(msgspec.Struct, frozen=True):
    """`label`: `pii`, `phi` or "" for neither. `group`: rows of one group share a fold. `spans`:
    where the personal data stands. `held`: whether the row counts when it is held out."""

    text: str
    label: str
    source: str
    group: str
    spans: Spans = []
    weight: float = 1.0
    held: bool = True


class ClassFigures(msgspec.Struct, frozen=True):
    """By source, the share of held-out rows flagged by the model alone and with the patterns."""

    model: dict[str, float]
    with_patterns: dict[str, float]
    thresholds: dict[str, float]


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


def write(out_dir: Path, data_dir: Path, seed: int = SEED) -> ClassFigures:
    """Fit on every row, write `classes.npz` into `out_dir`, and return the figures of the
    cross-validation by template. Some minutes. Raises DataError, OSError."""
    texts = load_texts(data_dir, seed)
    logits = cross_validate(texts, seed)
    thresholds = _thresholds(texts, logits)
    arrays = fit_classes(texts)
    arrays["thresholds"] = _sigmoid(thresholds).astype(np.float32)
    save_arrays(out_dir / FILE, arrays)
    return _figures(texts, logits, thresholds)


def load_texts(data_dir: Path, seed: int) -> list[Text]:
    """Every labelled text and our own. Raises DataError."""
    rng = random.Random(seed)
    return [*_personal(data_dir, rng), *_clinical(data_dir, rng), *_others(data_dir, rng)]


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


def fit_classes(texts: Sequence[Text]) -> Arrays:
    """The arrays of `DataClassModel`, with thresholds of one half."""
    lexicon = lexicon_of(texts)
    reader = Tokens(lexicon)
    rows: list[Window] = []
    tokens: list[NDArray[np.int32]] = []
    targets: list[NDArray[np.float32]] = []
    importance: list[NDArray[np.float32]] = []
    for text in texts:
        found = reader.features(text.text[:MOST_CHARACTERS])
        if not len(found) or not text.weight:
            continue
        rows += _windows(found, text)
        if text.label != "phi" and text.source not in NO_TOKENS:
            wanted = inside(text.text, text.spans)[:MOST_TOKENS]
            tokens.append(_token_rows(found[:MOST_TOKENS]))
            targets.append(wanted)
            # The words around personal data are no data, but they are no counterexample either.
            side = 0.5 if text.label else text.weight
            importance.append(np.where(wanted > 0, 1.0, side).astype(np.float32))
    weights, bias = fit_windows(rows, 1 << BITS, WINDOWED)
    own, own_bias = fit_tokens(
        np.concatenate(tokens),
        np.concatenate(targets),
        np.concatenate(importance),
        TOKENED,
        SHARPNESS,
    )
    full = np.zeros((BEFORE + 1, 1 << BITS), dtype=np.float32)
    full.flat[: len(own) - 1] = own[1:]
    steps = [*(np.abs(weights).max(axis=1) / 127), np.abs(full).max() / 127]
    return {
        "hashing": np.array([HASHING], dtype=np.int32),
        "lexicon": lexicon,
        "windows": np.round(weights / np.array(steps[:2])[:, None]).astype(np.int8),
        "tokens": np.round(full / steps[2]).astype(np.int8),
        "scale": np.array([*steps[:2], steps[2] * SHARPNESS], dtype=np.float32),
        "bias": np.array([*bias, own_bias], dtype=np.float32),
        "thresholds": np.full(len(NAMES), 0.5, dtype=np.float32),
    }


def lexicon_of(texts: Sequence[Text]) -> NDArray[np.uint8]:
    """[2**LEXICON_BITS]: bit 0 for common words, 1 given names, 2 family names, 3 places."""
    counts: Counter[str] = Counter()
    for text in texts:
        if text.weight:
            counts.update(_small_words(text))
    common = [word for word, count in counts.items() if count >= COMMON]
    table = np.zeros(1 << LEXICON_BITS, dtype=np.uint8)
    for bit, words in enumerate((common, *gazetteer(NAMED, NAMED_SEED))):
        table[slots_of(words)] |= 1 << bit
    return table


def _small_words(text: Text) -> set[str]:
    """Words in lower case that are no personal data."""
    start = text.text[:MOST_CHARACTERS]
    starts, ends = spans_of(start)
    plain = inside(start, text.spans) == 0
    tokens = zip(starts[plain].tolist(), ends[plain].tolist(), strict=True)
    words = {start[a:b] for a, b in tokens}
    return {word for word in words if word.islower() and word.isalpha()}


def _windows(found: NDArray[np.uint32], text: Text) -> list[Window]:
    places = buckets(found).astype(np.int32)
    target = tuple(float(text.label == name) for name in NAMES)
    return [
        Window(places[a:b].ravel(), float(np.sqrt(b - a + FEW)), target, text.weight)
        for a, b in windows(len(found))[:MOST_WINDOWS]
    ]


def _token_rows(found: NDArray[np.uint32]) -> NDArray[np.int32]:
    """[tokens, 3 * FEATURES]: the buckets of a token and of the two before it, one up, for 0 is
    none."""
    places = buckets(found).astype(np.int32) + 1
    rows = np.zeros((len(found), (BEFORE + 1) * FEATURES), dtype=np.int32)
    for before in range(min(BEFORE + 1, len(found))):
        shifted = places[: len(found) - before] + (before << BITS)
        rows[before:, before * FEATURES : (before + 1) * FEATURES] = shifted
    return rows


def inside(text: str, spans: Spans) -> NDArray[np.float32]:
    """[tokens]: 1 where a token lies in one of the spans."""
    starts, ends = spans_of(text)
    wanted = np.zeros(len(starts), dtype=np.float32)
    for start, end in spans:
        wanted[(starts < end) & (ends > start)] = 1.0
    return wanted


def cross_validate(texts: Sequence[Text], seed: int) -> NDArray[np.float64]:
    """[n, 2]: logits of models that have seen no row of the same group; NaN for rows of our own.
    Personal data is held out by template, so these are figures for new frames."""
    rng = random.Random(seed)
    fold: dict[str, int] = {}
    for source in sorted({text.source for text in texts if text.held}):
        groups = sorted({text.group for text in texts if text.source == source and text.held})
        rng.shuffle(groups)
        for number, group in enumerate(groups):
            fold.setdefault(group, number % FOLDS)
    logits = np.full((len(texts), len(NAMES)), np.nan)
    for k in range(FOLDS):
        model = DataClassModel(fit_classes([t for t in texts if fold.get(t.group) != k]))
        for number, text in enumerate(texts):
            if text.held and fold[text.group] == k:
                logits[number] = model.logits(text.text)
    return logits


def _thresholds(texts: Sequence[Text], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2] logits above which a text is flagged: `phi` by CLINICAL_RECALL, then `pii` so that
    everyday prompts are flagged as either at the rate ALARMS."""
    clinical = logits[[t.source in CLINICAL and t.held for t in texts]]
    everyday = logits[[t.source in EVERYDAY and t.held for t in texts]]
    phi = np.quantile(clinical[:, 0], 1 - CLINICAL_RECALL)
    flagged = everyday[:, 0] >= phi
    left = max(0.0, ALARMS - float(flagged.mean())) * len(everyday) / (~flagged).sum()
    return np.array([phi, np.quantile(everyday[~flagged, 1], 1 - left)])


def _figures(
    texts: Sequence[Text], logits: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> ClassFigures:
    model: dict[str, list[bool]] = {}
    union: dict[str, list[bool]] = {}
    for text, logit in zip(texts, logits, strict=True):
        if text.held:
            flagged = bool((logit >= thresholds).any())
            model.setdefault(text.source, []).append(flagged)
            either = flagged or bool(detect(text.text).labels)
            union.setdefault(text.source, []).append(either)
    shown = dict(zip(NAMES, _sigmoid(thresholds).round(6).tolist(), strict=True))
    return ClassFigures(_rates(model), _rates(union), shown)


def _rates(flagged: dict[str, list[bool]]) -> dict[str, float]:
    return {name: round(sum(rows) / len(rows), 4) for name, rows in flagged.items()}


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logit))
    return p
