"""The cost-quality curve as a picture. Needs matplotlib (the extra `eval`)."""

from __future__ import annotations

import io
from typing import Any

from routers.evals.metrics import Figure
from routers.evals.report import HEURISTIC, LENGTH, ORACLE, RANDOM, ROUTER, Report

INK, QUIET, GRID = "#1f2933", "#6b7785", "#e4e7eb"
COLOURS = {ROUTER: "#0b63ce", LENGTH: "#c2410c", HEURISTIC: "#0f766e"}
NAMES = {LENGTH: "length", HEURISTIC: "heuristic", RANDOM: "random", ORACLE: "oracle"}


class FigureUnavailable(Exception):
    """Matplotlib is not installed; the message says what to install."""


def draw(report: Report) -> bytes:
    """A PNG: quality over the share of calls that go to the frontier, with the 95 % band of the
    router. Raises FigureUnavailable."""
    try:
        # The object interface needs no display and keeps no state between pictures.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError as exc:
        raise FigureUnavailable(
            "the picture needs matplotlib: pip install 'tollhouse[eval]'"
        ) from exc
    canvas = Canvas(figsize=(8.0, 5.2), dpi=160, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    _frame(axes, report)
    _curves(axes, report)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],  # drawn last, so that it lies on top; named first
        labels[::-1],
        loc="lower right",
        fontsize=9,
        labelcolor=INK,
        facecolor="white",
        edgecolor="none",
        framealpha=0.92,
    )
    written = io.BytesIO()
    # Without a date and a version the same report gives the same bytes.
    canvas.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _frame(axes: Any, report: Report) -> None:
    local, frontier = report.always_local.value, report.always_frontier.value
    axes.set_title(
        f"Quality over frontier calls, {report.model}, {report.rows:,} rows",
        loc="left",
        fontsize=11.5,
        color=INK,
        pad=12,
    )
    axes.set_xlabel("share of calls to the frontier (%)", color=INK, fontsize=9.5)
    axes.set_ylabel("mean quality of the answers", color=INK, fontsize=9.5)
    axes.set_xlim(0, 100)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelsize=9, length=0)
    for level, name in ((local, "always local"), (frontier, "always frontier")):
        axes.axhline(level, color=QUIET, linewidth=0.8, linestyle=(0, (1, 3)))
        axes.annotate(
            f"{name}\n{level:.3f}",
            (100, level),
            xytext=(6, 0),
            textcoords="offset points",
            fontsize=8,
            color=QUIET,
            va="center",
            annotation_clip=False,
        )


def _curves(axes: Any, report: Report) -> None:
    calls = [100 * share for share in report.shares]
    found = report.rankings
    oracle, random = found[ORACLE], found[RANDOM]
    axes.plot(
        calls,
        _values(oracle.quality),
        color=QUIET,
        linewidth=1.0,
        linestyle=(0, (5, 3)),
        label="oracle (knows both answers)",
    )
    axes.plot(
        calls,
        _values(random.quality),
        color=QUIET,
        linewidth=1.0,
        label="random, APGR 0.500",
    )
    for name in (HEURISTIC, LENGTH):
        axes.plot(
            calls,
            _values(found[name].quality),
            color=COLOURS[name],
            linewidth=1.4,
            label=f"{NAMES[name]}, APGR {found[name].apgr.value:.3f}",
        )
    router = found[ROUTER]
    axes.fill_between(
        calls,
        [point.low for point in router.quality],
        [point.high for point in router.quality],
        color=COLOURS[ROUTER],
        alpha=0.13,
        linewidth=0,
    )
    low, high = router.apgr.low, router.apgr.high
    axes.plot(
        calls,
        _values(router.quality),
        color=COLOURS[ROUTER],
        linewidth=2.4,
        label=f"router, APGR {router.apgr.value:.3f} ({low:.3f} to {high:.3f})",
    )


def _values(curve: list[Figure]) -> list[float]:
    return [point.value for point in curve]
