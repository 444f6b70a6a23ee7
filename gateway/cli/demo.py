"""`tollhouse demo [--once]`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import tempfile
import threading

from gateway.config.errors import ConfigError


def run(args: argparse.Namespace) -> int:
    """Start everything on 127.0.0.1, run the tour, and stay up unless `--once`.

    Returns 1 when a step of the tour did not do what it should.
    """
    from backends.local.engine import Engine, EngineError, EngineSettings
    from gateway.auth import new_key
    from gateway.demo import show
    from gateway.demo.setup import STAND_IN, demo_config
    from gateway.demo.tour import steps
    from gateway.serving import Background, prepared

    logging.basicConfig(level=logging.WARNING)
    keys = {"main": new_key(), "poor": new_key()}
    sock = _socket()
    port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="tollhouse-demo-") as data_dir:
        engine = Engine(EngineSettings(alias="tiny"))
        try:
            engine.start()
        except EngineError as exc:
            raise ConfigError("local engine", str(exc)) from exc
        with engine:
            config, candidate = demo_config(os.environ, engine.base_url, keys, data_dir, port)
            with prepared(config) as resolved, Background(resolved, sock):
                print(f"Tollhouse is up at {url}")
                print("  local    : llama.cpp with the project's own tiny model")
                name = candidate.partition("/")[0]
                what = "a scripted stand-in, no real model" if name == STAND_IN else "real API"
                print(f"  frontier : {candidate} ({what})\n")
                failures = show.run(url, keys, steps(candidate))
                print(show.pasteable(url, keys["main"]))
                if failures:
                    print("The tour failed:\n  " + "\n  ".join(failures))
                else:
                    print("The tour did what it should.")
                if not args.once:
                    _wait()
    return 1 if failures else 0


def _socket() -> socket.socket:
    """The usual port, or any free one when it is taken."""
    from gateway.serving import bind

    try:
        return bind("127.0.0.1", 4100)
    except ConfigError:
        return bind("127.0.0.1", 0)


def _wait() -> None:
    print("Ctrl-C ends it.", flush=True)
    done = threading.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, lambda *_: done.set())
    done.wait()
