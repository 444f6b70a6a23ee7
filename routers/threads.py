"""How many threads numpy's products may take.

A router's products are of one row. A BLAS library splits those over all cores once they are wide
enough, and each of its threads then waits for the slowest: on two busy cores the product with a
memory of 2,701 rows took 2 to 5 ms instead of 0.05. The libraries read their limit when they are
loaded, so it is set before numpy is imported.
"""

from __future__ import annotations

from collections.abc import MutableMapping

# OpenBLAS comes with numpy's wheels; the others with some distributions of Python.
LIMITS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")


def one_thread(environ: MutableMapping[str, str]) -> None:
    """Say in `environ` (that of the process) that one thread is to do, unless somebody has said
    otherwise. Processes started from this one inherit it."""
    for name in LIMITS:
        environ.setdefault(name, "1")
