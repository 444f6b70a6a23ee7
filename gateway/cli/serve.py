"""`tollhouse serve [CONFIG]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

import msgspec

from gateway.config import Config, load_config
from gateway.config.errors import ConfigError


def run(args: argparse.Namespace) -> int:
    """Serve until a signal. Raises ConfigError (exit code 2 in `main`)."""
    from gateway.serving import bind, prepared, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config, notes = configuration(args)
    sock = bind(config.server.host, config.server.port)
    with prepared(config) as resolved:
        host, port = sock.getsockname()[:2]
        for note in notes:
            print(f"  {note}", file=sys.stderr)
        print(f"Tollhouse listens on http://{host}:{port}/v1", file=sys.stderr, flush=True)
        return serve(resolved, sock, lambda: again(args))


def again(args: argparse.Namespace) -> Config:
    """The configuration file as it is now. Raises ConfigError."""
    if not args.config:
        raise ConfigError("", "there is no file to read again")
    return configuration(args)[0]


def configuration(args: argparse.Namespace) -> tuple[Config, list[str]]:
    """The configuration file, or what is found without one, with the command line's overrides."""
    from gateway.discover import discover, embedded

    check_runtimes()
    if args.config:
        config = load_config(args.config)
        notes = [f"configuration: {args.config}"]
        if args.local_model:
            backends = {**config.backends, "local": embedded(args.local_model, "local")}
            config = msgspec.structs.replace(config, backends=backends)
    else:
        data_dir = os.environ.get("TOLLHOUSE_DATA_DIR", ".tollhouse")
        config, notes = asyncio.run(discover(os.environ, data_dir, args.local_model))
        notes.append(f"client key: {config.keys[0].key}")
    if args.local_model and not os.path.isfile(args.local_model):
        raise ConfigError("--local-model", f"no such file: {args.local_model}")
    given = {k: v for k in ("host", "port", "workers") if (v := getattr(args, k)) is not None}
    server = msgspec.structs.replace(config.server, **given)
    return msgspec.structs.replace(config, server=server), notes


def check_runtimes() -> None:
    """Two onnxruntime distributions overwrite each other's files: refused at the start."""
    from routers.onnx.manifest import TwoRuntimesError
    from routers.onnx.session import check_distributions

    try:
        check_distributions()
    except TwoRuntimesError as exc:
        raise ConfigError("router", str(exc)) from exc
