"""Printing: aligned columns for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from routers.budget import usd as exact_usd

NANO = 1_000_000_000
_WHY = {
    "other_model": "of other models",
    "unknown_model": "that do not say of which model",
}


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


def fitted(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Fields of a refit's report: what became of the rows, and what was left out beneath; of a
    card's, whose it is."""
    if "target" in report:
        return _fitted_card(report)
    what = f"{report.get('rows', 0)} different texts, {report.get('merged', 0)} more of the same"
    if passed_over := report.get("passed_over", 0):
        what += f", {passed_over} passed over"
    found = [("fitted", what)]
    if layers := ", ".join(report.get("left_out", ())):
        says = f"{layers}, which knew rows already; compared on {report.get('compared', 0)} texts"
        found.append(("left out", says))
    for field, models in report.get("models", {}).items():
        if models.keys() - {"unknown"}:
            mix = " (a mix: --model fits the card of one)" if len(models) > 1 else ""
            found.append((f"{field} of", _counted(models) + mix))
    return found


def _fitted_card(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = f"{report['rows']} by {report['field']}"
    if unnamed := report.get("unnamed", 0):
        rows += f", {unnamed} of them name no model: no other one answers there"
    left_out = (
        f"{count} {_WHY.get(why, why)}" for why, count in report["left_out"].items() if count
    )
    found = [
        ("model", report["target"]),
        ("rows", rows),
        ("left out", ", ".join(left_out) or "none"),
    ]
    if "apgr_after" in report.get("metrics", {}) and (against := report.get("against")):
        found.append(("APGR against", _counted(against)))
    return found


def _counted(models: Mapping[str, int]) -> str:
    return ", ".join(f"{model} {count}" for model, count in models.items())


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


def budget(nano: int | None, window: str) -> str:
    """An exact amount, however small, for each window."""
    if nano is None:
        return "-"
    return f"{exact_usd(nano)}/{window}{'s' if window.isdigit() else ''}"


def when(unix_s: float | None) -> str:
    if unix_s is None:
        return "-"
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
