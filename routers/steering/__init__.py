"""Keeping a policy's promise: the threshold follows a share, a quality, a cost or a violation
rate. Pure: no clock, no input or output, no randomness; state goes in and out as values."""

from __future__ import annotations

from routers.steering.calibration import Calibrated, Calibration, CalibrationError
from routers.steering.conformal import conformal_threshold
from routers.steering.controller import Snapshot, promise
from routers.steering.policy import PolicySteering, SteeringView, Ticket

__all__ = [
    "Calibrated",
    "Calibration",
    "CalibrationError",
    "PolicySteering",
    "Snapshot",
    "SteeringView",
    "Ticket",
    "conformal_threshold",
    "promise",
]
