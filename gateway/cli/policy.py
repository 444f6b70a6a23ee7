"""`tollhouse policy`."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from gateway.cli.client import AdminClient, connect, part
from gateway.cli.errors import OK, USAGE, CliError
from gateway.cli.output import print_fields, print_json, print_table, when
from gateway.config.errors import why_unreadable


def list_policies(args: argparse.Namespace) -> int:
    with connect(args) as admin:
        listing = admin.get("/policies")
    if args.json:
        print_json(listing)
        return OK
    columns = {"name": "NAME", "version": "VERSION", "default": "DEFAULT", "etag": "ETAG"}
    print_table(listing["items"], columns)
    print(f"source: {listing['source']}")
    return OK


def show(args: argparse.Namespace) -> int:
    with connect(args) as admin:
        found = admin.get(f"/policies/{part(args.name)}")
    if args.json:
        print_json(found)
        return OK
    print_fields((key, found[key]) for key in ("name", "version", "etag"))
    print_json(found["policy"])
    return OK


def validate(args: argparse.Namespace) -> int:
    document = _read(args.file)
    with connect(args) as admin:
        result = admin.post("/policies:validate", {"policy": document})
    if args.json:
        print_json(result)
    else:
        for error in result["errors"]:
            print(f"{error['path']}: {error['message']}")
        if result["valid"]:
            print(f"{args.file}: valid")
    return OK if result["valid"] else USAGE


def put(args: argparse.Namespace) -> int:
    document = _read(args.file)
    body = {"policy": document, "comment": args.comment, "activate": not args.draft}
    path = f"/policies/{part(args.name)}"
    with connect(args) as admin:
        headers = {"if-match": args.if_match} if args.if_match else _current(admin, path)
        stored = admin.request("PUT", path, json=body, headers=headers).json()
    if args.json:
        print_json(stored)
    else:
        state = "active" if stored["active"] else "stored as a draft"
        print(f"{stored['name']} version {stored['version']} is {state}")
    return OK


def activate(args: argparse.Namespace) -> int:
    path = f"/policies/{part(args.name)}/versions/{args.version}:activate"
    return _switch(args, path)


def rollback(args: argparse.Namespace) -> int:
    return _switch(args, f"/policies/{part(args.name)}:rollback")


def history(args: argparse.Namespace) -> int:
    with connect(args) as admin:
        listing = admin.get(f"/policies/{part(args.name)}/versions")
    if args.json:
        print_json(listing)
        return OK
    rows = [{**item, "created": when(item["created_at"])} for item in listing["items"]]
    print_table(
        rows,
        {
            "version": "VERSION",
            "active": "ACTIVE",
            "created": "CREATED",
            "author": "AUTHOR",
            "comment": "COMMENT",
        },
    )
    return OK


def _switch(args: argparse.Namespace, path: str) -> int:
    with connect(args) as admin:
        active = admin.post(path)
    if args.json:
        print_json(active)
    else:
        print(f"{active['name']} version {active['version']} is active")
    return OK


def _current(admin: AdminClient, path: str) -> dict[str, str]:
    reply = admin.request("GET", path, missing_ok=True)
    if reply.status_code == 404:
        return {"if-none-match": "*"}
    return {"if-match": reply.headers["etag"]}


def _read(name: str) -> dict[str, Any]:
    """A policy's document, also in the form in which `show --json` prints it."""
    document = _decoded(name)
    shown = document.get("policy")
    return shown if isinstance(shown, dict) and "etag" in document else document


def _decoded(name: str) -> dict[str, Any]:
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return msgspec.json.decode(text, type=dict[str, Any])
        return tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as exc:
        raise CliError(f"{name} cannot be read: {why_unreadable(exc)}", USAGE) from exc
    except (tomllib.TOMLDecodeError, msgspec.DecodeError) as exc:
        raise CliError(f"{name}: {exc}", USAGE) from exc
