"""`tollhouse keys`."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.auth import new_key
from gateway.auth.from_config import nano
from gateway.cli.client import connect, part
from gateway.cli.errors import OK
from gateway.cli.output import budget, print_fields, print_json, print_table, when

COLUMNS = {
    "id": "ID",
    "state": "STATE",
    "org": "ORG",
    "team": "TEAM",
    "user": "USER",
    "policy": "POLICY",
    "labels": "LABELS",
    "budget": "BUDGET",
    "created": "CREATED",
    "source": "SOURCE",
}


def new(_: argparse.Namespace) -> int:
    """For a configuration file: the key is known to nobody until it stands in one."""
    print(new_key())
    return OK


def create(args: argparse.Namespace) -> int:
    body: dict[str, Any] = {
        "org": args.org,
        "team": args.team,
        "user": args.user,
        "policy": args.policy,
        "labels": args.label,
        "allow": args.allow,
        "tags": args.tag,
        "budget_usd": args.budget_usd,
        "window": args.window,
        "requests_per_minute": args.requests_per_minute,
        "tokens_per_minute": args.tokens_per_minute,
        "concurrency": args.concurrency,
        "expires_in": args.expires_in,
    }
    headers = {"idempotency-key": args.idempotency_key} if args.idempotency_key else None
    with connect(args) as admin:
        made = admin.post("/keys", body, headers)
    if args.json:
        print_json(made)
    elif made["key"] is None:
        print(f"key {made['id']} was made by an earlier call; its secret is not kept anywhere")
    else:
        print_fields([("id", made["id"]), ("key", made["key"])])
        print("This is the only time the key is shown.")
    return OK


def list_keys(args: argparse.Namespace) -> int:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    with connect(args) as admin:
        while True:
            page = admin.get("/keys", {"limit": 200, "cursor": cursor})
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if args.json:
        print_json(items)
        return OK
    print_table([_row(item) for item in items], COLUMNS)
    return OK


def revoke(args: argparse.Namespace) -> int:
    with connect(args) as admin:
        info = admin.post(f"/keys/{part(args.id)}:revoke")
    if args.json:
        print_json(info)
    else:
        print(f"key {info['id']} is revoked")
    return OK


def _row(item: dict[str, Any]) -> dict[str, Any]:
    limit = item["budget_usd"]
    return {
        **item,
        "budget": budget(None if limit is None else nano(limit), item["window"]),
        "created": when(item["created_at"]),
    }
