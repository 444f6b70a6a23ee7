"""Folds that hold the same labels.

Where rows are dealt to folds by chance alone, a fold that happens to hold many rows of high gain
is predicted by a fit on few of them: levels of the folds and labels then go against each other,
and all folds taken together look worse ordered than each of them is. With alike folds (Kohavi 1995,
"stratified") they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def alike(keys: Sequence[NDArray[Any]], folds: int, seed: int) -> NDArray[np.intp]:
    """[n]: the fold of each row. Rows are sorted by `keys` ([n] each, the last one first; NaN is a
    value of its own), those equal in all by chance, and dealt out in turn."""
    rows = len(keys[0])
    chance = np.random.default_rng(seed).permutation(rows)
    fold = np.empty(rows, dtype=np.intp)
    fold[np.lexsort((chance, *keys))] = np.arange(rows) % folds
    return fold
