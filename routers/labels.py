"""Labelled rows of an operator: what a local and a frontier model made of a request.

JSON Lines, gzip when the name ends in `.gz`. A row is an object with

- `prompt` (text) or `messages` (OpenAI form, text parts and tool calls included, or Anthropic
  form), one of the two, and `system` beside it where there is one;
- `local_ok` and `frontier_ok`: true, false, a number from 0 to 1, or null when not known;
- `local_model` and `frontier_model`, optional: of whose answer the label of that side is, as
  `backend/model`; null when not known;
- `id`, optional; the number of the line without it; `tools`, optional, in OpenAI form.

Rows that agree in all of these, `id` included, are one row: of exports that overlap nothing counts
twice. Without an `id` each line is a request of its own.

Other fields are left alone, so that exports with more in them can be used as they are.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from routers.text import turns_of
from routers.types import Query, Turn, is_candidate_id

LOCAL, FRONTIER = "local_ok", "frontier_ok"
LOCAL_MODEL, FRONTIER_MODEL = "local_model", "frontier_model"
# Among counts by model: of no model that is named.
UNKNOWN = "unknown"
_BOM = b"\xef\xbb\xbf"
_PACKED = "seems to be compressed by gzip: unpack it, or let its name end in .gz"
_WIDE = "seems to be UTF-16: write it in UTF-8"
_NO_LINES = {b"\x1f\x8b": _PACKED, b"\xff\xfe": _WIDE, b"\xfe\xff": _WIDE}
_DECODER = msgspec.json.Decoder()


_ONE_SIDED = (
    "; {} have one side only, as feedback gives them: use shadow comparison, or label both sides "
    "yourself (the card of one model, --model of refit and propose, needs one side only)"
)


class LabelsError(Exception):
    """The rows cannot be used. The message names the file, and the line and field at fault."""


class LabelRow(msgspec.Struct, frozen=True):
    """`local_ok` and `frontier_ok` in [0, 1], None where unknown; `tools` counts what the request
    offered. `local_model` and `frontier_model`: of whose answer each label is, None where the row
    does not say."""

    id: str
    turns: tuple[Turn, ...]
    local_ok: float | None
    frontier_ok: float | None
    tools: int = 0
    local_model: str | None = None
    frontier_model: str | None = None

    @property
    def query(self) -> Query:
        return Query(self.turns, tools=self.tools)


def load_rows(path: Path) -> list[LabelRow]:
    """Raises LabelsError for a file that cannot be read, has a bad row, or has none."""
    with opened(path) as lines:
        return parse_rows(lines, str(path))


def parse_rows(lines: Iterable[bytes], where: str) -> list[LabelRow]:
    """`where` is the name under which errors speak of the rows; a row that stands again is left
    out. Raises LabelsError."""
    rows = dict.fromkeys(_row(record, at, number) for number, at, record in records(lines, where))
    if not rows:
        raise LabelsError(f"{where}: has no rows")
    return list(rows)


def require_enough(rows: list[LabelRow], pairs: int, where: str = "rows") -> None:
    """Raises LabelsError unless `pairs` rows have both labels, and `local_ok` speaks of both good
    and bad answers."""
    both = sum(row.local_ok is not None and row.frontier_ok is not None for row in rows)
    if both < pairs:
        remedy = _ONE_SIDED.format(len(rows) - both) if both < len(rows) else ""
        raise LabelsError(
            f"{where}: too few rows: {both} have both {LOCAL} and {FRONTIER}, at least {pairs} are "
            f"needed{remedy}"
        )
    local = [row.local_ok for row in rows if row.local_ok is not None]
    if min(local) == max(local):
        raise LabelsError(
            f"{where}: {LOCAL} is {_plain(local[0])} in every row; rows of both kinds are needed, "
            "answers that were good and answers that were not"
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a file, unpacked when its name ends in `.gz`. Raises LabelsError for what goes
    wrong while opening or reading."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield iter(file)
    except (OSError, EOFError, zlib.error) as exc:
        raise LabelsError(
            f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}"
        ) from exc


def records(lines: Iterable[bytes], where: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The objects of JSON Lines as (number, `where, line N`, object); blank lines are left out.
    Raises LabelsError for a line that is no object, and for what seems to be no JSON Lines at
    all."""
    for number, line in enumerate(lines, 1):
        if number == 1 and (seems := _NO_LINES.get(line[:2])):
            raise LabelsError(f"{where}: {seems}")
        text = line.removeprefix(_BOM) if number == 1 else line
        if not text.strip():
            continue
        at = f"{where}, line {number}"
        value = _decode(text, at)
        if not isinstance(value, dict):
            raise LabelsError(f"{at}: must be a JSON object, not {_kind(value)}")
        yield number, at, value


def conversation(record: dict[str, Any], at: str) -> tuple[Turn, ...]:
    """The turns of a record's `system` and of its `prompt` or `messages`. Raises LabelsError naming
    the field."""
    prompt, messages = record.get("prompt"), record.get("messages")
    if prompt is not None and messages is not None:
        raise LabelsError(f"{at}: has both prompt and messages; give one of the two")
    if prompt is None and messages is None:
        raise LabelsError(f"{at}: has neither prompt nor messages")
    if messages is None:
        if not isinstance(prompt, str):
            raise LabelsError(f"{at}: prompt must be text, not {_kind(prompt)}")
        messages = [{"role": "user", "content": prompt}]
    if not isinstance(messages, list):
        raise LabelsError(f"{at}: messages must be a list, not {_kind(messages)}")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise LabelsError(f"{at}: messages[{index}] must be an object, not {_kind(message)}")
        if not isinstance(message.get("role"), str):
            raise LabelsError(f"{at}: messages[{index}].role must be text")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise LabelsError(
                f"{at}: messages[{index}].content must be text or a list of parts, "
                f"not {_kind(content)}"
            )
    found = [*_system(record, at)]
    for index, message in enumerate(messages):
        found += _openai_form(message, f"{at}: messages[{index}]")
    return turns_of({"messages": found})


def _system(record: dict[str, Any], at: str) -> list[dict[str, Any]]:
    """The system prompt that stands beside the rest, as Anthropic has it."""
    system = record.get("system")
    if system is None:
        return []
    if not isinstance(system, str | list):
        raise LabelsError(f"{at}: system must be text or a list of parts, not {_kind(system)}")
    return [{"role": "system", "content": system}]


def _openai_form(message: dict[str, Any], at: str) -> list[dict[str, Any]]:
    """Anthropic's tool calls and results, which are parts of a message, as OpenAI has them: calls
    beside the content, each result a turn of the tool. Anything else is left as it is."""
    content = message.get("content")
    if not isinstance(content, list):
        return [message]
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    others: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "tool_use":
            calls.append(_call(part, at))
        elif kind == "tool_result":
            results.append({"role": "tool", "content": part.get("content")})
        else:
            others.append(part)
    if not calls and not results:
        return [message]
    own = {**message, "content": others}
    if calls:
        own["tool_calls"] = calls
    return [*results, own] if others or calls else results


def _call(part: dict[str, Any], at: str) -> dict[str, Any]:
    try:
        arguments = json.dumps(part.get("input"), ensure_ascii=False)
    except RecursionError as exc:
        raise LabelsError(f"{at}: input of a tool_use is nested too deeply") from exc
    return {"function": {"name": part.get("name"), "arguments": arguments}}


def asked(record: dict[str, Any], at: str) -> tuple[Turn, ...]:
    """The same, where there must be a text. Raises LabelsError."""
    turns = conversation(record, at)
    if not any(turn.text.strip() for turn in turns):
        field = "messages" if record.get("prompt") is None else "prompt"
        raise LabelsError(f"{at}: {field} has no text")
    return turns


def tool_count(record: dict[str, Any], at: str) -> int:
    """Raises LabelsError when `tools` is there and no list."""
    tools = record.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise LabelsError(f"{at}: tools must be a list, not {_kind(tools)}")
    return len(tools or ())


def _row(record: dict[str, Any], at: str, number: int) -> LabelRow:
    turns = asked(record, at)
    local, frontier = label(record, LOCAL, at), label(record, FRONTIER, at)
    if local is None and frontier is None:
        raise LabelsError(f"{at}: {LOCAL} and {FRONTIER} are both null: the row says nothing")
    return LabelRow(
        id=identity(record, at, number),
        turns=turns,
        local_ok=local,
        frontier_ok=frontier,
        tools=tool_count(record, at),
        local_model=model(record, LOCAL_MODEL, at),
        frontier_model=model(record, FRONTIER_MODEL, at),
    )


def identity(record: dict[str, Any], at: str, number: int) -> str:
    """The record's `id` as text, the number of its line without one. Raises LabelsError."""
    found = record.get("id")
    if found is None:
        return str(number)
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise LabelsError(f"{at}: id must be text or a whole number, not {_kind(found)}")
    return str(found)


def label(record: dict[str, Any], field: str, at: str) -> float | None:
    """What a field says; None for null. Raises LabelsError for anything else, and without it."""
    if field not in record:
        raise LabelsError(f"{at}: {field} is missing; write null when it is not known")
    value = record[field]
    if value is None:
        return None
    if not isinstance(value, bool | int | float):
        raise LabelsError(
            f"{at}: {field} must be true, false, a number from 0 to 1, or null, not {_kind(value)}"
        )
    if not 0 <= value <= 1:  # also false for NaN
        raise LabelsError(f"{at}: {field} must lie between 0 and 1, not be {value}")
    return float(value)


def model(record: dict[str, Any], field: str, at: str) -> str | None:
    """Of whose answer a label is; None for null, and without the field. Raises LabelsError."""
    value = record.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise LabelsError(f"{at}: {field} must be BACKEND/MODEL or null, not {_kind(value)}")
    if not is_candidate_id(value):
        raise LabelsError(f"{at}: {field} must be BACKEND/MODEL or null, not {value[:80]!r}")
    return value


def count_models(pairs: Iterable[tuple[float | None, str | None]]) -> dict[str, int]:
    """Of pairs of a label and its model: how many labels there are of each, the most first, under
    UNKNOWN those that do not say."""
    names = (name or UNKNOWN for value, name in pairs if value is not None)
    return dict(Counter(names).most_common())


def _decode(line: bytes, at: str) -> Any:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Strict JSON has neither lone surrogates nor bytes that are no UTF-8, exports of real
        # traffic have both: the text can be scored all the same.
        try:
            return json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError) as exc:
            raise LabelsError(f"{at}: is not JSON: {exc}") from exc


def _kind(value: object) -> str:
    names: dict[type, str] = {
        type(None): "null",
        bool: "true or false",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "a number")


def _plain(value: float) -> str:
    return {0.0: "false", 1.0: "true"}.get(value, str(value))
