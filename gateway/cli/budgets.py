"""`tollhouse budgets`."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.client import connect
from gateway.cli.errors import OK
from gateway.cli.output import budget, print_json, print_table, when
from routers.budget import usd

COLUMNS = {
    "org": "ORG",
    "scope": "SCOPE",
    "budget": "BUDGET",
    "spent": "SPENT",
    "held": "HELD",
    "left": "LEFT",
    "until": "UNTIL",
    "state": "STATE",
}


def list_budgets(args: argparse.Namespace) -> int:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    cursor: str | None = None
    with connect(args) as admin:
        while True:
            page = admin.get("/budgets", {"limit": 100, "cursor": cursor})
            # That of a team or an organisation comes with each page that has a key of it.
            found |= {(item["org"], item["scope"]): item for item in page["items"]}
            cursor = page["next_cursor"]
            if cursor is None:
                break
    items = [found[where] for where in sorted(found) if args.org in (None, where[0])]
    if args.json:
        print_json(items)
        return OK
    print_table([_row(item) for item in items], COLUMNS)
    return OK


def _row(item: dict[str, Any]) -> dict[str, Any]:
    amounts = {
        name: usd(item[name]) if item["open"] else None for name in ("spent", "held", "left")
    }
    # A key's books are opened by its first request, and made anew by the next where they were lost.
    closed = None if item["open"] else "closed until its next request"
    return {
        **item,
        **amounts,
        "budget": budget(item["limit"], item["window"]),
        "until": when(item["window_end"]),
        "state": item["problem"] or closed or "open",
    }
