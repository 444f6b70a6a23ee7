"""Labelled rows about one model.

JSON Lines as `routers.labels` takes them, in one of two forms, the same for the whole file:

- with `ok`: what the answer of this very model was, true, false, a number from 0 to 1, or null;
  `local_ok` and `frontier_ok` may stand beside it, and are then about other models;
- without `ok`: `local_ok` is about this model when its card is of base `local`, and `frontier_ok`
  when it is of base `frontier`. This is what `tollhouse router labels` writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from routers.cards import Base
from routers.labels import (
    FRONTIER,
    LOCAL,
    LabelsError,
    asked,
    label,
    opened,
    records,
    tool_count,
)
from routers.types import Query

OK = "ok"
_SIDES: dict[Base, str] = {"local": LOCAL, "frontier": FRONTIER}
_OTHERS: dict[Base, str] = {"local": FRONTIER, "frontier": LOCAL}


class ModelRows(msgspec.Struct, frozen=True):
    """`columns`: labels by field, one for each query, None where not known; `ok` only when the
    file has it. `where`: the name under which errors speak of the rows."""

    queries: list[Query]
    columns: dict[str, list[float | None]]
    where: str = "rows"

    def field(self, base: Base) -> str:
        """The field that is about the model."""
        return OK if OK in self.columns else _SIDES[base]

    def own(self, base: Base) -> list[float | None]:
        """What the model's answers were."""
        return self.columns[self.field(base)]

    def other(self, base: Base) -> list[float | None]:
        """What the answers of the model on the other side were."""
        return self.columns[_OTHERS[base]]


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
    for at, record in found:
        queries.append(Query(asked(record, at), tools=tool_count(record, at)))
        for name, column in columns.items():
            column.append(_read(record, name, at, named))
    return ModelRows(queries, columns, where)


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
