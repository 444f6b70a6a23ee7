"""Printing: aligned columns for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

NANO = 1_000_000_000


def print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """`columns` maps the key in a row to the heading. Says so when there is nothing."""
    if not rows:
        print("nothing found")
        return
    table = [list(columns.values())]
    table += [[text(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def print_fields(pairs: Iterable[tuple[str, Any]]) -> None:
    known = [(name, text(value)) for name, value in pairs]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        print(f"{name.ljust(width)}  {value}")


def unused(left_out: Sequence[str], passed_over: int) -> list[tuple[str, str]]:
    """Fields for what a refit was not compared with and not fitted to, where there is such."""
    found = []
    if passed_over:
        found.append(("passed over", f"{passed_over:,} texts, more than are fitted"))
    if left_out:
        layers = ", ".join(left_out)
        says = f"{layers}: layers of the base that knew these rows, so `before` is without them"
        found.append(("left out", says))
    return found


def text(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(text(item) for item in value)
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    # Control characters of foreign text must not reach the terminal.
    return "".join(c if c.isprintable() else "?" for c in str(value))


def usd(nano: int | None) -> str:
    return "-" if nano is None else f"${nano / NANO:.6f}"


def when(unix_s: float | None) -> str:
    if unix_s is None:
        return "-"
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
