"""From the original files of the data sources to rows of ours.

`sources.toml` says which file, which field and which rows; here is how they are read. Every error
names the source, the file and the row. Rows are counted from 0 in `keep`, from 1 in messages.
"""

from __future__ import annotations

import csv
import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from routers.train.sources import Source

Record = dict[str, Any]
T = TypeVar("T")

# The other two models of the original failed at its answer formats, not at its questions.
LLMROUTER_MODELS = (
    "codegemma-7b",
    "gemma-2-9b-it",
    "llama-3.1-8b-instruct",
    "llama-3.1-nemotron-51b-instruct",
    "llama-3.3-nemotron-super-49b-v1",
    "mistral-7b-instruct-v0.3",
    "qwen2.5-7b-instruct",
)
CLINC_SPLITS = ("train", "val", "oos_train", "oos_val")
SENTENCES = 200
REWRITTEN = "ori_mmlu"
_KINDS = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}


class SourceError(Exception):
    """A source is unknown or cannot be had, or an original is not what it should be."""


class Original(msgspec.Struct, frozen=True):
    """One file of a source: `name` at its origin, a copy of it at `path`, `part` what stands for
    `{}` in the table."""

    source: str
    name: str
    path: Path
    part: str = ""

    def error(self, why: object, row: int | None = None) -> SourceError:
        at = "" if row is None else f", row {row + 1}"
        return SourceError(f"{self.source}: {self.name}{at}: {why}")


class Row(NamedTuple):
    original: Original
    number: int
    record: Record

    def get(self, field: str, kind: type[T]) -> T:
        """Raises SourceError unless the field is there and of that kind."""
        if field not in self.record:
            raise self.error(f"the field {field} is missing")
        value = self.record[field]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(f"the field {field} must be {_KINDS[kind]}, not {value!r:.60}")
        return value

    def texts(self, field: str) -> list[str]:
        values: list[object] = self.get(field, list)
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"the field {field} must be a list of texts")
        return [str(value) for value in values]

    def error(self, why: object) -> SourceError:
        return self.original.error(why, self.number)


Converter = Callable[["Source", Sequence[Original]], Iterator[Record]]


def copy_fields(source: Source, originals: Sequence[Original]) -> Iterator[Record]:
    """Text fields under our names, after the constant ones."""
    for original in originals:
        for row in rows_of(original):
            yield {**source.constant, **{a: row.get(b, str) for a, b in source.fields.items()}}


def number_rows(source: Source, originals: Sequence[Original]) -> Iterator[Record]:
    """Text fields, and the number of the row as its id."""
    for original, keep in zip(originals, source.kept(), strict=True):
        for row in rows_of(original):
            if row.number in keep:
                named = {a: row.get(b, str) for a, b in source.fields.items()}
                yield {"id": f"{source.prefix}/{row.number}", **named}


def convert_mmlu_pro(source: Source, originals: Sequence[Original]) -> Iterator[Record]:
    """One archive per model, each with all questions: an answer that could not be parsed counts 0
    and is listed, questions that MMLU-Pro took over from MMLU are left out."""
    names, keep = source.fields, source.kept()[0]
    found: dict[int, Record] = {}
    for original in originals:
        for row in rows_of(original):
            number = row.get(names["id"], int)
            if number not in keep or row.get(names["src"], str).startswith(REWRITTEN):
                continue
            record = found.get(number)
            if record is None:
                record = found[number] = _question(source, row)
            guess, model = row.record.get(names["scores"]), original.part
            if guess is not None:
                guess = row.get(names["scores"], str)
            else:
                record["null"].append(model)
            record["scores"][model] = int(guess == record["answer"])
    for number in sorted(found):
        yield found[number]


def _question(source: Source, row: Row) -> Record:
    names = source.fields
    return {
        "id": f"{source.prefix}/{row.get(names['id'], int)}",
        "question": row.get(names["question"], str),
        # The original fills up to ten with N/A in some of its files.
        "options": [option for option in row.texts(names["options"]) if option != "N/A"],
        "answer": row.get(names["answer"], str),
        "category": row.get(names["category"], str),
        "src": row.get(names["src"], str),
        "scores": {},
        "null": [],
    }


def convert_llmrouter(source: Source, originals: Sequence[Original]) -> Iterator[Record]:
    """One row per question and model; questions are numbered as they first appear."""
    names = source.fields
    for original, keep in zip(originals, source.kept(), strict=True):
        found: dict[tuple[str, ...], Record] = {}
        for row in rows_of(original):
            task, question = row.get(names["task"], str), row.get(names["question"], str)
            key = (task, question, str(row.record.get("ground_truth")))
            if key not in found:
                number = f"{source.prefix}/{original.part}/{len(found)}"
                found[key] = {"id": number, "question": question, "task": task, "scores": {}}
            model = row.get("model_name", str)
            if model in LLMROUTER_MODELS:
                found[key]["scores"][model] = round(_number(row, names["scores"]), 10)
        for index, record in enumerate(found.values()):
            if index in keep:
                yield record


def _number(row: Row, field: str) -> float:
    whole = isinstance(row.record.get(field), int)
    value = float(row.get(field, int)) if whole else row.get(field, float)
    if not 0 <= value <= 1:
        raise row.error(f"the field {field} must lie between 0 and 1, not be {value}")
    return value


def convert_clinc150(source: Source, originals: Sequence[Original]) -> Iterator[Record]:
    """An object of splits, each a list of [text, intent], and one of domains, each a list of
    intents. Of the splits, those for training and validation in the order of the file."""
    data, domains = originals
    listed = _object(domains)
    domain_of = {intent: domain for domain, intents in listed.items() for intent in intents}
    domain_of["oos"] = "oos"
    splits = _object(data)
    for split in CLINC_SPLITS:
        if split not in splits:
            raise data.error(f"the split {split} is missing")
    for split in splits:
        if split not in CLINC_SPLITS:
            continue
        for number, pair in enumerate(splits[split]):
            if not (isinstance(pair, list) and [type(part) for part in pair] == [str, str]):
                raise data.error(f"must be a list of text and intent, in {split}", number)
            text, intent = pair
            if intent not in domain_of:
                raise data.error(f"the intent {intent!r} has no domain, in {split}", number)
            yield {"split": split, "text": text, "intent": intent, "domain": domain_of[intent]}


def convert_languages(source: Source, originals: Sequence[Original]) -> Iterator[Record]:
    """One sentence a line, one file a language: the 200 with the least hashes, in file order, so
    that the same ones are drawn everywhere."""
    for original in originals:
        lines = dict.fromkeys(line.strip() for line in _text(original).splitlines())
        lines.pop("", None)
        drawn = set(sorted(lines, key=_draw)[:SENTENCES])
        for line in lines:
            if line in drawn:
                yield {"lang": original.part, "text": line}


def _draw(line: str) -> bytes:
    return hashlib.blake2b(line.encode(), digest_size=16).digest()


def convert_pii_templates(source: Source, originals: Sequence[Original]) -> Iterator[Record]:
    """Sentences with at least one span, of the templates that are kept."""
    names, keep = source.fields, source.kept()[0]
    for original in originals:
        for row in rows_of(original):
            template = row.get(names["template_id"], int)
            found: list[Any] = row.get(names["spans"], list)
            if template not in keep or not found:
                continue
            text = row.get(names["text"], str)
            yield {
                "text": text,
                "template": row.get(names["template"], str),
                "template_id": template,
                "spans": [_span(row, span, len(text)) for span in found],
            }


def _span(row: Row, span: object, length: int) -> Record:
    if not isinstance(span, dict):
        raise row.error("a span must be an object")
    inner = Row(row.original, row.number, span)
    start, end = inner.get("start_position", int), inner.get("end_position", int)
    if not 0 <= start < end <= length:
        raise row.error(f"the span {start} to {end} does not lie in a text of {length} characters")
    return {"type": inner.get("entity_type", str), "start": start, "end": end}


def rows_of(original: Original) -> Iterator[Row]:
    """The records of a file by the end of its name at the origin. Raises SourceError."""
    read = _READERS.get(Path(original.name).suffix)
    if read is None:
        raise original.error(f"only {', '.join(sorted(_READERS))} are read")
    for number, record in read(original):
        if not isinstance(record, dict):
            raise original.error("must be an object", number)
        yield Row(original, number, record)


def _csv(original: Original) -> Iterator[tuple[int, object]]:
    try:
        with original.path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            for number, record in enumerate(reader):
                if None in record or None in record.values():
                    fields = len(reader.fieldnames or ())
                    raise original.error(f"must have {fields} fields like the header", number)
                yield number, record
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise original.error(exc) from exc


def _jsonl(original: Original) -> Iterator[tuple[int, object]]:
    # Not splitlines(): a JSON text may hold other line separators of Unicode.
    for number, line in enumerate(_text(original).split("\n")):
        if not line.strip():
            continue
        try:
            yield number, msgspec.json.decode(line)
        except msgspec.DecodeError as exc:
            raise original.error(exc, number) from exc


def _json(original: Original) -> Iterator[tuple[int, object]]:
    yield from _listed(original, _text(original).encode())


def _zip(original: Original) -> Iterator[tuple[int, object]]:
    try:
        with zipfile.ZipFile(original.path) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".json")]
            inside = [name for name in inside if not name.startswith("__MACOSX/")]
            if len(inside) != 1:
                raise original.error(f"must hold one .json file, not {len(inside)}")
            content = archive.read(inside[0])
    except (OSError, zipfile.BadZipFile, RuntimeError) as exc:  # RuntimeError: a password
        raise original.error(exc) from exc
    yield from _listed(original, content)


_READERS = {".csv": _csv, ".jsonl": _jsonl, ".json": _json, ".zip": _zip}


def _listed(original: Original, content: bytes) -> Iterator[tuple[int, object]]:
    try:
        records = msgspec.json.decode(content, type=list[Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise original.error(exc) from exc
    yield from enumerate(records)


def _object(original: Original) -> dict[str, list[Any]]:
    try:
        return msgspec.json.decode(_text(original), type=dict[str, list[Any]])
    except msgspec.DecodeError as exc:
        raise original.error(exc) from exc


def _text(original: Original) -> str:
    try:
        return original.path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise original.error(exc) from exc


CONVERTERS: Mapping[str, Converter] = {
    "fields": copy_fields,
    "numbered": number_rows,
    "mmlu_pro": convert_mmlu_pro,
    "llmrouter": convert_llmrouter,
    "clinc150": convert_clinc150,
    "languages": convert_languages,
    "pii_templates": convert_pii_templates,
}
