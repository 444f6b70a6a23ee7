"""`tollhouse router`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.cli.errors import OK, USAGE, CliError
from gateway.cli.output import print_json


def train(args: argparse.Namespace) -> int:
    try:
        from routers.train import run
        from routers.train.data import DataError
        from routers.train.export import ExportError

        try:
            manifest = run(Path(args.data), Path(args.out))
        except (DataError, ExportError) as exc:
            raise CliError(str(exc), USAGE) from exc
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] in ("routers", "gateway"):
            raise
        raise CliError(
            f"training needs the extra `train`: pip install 'tollhouse[train]' ({exc.name} is "
            "missing)",
            USAGE,
        ) from exc
    print_json(manifest)
    return OK
