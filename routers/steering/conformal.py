"""The threshold that keeps a violation rate, with a stated confidence.

A violation is a request that stays with the weak tier although the weak one fails where the
strong one would not. Thresholds are tested in a fixed sequence, from the one that keeps nothing
upwards, each against the exact binomial tail, until one cannot be certified (Learn then Test,
Angelopoulos et al. 2021, arXiv 2110.01052, section 5). The number of violations only grows with
the threshold, so that the whole sequence comes down to one order statistic of the gains at which
violations happen. It ends at the largest gain: above it there are no rows to test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

# Of a sum; the terms after it fall, and add up to less than its rounding.
NEGLIGIBLE = 1e-20


def conformal_threshold(
    gains: Sequence[float],
    local_ok: Sequence[float],
    frontier_ok: Sequence[float],
    alpha: float,
    delta: float = 0.05,
    fresh: int = 0,
) -> float | None:
    """The largest threshold (fewest strong calls) whose violation rate is at most `alpha`, with
    probability at least 1 - `delta` over the draw of these rows. None when no threshold can be
    certified: too few rows for such an alpha.

    Rows are as drawn from the traffic that the promise is for (exchangeable with it), and were
    not used to fit the scores. The threshold is never above the largest gain among them, so that
    rows of which those above some gain are missing bound the rate of all requests no less: the
    missing ones go strong. `gains` in [-1, 1]; `local_ok` and `frontier_ok` in [0, 1], where
    at least 0.5 counts as answered well. `fresh`: how many new rows the rate will be counted on;
    0 bounds the expected rate, another number bounds what is counted on so many, which needs a
    wider margin. Raises ValueError for rows that do not match or values out of range.
    """
    rows = len(gains)
    if not len(local_ok) == len(frontier_ok) == rows:
        raise ValueError(
            f"gains ({rows}), local_ok ({len(local_ok)}) and frontier_ok ({len(frontier_ok)}) "
            "must have the same length"
        )
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha} is not between 0 and 1")
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta = {delta} is not between 0 and 1")
    if fresh < 0:
        raise ValueError(f"fresh = {fresh} is negative")
    allowed = _allowed(rows, alpha, delta, fresh)
    if allowed < 0:
        return None
    violating = sorted(
        gain
        for gain, local, frontier in zip(gains, local_ok, frontier_ok, strict=True)
        if local < 0.5 <= frontier
    )
    if len(violating) <= allowed:
        # A gain equal to the threshold stays with the weak tier, as that row did.
        return max(gains)
    # Just below the first violation too many: that row and all above it go to the strong tier.
    return math.nextafter(violating[allowed], -math.inf)


def _allowed(rows: int, alpha: float, delta: float, fresh: int) -> int:
    """How many violations among the rows still certify the rate; -1 when not even none does.

    The true rate at the threshold chosen by `k` violations is at most Beta(k + 1, rows - k), so
    P(rate > alpha) = P(Binomial(rows, alpha) <= k) (Clopper-Pearson); the count on fresh rows is
    beta-binomial with the same parameters."""
    if fresh:
        limit = math.floor(alpha * fresh + 1e-9)
        return _largest(
            rows, lambda k: 1.0 - beta_binomial_cdf(limit, fresh, k + 1, rows - k), delta
        )
    return _largest(rows, lambda k: binomial_cdf(k, rows, alpha), delta)


def _largest(rows: int, risk: Callable[[int], float], delta: float) -> int:
    """The largest k in [0, rows) whose risk, which grows with k, is at most delta; -1 if none."""
    low, high = -1, rows - 1
    while low < high:
        middle = (low + high + 1) // 2
        if risk(middle) <= delta:
            low = middle
        else:
            high = middle - 1
    return low


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of a binomial with n trials, for 0 < p < 1; exact but for rounding."""
    if k >= n:
        return 1.0
    log_k = _log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)
    odds = p / (1.0 - p)
    return _cdf(k, n, log_k, lambda i: (n - i) / (i + 1) * odds)


def beta_binomial_cdf(k: int, n: int, a: int, b: int) -> float:
    """P(X <= k) of a beta-binomial: n trials whose rate is drawn from Beta(a, b), a and b >= 1."""
    if k >= n:
        return 1.0
    log_k = _log_choose(n, k) + _log_beta(k + a, n - k + b) - _log_beta(a, b)
    return _cdf(k, n, log_k, lambda i: (n - i) / (i + 1) * ((i + a) / (n - i - 1 + b)))


def _cdf(k: int, n: int, log_k: float, ratio: Callable[[int], float]) -> float:
    """P(X <= k) from the logarithm of P(X = k) and from `ratio(i)` = P(X = i + 1) / P(X = i), which
    must fall as i grows: then the terms fall too, on the side of k away from the mode, and that
    side is added up until nothing changes."""
    term = math.exp(log_k)
    if ratio(k) < 1.0:
        above = 0.0
        for i in range(k, n):
            term *= ratio(i)
            above += term
            if term <= above * NEGLIGIBLE:
                break
        return 1.0 - above
    total = term
    for i in range(k - 1, -1, -1):
        term /= ratio(i)
        total += term
        if term <= total * NEGLIGIBLE:
            break
    return total


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
