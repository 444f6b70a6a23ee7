"""Budget arithmetic. Money is whole nano-USD; shares are floats in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

from routers.types import PressurePoint


def budget_gap(cost: int, max_cost: int | None, budget_left: int | None) -> str | None:
    """Why a worst-case cost cannot be paid; None when it can. Zero can always be paid."""
    if cost <= 0:
        return None
    if max_cost is not None and cost > max_cost:
        return f"may cost {usd(cost)}, over the request's own limit of {usd(max_cost)}"
    if budget_left is not None and cost > budget_left:
        return f"may cost {usd(cost)}, budget left is {usd(max(budget_left, 0))}"
    return None


def usd(nano: int) -> str:
    """Exact decimal dollars, at least two places."""
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), 1_000_000_000)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole}.{digits}"


def pressure(points: Sequence[PressurePoint], left: float | None) -> float:
    """By how much the threshold rises when `left` of the budget remains.

    Piecewise linear through the points, beginning at (1, 0): a full budget presses on nothing.
    Below the lowest point it stays flat. Never falls while the budget shrinks, whatever the
    points say: a point lower than one at a fuller budget is lifted to it. None (no budget): 0.
    """
    if left is None or not points:
        return 0.0
    upper_left, upper_raise = 1.0, 0.0
    for point in sorted(points, key=_fullest_first):
        raised = max(point.raise_by, upper_raise)
        if left >= point.left:
            span = upper_left - point.left
            if left >= upper_left or span <= 0.0:
                return raised if left == point.left else upper_raise
            return upper_raise + (raised - upper_raise) * ((upper_left - left) / span)
        upper_left, upper_raise = point.left, raised
    return upper_raise


def _fullest_first(point: PressurePoint) -> tuple[float, float]:
    return (-point.left, point.raise_by)


def curve_problem(points: Sequence[PressurePoint]) -> str | None:
    """What is wrong with a pressure curve, for the config check; None when it is sound."""
    previous: PressurePoint | None = None
    for point in sorted(points, key=_fullest_first):
        if not 0.0 <= point.left <= 1.0:
            return f"left = {point.left} is not a share between 0 and 1"
        if not 0.0 <= point.raise_by <= 2.0:
            return f"raise_by = {point.raise_by} is not between 0 and 2"
        if previous is not None and point.left == previous.left:
            return f"left = {point.left} is given twice"
        if previous is not None and point.raise_by < previous.raise_by:
            return (
                f"raise_by falls from {previous.raise_by} to {point.raise_by} "
                f"while the budget shrinks to left = {point.left}"
            )
        previous = point
    return None
