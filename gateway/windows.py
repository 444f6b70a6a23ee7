"""The windows of a budget, as the configuration, the admin API, the database and the ledger write
them: `total`, `day`, `month` (UTC calendar), or a number of seconds below 10^9. The first two
take seconds as a number too; behind them a window is text."""

from __future__ import annotations

import re

MUST_BE = "must be total, day, month or a number of seconds below 1,000,000,000"
MAX_CHARS = 16

_NAMED = ("total", "day", "month")
_SECONDS = re.compile(r"0*[1-9][0-9]{0,8}")


def window_text(window: str | int) -> str:
    """As the database and the ledger write it. What is out of range stays so."""
    return window if isinstance(window, str) else str(max(0, min(window, 10**9)))


def is_window(text: str) -> bool:
    """Seconds are ASCII digits, zeros before them included no more than the database holds."""
    if text in _NAMED:
        return True
    return len(text) <= MAX_CHARS and _SECONDS.fullmatch(text) is not None
