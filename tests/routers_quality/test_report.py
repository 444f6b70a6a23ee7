"""What a report says of a violation rate, on rows whose rate is known."""

from __future__ import annotations

import numpy as np
import pytest

from routers.evals.report import hold


def test_a_rate_that_can_be_certified_is_kept_and_worth_something() -> None:
    """Where the gain is above 0.5 the local model alone fails in half of the rows, and nowhere
    else: at most a tenth of violations leaves 0.3 of the calls to the frontier."""
    rng = np.random.default_rng(0)
    gain = rng.random(4000)
    weak = ((gain < 0.5) | (rng.random(4000) < 0.5)).astype(float)
    found = hold(gain, weak, np.ones(4000), 0.1, seed=1)
    assert (found.alpha, found.resamplings, found.uncertified) == (0.1, 200, 0.0)
    assert found.kept >= 0.95
    assert 0.06 < found.violation < 0.1
    assert 0.3 < found.frontier_share < 0.4
    # Nearly all of the violations are avoided by half of the calls.
    strict = hold(gain, weak, np.ones(4000), 0.02, seed=1)
    assert 0.45 < strict.frontier_share < 0.5


def test_too_few_rows_for_a_rate_send_all_to_the_frontier() -> None:
    gain, weak = np.linspace(0, 1, 80), np.ones(80)
    found = hold(gain, weak, weak, 0.02, seed=1)
    assert (found.uncertified, found.frontier_share) == (1.0, 1.0)
    assert (found.kept, found.violation) == (1.0, 0.0)


@pytest.mark.parametrize("weak", [0.0, 1.0])
def test_rows_of_one_gain_stay_or_go_together(weak: float) -> None:
    """Nobody is better off at the frontier, whether both answer well or neither."""
    gain = np.full(1000, 0.25)
    found = hold(gain, np.full(1000, weak), np.full(1000, weak), 0.05, seed=1)
    assert (found.frontier_share, found.violation, found.uncertified) == (0.0, 0.0, 0.0)
    worse = hold(gain, np.zeros(1000), np.ones(1000), 0.05, seed=1)
    assert (worse.frontier_share, worse.violation) == (1.0, 0.0)
