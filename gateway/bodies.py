"""JSON bodies from outside: whatever cannot be read or handled is one error that says why."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_DEPTH = 200
"""Levels of objects and arrays: several times what the deepest tool schema has, and little enough
for every walk and encoder that follows."""
_MAX_NAME = 64
_CONTAINERS = frozenset((dict, list))
_decode = msgspec.json.Decoder().decode


class BadBody(Exception):
    """`field`: the outermost one that is at fault, None for the body as a whole."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def decode(raw: bytes) -> Any:
    """The value of a JSON text. Raises BadBody."""
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
