"""`tollhouse decisions` and `tollhouse usage`."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.client import connect, part
from gateway.cli.errors import FAILED, OK
from gateway.cli.output import print_fields, print_json, print_table, usd, when

DECISIONS = {
    "at": "TIME",
    "decision_id": "ID",
    "org": "ORG",
    "key_id": "KEY",
    "requested_model": "ASKED",
    "first": "FIRST CHOICE",
    "reason": "REASON",
    "refusal": "REFUSED",
    "labels": "LABELS",
}
USAGE = {
    "at": "TIME",
    "org": "ORG",
    "key_id": "KEY",
    "target": "BACKEND/MODEL",
    "outcome": "OUTCOME",
    "prompt_tokens": "PROMPT",
    "completion_tokens": "OUTPUT",
    "cost": "COST",
    "unpriced": "NO PRICE FOR",
    "cache": "CACHE",
}
SUMMARY = {
    "attempts": "ATTEMPTS",
    "errors": "ERRORS",
    "cache_hits": "CACHE HITS",
    "prompt_tokens": "PROMPT",
    "completion_tokens": "OUTPUT",
    "cost": "COST",
}


def list_decisions(args: argparse.Namespace) -> int:
    names = ("org", "team", "key", "policy", "reason", "limit", "cursor")
    with connect(args) as admin:
        page = admin.get("/decisions", _query(args, names))
    if args.json:
        print_json(page)
        return OK
    rows = [
        {**item, "at": when(item["ts"]), "first": (item["plan"] or ["-"])[0]}
        for item in page["items"]
    ]
    print_table(rows, DECISIONS)
    _more(page)
    return OK


def show_decision(args: argparse.Namespace) -> int:
    with connect(args) as admin:
        found = admin.get(f"/decisions/{part(args.id)}")
    if args.json:
        print_json(found)
        return OK
    record = found["record"]
    simple = [(k, v) for k, v in record.items() if k not in ("plan", "rejected", "ts")]
    place = f"{found['seq']} in {record['org']}, {found['hash']}"
    print_fields([("time", when(record["ts"])), *simple, ("chain", place)])
    print("\nplan")
    for candidate in record["plan"] or ["nothing"]:
        print(f"  {candidate}")
    print("\nrejected")
    columns = {"candidate": "CANDIDATE", "filter": "FILTER", "reason": "REASON"}
    rows = [dict(zip(columns, rejected, strict=True)) for rejected in record["rejected"]]
    print_table(rows, columns)
    return OK


def verify(args: argparse.Namespace) -> int:
    # It reads every decision there is.
    with connect(args, answer_s=None) as admin:
        result = admin.post("/audit:verify", {"org": args.org})
    if args.json:
        print_json(result)
    else:
        columns = {
            "org": "ORG",
            "ok": "SOUND",
            "rows": "ROWS",
            "deleted": "DELETED",
            "seq": "AT",
            "problem": "PROBLEM",
        }
        print_table(result["items"], columns)
    return OK if result["ok"] else FAILED


def list_usage(args: argparse.Namespace) -> int:
    names = ("org", "team", "key", "policy", "backend", "model", "tier", "limit", "cursor")
    with connect(args) as admin:
        page = admin.get("/usage", _query(args, names))
    if args.json:
        print_json(page)
        return OK
    rows = [
        {
            **item,
            "at": when(item["ts"]),
            "target": f"{item['backend']}/{item['model']}",
            "cost": usd(item["cost_nano"]),
        }
        for item in page["items"]
    ]
    print_table(rows, USAGE)
    _more(page)
    return OK


def usage_summary(args: argparse.Namespace) -> int:
    names = ("org", "team", "key", "policy", "backend", "model", "tier", "by")
    with connect(args) as admin:
        summary = admin.get("/usage:summary", _query(args, names))
    if args.json:
        print_json(summary)
        return OK
    rows = [{**item, **item["group"], "cost": usd(item["cost_nano"])} for item in summary["items"]]
    by = {name: name.upper() for name in args.by.split(",")}
    print_table(rows, {**by, **SUMMARY})
    return OK


def _query(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names}


def _more(page: dict[str, Any]) -> None:
    if page["next_cursor"] is not None:
        print(f"more with --cursor '{page['next_cursor']}'")
