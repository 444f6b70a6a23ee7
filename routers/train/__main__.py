"""`python -m routers.train --data DIR --out DIR`"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from routers.threads import one_thread


def main() -> int:
    # Before numpy is loaded; and sums must not depend on how many cores there are.
    one_thread(os.environ)
    from routers.train import run
    from routers.train.data import DataError, default_dir
    from routers.train.discriminant import TopicError
    from routers.train.export import ExportError

    parser = argparse.ArgumentParser(prog="python -m routers.train", description=__doc__)
    parser.add_argument("--data", type=Path, default=default_dir(), help="labelled rows")
    parser.add_argument("--out", type=Path, required=True, help="directory of the artefacts")
    parser.add_argument("--cache", type=Path, help="keeps sentence vectors from run to run")
    parser.add_argument("--leave-out", action="append", default=[], metavar="SOURCE")
    given = parser.parse_args()
    try:
        manifests = run(given.data, given.out, cache=given.cache, leave_out=given.leave_out)
    except (DataError, ExportError, TopicError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(manifests), indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
