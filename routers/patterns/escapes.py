"""Escapes of JSON strings (RFC 8259, section 7): what tool arguments and JSON in a prompt have
where the text that they stand for has a line's end, a quotation mark or a letter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from routers.patterns.windows import WINDOW

_CODE = re.compile(r"\\u([0-9a-fA-F]{4})")
# JSON inside JSON doubles its backslashes at each level: of several in a row only the last is read.
# A piece that ends with a backslash is followed by one, or by nothing.
_ANY = re.compile(r'\\(?:u([0-9a-fA-F]{4})|([nrtbf"/]))|\\+(?=\\|\Z)')
_STANDS_FOR = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " ", '"': '"', "/": "/"}
_BEYOND_CODES = tuple(f"\\{letter}" for letter in (*_STANDS_FOR, "\\"))


def without_codes(text: str) -> str:
    r"""The text with every `\uXXXX` resolved. Linear, and free without one."""
    return _resolved(_CODE, text) if "\\u" in text else text


def without_escapes(text: str) -> str:
    r"""The text with every escape resolved, `\n` and `\"` too, however deep the JSON is nested;
    `\b` and `\f` become spaces. Linear, and free without a backslash."""
    return _resolved(_ANY, text) if "\\" in text else text


def has_more_than_codes(text: str) -> bool:
    """Whether the two above may differ."""
    return "\\" in text and any([escape in text for escape in _BEYOND_CODES])


def _resolved(pattern: re.Pattern[str], text: str) -> str:
    return "".join([pattern.sub(_character, piece) for piece in _pieces(text)])


def _character(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _STANDS_FOR.get(match[2], "")


def _pieces(text: str) -> Iterator[str]:
    """The text cut where no escape, of at most six characters, is."""
    start = 0
    while start < len(text):
        end = start + WINDOW
        if end < len(text):
            escape = text.rfind("\\", end - 5, end)
            end = escape if escape >= 0 else end
        yield text[start:end]
        start = end
