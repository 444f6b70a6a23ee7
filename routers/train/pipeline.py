"""Training, start to end: export, embed with the exported model, fit, measure, pin."""

from __future__ import annotations

import datetime
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.artefacts import BEST, FAST
from routers.cards import FILE as CARDS
from routers.cards import encode_cards
from routers.onnx.encoder import SPECIAL_TOKENS
from routers.onnx.heads import HeadModel, save_heads, under
from routers.onnx.manifest import Manifest, describe_file, write_manifest
from routers.onnx.spelling import FILE as SPELLING
from routers.onnx.spelling import load_known
from routers.onnx.tokenizer import load_tokenizer
from routers.refit.run import Material, write_beside
from routers.train import classes, language
from routers.train.cards import Evidence, fit_all, load_evidence
from routers.train.classes import ClassFigures
from routers.train.data import ASSUMED, GOLD, DataError, Row, load_assumed, load_rows
from routers.train.discriminant import TopicRow
from routers.train.export import ENCODER, export_encoder, token_vectors
from routers.train.fit import Table
from routers.train.language import LanguageFigures
from routers.train.measure import Held, hold_out, report, shipped
from routers.train.spelling import known_words, vocabulary_of, write_known
from routers.train.static import distil, write_graph
from routers.train.tasks import fit_tasks, load_task_rows
from routers.train.topics import fit_domain, load_domain_rows
from routers.train.vectors import Vectors, as_rendered, surfaces

VERSION = 8
MAX_TOKENS = 160
SEED = 20_250_701
# Rows of an assumed source: enough for a level, and few enough to embed in minutes.
# Sources by file, of which heads learn.
LEARNT = (
    "arena_hard_v0.1",
    "arena_hard_v2.0",
    "banking77",
    "clinc150",
    "clinical_dialogue",
    "gsm8k_train",
    "llmrouter",
    "mmlu_gold",
    "mmlu_pro",
)
SAMPLE = {"assumed/gsm8k": 3000}
ASSUMED_SAMPLE = 350
# The probability below which a label is not said: what nothing speaks for. At a half, one question
# of eight had no domain, and two fifths of those would have had the right one.
FLOORS = {"domain": 0.2, "task": 0.2}
TEXTS = ("language.npz", "classes.npz")
LIMITS = [
    "The encoder is English-only: other languages get a score of low confidence.",
    "Labels come from examination questions; frontier labels from two model families.",
    "No code or writing task has a frontier label: there the gain rests on the local head.",
    "Rows under assumed/ have labels that nobody measured; the effect of system prompts and of "
    "tools is assumed too.",
    "p_local_ok refers to models like Mixtral-8x7B-Instruct on questions like MMLU's and like "
    "Llama-3.1-8B-Instruct elsewhere, p_frontier_ok to gpt-4-1106-preview.",
    "How hard one kind of task is beside another is known only of the kinds in the rows; on five "
    "of them the frontier's share is a published figure, no measurement of these prompts.",
    "Kernel widths and factors were chosen on the folds that the metrics report.",
]


class Inputs(msgspec.Struct, frozen=True):
    """The rows of every head."""

    rows: list[Row]
    domains: list[TopicRow]
    tasks: list[TopicRow]

    @property
    def texts(self) -> list[str]:
        return [row.text for part in (self.rows, self.domains, self.tasks) for row in part]


def train(
    data_dir: Path, out_dir: Path, *, cache: Path | None = None, leave_out: Sequence[str] = ()
) -> dict[str, Manifest]:
    """Write both artefacts into folders of `out_dir` and return their manifests by name.

    `leave_out`: sources none of whose rows the heads learn from (`mmlu_gold` ...; that one's file
    need not be there). The same data, libraries and machine give the same files, but for the
    manifest's `created`.
    Raises DataError, ExportError or TopicError.
    """
    inputs = load_inputs(data_dir, leave_out)
    best, fast = out_dir / BEST, out_dir / FAST
    exported = export_encoder(best, MAX_TOKENS)
    vocabulary = vocabulary_of(best / "tokenizer.json")
    write_known(best, known_words(inputs.texts, vocabulary))
    read = Vectors(best, MAX_TOKENS, cache)
    read.learn(inputs.texts)
    texts = text_metrics(language.write(best, data_dir), classes.write(best, data_dir))
    cosines = {"int8_cosine_to_fp32": exported.cosine, "half_cosine_to_fp32": exported.half}
    more = {**cosines, **texts}
    evidence = partial(load_evidence, data_dir, without=leave_out)
    made = {BEST: _finish(best, inputs, read, evidence, (exported.weights_sha256, more))}
    found = {**_distil(best, fast, inputs, read), **texts}
    for name in TEXTS:
        shutil.copyfile(best / name, fast / name)
    shutil.copyfile(best / SPELLING, fast / SPELLING)
    read = Vectors(fast, MAX_TOKENS, cache)
    read.learn(inputs.texts)
    made[FAST] = _finish(fast, inputs, read, evidence, (exported.weights_sha256, found))
    return made


def text_metrics(languages: LanguageFigures, flagged: ClassFigures) -> dict[str, float]:
    """What the models of the text itself got right or flagged, of rows held out; the patterns
    beside the model of data classes, as a gateway asks both."""
    by_source = {
        f"data_class_cv5_flagged_{source.replace(', ', '_').replace(' ', '_')}": rate
        for source, rate in flagged.with_patterns.items()
    }
    return {
        "language_cv5_accuracy_sentences": languages.sentences,
        "language_cv5_accuracy_first_20_characters": languages.first_20,
        **by_source,
    }


def load_inputs(data_dir: Path, leave_out: Sequence[str] = ()) -> Inputs:
    """Raises DataError, also for a source to leave out that there is not."""
    gone = set(leave_out)
    rows = sample(load_rows(data_dir, gone) + load_assumed(data_dir, gone))
    domains, tasks = load_domain_rows(data_dir, gone), load_task_rows(data_dir, gone)
    sources = {row.source for part in (rows, domains, tasks) for row in part}
    for name in sorted(gone.difference(LEARNT)):
        if not any(_within(source, name) for source in sources):
            there = ", ".join(sorted({*LEARNT, *sources}))
            raise DataError(f"leave_out: no rows are from {name!r}; sources are {there}")

    def kept(source: str) -> bool:
        return not any(_within(source, name) for name in gone)

    return Inputs(
        [row for row in rows if kept(row.source)],
        [row for row in domains if kept(row.source)],
        [row for row in tasks if kept(row.source)],
    )


def _within(source: str, name: str) -> bool:
    return source == name or source.startswith(f"{name}/")


def sample(rows: list[Row]) -> list[Row]:
    """All measured rows and a seeded sample of each assumed source, in the original order."""
    rng = np.random.default_rng(SEED)
    kept = [i for i, row in enumerate(rows) if row.source not in ASSUMED]
    for source in ASSUMED:
        members = [i for i, row in enumerate(rows) if row.source == source]
        chosen = rng.permutation(len(members))[: SAMPLE.get(source, ASSUMED_SAMPLE)]
        kept.extend(members[i] for i in chosen)
    return [rows[i] for i in sorted(kept)]


def table_of(rows: list[Row], read: Vectors) -> Table:
    texts = [row.text for row in rows]
    return Table(rows, read.sentences(texts), surfaces(texts))


def _distil(best: Path, fast: Path, inputs: Inputs, read: Vectors) -> dict[str, float]:
    tokenizer = load_tokenizer(best / "tokenizer.json", MAX_TOKENS, load_known(best))
    texts = sorted(set(inputs.texts))
    side = SPECIAL_TOKENS // 2
    tokens = [tokenizer.encode(as_rendered(text).text)[side:-side] for text in texts]
    found = distil(tokens, read.sentences(texts), token_vectors())
    fast.mkdir(parents=True, exist_ok=True)
    write_graph(found.table, fast / "model.onnx")
    shutil.copyfile(best / "tokenizer.json", fast / "tokenizer.json")
    return {"cosine_to_encoder": found.cosine, "variance_kept": found.kept}


def _finish(
    out: Path,
    inputs: Inputs,
    read: Vectors,
    evidence: Callable[[Mapping[str, tuple[float, float]]], list[Evidence]],
    about: tuple[str, dict[str, float]],
) -> Manifest:
    """Heads, cards, calibration rows and manifest beside an exported model. `evidence`: scored
    rows by what is predicted of them, see `load_evidence`."""
    table = table_of(inputs.rows, read)
    held = hold_out(table, SEED)
    model, named = _with_topics(shipped(table), inputs, read)
    save_heads(out, model)
    _beside(out, model, table, held)
    reference = {
        row.id: (float(p[0]), float(p[1]))
        for row, p in zip(table.rows, held.p, strict=True)
        if not np.isnan(p[0])
    }
    (out / CARDS).write_bytes(encode_cards(fit_all(evidence(reference))))
    sha, measured = about
    metrics = {name: round(value, 4) for name, value in measured.items()}
    files = sorted(f for f in out.iterdir() if f.is_file() and f.name != "manifest.json")
    manifest = Manifest(
        name=out.name,
        version=VERSION,
        encoder=ENCODER if out.name == BEST else f"static vectors distilled from {ENCODER}",
        encoder_sha256=sha,
        max_tokens=MAX_TOKENS,
        seed=SEED,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        files={file.name: describe_file(file) for file in files},
        rows=_counted(inputs),
        metrics={**metrics, **named, **report(table, held, SEED)},
        limits=LIMITS,
    )
    write_manifest(out, manifest)
    return manifest


def _with_topics(
    model: HeadModel, inputs: Inputs, read: Vectors
) -> tuple[HeadModel, dict[str, float | list[float]]]:
    """The heads with those of domain and task, and how often these were right on rows held out: a
    label that is not said is wrong."""
    arrays, measured = dict(model.arrays), dict[str, float | list[float]]()
    for name, rows, fit in (
        ("domain", inputs.domains, fit_domain),
        ("task", inputs.tasks, fit_tasks),
    ):
        head, held = fit(read.sentences([row.text for row in rows]), rows, SEED)
        arrays |= under(head.arrays(), name)
        for source in ("mmlu_gold", "mmlu_pro", ""):
            here = [
                i
                for i, row in enumerate(rows)
                if not np.isnan(held[i, 0]) and row.source.split("/")[0].startswith(source)
            ]
            if here:
                right = [
                    held[i].max() >= FLOORS[name]
                    and head.labels[int(held[i].argmax())] == rows[i].label
                    for i in here
                ]
                key = f"{name}_cv5_accuracy_{source or 'all'}"
                measured[key] = round(float(np.mean(right)), 4)
    heads = msgspec.structs.replace(model.heads, topics=FLOORS)
    return HeadModel(heads, arrays), measured


def _beside(out: Path, model: HeadModel, table: Table, held: Held) -> None:
    """Calibration rows of the reference source, or of all, and the reference for drift."""
    gold = [i for i, row in enumerate(table.rows) if row.source == GOLD]
    measured = [i for i, row in enumerate(table.rows) if row.source not in ASSUMED]
    index: NDArray[np.intp] = np.array(gold or measured, dtype=np.intp)
    part = table.take(index)
    named = model.name_topics(part.sentences, [as_rendered(row.text).text for row in part.rows])
    labels = part.both()
    write_beside(
        out, model, Material(part.sentences, held.said[index], labels, named.get("domain", []))
    )


def _counted(inputs: Inputs) -> dict[str, int]:
    found = Counter(row.source for row in inputs.rows)
    for name, rows in (("domain", inputs.domains), ("task", inputs.tasks)):
        found.update(f"{name}/{row.source}" for row in rows)
    return dict(sorted(found.items()))
