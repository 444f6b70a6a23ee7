from __future__ import annotations

import json
from random import Random

import pytest

from routers.steering import CalibrationError
from routers.steering.calibration import Calibration, dump_calibration, load_calibration

GOOD = {
    "gain": [0.2, -0.1],
    "p_local": [0.5, 0.9],
    "p_frontier": [0.7, 0.8],
    "local_ok": [0, 1],
    "frontier_ok": [1, 0.5],
}


def test_what_is_written_is_read(drawn):
    rows = drawn(50, Random(1))
    assert load_calibration(dump_calibration(rows)) == rows
    assert load_calibration(json.dumps(GOOD).encode()).rows == 2
    assert load_calibration(b"{}") == Calibration()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gain": [0.2]}, "p_local has 2 rows, gain has 1"),
        ({"local_ok": [0, 2]}, r"local_ok\[1\] = 2"),
        ({"gain": [0.2, -1.5]}, r"gain\[1\] = -1.5"),
        ({"gain": [0.2, 0.4]}, r"gain\[1\] is not p_frontier"),
        ({"gains": [0.2]}, "gains"),
        ({"p_local": "x"}, "p_local"),
    ],
)
def test_what_is_wrong_is_named(change, said):
    with pytest.raises(CalibrationError, match=said):
        load_calibration(json.dumps({**GOOD, **change}).encode())
