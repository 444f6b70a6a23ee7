"""`tollhouse explain`: the decision on a request, offline."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from gateway.auth import Principal, config_principal
from gateway.bodies import BadBody, decode_object
from gateway.cli.errors import FAILED, OK, USAGE, CliError
from gateway.cli.output import print_json
from gateway.cli.streams import stdin
from gateway.config import Config, load_config
from gateway.config.errors import why_unreadable
from gateway.errors import GatewayError


def run(args: argparse.Namespace) -> int:
    from gateway.explain import explain_offline

    body = _read(args.request)
    config = load_config(args.config) if args.config else _found()
    principal = _principal(config, args)
    try:
        decision: dict[str, Any] = asyncio.run(
            explain_offline(config, body, principal=principal, policy=args.policy)
        )
    except GatewayError as exc:
        where = f"{exc.param}: " if exc.param else ""
        raise CliError(f"{where}{exc.message}", USAGE) from exc
    if args.json:
        print_json(decision)
    else:
        print(decision["text"])
    return OK if decision.get("plan") else FAILED


def _found() -> Config:
    """What a gateway without a file would have, told on the standard error."""
    from gateway.discover import found

    config, notes = asyncio.run(found(os.environ))
    lines = ["tollhouse: no --config, so with what `tollhouse serve` finds here:", *notes]
    print("\n  ".join(lines), file=sys.stderr)
    return config


def _read(name: str) -> dict[str, Any]:
    try:
        data = stdin().read() if name == "-" else Path(name).read_bytes()
        return decode_object(data)
    except OSError as exc:
        raise CliError(f"{name} cannot be read: {why_unreadable(exc)}", USAGE) from exc
    except BadBody as exc:
        raise CliError(f"{name}: {exc}", USAGE) from exc


def _principal(config: Config, args: argparse.Namespace) -> Principal:
    try:
        base = config_principal(config, args.key) if args.key else Principal()
    except KeyError as exc:
        raise CliError(f"--key: no key with the public id {args.key!r}", USAGE) from exc
    if args.policy and args.policy not in config.policies:
        raise CliError(f"--policy: no policy named {args.policy!r}", USAGE)
    labels = frozenset(filter(None, (label.strip() for label in args.labels.split(","))))
    return msgspec.structs.replace(base, labels=base.labels | labels)
