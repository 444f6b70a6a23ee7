"""`tollhouse router data` and `tollhouse router overlap`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.cli.errors import FAILED, OK, USAGE, CliError
from gateway.cli.output import print_json, print_table

# Where a text may stand in a row, besides `prompt` and `messages`: the fields of the training data.
TEXT_FIELDS = ("question", "text", "dialogue")


def list_sources(args: argparse.Namespace) -> int:
    from routers.train.sources import sources

    found = list(sources().values())
    if args.json:
        print_json(found)
        return OK
    rows = [
        {
            "name": source.name,
            "rows": f"{source.rows:,}",
            "licence": source.licence,
            "origin": source.origin,
            "fetch": "yes" if source.files else "no",
        }
        for source in found
    ]
    print_table(rows, {name: name for name in ("name", "rows", "licence", "origin", "fetch")})
    print()
    for source in found:
        print(f"{source.name}: {source.what}")
        if source.missing:
            print(f"  note: {' '.join(source.missing.split())}")
    return OK


def fetch(args: argparse.Namespace) -> int:
    """Fetches one source after the other; what was written stays when a later one fails."""
    from routers.train import sources

    download = sources.copies_in(Path(args.copies)) if args.copies else None
    done = []
    for name in args.names:
        try:
            found = sources.fetch(name, Path(args.out), download)
        except sources.SourceError as exc:
            raise CliError(str(exc)) from exc
        except OSError as exc:
            raise CliError(f"--out {args.out}: {exc.strerror or exc}", USAGE) from exc
        done.append(found)
        if not args.json:
            same = "as the shipped artefacts were trained on" if found.same else "other content"
            print(f"{found.path}: {found.rows:,} rows of {found.expected:,}, {same}")
    if args.json:
        print_json(done)
    return OK


def overlap(args: argparse.Namespace) -> int:
    """Exit code 1 when there is an overlap, so that a build can stop at it."""
    from routers.labels import LabelsError
    from routers.train.overlap import overlap

    try:
        texts, against = list(_texts(args.texts)), list(_texts(args.against))
    except LabelsError as exc:
        raise CliError(str(exc), USAGE) from exc
    for name, lines in ((args.texts, texts), (args.against, against)):
        if not lines:
            raise CliError(f"{name}: has no rows", USAGE)
    found = overlap((text for _, text in texts), (text for _, text in against), args.words)
    rows = [
        {
            "line": texts[match.row][0],
            "against": against[match.against][0],
            "shared": match.count,
            "words": match.gram,
        }
        for match in found
    ]
    if args.json:
        print_json({"texts": len(texts), "against": len(against), "overlaps": rows})
    elif rows:
        print_table(rows, {name: name for name in ("line", "against", "shared", "words")})
    print(f"{len(rows):,} of {len(texts):,} texts overlap", file=sys.stderr)
    return FAILED if rows else OK


def _texts(name: str) -> Iterator[tuple[int, str]]:
    """Line numbers and texts: a prompt, a conversation, or a field of the training data."""
    from routers.labels import LabelsError, conversation, opened, records

    with opened(Path(name)) as lines:
        for number, at, record in records(lines, name):
            field = next((f for f in TEXT_FIELDS if isinstance(record.get(f), str)), None)
            if field is not None and "prompt" not in record and "messages" not in record:
                yield number, record[field]
                continue
            try:
                turns = conversation(record, at)
            except LabelsError as exc:
                raise LabelsError(f"{exc} (or one of {', '.join(TEXT_FIELDS)})") from exc
            yield number, "\n".join(turn.text for turn in turns)
