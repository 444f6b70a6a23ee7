"""How administrators' changes are written down, and how every worker learns of them."""

from __future__ import annotations

from gateway.changes.journal import Change, LogEntry, current_version, list_changes, write_change
from gateway.changes.watch import POLL_S, Watch

__all__ = [
    "POLL_S",
    "Change",
    "LogEntry",
    "Watch",
    "current_version",
    "list_changes",
    "write_change",
]
