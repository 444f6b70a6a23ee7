"""Data classes found by patterns and checksums: `pii` and `phi`.

What is found here becomes a label, and a label can only take backends away. The patterns ask
for check digits, fixed forms or a cue next to a number; they know nothing of names, of places
or of what a sentence means. Every scan is linear in the text and reads all of it.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from routers.patterns.clinical import clinical_kinds
from routers.patterns.normalise import readings
from routers.patterns.personal import personal_kinds
from routers.patterns.windows import Steps, finish

__all__ = ["CLASSES", "Detection", "detect", "detecting"]

CLASSES = frozenset(("pii", "phi"))


class Detection(msgspec.Struct, frozen=True):
    """`labels`: the data classes found. `kinds`: what was found (`card`, `iban`, `mrn` ...),
    sorted; never the matched text."""

    labels: frozenset[str] = frozenset()
    kinds: tuple[str, ...] = ()


NOTHING = Detection()


def detect(text: str, classes: Collection[str] = CLASSES) -> Detection:
    """Look for the data classes asked for; other names in `classes` are left to other detectors.

    About 10 us for 300 plain characters and 0.1 s for a megabyte, that much again with backslashes
    in it and with codes of HTML or of URLs, up to some seconds for a megabyte of numbers made to be
    slow: read long texts in the steps of `detecting`.
    Beyond the folded text itself, memory does not grow.
    """
    return finish(detecting(text, classes))


def detecting(text: str, classes: Collection[str] = CLASSES) -> Steps[Detection]:
    """As `detect`, in steps of some milliseconds. Run them in any thread, one at a time."""
    personal: set[str] = set()
    clinical: set[str] = set()
    for reading in readings(text):
        if reading is None:
            yield
            continue
        if "pii" in classes:
            personal |= yield from personal_kinds(reading)
        if "phi" in classes:
            clinical |= yield from clinical_kinds(reading)
    if not (personal or clinical):
        return NOTHING
    labels = [label for label, kinds in (("pii", personal), ("phi", clinical)) if kinds]
    return Detection(frozenset(labels), tuple(sorted(personal | clinical)))
