"""`tollhouse cache`."""

from __future__ import annotations

import argparse

from gateway.cli.client import connect
from gateway.cli.errors import FAILED, OK
from gateway.cli.output import print_json


def invalidate(args: argparse.Namespace) -> int:
    # It looks at every key of the store.
    with connect(args, answer_s=None) as admin:
        gone = admin.post("/cache:invalidate", {"org": args.org, "all": args.all})
    if args.json:
        print_json(gone)
    else:
        print(f"{gone['answers']:,} cached answers are deleted")
        if gone["file_rewritten"] is False:
            print("the store's file still holds them: its log says why it could not be rewritten")
    return FAILED if gone["file_rewritten"] is False else OK
