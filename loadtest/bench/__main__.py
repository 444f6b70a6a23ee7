"""python -m loadtest.bench [--rounds N] [--json FILE] [--peers] [--only ...] [--targets ...]"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from loadtest.bench import report, targets
from loadtest.bench.processes import DidNotStart
from loadtest.bench.scenarios import SCENARIOS, Generator, Sample
from loadtest.bench.targets import ROOT, Target

RESULTS = ROOT / "loadtest" / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are shown")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--peers", action="store_true", help="with installed other gateways")
    parser.add_argument(
        "--only", nargs="+", choices=[s.name for s in SCENARIOS], help="these scenarios"
    )
    parser.add_argument("--targets", nargs="+", help="these targets (direct is always there)")
    parser.add_argument("--artefact", default="auto", help="router model for `auto`")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many requests")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one measurement")
    return parser.parse_args()


def candidates(folder: Path, upstream: int, asked: argparse.Namespace) -> list[Target]:
    makers: dict[str, Callable[[], Target | None]] = {
        "nginx": lambda: targets.nginx(folder, upstream),
        "tollhouse": lambda: targets.tollhouse(folder, upstream, artefact="none"),
        "tollhouse+router": lambda: targets.tollhouse(folder, upstream, artefact=asked.artefact),
    }
    if asked.peers:
        makers["litellm"] = lambda: targets.litellm(folder, upstream)
        makers["portkey"] = lambda: targets.portkey(folder, upstream)
    found = []
    for name, make in makers.items():
        if asked.targets and name not in asked.targets:
            continue
        target = make()
        if target is None:
            print(f"{name}: not installed, left out")
            continue
        wanted = {s: m for s, m in target.models.items() if not asked.only or s in asked.only}
        if wanted:
            target.models = wanted
            found.append(target)
    return found


def start(found: list[Target]) -> list[Target]:
    started = []
    for target in found:
        try:
            target.start()
        except DidNotStart as exc:
            target.stop()
            print(f"{target.name}: did not start: {exc}", file=sys.stderr)
            continue
        print(f"{target.name}: ready after {target.start_seconds:.2f} s")
        started.append(target)
    return started


def measure(running: list[Target], asked: argparse.Namespace) -> list[Sample]:
    generator = Generator(asked.limit)
    chosen = [
        msgspec.structs.replace(s, requests=round(s.requests * asked.scale))
        for s in SCENARIOS
        if not asked.only or s.name in asked.only
    ]
    for scenario in chosen:
        for target in report.order(scenario, running, 0):
            generator.measure(scenario, target, warm=True)
    samples = []
    for number in range(asked.rounds):
        for scenario in chosen:
            if scenario.rounds is not None and number >= scenario.rounds:
                continue
            for target in report.order(scenario, running, number):
                sample = generator.measure(scenario, target)
                samples.append(sample)
                cpu = "-" if sample.cpu_us is None else f"{sample.cpu_us:.1f} us"
                print(
                    f"round {number + 1} {scenario.name:12} {target.name:18} {cpu:>12} per "
                    f"{scenario.per}, {sample.completed} ok, {sample.failed} failed",
                    flush=True,
                )
    return samples


def main() -> int:
    asked = arguments()
    # Thousands of streams need as many descriptors; every child inherits the limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="tollhouse-bench-") as name:
        folder = Path(name)
        mock = targets.mock(folder)
        running: list[Target] = []
        try:
            running = start([mock])
            if not running:
                return 1
            running += start(candidates(folder, mock.port, asked))
            samples = measure(running, asked)
        finally:
            for target in reversed(running):
                target.stop()
    now = datetime.datetime.now(datetime.UTC)
    result = {
        "time": now.isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "rounds": asked.rounds,
        **report.summary(samples, running),
    }
    print("\n" + report.tables(result))
    print("\n" + report.ratios(result))
    path = asked.json or RESULTS / f"bench-{now:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
    print(f"\nwritten to {path}")
    return 1 if not samples or any(s.failed for s in samples) else 0


if __name__ == "__main__":
    sys.exit(main())
