"""The small text models of an artefact together: language and data classes.

Both read the text itself, so they are the same whichever encoder is loaded, and cheap enough to
run on every request. An artefact may lack either file; then nobody says what it would have said.
"""

from __future__ import annotations

import logging
from pathlib import Path

from routers.onnx.classes import FILE as CLASSES
from routers.onnx.classes import DataClassModel, load_classes
from routers.onnx.language import FILE as LANGUAGE
from routers.onnx.language import LanguageModel, load_language
from routers.patterns.escapes import without_escapes, without_references

log = logging.getLogger("tollhouse.router")
# Below this a language is a guess: two words, or names only.
SURE = 0.3


class TextModels:
    """Asked from any thread; never raises. What failed is counted and said by `describe`."""

    def __init__(
        self, language: LanguageModel | None = None, classes: DataClassModel | None = None
    ) -> None:
        self._language = language
        self._classes = classes
        self._failures = 0
        self._broken: dict[str, str] = {}

    def detect(self, text: str) -> frozenset[str]:
        """The data classes found; empty without a model, and where it failed. The model has learnt
        from no JSON and no HTML: what escapes and references stand for is put in their place."""
        if self._classes is None:
            return frozenset()
        try:
            found = self._classes.detect(without_references(without_escapes(text)))
        except Exception as exc:  # a border: the patterns have looked, and the request goes on
            self._failed(CLASSES, exc)
            return frozenset()
        self._broken.pop(CLASSES, None)
        return found

    def language(self, text: str) -> str | None:
        """The ISO 639-1 code, None where it would be a guess or there is no model."""
        if self._language is None:
            return None
        try:
            found = self._language.code(text, SURE)
        except Exception as exc:  # a border: a request is served without knowing its language
            self._failed(LANGUAGE, exc)
            return None
        self._broken.pop(LANGUAGE, None)
        return found

    def describe(self) -> dict[str, object]:
        """Facts for `/readyz`: which models there are, and the files of those whose last look
        failed."""
        # A copy, for a thread may be looking just now.
        broken = dict(self._broken)
        return {
            "language": self._language is not None,
            "data_classes": self._classes is not None,
            "failures": self._failures,
            "failing": sorted(broken),
            "last_error": "; ".join(f"{file}: {why}" for file, why in broken.items()) or None,
        }

    def _failed(self, what: str, exc: Exception) -> None:
        # The text itself stays out of the log: it may hold what is looked for.
        if what not in self._broken:
            log.error("the model in %s failed: %s", what, type(exc).__name__)
        self._failures += 1
        self._broken[what] = type(exc).__name__


def load_texts(directory: Path) -> TextModels:
    """The models whose files are there. Raises ArtefactError naming a file that cannot be used."""
    language, classes = directory / LANGUAGE, directory / CLASSES
    return TextModels(
        load_language(language) if language.is_file() else None,
        load_classes(classes) if classes.is_file() else None,
    )
