"""Calibration rows: what a router predicted of rows that it was not fitted on, and how they went.

They are a file of the artefact, `calibration.json`, one array per column. Promises start from
them before there is any traffic, and conformal mode rests on them alone.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import msgspec

FILE = "calibration.json"


class CalibrationError(Exception):
    """The calibration file is not what it should be; the message names column and row."""


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Columns of equal length, row by row. `gain` = `p_frontier` - `p_local`, in [-1, 1]; the
    others in [0, 1]. `local_ok` and `frontier_ok` are observed, the rest predicted."""

    gain: tuple[float, ...] = ()
    p_local: tuple[float, ...] = ()
    p_frontier: tuple[float, ...] = ()
    local_ok: tuple[float, ...] = ()
    frontier_ok: tuple[float, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.gain)


@runtime_checkable
class Calibrated(Protocol):
    """A router that has calibration rows; None when its artefact brings none."""

    @property
    def calibration(self) -> Calibration | None: ...


_DECODER = msgspec.json.Decoder(Calibration)
_ENCODER = msgspec.json.Encoder()


def load_calibration(raw: bytes) -> Calibration:
    """Raises CalibrationError."""
    try:
        found = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise CalibrationError(f"not calibration rows: {exc}") from exc
    check_calibration(found)
    return found


def dump_calibration(calibration: Calibration) -> bytes:
    """Raises CalibrationError rather than write what could not be read."""
    check_calibration(calibration)
    return _ENCODER.encode(calibration)


def check_calibration(found: Calibration) -> None:
    """Raises CalibrationError."""
    for name in found.__struct_fields__:
        column: tuple[float, ...] = getattr(found, name)
        if len(column) != found.rows:
            raise CalibrationError(f"{name} has {len(column)} rows, gain has {found.rows}")
        low = -1.0 if name == "gain" else 0.0
        for row, value in enumerate(column):
            if not (math.isfinite(value) and low <= value <= 1.0):
                raise CalibrationError(f"{name}[{row}] = {value} is not between {low:g} and 1")
    for row, gain in enumerate(found.gain):
        # Written with few digits, the three need not agree to the last one.
        if abs(found.p_frontier[row] - found.p_local[row] - gain) > 0.01:
            raise CalibrationError(f"gain[{row}] is not p_frontier[{row}] - p_local[{row}]")
