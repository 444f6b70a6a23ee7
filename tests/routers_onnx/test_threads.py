"""numpy is told to compute in one thread before it is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from routers.threads import LIMITS, one_thread

TASKS = Path("/proc/self/task")
MULTIPLY = """
import os, sys
from gateway.cli import main
main(["--help"])
import numpy
table = numpy.ones((1200, 1200), dtype=numpy.float32)
table @ table
sys.exit(f"{len(os.listdir('/proc/self/task'))} threads")
"""


def test_what_was_said_before_stays() -> None:
    environ = {LIMITS[0]: "4"}
    one_thread(environ)
    assert environ == {LIMITS[0]: "4", **dict.fromkeys(LIMITS[1:], "1")}


@pytest.mark.skipif(
    not TASKS.is_dir() or len(os.sched_getaffinity(0)) == 1, reason="threads cannot be counted"
)
def test_the_command_computes_in_one_thread() -> None:
    plain = {name: value for name, value in os.environ.items() if name not in LIMITS}
    plain.pop("OMP_NUM_THREADS", None)
    code = [sys.executable, "-c", MULTIPLY]
    done = subprocess.run(code, env=plain, capture_output=True, text=True)
    assert done.stderr.strip() == "1 threads"
    two = {**plain, **dict.fromkeys(LIMITS, "2")}
    done = subprocess.run(code, env=two, capture_output=True, text=True)
    assert done.stderr.strip() == "2 threads"
