"""A router measured on labelled rows, beside the baselines on the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from routers.evals import metrics
from routers.evals.metrics import Calibration, Figure, Floats, Ranking
from routers.labels import LabelRow
from routers.steering.conformal import conformal_threshold
from routers.types import Score

SEED = 20_250_701
LEAST_PAIRS = 20
RESAMPLINGS = 200
ROUTER, LENGTH, HEURISTIC, RANDOM, ORACLE = "router", "length", "heuristic", "random", "oracle"


class Conformal(msgspec.Struct, frozen=True):
    """The threshold set on one half of the rows, tried on the other, many times over: in `kept`
    of the resamplings the rate of violations there was at most `alpha`. A violation is a request
    that stays local and fails where the frontier would not. `violation` and `frontier_share` are
    means; in `uncertified` of the resamplings no threshold could be certified, and everything
    went to the frontier."""

    alpha: float
    resamplings: int
    kept: float
    violation: float
    frontier_share: float
    uncertified: float


class Report(msgspec.Struct, frozen=True):
    """`rows`: how many had both labels and a score, on which every ranking is measured;
    `unscored` were left out of everything because the router had no score for them, by reason.
    `rankings` by name (`router`, `length`, `heuristic`, `random`, `oracle`). `verdict` says in
    a sentence whether the router beats length; `conformal` is there when it was asked for.
    `seen`: the share of rows that the artefact remembers from being fitted to them."""

    model: str
    rows: int
    seed: int
    rounds: int
    unscored: dict[str, int]
    always_local: Figure
    always_frontier: Figure
    rankings: dict[str, Ranking]
    p_local_ok: Calibration
    p_frontier_ok: Calibration
    beats_length: bool
    verdict: str
    shares: list[float]
    conformal: Conformal | None = None
    seen: float = 0.0


def evaluate(
    rows: Sequence[LabelRow],
    scores: Sequence[Score],
    heuristic: Sequence[Score],
    *,
    seed: int = SEED,
    rounds: int = metrics.ROUNDS,
    conformal: float | None = None,
) -> Report:
    """`scores` and `heuristic` are one for each row, in order; `conformal` is an alpha. Needs at
    least a row that has a score and both labels; raises ValueError without one."""
    reasons = Counter(score.unclassified or "no score" for score in scores if score.gain is None)
    scored = [i for i, score in enumerate(scores) if score.gain is not None]
    pairs = [i for i in scored if None not in (rows[i].local_ok, rows[i].frontier_ok)]
    if not pairs:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise ValueError(f"no row has both labels and a score ({why or 'no labels'})")
    weak = np.array([rows[i].local_ok for i in pairs], dtype=float)
    strong = np.array([rows[i].frontier_ok for i in pairs], dtype=float)
    gain = np.array([scores[i].gain for i in pairs], dtype=float)
    found = metrics.rankings(
        {
            ROUTER: gain,
            LENGTH: np.array([length(rows[i]) for i in pairs], dtype=float),
            HEURISTIC: np.array([heuristic[i].gain or 0.0 for i in pairs], dtype=float),
            # A constant score is the mean over every order of the rows.
            RANDOM: np.zeros(len(pairs)),
            ORACLE: strong - weak,
        },
        weak,
        strong,
        base=LENGTH,
        seed=seed,
        rounds=rounds,
    )
    over = found[ROUTER].over_base
    ends = found[RANDOM].quality
    return Report(
        model=next(scores[i].model for i in pairs),
        rows=len(pairs),
        seed=seed,
        rounds=rounds,
        unscored=dict(sorted(reasons.items())),
        always_local=ends[0],
        always_frontier=ends[-1],
        rankings=found,
        p_local_ok=_calibrated(rows, scores, scored, "local_ok", (seed, rounds)),
        p_frontier_ok=_calibrated(rows, scores, scored, "frontier_ok", (seed, rounds)),
        beats_length=over.low > 0,
        verdict=verdict(found[ROUTER], ends[0].value, ends[-1].value),
        shares=[round(float(share), 4) for share in metrics.FINE_SHARES],
        conformal=None if conformal is None else hold(gain, weak, strong, conformal, seed),
    )


def hold(
    gain: Floats, weak: Floats, strong: Floats, alpha: float, seed: int, rounds: int = RESAMPLINGS
) -> Conformal:
    """Halve the rows at random, certify a threshold on one half, count on the other."""
    rng, n = np.random.default_rng(seed), len(gain)
    bad = (weak < 0.5) & (strong >= 0.5)
    half = n // 2
    rates, calls, uncertified = np.zeros(rounds), np.ones(rounds), 0
    for number in range(rounds):
        mixed = rng.permutation(n)
        known, fresh = mixed[:half], mixed[half:]
        threshold = conformal_threshold(
            gain[known].tolist(),
            weak[known].tolist(),
            strong[known].tolist(),
            alpha,
            fresh=len(fresh),
        )
        if threshold is None:
            uncertified += 1
            continue
        stays = gain[fresh] <= threshold
        rates[number] = (bad[fresh] & stays).mean()
        calls[number] = 1.0 - stays.mean()
    return Conformal(
        alpha=alpha,
        resamplings=rounds,
        kept=float((rates <= alpha).mean()),
        violation=float(rates.mean()),
        frontier_share=float(calls.mean()),
        uncertified=uncertified / rounds,
    )


def length(row: LabelRow) -> int:
    """What the baseline `length` looks at: the characters of all user turns."""
    return sum(len(turn.text) for turn in row.turns if turn.role == "user")


def verdict(router: Ranking, local: float, frontier: float) -> str:
    """A gain whose interval touches 0 is not called one."""
    over = router.over_base
    if frontier <= local:
        return (
            f"The frontier's answers are no better than the local ones on these rows as a whole "
            f"({frontier:.3f} against {local:.3f}), so APGR and CPT say nothing: "
            f"{_of_both(router.quality, local)}."
        )
    by = f"{over.value:+.3f} APGR, 95 % interval {over.low:+.3f} to {over.high:+.3f}"
    if over.low > 0:
        return f"The router beats length: {by}."
    if over.high < 0:
        return f"The router is worse than length: {by}."
    return f"The router does not show a gain over length: {by}."


def _of_both(quality: Sequence[Figure], alone: float) -> str:
    """Models that are equally good on the whole may be good at different requests. The share of
    calls is the one whose interval ends highest below, so that chance has little say in it."""
    at = max(range(len(quality)), key=lambda share: quality[share].low)
    best = quality[at]
    if best.low <= alone:
        return "no share of calls shows more than the local model alone"
    return (
        f"but {metrics.FINE_SHARES[at]:.0%} of calls by the router's order give {best.value:.3f} "
        f"[{best.low:.3f}, {best.high:.3f}], more than either alone"
    )


def _calibrated(
    rows: Sequence[LabelRow],
    scores: Sequence[Score],
    scored: Sequence[int],
    label: str,
    how: tuple[int, int],
) -> Calibration:
    known = [i for i in scored if getattr(rows[i], label) is not None]
    p: Floats = np.array([getattr(scores[i], f"p_{label}") for i in known], dtype=float)
    y: Floats = np.array([getattr(rows[i], label) for i in known], dtype=float)
    return metrics.calibration(p, y, seed=how[0], rounds=how[1])
