"""The commands and their options. Each command's code is imported when it is called for."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from gateway.cli.errors import FAILED, USAGE, CliError
from gateway.cli.streams import some_stderr, told_stdout
from routers.threads import one_thread


class _Commands(Protocol):
    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


@some_stderr()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 when it failed, 2 when the configuration
    or the call was wrong."""
    one_thread(os.environ)
    try:
        with told_stdout():
            return _run(argv)
    except CliError as exc:
        return _fail(str(exc), exc.code)
    except BrokenPipeError:
        # The reader (head, less) has seen enough: nobody is there to be told.
        return FAILED
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        # The border of the process: a wrong configuration is told without a traceback, whatever
        # else it is must be seen whole. The class is imported here to keep `--help` fast.
        from gateway.config import ConfigError

        if isinstance(exc, ConfigError):
            return _fail(str(exc), USAGE)
        raise


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else USAGE
    module, _, function = str(args.target).partition(":")
    return int(getattr(importlib.import_module(module), function)(args))


def _fail(message: str, code: int) -> int:
    print(f"tollhouse: {message}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollhouse",
        description="An LLM gateway that routes each request by difficulty, residency and budget.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _serving(commands)
    _inspecting(commands)
    _keys(commands)
    _policies(commands)
    _records(commands)
    _router(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"tollhouse {version('tollhouse')}")
        parser.exit(0)


def _command(commands: _Commands, name: str, target: str, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help)
    parser.description = help[:1].upper() + help[1:] + "."
    parser.set_defaults(target=f"gateway.cli.{target}")
    return parser


def _group(commands: _Commands, name: str, help: str) -> _Commands:
    parser = commands.add_parser(name, help=help)
    parser.description = help[:1].upper() + help[1:] + "."
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _serving(commands: _Commands) -> None:
    serve = _command(commands, "serve", "serve:run", "run the gateway")
    serve.add_argument("config", nargs="?", metavar="CONFIG", help="a TOML file")
    serve.add_argument("--host", help="address to listen on")
    serve.add_argument("--port", type=_port, help="port to listen on, 0 for a free one")
    serve.add_argument("--workers", type=_positive, help="number of worker processes")
    serve.add_argument("--local-model", metavar="FILE", help="serve this GGUF file as local model")
    demo = _command(commands, "demo", "demo:run", "start everything on this machine and tour it")
    demo.add_argument("--once", action="store_true", help="end after the tour")


def _inspecting(commands: _Commands) -> None:
    check = _command(commands, "check", "check:run", "check a configuration and say what is in it")
    check.add_argument("config", metavar="CONFIG")
    _json(check)
    _command(commands, "schema", "check:schema", "print the JSON Schema of the configuration")
    explain = _command(commands, "explain", "explain:run", "decide a request without any gateway")
    explain.add_argument("request", metavar="REQUEST.json", help="a chat request, - for stdin")
    explain.add_argument("--config", metavar="FILE", help="without it, what serve would find here")
    explain.add_argument("--key", metavar="ID", help="public id of a key in the configuration")
    explain.add_argument("--labels", metavar="A,B", default="", help="residency labels to add")
    explain.add_argument("--policy", metavar="NAME", default="")
    _json(explain)


def _keys(commands: _Commands) -> None:
    group = _group(commands, "keys", "client keys of a running gateway")
    _command(group, "new", "keys:new", "make a key for a configuration file; asks no gateway")
    create = _command(group, "create", "keys:create", "create a key and print it, once")
    create.add_argument("--org", default="default")
    create.add_argument("--team", default="")
    create.add_argument("--user", default="")
    create.add_argument("--policy", default="", help="the policy of its requests")
    create.add_argument("--label", action="append", default=[], help="mandatory label, repeatable")
    create.add_argument("--allow", action="append", default=[], help="backend/model pattern")
    create.add_argument("--tag", action="append", default=[], help="tag for usage reports")
    create.add_argument("--budget-usd", type=_usd, metavar="USD")
    create.add_argument("--window", default="month", help="total, day, month or seconds")
    create.add_argument("--requests-per-minute", type=_positive, metavar="N")
    create.add_argument("--tokens-per-minute", type=_positive, metavar="N")
    create.add_argument("--concurrency", type=_positive, metavar="N")
    create.add_argument("--expires-in", type=_positive, metavar="SECONDS")
    create.add_argument("--idempotency-key", metavar="TEXT")
    _remote(create)
    _remote(_command(group, "list", "keys:list_keys", "list the keys, without their secrets"))
    revoke = _command(group, "revoke", "keys:revoke", "revoke a key, effective within a second")
    revoke.add_argument("id", metavar="ID", help="the 12 characters after th-")
    _remote(revoke)
    group = _group(commands, "budgets", "what is spent, held and left of each budget")
    listing = _command(group, "list", "budgets:list_budgets", "list the budgets of the active keys")
    _filters(listing, "org")
    _remote(listing)


def _policies(commands: _Commands) -> None:
    group = _group(commands, "policy", "routing policies of a running gateway")
    _remote(_command(group, "list", "policy:list_policies", "list the active policies"))
    show = _command(group, "show", "policy:show", "print the active version of a policy")
    show.add_argument("name", metavar="NAME")
    _remote(show)
    validate = _command(group, "validate", "policy:validate", "check a policy document")
    validate.add_argument("file", metavar="FILE", help="TOML or JSON")
    _remote(validate)
    put = _command(group, "put", "policy:put", "store a new version and activate it")
    put.add_argument("name", metavar="NAME")
    put.add_argument("file", metavar="FILE", help="TOML or JSON")
    put.add_argument("--comment", default="")
    put.add_argument("--draft", action="store_true", help="store it without activating it")
    put.add_argument("--if-match", metavar="ETAG", help="refuse unless this is active")
    _remote(put)
    activate = _command(
        group, "activate", "policy:activate", "make a stored version the active one"
    )
    activate.add_argument("name", metavar="NAME")
    activate.add_argument("version", type=_positive, metavar="VERSION")
    _remote(activate)
    rollback = _command(group, "rollback", "policy:rollback", "go back to the version before")
    rollback.add_argument("name", metavar="NAME")
    _remote(rollback)
    history = _command(group, "history", "policy:history", "list every version of a policy")
    history.add_argument("name", metavar="NAME")
    _remote(history)


def _records(commands: _Commands) -> None:
    group = _group(commands, "decisions", "why requests went where they went")
    listing = _command(group, "list", "records:list_decisions", "list decisions, newest first")
    _filters(listing, "org", "team", "key", "policy", "reason")
    listing.add_argument("--limit", type=_positive, default=20)
    listing.add_argument("--cursor")
    _remote(listing)
    show = _command(group, "show", "records:show_decision", "print one decision")
    show.add_argument("id", metavar="ID")
    _remote(show)
    verify = _command(group, "verify", "records:verify", "verify the hash chain of the decisions")
    _filters(verify, "org")
    _remote(verify)
    group = _group(commands, "cache", "the answers that are kept for identical requests")
    invalidate = _command(group, "invalidate", "cache:invalidate", "delete cached answers")
    whose = invalidate.add_mutually_exclusive_group(required=True)
    whose.add_argument("--org", type=_output, help="those of this organisation")
    whose.add_argument("--all", action="store_true", help="those of all organisations")
    _remote(invalidate)
    group = _group(commands, "usage", "what was used and what it cost")
    listing = _command(group, "list", "records:list_usage", "list upstream attempts, newest first")
    _filters(listing, "org", "team", "key", "policy", "backend", "model", "tier")
    listing.add_argument("--limit", type=_positive, default=20)
    listing.add_argument("--cursor")
    _remote(listing)
    summary = _command(group, "summary", "records:usage_summary", "sum tokens and cost")
    summary.add_argument(
        "--by", default="backend,model", help="of backend,model,tier,key_id,team,org,outcome,day"
    )
    _filters(summary, "org", "team", "key", "policy", "backend", "model", "tier")
    _remote(summary)


def _router(commands: _Commands) -> None:
    group = _group(commands, "router", "the model that scores requests")
    train = _command(group, "train", "router:train", "train and export the router artefacts")
    train.add_argument("--data", required=True, metavar="DIR")
    train.add_argument(
        "--out", required=True, type=_output, metavar="DIR", help="a folder for each artefact"
    )
    train.add_argument("--cache", metavar="DIR", help="keeps sentence vectors from run to run")
    train.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="use no row of this source (repeatable)",
    )
    score = _command(group, "score", "router:score", "score lines of prompts or conversations")
    score.add_argument("--input", required=True, metavar="FILE", help="JSON Lines, - for stdin")
    score.add_argument(
        "--output",
        required=True,
        type=_output,
        metavar="FILE",
        help="JSON Lines, compressed where it ends in .gz, - for stdout",
    )
    _artefact(score, "the artefact that scores")
    evaluate = _command(
        group,
        "eval",
        "router:evaluate",
        "measure a router on labelled rows that it was not fitted to",
    )
    evaluate.add_argument("--data", required=True, metavar="ROWS", help="labelled JSON Lines")
    evaluate.add_argument(
        "--out", type=_output, metavar="DIR", help="write eval.json and curve.png here"
    )
    evaluate.add_argument(
        "--conformal", type=_share, metavar="ALPHA", help="try the conformal mode at this rate"
    )
    _artefact(evaluate, "the artefact to measure")
    _json(evaluate)
    refit = _command(
        group, "refit", "router:refit", "fit a new artefact to labelled rows of your own traffic"
    )
    refit.add_argument("--labels", required=True, metavar="ROWS", help="labelled JSON Lines")
    refit.add_argument(
        "--out", required=True, type=_output, metavar="DIR", help="directory of the new artefact"
    )
    refit.add_argument("--name", metavar="NAME", help="its name, from the directory without it")
    _model(refit)
    refit.add_argument("--seed", type=_seed, default=0, metavar="N")
    _artefact(refit, "the artefact to start from")
    _json(refit)
    _data(group)
    _learning(group)


def _model(command: argparse.ArgumentParser) -> None:
    """Of which model a card is fitted."""
    command.add_argument(
        "--model",
        metavar="BACKEND/MODEL",
        help="fit the card of this model, and leave the heads as they are",
    )
    known = command.add_mutually_exclusive_group()
    known.add_argument(
        "--tier", choices=("local", "frontier"), help="of --model, where its name tells nothing"
    )
    known.add_argument("--like", metavar="MODEL", help="a listed model that --model is like")


def _data(group: _Commands) -> None:
    """The commands of `router` about what it is trained on."""
    overlap = _command(
        group, "overlap", "data:overlap", "find texts that share eight words in a row with others"
    )
    overlap.add_argument("--texts", required=True, metavar="FILE", help="JSON Lines, .gz or not")
    overlap.add_argument("--against", required=True, metavar="FILE", help="JSON Lines, .gz or not")
    overlap.add_argument("--words", type=_positive, default=8, metavar="N")
    _json(overlap)
    data = _group(group, "data", "the public data that a router is trained on")
    _json(_command(data, "list", "data:list_sources", "list the sources and their licences"))
    fetch = _command(data, "fetch", "data:fetch", "fetch sources and convert them for training")
    fetch.add_argument("names", nargs="+", metavar="NAME")
    fetch.add_argument(
        "--out", required=True, type=_output, metavar="DIR", help="directory of the data"
    )
    fetch.add_argument(
        "--copies", metavar="DIR", help="take the originals from DIR/REPOSITORY/FILE, not the net"
    )
    _json(fetch)


def _learning(group: _Commands) -> None:
    """The commands of `router` that speak to a running gateway."""
    labels = _command(group, "labels", "learning:labels", "export the labels that were collected")
    labels.add_argument(
        "--out",
        required=True,
        type=_output,
        metavar="FILE",
        help="JSON Lines for `router refit`, - for stdout",
    )
    _filters(labels, "org")
    _remote(labels)
    refits = _command(
        group, "refits", "learning:refits", "list proposed refits, show or delete one"
    )
    refits.add_argument("name", nargs="?", metavar="NAME")
    refits.add_argument("--delete", action="store_true", help="delete NAME and its files")
    _remote(refits)
    propose = _command(
        group, "propose", "learning:propose", "refit the active router, without activating it"
    )
    propose.add_argument("--labels", metavar="ROWS", help="these rows instead of the collected")
    propose.add_argument("--name", metavar="NAME", help="made from the time without it")
    _model(propose)
    propose.add_argument("--seed", type=_seed, default=0, metavar="N")
    propose.add_argument("--limit", type=_positive, metavar="N", help="newest conversations only")
    propose.add_argument("--no-wait", action="store_true", help="return while it runs")
    _filters(propose, "org")
    _remote(propose)
    activate = _command(
        group, "activate", "learning:activate", "make a refit the router of every worker"
    )
    activate.add_argument("name", metavar="NAME", help="a refit, or `configured`")
    _remote(activate)
    rollback = _command(
        group, "rollback", "learning:rollback", "go back to the router that was active before"
    )
    _remote(rollback)


def _artefact(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument(
        "--artefact", metavar="NAME_OR_DIR", help=f"{help}: a shipped name, or a directory"
    )


def _filters(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(f"--{name}")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _remote(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("gateway")
    group.add_argument("--url", help="address of the gateway (TOLLHOUSE_URL)")
    group.add_argument("--token", help="admin token (TOLLHOUSE_ADMIN_TOKEN)")
    group.add_argument("--config", metavar="FILE", help="take address and token from here")
    _json(parser)


def _output(text: str) -> str:
    """An empty path, of a variable that is not set, would mean the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return value


def _usd(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("must be finite and not negative")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be between 0 and 65535")
    return value
