"""Refitting an artefact to an operator's labelled rows, its heads or the card of one model:
seconds, and no torch."""

from __future__ import annotations

from routers.cards import CardOrder
from routers.model_rows import ModelRows, load_model_rows
from routers.refit.run import RefitReport, run
from routers.refit.run_card import CardReport, run_card

__all__ = [
    "CardOrder",
    "CardReport",
    "ModelRows",
    "RefitReport",
    "load_model_rows",
    "run",
    "run_card",
]
