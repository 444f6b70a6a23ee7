"""Folds that hold the same labels."""

from __future__ import annotations

import numpy as np

from routers.evals.folds import alike


def test_every_fold_holds_its_share_of_each_label() -> None:
    rng = np.random.default_rng(3)
    sources = np.array(["b", "a"])[rng.integers(0, 2, 1001)]
    labels = rng.choice([0.0, 0.5, 1.0, np.nan], 1001)
    fold = alike((labels, sources), 5, seed=0)
    assert sorted(set(fold.tolist())) == [0, 1, 2, 3, 4]
    for source in ("a", "b"):
        for label in (0.0, 0.5, 1.0):
            counts = np.bincount(fold[(labels == label) & (sources == source)], minlength=5)
            assert counts.max() - counts.min() <= 1, (source, label, counts)
    unknown = np.bincount(fold[np.isnan(labels)], minlength=5)
    assert unknown.max() - unknown.min() <= 2


def test_chance_deals_rows_of_one_label() -> None:
    labels = np.repeat([0.0, 1.0], 50)
    once, again, other = (alike((labels,), 5, seed) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_what_is_held_out_keeps_its_level() -> None:
    """By chance alone, the mean of the other folds runs against the mean of this one."""
    labels = np.random.default_rng(5).normal(size=60) > 0.3
    fold = alike((labels.astype(float),), 5, seed=0)
    means = [labels[fold == number].mean() for number in range(5)]
    assert np.ptp(means) <= 1 / 12 + 1e-9
