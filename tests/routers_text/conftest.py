"""Small models fitted here, and the shipped ones where the artefact has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from routers.onnx.classes import DataClassModel  # noqa: E402 - numpy is needed first
from routers.onnx.language import LanguageModel  # noqa: E402
from routers.onnx.router import DEFAULT_ARTEFACT  # noqa: E402
from routers.train.class_fit import fit_classes  # noqa: E402
from routers.train.class_texts import Text  # noqa: E402
from routers.train.data import default_dir  # noqa: E402
from routers.train.language import Sentence, fit_language  # noqa: E402

SENTENCES = {
    "en": ("The house by the river was sold last week.", "Which of these words do you know?"),
    "de": ("Das Haus am Fluss wurde letzte Woche verkauft.", "Welche dieser Wörter kennst du?"),
    "fr": (
        "La maison au bord de la rivière a été vendue.",
        "Lesquels de ces mots connaissez-vous ?",
    ),
    "ru": ("Дом возле реки был продан на прошлой неделе.", "Какие из этих слов вы знаете?"),
}


@pytest.fixture(scope="session")
def language_arrays() -> dict[str, Any]:
    rows = [Sentence(lang, text) for lang, texts in SENTENCES.items() for text in texts * 3]
    arrays = fit_language(rows, pieces=2000)
    # Blocks need many letters; so few sentences have too few.
    arrays["blocks"] = np.array([0, 1, 8], dtype=np.uint32)
    return arrays


@pytest.fixture(scope="session")
def language(language_arrays: dict[str, Any]) -> LanguageModel:
    return LanguageModel(language_arrays)


@pytest.fixture(scope="session")
def class_arrays() -> dict[str, Any]:
    """Fitted on a few names and notes: enough to tell them from questions about numbers."""
    texts = []
    for name in ("Anna Weber", "Tom Baker", "Lucy Hill", "Omar Haddad"):
        for frame in ("My name is {}.", "Please call {} back.", "{} lives next door."):
            text = frame.format(name)
            at = text.index(name)
            texts.append(Text(text, "pii", "names", frame, [(at, at + len(name))]))
    for drug in ("aspirin", "insulin", "morphine"):
        note = f"The patient denies chest pain and was given {drug} for her hypertension."
        texts.append(Text(note, "phi", "notes", drug))
    for thing in ("pens", "apples", "tickets", "miles"):
        texts.append(Text(f"how many {thing} are there in total?", "", "sums", thing))
        texts.append(Text(f"What is the price of ten {thing}?", "", "sums", thing))
    return fit_classes(texts * 4)


@pytest.fixture(scope="session")
def classes(class_arrays: dict[str, Any]) -> DataClassModel:
    return DataClassModel(class_arrays)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    directory = default_dir()
    if not directory.is_dir():
        pytest.skip("the labelled data is not here")
    return directory


@pytest.fixture(scope="session")
def artefact() -> Path:
    return DEFAULT_ARTEFACT
