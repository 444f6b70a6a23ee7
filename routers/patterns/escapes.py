"""Escapes of JSON strings (RFC 8259, section 7), references to characters in HTML (its standard,
section 13.5) and percent codes of URLs (RFC 3986, section 2.1): what tool arguments, pages and
mails have where the text that they stand for has a line's end, a quotation mark, a letter, a blank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.entities import html5

from routers.patterns.windows import WINDOW, Steps, finish, joined

_CODE = re.compile(r"\\u([0-9a-fA-F]{4})")
# JSON inside JSON doubles its backslashes at each level: of several in a row only the last is read.
# A piece that ends with a backslash is followed by one, or by nothing.
_ANY = re.compile(r'\\(?:u([0-9a-fA-F]{4})|([nrtbf"/]))|\\+(?=\\|\Z)')
_STANDS_FOR = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " ", '"': '"', "/": "/"}
_BEYOND_CODES = tuple(f"\\{letter}" for letter in (*_STANDS_FOR, "\\"))
# HTML inside HTML has `&amp;` for each `&`.
_REFERENCE = re.compile(
    r"&(?:amp;){0,3}(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z][A-Za-z0-9]{1,31}));"
)
_LONGEST_REFERENCE = 1 + 3 * len("amp;") + 32 + 1
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}){1,64}")


def without_escapes(text: str) -> str:
    r"""The text with every escape resolved, `\n` and `\"` too, however deep the JSON is nested;
    `\b` and `\f` become spaces. Linear, and free without a backslash."""
    return finish(escapes_resolved(text))


def without_references(text: str) -> str:
    """The text with every reference to a character resolved (`&nbsp;`, `&#64;`). Linear, and free
    without an ampersand."""
    return finish(references_resolved(text))


def codes_resolved(text: str) -> Steps[str]:
    r"""The text with every `\uXXXX` resolved. Linear, and free without one."""
    if "\\u" not in text:
        return text
    return (yield from _resolved(_CODE, _character, text, "\\", 6))


def escapes_resolved(text: str) -> Steps[str]:
    """As `without_escapes`, in steps."""
    if "\\" not in text:
        return text
    return (yield from _resolved(_ANY, _character, text, "\\", 6))


def references_resolved(text: str) -> Steps[str]:
    """As `without_references`, in steps."""
    if "&" not in text or ";" not in text:
        return text
    return (yield from _resolved(_REFERENCE, _referred, text, "&", _LONGEST_REFERENCE))


def percent_resolved(text: str) -> Steps[str]:
    """The text with every percent code resolved, as UTF-8. Linear, and free without one."""
    if "%" not in text:
        return text
    return (yield from _resolved(_PERCENT, _bytes, text, "%", 3))


def has_more_than_codes(text: str) -> bool:
    """Whether `codes_resolved` and `escapes_resolved` may differ."""
    return "\\" in text and any([escape in text for escape in _BEYOND_CODES])


def _resolved(
    pattern: re.Pattern[str],
    character: Callable[[re.Match[str]], str],
    text: str,
    sign: str,
    longest: int,
) -> Steps[str]:
    return joined(pattern.sub(character, piece) for piece in _pieces(text, sign, longest))


def _character(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _STANDS_FOR.get(match[2], "")


def _referred(match: re.Match[str]) -> str:
    decimal, hexadecimal, name = match.groups()
    if name:
        return html5.get(f"{name};", match[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if code <= 0x10FFFF else match[0]


def _bytes(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace")


def _pieces(text: str, sign: str, longest: int) -> Iterator[str]:
    """The text cut where no escape is, which begins with `sign` and has at most `longest`
    characters."""
    start = 0
    while start < len(text):
        end = start + WINDOW
        if end < len(text):
            escape = text.rfind(sign, max(end - longest, start) + 1, end)
            end = escape if escape >= 0 else end
        yield text[start:end]
        start = end
