"""`tollhouse router labels|refits|propose|activate|rollback`: learning in a running gateway."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.client import AdminClient, connect, part
from gateway.cli.errors import FAILED, OK, USAGE, CliError
from gateway.cli.output import fitted, print_fields, print_json, print_table, when

if TYPE_CHECKING:
    from gateway.learning.types import Label

STANDARD = "-"
_PAGE = 500
_POLL_S = 0.5
_JSON_LINES = "application/x-ndjson"
_COLUMNS = {
    "created": "CREATED",
    "name": "NAME",
    "state": "STATE",
    "rows": "ROWS",
    "base": "FROM",
    "better": "BETTER",
    "note": "SAYS",
}


def labels(args: argparse.Namespace) -> int:
    """One line for each conversation, newest first."""
    from gateway.learning.types import encode_line, merge

    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        for line in merge(_each(admin, args.org)):
            yield encode_line(line) + b"\n"
            count += 1

    with connect(args) as admin:
        to_stdout = _write(args.out, lines())
    if args.json:
        if not to_stdout:
            print_json({"rows": count, "out": args.out})
    else:
        print(f"{count:,} rows to {args.out}", file=sys.stderr)
    return OK


def refits(args: argparse.Namespace) -> int:
    if args.delete and args.name is None:
        raise CliError("--delete: say which refit, by its NAME", USAGE)
    with connect(args) as admin:
        if args.delete:
            gone = admin.request("DELETE", f"/refits/{part(args.name)}").json()
            if args.json:
                print_json(gone)
            else:
                print(f"{gone['name']} is deleted")
                if gone["vectors_in"]:
                    also_in = ", ".join(gone["vectors_in"])
                    print(f"the vectors of its texts are also in: {also_in}")
            return OK
        if args.name is not None:
            return _show(args, admin.get(f"/refits/{part(args.name)}"))
        page = admin.get("/refits", {"limit": 100})
        active = admin.get("/learning")["router"]
    if args.json:
        print_json({**page, "active": active})
        return OK
    print_table([_row(item) for item in page["items"]], _COLUMNS)
    print(f"active: {active['name']}, running {active['model']}")
    if active["problem"]:
        print(f"{active['name']} is not loaded: {active['problem']}")
    return OK


def propose(args: argparse.Namespace) -> int:
    asked = ("name", "seed", "org", "limit", "model", "tier", "like")
    query = {name: getattr(args, name) for name in asked}
    rows = _rows(args.labels, of_a_model=args.model is not None)
    with connect(args) as admin:
        headers = {} if rows is None else {"content-type": _JSON_LINES}
        sent = admin.request("POST", "/refits", query=query, content=rows, headers=headers).json()
        while sent["state"] == "running" and not args.no_wait:
            time.sleep(_POLL_S)
            sent = admin.get(f"/refits/{part(sent['name'])}")
    return _show(args, sent)


def activate(args: argparse.Namespace) -> int:
    with connect(args) as admin:
        return _switched(args, admin.post(f"/refits/{part(args.name)}:activate"))


def rollback(args: argparse.Namespace) -> int:
    with connect(args) as admin:
        active = admin.get("/learning")["router"]["name"]
        return _switched(args, admin.post(f"/refits/{part(active)}:rollback"))


def _show(args: argparse.Namespace, refit: dict[str, Any]) -> int:
    if args.json:
        print_json(refit)
    else:
        shown = ("name", "state", "base", "source", "rows", "author")
        report = refit["report"]
        fields = [(key, refit[key]) for key in shown] + [("created", when(refit["created"]))]
        print_fields(fields if report is None else [*fields, *fitted(report)])
        if report is not None:
            print("\nmeasured on rows that were held out of each fit:")
            print_fields(sorted(report.get("metrics", {}).items()))
        print(f"\n{_note(refit)}")
    return FAILED if refit["state"] == "failed" else OK


def _switched(args: argparse.Namespace, active: dict[str, Any]) -> int:
    if args.json:
        print_json(active)
    else:
        print(f"{active['name']} is active, running {active['model']}")
        if active["problem"]:
            print(f"{active['name']} is not loaded: {active['problem']}")
    return OK if active["loaded"] else FAILED


def _row(refit: dict[str, Any]) -> dict[str, Any]:
    return {**refit, "created": when(refit["created"]), "note": _note(refit)}


def _note(refit: dict[str, Any]) -> str:
    if refit["state"] == "running":
        return "running"
    return str(refit["error"] or refit["verdict"] or "")


def _each(admin: AdminClient, org: str | None) -> Iterator[Label]:
    """Every label of the gateway, newest first."""
    from gateway.learning.types import Conversation, Label, encode_line

    cursor = None
    while True:
        page = admin.get("/labels", {"org": org, "limit": _PAGE, "cursor": cursor})
        for item in page["items"]:
            kept = Conversation(item.pop("messages"), item.pop("tools"))
            yield Label(**item, conversation=encode_line(kept).decode())
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _rows(name: str | None, of_a_model: bool) -> bytes | None:
    """Checked here already: an error then names the file, not the request."""
    if name is None:
        return None
    from routers.labels import LabelsError, opened, parse_rows
    from routers.model_rows import parse_model_rows

    try:
        with opened(Path(name)) as file:
            # Once: a pipe has nothing left to give the second time.
            lines = list(file)
        if of_a_model:
            parse_model_rows(lines, name)
        else:
            parse_rows(lines, name)
    except LabelsError as exc:
        raise CliError(str(exc), USAGE) from exc
    return b"".join(lines)


def _write(name: str, lines: Iterator[bytes]) -> bool:
    """Whether they went to standard output. A file appears whole or not at all, readable by its
    owner only: it holds conversations."""
    from routers.output import PRIVATE, STDOUT, descriptor, write_whole

    path = Path(name)
    if name == STANDARD or descriptor(path) == STDOUT:
        sys.stdout.buffer.writelines(lines)
        return True
    try:
        write_whole(path, lines, PRIVATE)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CliError(f"{name}: {exc.strerror}") from exc
    return False
