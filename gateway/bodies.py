"""JSON bodies from outside: whatever cannot be read or handled is one error that says why."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_DEPTH = 200
"""Levels of objects and arrays: several times what the deepest tool schema has, and little enough
for every walk and encoder that follows."""
MAX_VALUES = 1_000_000
"""Of a whole body: as many as the longest prompt in token ids, and few enough for the walks through
them, during which a worker serves nobody else."""
_MAX_NAME = 64
_WINDOW = 1 << 16
_CONTAINERS = frozenset((dict, list))
_decode = msgspec.json.Decoder().decode


class BadBody(Exception):
    """`field`: the outermost one that is at fault, None for the body as a whole."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def decode(raw: bytes) -> Any:
    """The value of a JSON text. Raises BadBody."""
    if len(raw) > MAX_VALUES and _has_more_values(raw, MAX_VALUES):
        raise BadBody(f"The body has more than {MAX_VALUES} values.")
    try:
        value = _decode(raw)
    except msgspec.DecodeError as exc:
        raise BadBody(f"The body is not valid JSON: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise BadBody("The body is not valid UTF-8.") from exc
    except RecursionError as exc:
        raise BadBody(_TOO_DEEP) from exc
    if _has_many_brackets(raw) and _is_deeper(value, MAX_DEPTH):
        raise BadBody(_TOO_DEEP, _deepest_field(value))
    return value


def decode_object(raw: bytes) -> dict[str, Any]:
    """As `decode`, for a JSON object. Raises BadBody."""
    value = decode(raw)
    if not isinstance(value, dict):
        raise BadBody("The body must be a JSON object.")
    return value


_TOO_DEEP = f"The body is nested more than {MAX_DEPTH} levels deep."


def _has_more_values(raw: bytes, most: int) -> bool:
    """Whether there are more commas and opening brackets outside of strings, one of which stands
    before every value of a container: told before any memory is taken for them. Ends once there
    are too many."""
    if _openings(raw) <= most:
        return False
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    found, inside = 0, 0
    for start in range(0, len(plain), _WINDOW):
        pieces = plain[start : start + _WINDOW].split(b'"')
        found += _openings(b"".join(pieces[inside::2]))
        if found > most:
            return True
        inside = (inside + len(pieces) - 1) % 2
    return False


def _openings(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _has_many_brackets(raw: bytes) -> bool:
    """Whether there are more than can be open at a time, in strings or not: without, no value needs
    to be walked through."""
    left = MAX_DEPTH
    for bracket in (b"[", b"{"):
        at = raw.find(bracket)
        while at >= 0:
            if not left:
                return True
            left -= 1
            at = raw.find(bracket, at + 1)
    return False


def _is_deeper(value: object, depth: int) -> bool:
    """Whether a value has more levels of objects and arrays. Level by level: no recursion."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(depth):
        level = [
            item
            for outer in level
            for item in (outer.values() if type(outer) is dict else outer)
            if type(item) in _CONTAINERS
        ]
        if not level:
            return False
    return True


def _deepest_field(value: object) -> str | None:
    items = value.items() if isinstance(value, dict) else ()
    found = (name for name, item in items if _is_deeper(item, MAX_DEPTH - 1))
    return next(found, "")[:_MAX_NAME] or None
