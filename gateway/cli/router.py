"""`tollhouse router`."""

from __future__ import annotations

import argparse

from gateway.cli.errors import USAGE, CliError


def train(args: argparse.Namespace) -> int:
    try:
        from routers.train.run import run
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.split(".")[0] == "routers":
            raise
        raise CliError(
            f"training needs the extra `train`: pip install 'tollhouse[train]' ({exc.name} is "
            "missing)",
            USAGE,
        ) from exc
    return run(args)
