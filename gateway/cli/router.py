"""`tollhouse router`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.cli.errors import OK, USAGE, CliError
from gateway.cli.output import fitted, print_fields, print_json, print_table
from gateway.cli.streams import stdin
from routers.artefacts import HEURISTIC, existing_artefact, find_artefact, open_router

if TYPE_CHECKING:
    from routers.base import Router
    from routers.evals.metrics import Calibration, Figure, Ranking
    from routers.evals.report import Report
    from routers.refit import CardReport, RefitReport
    from routers.types import Query

STANDARD = "-"
_LEGEND = """\
In brackets: 95 % intervals, bootstrap over rows. CPT: percent of calls to the frontier that
close 20, 50, 80 % of the gap. random: the mean over every order. oracle: knows the answers."""


def train(args: argparse.Namespace) -> int:
    try:
        from routers.train import run
        from routers.train.data import DataError
        from routers.train.discriminant import TopicError
        from routers.train.export import ExportError

        try:
            manifests = run(
                Path(args.data),
                Path(args.out),
                cache=Path(args.cache) if args.cache else None,
                leave_out=args.leave_out,
            )
        except (DataError, ExportError, TopicError) as exc:
            raise CliError(str(exc), USAGE) from exc
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] in ("routers", "gateway"):
            raise
        raise CliError(
            f"training needs the extra `train`: pip install 'tollhouse[train]' ({exc.name} is "
            "missing)",
            USAGE,
        ) from exc
    print_json(manifests)
    return OK


def evaluate(args: argparse.Namespace) -> int:
    """Scores the rows, measures, prints, and writes `eval.json` and `curve.png` into `--out`."""
    _require_numpy()
    from routers.evals.report import LEAST_PAIRS, evaluate
    from routers.evals.scoring import score_and_close
    from routers.heuristics import HeuristicRouter
    from routers.labels import load_rows, require_enough

    with _errors():
        rows = load_rows(Path(args.data))
        require_enough(rows, LEAST_PAIRS, args.data)
    out = _directory(args.out) if args.out else None
    queries = [row.query for row in rows]
    scores = asyncio.run(score_and_close(_open(args.artefact), queries, _progress(len(queries))))
    heuristic = asyncio.run(score_and_close(HeuristicRouter(), queries))
    try:
        report = evaluate(rows, scores, heuristic, conformal=args.conformal)
    except ValueError as exc:
        raise CliError(f"{args.data}: {exc}", USAGE) from exc
    report = msgspec.structs.replace(report, seen=_seen(args.artefact, queries))
    if args.json:
        print_json(report)
    else:
        _print_report(report)
    if out is not None:
        _write_report(report, out)
    return OK


def _seen(given: str | None, queries: Sequence[Query]) -> float:
    name = _artefact_name(given)
    if name == HEURISTIC:
        return 0.0
    from routers.evals.seen import seen_share

    with _errors():
        return round(seen_share(queries, find_artefact(name)), 4)


def _print_report(report: Report) -> None:
    from routers.evals.report import HEURISTIC as RULES
    from routers.evals.report import LENGTH, ORACLE, RANDOM, ROUTER
    from routers.evals.seen import WORTH_SAYING

    left_out = ", ".join(f"{count} {why}" for why, count in sorted(report.unscored.items()))
    print(f"{report.model} on {report.rows:,} rows with both labels")
    if left_out:
        print(f"left out, because the router has no score for them: {left_out}")
    print()
    rows = [
        {"who": "always local", "calls": "0 %", "quality": _figure(report.always_local)},
        {"who": "always frontier", "calls": "100 %", "quality": _figure(report.always_frontier)},
    ]
    for name in (RANDOM, LENGTH, RULES, ROUTER, ORACLE):
        rows.append({"who": name, "calls": "50 %", **_ranked(report.rankings[name])})
    headings = {"who": "", "apgr": "APGR", "cpt20": "CPT20", "cpt50": "CPT50", "cpt80": "CPT80"}
    print_table(rows, {**headings, "calls": "calls", "quality": "quality"})
    print(f"\n{_LEGEND}\n")
    for name in ("p_local_ok", "p_frontier_ok"):
        print(f"{name:<14} {_calibrated(getattr(report, name))}")
    held = report.conformal
    if held is not None:
        print(
            f"\nconformal, alpha {held.alpha:g}: kept in {held.kept:.1%} of {held.resamplings} "
            f"resamplings; violations {held.violation:.2%}, {held.frontier_share:.1%} of the calls "
            "to the frontier"
        )
        if held.uncertified:
            print(
                f"in {held.uncertified:.1%} of them no threshold could be certified: too few rows"
            )
    print(f"\n{report.verdict}")
    if report.seen >= WORTH_SAYING:
        print(
            f"But the artefact was fitted to {report.seen:.0%} of these rows: what is above says "
            "nothing of others. Take rows that were kept apart."
        )


def _ranked(ranking: Ranking) -> dict[str, str]:
    middle = ranking.quality[len(ranking.quality) // 2]
    found = {"apgr": _figure(ranking.apgr), "quality": _figure(middle)}
    return found | {name: _figure(figure, 1) for name, figure in ranking.cpt.items()}


def _figure(figure: Figure, digits: int = 3) -> str:
    if figure.value != figure.value:
        return "-"
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _calibrated(found: Calibration) -> str:
    return (
        f"ECE15 {_figure(found.ece)}, Brier {_figure(found.brier)} "
        f"({found.brier_of_mean:.3f} for the constant mean), {found.rows:,} rows"
    )


def _write_report(report: Report, out: Path) -> None:
    from routers.evals.figure import FigureUnavailable, draw
    from routers.output import write_whole

    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "eval.json", [text, b"\n"])
        _say(f"wrote {out / 'eval.json'}")
        write_whole(out / "curve.png", [draw(report)])
        _say(f"wrote {out / 'curve.png'}")
    except FigureUnavailable as exc:
        _say(f"no curve.png: {exc}")
    except OSError as exc:
        raise CliError(f"{exc.filename2 or exc.filename or out}: {exc.strerror}") from exc


def score(args: argparse.Namespace) -> int:
    """Scores lines of prompts or messages into lines of scores, in the same order."""
    from routers.evals.scoring import read_requests, score_lines
    from routers.labels import opened
    from routers.output import write_whole

    with _errors():
        if args.input == STANDARD:
            requests = read_requests(stdin(), "stdin")
        else:
            with opened(Path(args.input)) as lines:
                requests = read_requests(lines, args.input)
    output = None if args.output == STANDARD else Path(args.output)
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise CliError(f"--output {output}: its directory must exist, and it must be a file", USAGE)
    told = _progress(len(requests))
    written = asyncio.run(score_lines(_open(args.artefact), requests, told))
    try:
        if output is None:
            sys.stdout.buffer.writelines(written)
            sys.stdout.buffer.flush()
            return OK
        compressed = output.suffix == ".gz"
        write_whole(output, [gzip.compress(b"".join(written))] if compressed else written)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CliError(f"--output {args.output}: {exc.strerror}") from exc
    _say(f"wrote {len(written):,} scores to {output}")
    return OK


def refit(args: argparse.Namespace) -> int:
    """A new artefact from labelled rows: the same encoder, heads fitted to these rows; or with
    `--model`, the same heads and that model's card fitted to them."""
    _require_numpy()
    if args.model is not None:
        return _refit_card(args)
    if args.tier or args.like:
        raise CliError("--tier and --like say of what kind --model is: give that too", USAGE)
    from routers.labels import load_rows
    from routers.refit import run

    name = args.name or Path(args.out).resolve().name
    with _errors():
        rows = load_rows(Path(args.labels))
        base = existing_artefact(_artefact_name(args.artefact))
        report = run(rows, base, _directory(args.out), name=name, seed=args.seed, where=args.labels)
    if args.json:
        print_json(report)
        return OK
    print_fields(
        [
            ("artefact", f"{report.name} in {args.out}"),
            ("from", report.base),
            *fitted(msgspec.to_builtins(report)),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )
    _print_measured(report)
    return OK


def _refit_card(args: argparse.Namespace) -> int:
    from routers.refit import CardOrder, load_model_rows, run_card

    name = args.name or Path(args.out).resolve().name
    try:
        order = CardOrder(
            target=args.model, base=args.tier, like=args.like or "", name=name, seed=args.seed
        )
    except ValueError as exc:
        raise CliError(f"--model: {exc}", USAGE) from exc
    with _errors():
        rows = load_model_rows(Path(args.labels))
        base = existing_artefact(_artefact_name(args.artefact))
        report = run_card(order, rows, base, _directory(args.out))
    if args.json:
        print_json(report)
        return OK
    print_fields(
        [
            ("artefact", f"{report.name} in {args.out}"),
            ("from", report.base),
            *fitted(msgspec.to_builtins(report)),
            ("card before", report.before.describe()),
            ("card now", report.card.describe()),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )
    _print_measured(report)
    return OK


def _print_measured(report: RefitReport | CardReport) -> None:
    print("\nmeasured on rows that were held out of each fit:")
    print_fields((name, _measured(value)) for name, value in sorted(report.metrics.items()))
    print(f"\n{report.verdict}")


def _measured(value: float | list[float]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f"{each:.4f}" for each in value) + "]"
    return f"{value:.4f}"


def _require_numpy() -> None:
    if importlib.util.find_spec("numpy") is None:
        raise CliError("this needs the extra `cpu` or `gpu`: pip install 'tollhouse[cpu]'", USAGE)


def _artefact_name(given: str | None) -> str:
    """The artefact that a gateway takes when nothing is configured, unless one is given."""
    from gateway.config.model import RouterConfig

    return given or RouterConfig().artefact


def _open(given: str | None) -> Router:
    with _errors():
        return open_router(_artefact_name(given))


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """What is wrong with the rows, the artefact or where to write is the caller's to mend."""
    from routers.cards import CardError
    from routers.labels import LabelsError
    from routers.onnx.manifest import ArtefactError

    try:
        yield
    except (LabelsError, ArtefactError, CardError) as exc:
        raise CliError(str(exc), USAGE) from exc
    except OSError as exc:
        name = exc.filename2 or exc.filename
        raise CliError(f"{name}: {exc.strerror}" if name else str(exc)) from exc


def _directory(name: str) -> Path:
    """Where results will go. It is made when there are some, but told now, before the work, when
    that cannot be."""
    path = Path(name)
    try:
        nearest = next(at for at in (path, *path.absolute().parents) if at.exists())
    except OSError as exc:
        raise CliError(f"--out {name}: {exc.strerror}", USAGE) from exc
    if not nearest.is_dir():
        raise CliError(f"--out {name}: {nearest} is not a directory", USAGE)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise CliError(f"--out {name}: {nearest} cannot be written to", USAGE)
    return path


def _progress(total: int) -> Callable[[int], None]:
    """Counts on a terminal's stderr; silent elsewhere."""

    def tell(done: int) -> None:
        if done % 100 == 0 or done == total:
            sys.stderr.write(f"\rscored {done:,} of {total:,}" + ("\n" if done == total else ""))
            sys.stderr.flush()

    return tell if sys.stderr.isatty() else lambda done: None


def _say(text: str) -> None:
    """For people, beside what the command prints for programs."""
    print(text, file=sys.stderr)
