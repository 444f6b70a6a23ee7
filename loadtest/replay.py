"""Replays 20,000 prompts, with a shift in the middle, and shows how promises were kept.

    python -m loadtest.replay --cache /tmp/scores --out replay.json

The first half is what people say to an assistant and a bank's help desk (CLINC150, Banking77) with
some examination questions (MMLU); the second is school mathematics (GSM8K), university questions
(MMLU-Pro) and prompts that were chosen for being hard (Arena-Hard). Prompts are real, so are the
scores of the artefact; what an answer costs is made up, since no model is called: a price per
token, and answers whose length varies as a log-normal does. Decisions are taken by the same code
as in the gateway, one after another.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TextIO

from routers.artefacts import find_artefact
from routers.decide import Odds
from routers.onnx.router import DEFAULT_ARTEFACT, OnnxRouter
from routers.steering import Calibration, PolicySteering
from routers.steering.calibration import FILE as CALIBRATION
from routers.steering.calibration import load_calibration
from routers.steering.policy import Ticket
from routers.train.data import default_dir
from routers.types import Policy, Query, Target, Turn

WINDOW = 2000
# (file, field, how many); the halves have the same size.
FIRST = (("clinc150", "text", 6000), ("banking77", "text", 3000), ("mmlu_gold", "prompt", 1000))
SECOND = (
    ("gsm8k_train", "question", 4500),
    ("mmlu_pro", "question", 4300),
    ("arena_hard_v0.1", "prompt", 450),
    ("arena_hard_v2.0", "prompt", 750),
)
CHARS_PER_TOKEN = 4.0
# USD per token of a frontier model's input and output, and nothing for the local one.
INPUT_USD, OUTPUT_USD = 2.5e-6, 10e-6
OUTPUT_TOKENS, OUTPUT_SPREAD = 300.0, 1.0
NANO = 1e9


@dataclass(frozen=True)
class Prompt:
    id: str
    source: str
    text: str


@dataclass(frozen=True)
class Scored:
    """One prompt of the replay. `cost`: nano-USD of a strong answer."""

    source: str
    odds: Odds
    cost: int


@dataclass(frozen=True)
class Window:
    """`forced`: decisions that the promise took against the threshold's."""

    begin: int
    share: float
    quality: float
    usd_per_1000: float
    threshold: float
    forced: int


@dataclass(frozen=True)
class Outcome:
    """`worst`: the deviation to the wrong side (a share: to either) over the windows, and
    `worst_anywhere` over every run of 2,000 requests, in the promise's own unit. `captured`: of
    what the best choice of the same share in hindsight gains over chance, per half. `us`: time to
    decide and count one request."""

    promise: str
    windows: list[Window]
    worst: float
    worst_anywhere: float
    captured: list[float]
    us: float


def prompts(directory: Path, seed: int) -> list[Prompt]:
    """Both halves, each shuffled. Raises OSError, and ValueError for a file with too few rows."""
    rng = Random(seed)
    found: list[Prompt] = []
    for half in (FIRST, SECOND):
        part: list[Prompt] = []
        for name, field, number in half:
            rows = [
                Prompt(f"{name}/{at}", name, text) for at, text in _texts(directory, name, field)
            ]
            if len(rows) < number:
                raise ValueError(f"{name} has {len(rows)} rows, {number} are needed")
            part += rng.sample(rows, number)
        rng.shuffle(part)
        found += part
    return found


def _texts(directory: Path, name: str, field: str) -> Iterator[tuple[int, str]]:
    with gzip.open(directory / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for at, line in enumerate(file):
            row = json.loads(line)
            options = "\n".join(row["options"]) if name == "mmlu_pro" and at % 2 else ""
            yield at, f"{row[field]}\n{options}".rstrip()


def score_all(wanted: Sequence[Prompt], artefact: Path, cache: Path) -> dict[str, Odds]:
    """By prompt id. What a cache file of the same artefact holds is not scored again; a file of
    another artefact is another file."""
    pin = hashlib.sha256((artefact / "manifest.json").read_bytes()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{artefact.name}-{pin}.jsonl"
    found: dict[str, Odds] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found[row["id"]] = Odds(row["weak"], row["strong"])
    missing = [prompt for prompt in wanted if prompt.id not in found]
    if missing:
        router = OnnxRouter.load(artefact)
        with path.open("a") as file:
            found |= asyncio.run(_score(router, missing, file))
    return found


async def _score(router: OnnxRouter, wanted: Sequence[Prompt], file: TextIO) -> dict[str, Odds]:
    found: dict[str, Odds] = {}
    began = time.monotonic()
    try:
        for number, prompt in enumerate(wanted, 1):
            score = await router.score(Query((Turn("user", prompt.text),)), deadline=60.0)
            if score.p_local_ok is None or score.p_frontier_ok is None:
                raise ValueError(f"{prompt.id} has no score: {score.unclassified}")
            odds = found[prompt.id] = Odds(score.p_local_ok, score.p_frontier_ok)
            row = {"id": prompt.id, "weak": odds.weak, "strong": odds.strong}
            file.write(json.dumps(row) + "\n")
            if number % 2000 == 0:
                spent = time.monotonic() - began
                print(f"scored {number} of {len(wanted)} in {spent:.0f} s", file=sys.stderr)
    finally:
        await router.aclose()
    return found


def priced(wanted: Sequence[Prompt], odds: dict[str, Odds], seed: int) -> list[Scored]:
    rng = Random(seed)
    mean = math.log(OUTPUT_TOKENS) - OUTPUT_SPREAD**2 / 2
    found = []
    for prompt in wanted:
        output = min(4096.0, rng.lognormvariate(mean, OUTPUT_SPREAD))
        usd = len(prompt.text) / CHARS_PER_TOKEN * INPUT_USD + output * OUTPUT_USD
        found.append(Scored(prompt.source, odds[prompt.id], round(usd * NANO)))
    return found


@dataclass(frozen=True)
class Setup:
    """`workers` share the requests by chance; `late`: requests between a decision and its bill."""

    calibration: Calibration | None
    model: str
    workers: int = 1
    late: int = 50
    seed: int = 0


def replay(target: Target, rows: Sequence[Scored], setup: Setup) -> Outcome:
    policy = Policy(target=target)
    states = [
        PolicySteering("replay", policy, setup.calibration, setup.model, setup.workers)
        for _ in range(setup.workers)
    ]
    rng = Random(setup.seed)
    chosen: list[tuple[bool, bool]] = []
    thresholds: list[float] = []
    bills: list[tuple[Ticket, int]] = []
    began = time.process_time()
    for row in rows:
        state = states[rng.randrange(setup.workers)]
        steer = state.steer("replay", row.odds)
        strong = steer.wants(row.odds.gain)
        bills.append((state.observe("replay", row.odds, steer, strong), row.cost if strong else 0))
        if len(bills) > setup.late:
            ticket, cost = bills.pop(0)
            ticket.settle(cost)
        chosen.append((strong, bool(steer.force) and strong != (row.odds.gain > steer.threshold)))
        thresholds.append(state.threshold)
    us = (time.process_time() - began) / len(rows) * 1e6
    windows = [_window(rows, chosen, thresholds, at) for at in range(0, len(rows), WINDOW)]
    strong_only = [strong for strong, _ in chosen]
    kind, value = next((k, v) for k, v in _given(target).items() if v is not None)
    return Outcome(
        promise=f"{kind} {value:g}",
        windows=windows,
        worst=max(_miss(kind, value, getattr(window, _MEASURE[kind])) for window in windows),
        worst_anywhere=_worst_run(kind, value, rows, strong_only),
        captured=[
            _captured(rows[at : at + len(rows) // 2], strong_only[at : at + len(rows) // 2])
            for at in (0, len(rows) // 2)
        ],
        us=us,
    )


_MEASURE = {"share": "share", "quality": "quality", "cost": "usd_per_1000"}


def _given(target: Target) -> dict[str, float | None]:
    return {"share": target.share, "quality": target.quality, "cost": target.cost}


def _miss(kind: str, value: float, seen: float) -> float:
    if kind == "share":
        return abs(seen - value)
    return max(0.0, value - seen if kind == "quality" else seen - value)


def _window(
    rows: Sequence[Scored],
    chosen: Sequence[tuple[bool, bool]],
    thresholds: Sequence[float],
    at: int,
) -> Window:
    part = list(zip(rows[at : at + WINDOW], chosen[at : at + WINDOW], strict=True))
    got = math.fsum(r.odds.strong if strong else r.odds.weak for r, (strong, _) in part)
    return Window(
        begin=at,
        share=sum(strong for _, (strong, _) in part) / len(part),
        quality=got / math.fsum(r.odds.strong for r, _ in part),
        usd_per_1000=sum(r.cost for r, (strong, _) in part if strong) / NANO / len(part) * 1000,
        threshold=thresholds[min(at + WINDOW, len(thresholds)) - 1],
        forced=sum(forced for _, (_, forced) in part),
    )


def _worst_run(kind: str, value: float, rows: Sequence[Scored], strong: Sequence[bool]) -> float:
    """Over every run of 2,000 requests, wherever it begins."""
    tops, bottoms = [0.0], [0.0]
    for row, went in zip(rows, strong, strict=True):
        top, bottom = (1.0 if went else 0.0), 1.0
        if kind == "quality":
            top, bottom = (row.odds.strong if went else row.odds.weak), row.odds.strong
        elif kind == "cost":
            top = row.cost / NANO * 1000 if went else 0.0
        tops.append(tops[-1] + top)
        bottoms.append(bottoms[-1] + bottom)
    return max(
        _miss(
            kind,
            value,
            (tops[at + WINDOW] - tops[at]) / (bottoms[at + WINDOW] - bottoms[at]),
        )
        for at in range(len(rows) - WINDOW + 1)
    )


def _captured(rows: Sequence[Scored], strong: Sequence[bool]) -> float:
    gains = [row.odds.gain for row in rows]
    number = sum(strong)
    best = math.fsum(sorted(gains, reverse=True)[:number])
    chance = math.fsum(gains) * number / len(gains)
    got = math.fsum(gain for gain, went in zip(gains, strong, strict=True) if went)
    return (got - chance) / (best - chance) if best > chance else 1.0


def show(outcome: Outcome) -> None:
    print(f"\n{outcome.promise}")
    print("requests        share  quality  USD/1000  threshold  forced")
    for w in outcome.windows:
        shift = "  <- shift" if w.begin * 2 == WINDOW * len(outcome.windows) else ""
        print(
            f"{w.begin:6d}-{w.begin + WINDOW - 1:<6d} {w.share:6.1%}  {w.quality:7.2%}  "
            f"{w.usd_per_1000:8.3f}  {w.threshold:+9.3f}  {w.forced:6d}{shift}"
        )
    unit = "USD per 1,000" if outcome.promise.startswith("cost") else "points"
    scale = 1.0 if unit != "points" else 100.0
    print(
        f"worst window {outcome.worst * scale:.2f} {unit}, worst run of {WINDOW} anywhere "
        f"{outcome.worst_anywhere * scale:.2f}; captured of the best choice in hindsight "
        f"{outcome.captured[0]:.1%} and {outcome.captured[1]:.1%}; {outcome.us:.1f} us per request"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="loadtest.replay", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--artefact", type=find_artefact, default=DEFAULT_ARTEFACT)
    parser.add_argument("--data", type=Path, default=default_dir())
    parser.add_argument("--cache", type=Path, required=True, help="directory of scores")
    parser.add_argument("--out", type=Path, help="JSON with every window")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.30)
    parser.add_argument("--quality", type=float, default=0.95)
    parser.add_argument("--cost", type=float, default=1.0, help="USD per 1,000 requests")
    args = parser.parse_args(argv)
    wanted = prompts(args.data, args.seed)
    odds = score_all(wanted, args.artefact, args.cache)
    rows = priced(wanted, odds, args.seed)
    setup = Setup(_calibration(args.artefact), args.artefact.name, args.workers, seed=args.seed)
    targets = (Target(share=args.share), Target(quality=args.quality), Target(cost=args.cost))
    outcomes = [replay(target, rows, setup) for target in targets]
    print(f"{len(rows)} prompts, {args.workers} worker(s), artefact {args.artefact.name}")
    print(f"calibration rows: {setup.calibration.rows if setup.calibration else 'none'}")
    for outcome in outcomes:
        show(outcome)
    if args.out is not None:
        args.out.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    return 0


def _calibration(artefact: Path) -> Calibration | None:
    path = artefact / CALIBRATION
    return load_calibration(path.read_bytes()) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
