"""The tool calls of a stream, numbered: some APIs leave the index out, or give every call the same.

A client puts the pieces of a call together by its index. Gemini's OpenAI-compatible endpoint sends
none, which the OpenAI SDK's and the Vercel AI SDK's readers cannot take.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["CallNumbers", "Function", "ToolCall"]


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A piece of a call, or a whole one. `index` and `id` as they came, of whatever type."""

    function: Function | None = None
    index: Any = None
    id: Any = None


class CallNumbers:
    """Of one choice. An index that is right stays as it is."""

    __slots__ = ("_known", "_top", "_used")

    def __init__(self) -> None:
        self._known: dict[int | None, tuple[int, Any]] = {}
        self._used: set[int] = set()
        self._top = -1

    def number(self, call: ToolCall) -> Any:
        """The index of the call that this is a piece of."""
        index = call.index
        if index is not None and type(index) is not int:
            return index
        known = self._known.get(index)
        if known is not None and not self._begins(call, known[1]):
            return known[0]
        # The first call with an index has it; another one that comes with the same has not.
        number = self._top + 1 if index is None or index in self._used else index
        self._used.add(number)
        self._top = max(self._top, number)
        self._known[index] = (number, call.id)
        return number

    @staticmethod
    def _begins(call: ToolCall, known: Any) -> bool:
        """Whether another call begins where one is known already. Engines may give each piece an
        id of its own, or repeat the name: neither alone says so where there is an index."""
        named = call.function is not None and bool(call.function.name)
        other = bool(call.id) and call.id != known
        if call.index is None:
            return other or (named and not call.id)
        return other and named
