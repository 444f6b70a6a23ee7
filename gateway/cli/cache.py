"""`tollhouse cache`."""

from __future__ import annotations

import argparse

from gateway.cli.client import connect
from gateway.cli.errors import OK
from gateway.cli.output import print_json


def invalidate(args: argparse.Namespace) -> int:
    # It looks at every key of the store.
    with connect(args, answer_s=None) as admin:
        gone = admin.post("/cache:invalidate", {"org": args.org, "all": args.all})
    if args.json:
        print_json(gone)
    else:
        print(f"{gone['answers']:,} cached answers are deleted")
    return OK
