"""Learning from traffic: feedback, shadow comparison, labels, and refits of the router."""

from __future__ import annotations

from gateway.learning.activation import CONFIGURED, ActiveRouter, Loaders
from gateway.learning.errors import (
    BadRows,
    LearningError,
    NoBase,
    NothingToRollBack,
    RefitBusy,
    RefitNotReady,
    RefitTaken,
    UnknownDecision,
    UnknownRefit,
)
from gateway.learning.learning import Learning, LearningState, Parts
from gateway.learning.refits import Proposal, Refit
from gateway.learning.slot import RouterSlot

__all__ = [
    "CONFIGURED",
    "ActiveRouter",
    "BadRows",
    "Learning",
    "LearningError",
    "LearningState",
    "Loaders",
    "NoBase",
    "NothingToRollBack",
    "Parts",
    "Proposal",
    "Refit",
    "RefitBusy",
    "RefitNotReady",
    "RefitTaken",
    "RouterSlot",
    "UnknownDecision",
    "UnknownRefit",
]
