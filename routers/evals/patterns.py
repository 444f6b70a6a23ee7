"""Recall and false positives of the pattern detectors on the labelled data.

    python -m routers.evals.patterns DIRECTORY

Recall is over documents: those that hold a span of a type that has a form (`PATTERNED`), and
clinical dialogues and notes. Names, places and addresses have no form and are counted apart.
False positives are prompts of real users who were not asked for personal data; what is flagged
there may still be right (a prompt can hold an e-mail address), so the rate is an upper bound.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from routers.patterns import detect

PATTERNED = frozenset(
    ("CREDIT_CARD", "US_SSN", "IBAN_CODE", "EMAIL_ADDRESS", "PHONE_NUMBER", "US_DRIVER_LICENSE")
)
LONG_NOTE = 200
_decoder = msgspec.json.Decoder()


class Rate(msgspec.Struct, frozen=True):
    found: int
    total: int

    @property
    def value(self) -> float:
        return self.found / self.total if self.total else 0.0


def data_directory() -> Path | None:
    """`TOLLHOUSE_DATA`, or `shared/data/routing` beside the project; None when neither is there."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "routing"
    directory = Path(os.environ.get("TOLLHOUSE_DATA") or beside)
    return directory if (directory / "pii_templates.jsonl.gz").is_file() else None


def rows(directory: Path, name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(directory / f"{name}.jsonl.gz", "rb") as lines:
        for line in lines:
            yield _decoder.decode(line)


def rate(texts: Iterable[str], label: str) -> Rate:
    """In how many of the texts the label is found."""
    found = total = 0
    for text in texts:
        total += 1
        found += label in detect(text).labels
    return Rate(found, total)


def measure(directory: Path) -> dict[str, Rate]:
    """Every figure by name. Takes some seconds."""
    templates = list(rows(directory, "pii_templates"))
    figures = {
        f"pii recall {kind.lower()}": rate(_with_span(templates, {kind}), "pii")
        for kind in sorted(PATTERNED)
    }
    figures["pii recall, types with a form"] = rate(_with_span(templates, PATTERNED), "pii")
    plain = [row["text"] for row in templates if not _types(row) & PATTERNED]
    figures["pii, only names, places, dates, domains"] = rate(plain, "pii")
    clinical = list(rows(directory, "clinical_dialogue"))
    dialogues = [row["dialogue"] for row in clinical]
    figures["phi recall dialogues"] = rate(dialogues, "phi")
    figures["phi recall dialogues, speakers removed"] = rate(map(_unattributed, dialogues), "phi")
    notes = [row["note"] for row in clinical]
    figures["phi recall notes"] = rate(notes, "phi")
    long = [note for note in notes if len(note) >= LONG_NOTE]
    figures[f"phi recall notes of {LONG_NOTE}+ characters"] = rate(long, "phi")
    for label in ("pii", "phi"):
        for name, field in (
            ("arena_hard_v0.1", "prompt"),
            ("arena_hard_v2.0", "prompt"),
            ("banking77", "text"),
            ("clinc150", "text"),
            ("gsm8k_train", "question"),
        ):
            texts = (row[field] for row in rows(directory, name))
            figures[f"{label} false positives {name}"] = rate(texts, label)
    return figures


def _types(row: dict[str, Any]) -> set[str]:
    return {span["type"] for span in row["spans"]}


def _with_span(templates: list[dict[str, Any]], kinds: Iterable[str]) -> list[str]:
    wanted = set(kinds)
    return [row["text"] for row in templates if _types(row) & wanted]


def _unattributed(dialogue: str) -> str:
    return "\n".join(line.partition(": ")[2] for line in dialogue.splitlines())


def main() -> int:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else data_directory()
    if directory is None:
        print("no data: set TOLLHOUSE_DATA to the directory of the labelled data")
        return 2
    for name, figure in measure(directory).items():
        print(f"{name:<45} {figure.found:>6} / {figure.total:<6} {figure.value:7.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
