"""Medians, ratios and tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from loadtest.bench.scenarios import SCENARIOS, Sample, Scenario
from loadtest.bench.targets import Target

BASELINE = "nginx"


def summary(samples: Sequence[Sample], targets: Sequence[Target]) -> dict[str, Any]:
    """Medians over rounds, by scenario and target, with ratios to nginx and to Tollhouse."""
    found: dict[str, Any] = {}
    for scenario in SCENARIOS:
        rows = {}
        for target in targets:
            mine = [s for s in samples if (s.scenario, s.target) == (scenario.name, target.name)]
            if mine:
                rows[target.name] = _row(mine)
        for row in rows.values():
            _compare(row, rows)
        if rows:
            found[scenario.name] = {"about": scenario.about, "per": scenario.per, "targets": rows}
    starts = {
        t.name: {"start_seconds": t.start_seconds, "rss_mb": t.idle_memory}
        for t in targets
        if t.start_seconds is not None
    }
    return {"scenarios": found, "starts": starts}


def _row(samples: Sequence[Sample]) -> dict[str, Any]:
    def middle(values: list[float]) -> float | None:
        return median(values) if values else None

    return {
        "cpu_us": middle([s.cpu_us for s in samples if s.cpu_us is not None]),
        "cpu_us_rounds": [s.cpu_us for s in samples],
        "per_second": middle([s.per_second for s in samples]),
        "latency_ms_p50": middle([s.latency_ms[0] for s in samples if s.latency_ms]),
        "latency_ms_p99": middle([s.latency_ms[1] for s in samples if s.latency_ms]),
        "delay_ms_p50": middle([s.delay_ms[0] for s in samples if s.delay_ms]),
        "delay_ms_p99": middle([s.delay_ms[1] for s in samples if s.delay_ms]),
        "rss_mb": middle([s.rss_mb for s in samples if s.rss_mb is not None]),
        "completed": sum(s.completed for s in samples),
        "failed": sum(s.failed for s in samples),
        "problems": [p for s in samples for p in s.problems][:5],
    }


def _compare(row: dict[str, Any], rows: dict[str, Any]) -> None:
    base = rows.get(BASELINE, {}).get("cpu_us")
    row["times_nginx"] = row["cpu_us"] / base if base and row["cpu_us"] else None
    direct = rows.get("direct", {}).get("delay_ms_p50")
    known = direct is not None and row["delay_ms_p50"] is not None
    row["delay_added_ms_p50"] = row["delay_ms_p50"] - direct if known else None


def tables(result: dict[str, Any]) -> str:
    parts = [_table(name, found) for name, found in result["scenarios"].items()]
    parts.append(_starts(result["starts"]))
    return "\n\n".join(parts)


def _table(name: str, found: dict[str, Any]) -> str:
    unit = f"us/{found['per']}"
    head = (
        f"{'':18}{unit:>12}{'x nginx':>9}{found['per'] + 's/s':>12}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'chunk p50':>11}{'added':>10}{'RSS MB':>8}{'ok':>8}{'failed':>8}"
    )
    lines = [f"{name}: {found['about']}", head]
    for target, row in found["targets"].items():
        lines.append(
            f"{target:18}{_n(row['cpu_us']):>12}{_n(row['times_nginx']):>9}"
            f"{_n(row['per_second'], 0):>12}{_n(row['latency_ms_p50'], 2):>9}"
            f"{_n(row['latency_ms_p99'], 2):>9}{_n(row['delay_ms_p50'], 3):>11}"
            f"{_n(row['delay_added_ms_p50'], 3):>10}{_n(row['rss_mb'], 0):>8}"
            f"{row['completed']:>8}{row['failed']:>8}"
        )
        lines += [f"    {target}: {problem}" for problem in row["problems"]]
    return "\n".join(lines)


def _starts(starts: dict[str, Any]) -> str:
    lines = ["start: seconds until ready, resident MB of each process then"]
    for target, row in starts.items():
        memory = ", ".join(f"{name} {mb:.0f}" for name, mb in row["rss_mb"].items())
        lines.append(f"{target:18}{row['start_seconds']:>12.2f}   {memory}")
    return "\n".join(lines)


def _n(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def ratios(result: dict[str, Any]) -> str:
    """How Tollhouse stands to each other target, per scenario."""
    lines = ["Tollhouse's CPU as a share of:"]
    for name, found in result["scenarios"].items():
        rows = found["targets"]
        own = (rows.get("tollhouse") or {}).get("cpu_us")
        others = {
            target: own / row["cpu_us"]
            for target, row in rows.items()
            if own and row["cpu_us"] and target != "tollhouse"
        }
        if others:
            shown = ", ".join(
                f"{target} {ratio:.1f}x" if ratio >= 1 else f"{target} 1/{1 / ratio:.1f}"
                for target, ratio in others.items()
            )
            lines.append(f"  {name}: {shown}")
    return "\n".join(lines) if len(lines) > 1 else ""


def order(scenario: Scenario, targets: Sequence[Target], round_number: int) -> list[Target]:
    """Who takes part, rotated by round, so that nobody is always first."""
    mine = [t for t in targets if scenario.name in t.models]
    shift = round_number % len(mine) if mine else 0
    return mine[shift:] + mine[:shift]
