"""Reading a text of any length a window at a time.

A call into `re` or `str` keeps every other thread waiting until it returns, and what it found is
in memory at once. Over a window of fixed size neither grows with the text. What reads many windows
does so in `Steps`: it gives way after each, so that whoever asked may stop or do other work.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
# Work that yields after some milliseconds at most, and returns what it found.
Steps: TypeAlias = Generator[None, None, T]

WINDOW = 1 << 16
# No pattern that is looked for in windows matches more than this, its look-ahead included.
REACH = 1 << 10


def finish(steps: Steps[T]) -> T:
    """What the work finds, without giving way."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


def joined(pieces: Iterator[str]) -> Steps[str]:
    """The pieces as one text, giving way after each `WINDOW` of it."""
    found: list[str] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= WINDOW:
            size = 0
            yield
    return "".join(found)


def matches(
    pattern: re.Pattern[str], text: str, start: int = 0, end: int | None = None, reach: int = REACH
) -> Iterator[re.Match[str]]:
    """As `finditer`, for matches that begin in [start, end) and look no further than `reach`."""
    if end is None and len(text) <= WINDOW:
        return pattern.finditer(text, start)
    return _in_windows(pattern, text, start, len(text) if end is None else end, reach)


def _in_windows(
    pattern: re.Pattern[str], text: str, start: int, size: int, reach: int
) -> Iterator[re.Match[str]]:
    while start < size:
        stop = min(start + WINDOW, size)
        after = stop
        for match in pattern.finditer(text, start, stop + reach):
            if match.start() >= stop:
                break
            yield match
            after = max(stop, match.end())
        start = after


def has_match(pattern: re.Pattern[str], text: str) -> Steps[bool]:
    """Whether the text in small letters has a match, all of them shorter than `REACH`."""
    for start in range(0, len(text), WINDOW):
        # One character more, for a pattern may ask what stands before it.
        before = 1 if start else 0
        stop = start + WINDOW
        window = text[start - before : stop].lower()
        match = pattern.search(window + text[stop : stop + REACH].lower(), before)
        # What begins later belongs to the next window, and may be cut off in this one.
        if match is not None and match.start() < len(window):
            return True
        yield
    return False


def has_any(words: tuple[str, ...], text: str) -> bool:
    """Whether the text in small letters has any of the words, all of them shorter than `REACH`."""
    for start in range(0, len(text), WINDOW):
        lower = text[start : start + WINDOW + REACH].lower()
        if any([word in lower for word in words]):
            return True
    return False
