"""The Prometheus text format: writing it, and joining what several workers wrote.

Format: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from gateway.telemetry.aggregate import Counter, Family, Histogram
from gateway.telemetry.names import Metric, label

# The framework adds the charset to a text.
MEDIA_TYPE = "text/plain; version=0.0.4"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def render(
    families: Iterable[Family[Counter] | Family[Histogram]],
    gauges: Iterable[tuple[Metric, Iterable[tuple[tuple[str, ...], float]]]],
) -> bytes:
    """`gauges` are metrics with their label values and numbers. A family without series is left
    out."""
    lines: list[str] = []
    for family in families:
        if family.series:
            lines += _head(family.metric)
        for values, series in family.series.items():
            lines += _samples(family.metric, values, series)
    for metric, rows in gauges:
        lines += _head(metric)
        lines += [f"{metric.family}{_labels(metric, v)} {_number(n)}" for v, n in rows]
    return ("\n".join(lines) + "\n").encode() if lines else b""


def merge(snapshots: Mapping[str, bytes]) -> bytes:
    """Texts written by `render`, by worker, as one text: every sample gets a `worker` label, and
    each metric's HELP and TYPE appear once with all its samples below."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker in sorted(snapshots):
        mark = f'worker="{worker.translate(_ESCAPES)}"'
        name = ""
        for line in snapshots[worker].decode().split("\n"):
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                heads.setdefault(name, [line])
                samples.setdefault(name, [])
            elif line.startswith("# TYPE "):
                if len(heads[name]) == 1:
                    heads[name].append(line)
            elif line:
                samples[name].append(_marked(line, mark))
    lines = [line for name in heads for line in (*heads[name], *samples[name])]
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _marked(line: str, mark: str) -> str:
    name, brace, rest = line.partition("{")
    if brace:
        return f"{name}{{{mark},{rest}"
    name, _, value = line.partition(" ")
    return f"{name}{{{mark}}} {value}"


def _head(metric: Metric) -> tuple[str, str]:
    name = metric.samples[0] if metric.kind == "counter" else metric.family
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return (f"# HELP {name} {text}", f"# TYPE {name} {metric.kind}")


def _samples(metric: Metric, values: tuple[str, ...], series: Counter | Histogram) -> Iterable[str]:
    if isinstance(series, Histogram):
        return _histogram(metric, values, series)
    return (f"{metric.samples[0]}{_labels(metric, values)} {_number(series.value)}",)


def _histogram(metric: Metric, values: tuple[str, ...], series: Histogram) -> list[str]:
    bucket, total, count = metric.samples
    pairs = _pairs(metric, values)
    comma = "," if pairs else ""
    sums = list(accumulate(series.counts))
    bounds = [*(_number(bound) for bound in series.bounds), "+Inf"]
    lines = [
        f'{bucket}{{{pairs}{comma}le="{bound}"}} {number}'
        for bound, number in zip(bounds, sums, strict=True)
    ]
    tail = f"{{{pairs}}}" if pairs else ""
    return [*lines, f"{total}{tail} {_number(series.total)}", f"{count}{tail} {sums[-1]}"]


def _labels(metric: Metric, values: tuple[str, ...]) -> str:
    pairs = _pairs(metric, values)
    return f"{{{pairs}}}" if pairs else ""


def _pairs(metric: Metric, values: tuple[str, ...]) -> str:
    named = zip(metric.labels, values, strict=True)
    return ",".join(f'{label(name)}="{value.translate(_ESCAPES)}"' for name, value in named)


def _number(value: float) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)
