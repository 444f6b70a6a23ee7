"""Refitting the heads of an artefact to an operator's labelled rows: seconds, and no torch."""

from __future__ import annotations

from routers.refit.run import RefitReport, run

__all__ = ["RefitReport", "run"]
