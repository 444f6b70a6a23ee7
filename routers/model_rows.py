"""Labelled rows about one model.

JSON Lines as `routers.labels` takes them, in one of two forms, the same for the whole file:

- with `ok`: what the answer of this very model was, true, false, a number from 0 to 1, or null;
  `local_ok` and `frontier_ok` may stand beside it, and are then about other models;
- without `ok`: when the model's card is of base `local`, `local_ok` of the rows whose `local_model`
  is this model; when it is of base `frontier`, `frontier_ok` of those whose `frontier_model` is.
  This is what `tollhouse router labels` writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from routers.cards import Base
from routers.labels import (
    FRONTIER,
    FRONTIER_MODEL,
    LOCAL,
    LOCAL_MODEL,
    LabelsError,
    asked,
    count_models,
    label,
    model,
    opened,
    records,
    tool_count,
)
from routers.types import Query

OK = "ok"
_SIDES: dict[Base, str] = {"local": LOCAL, "frontier": FRONTIER}
_MODELS: dict[Base, str] = {"local": LOCAL_MODEL, "frontier": FRONTIER_MODEL}
_OTHER: dict[Base, Base] = {"local": "frontier", "frontier": "local"}


class Chosen(msgspec.Struct, frozen=True):
    """Rows with a label of one model. `index`: which they are; `unnamed`: those of them that name
    no model. `left_out`: how many others there are, by why: `unlabelled`, a label of an
    `other_model`, or of an `unknown_model`, since the row names none. `others`: the other models,
    by labels."""

    index: list[int]
    unnamed: list[int]
    left_out: dict[str, int]
    others: dict[str, int]


class ModelRows(msgspec.Struct, frozen=True):
    """`columns`: labels by field, one for each query, None where not known; `ok` only when the
    file has it. `models`: by side, of whose answer each label is, as `backend/model`, None where
    the row does not say; a side of which no row says so may be missing. `where`: the name under
    which errors speak of the rows."""

    queries: list[Query]
    columns: dict[str, list[float | None]]
    where: str = "rows"
    models: dict[Base, list[str | None]] = {}

    def field(self, base: Base) -> str:
        """The field that is about the model."""
        return OK if OK in self.columns else _SIDES[base]

    def named_by(self, base: Base) -> str:
        """The field that says of which model a label of that side is."""
        return _MODELS[base]

    def own(self, base: Base) -> list[float | None]:
        """What the answers that the model's field is about were."""
        return self.columns[self.field(base)]

    def other(self, base: Base) -> list[float | None]:
        """What the answers of the model on the other side were."""
        return self.columns[_SIDES[_OTHER[base]]]

    def others(self, base: Base) -> list[str | None]:
        """Of whose answer each label of the other side is."""
        return self._models(_OTHER[base])

    def of(self, target: str, base: Base, *, sole: bool) -> Chosen:
        """The rows with a label of `target` (`backend/model`), whose card is of that base. With
        `sole`, nothing else could have answered on its side: then rows that name no model are of
        it, unless others name another one, which shows that it was not so at all times."""
        own = self.own(base)
        found = [i for i, value in enumerate(own) if value is not None]
        unlabelled = len(own) - len(found)
        if OK in self.columns:
            return Chosen(found, [], {"unlabelled": unlabelled}, {})
        names = self._models(base)
        named = [i for i in found if names[i] == target]
        unnamed = [i for i in found if names[i] is None]
        strange = [i for i in found if names[i] not in (target, None)]
        taken = unnamed if sole and not strange else []
        return Chosen(
            index=sorted([*named, *taken]),
            unnamed=taken,
            left_out={
                "unlabelled": unlabelled,
                "other_model": len(strange),
                "unknown_model": len(unnamed) - len(taken),
            },
            others=count_models((own[i], names[i]) for i in strange),
        )

    def _models(self, base: Base) -> list[str | None]:
        return self.models.get(base) or [None] * len(self.queries)


def load_model_rows(path: Path) -> ModelRows:
    """Raises LabelsError for a file that cannot be read, has a bad row, or has none."""
    with opened(path) as lines:
        return parse_model_rows(lines, str(path))


def parse_model_rows(lines: Iterable[bytes], where: str) -> ModelRows:
    """Raises LabelsError."""
    found = [(at, record) for _, at, record in records(lines, where)]
    if not found:
        raise LabelsError(f"{where}: has no rows")
    named = any(OK in record for _, record in found)
    queries: list[Query] = []
    columns: dict[str, list[float | None]] = {LOCAL: [], FRONTIER: []}
    if named:
        columns[OK] = []
    models: dict[Base, list[str | None]] = {base: [] for base in _MODELS}
    for at, record in found:
        queries.append(Query(asked(record, at), tools=tool_count(record, at)))
        for name, column in columns.items():
            column.append(_read(record, name, at, named))
        for base, field in _MODELS.items():
            models[base].append(model(record, field, at))
    return ModelRows(queries, columns, where, models)


def _read(record: dict[str, Any], name: str, at: str, named: bool) -> float | None:
    if name in record or (not named and (LOCAL in record or FRONTIER in record)):
        return label(record, name, at)
    if name == OK:
        raise LabelsError(
            f"{at}: {OK} is missing, which other rows have; write null when it is not known"
        )
    if not named:
        raise LabelsError(f"{at}: has no label: neither {OK} nor {LOCAL} and {FRONTIER}")
    return None
