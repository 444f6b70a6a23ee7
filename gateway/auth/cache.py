"""Verified keys in the memory of one worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import msgspec

from gateway.auth.principal import KeyInfo, Principal


class Entry(msgspec.Struct, frozen=True):
    """A key as it is checked: its hash, never its secret."""

    hash: bytes
    info: KeyInfo
    principal: Principal


class KeyCache:
    """Entries by public id, the least recently used ones dropped above `size`; and, for
    `unknown_s` seconds, the ids that the database does not have, so that a client repeating a
    wrong key does not reach the database each time.

    `clock` is monotonic, in seconds.
    """

    def __init__(
        self, size: int, unknown_size: int, unknown_s: float, clock: Callable[[], float]
    ) -> None:
        self._size = size
        self._unknown_size = unknown_size
        self._unknown_s = unknown_s
        self._clock = clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key_id: str) -> Entry | None:
        entry = self._entries.get(key_id)
        if entry is not None:
            self._entries.move_to_end(key_id)
        return entry

    def is_unknown(self, key_id: str) -> bool:
        until = self._unknown.get(key_id)
        return until is not None and until > self._clock()

    def put(self, entry: Entry) -> None:
        key_id = entry.info.id
        self._unknown.pop(key_id, None)
        self._entries[key_id] = entry
        self._entries.move_to_end(key_id)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def put_unknown(self, key_id: str) -> None:
        self._unknown[key_id] = self._clock() + self._unknown_s
        self._unknown.move_to_end(key_id)
        while len(self._unknown) > self._unknown_size:
            self._unknown.popitem(last=False)

    def drop(self, key_id: str) -> None:
        self._entries.pop(key_id, None)
        self._unknown.pop(key_id, None)

    def forget_unknown(self) -> None:
        self._unknown.clear()

    def renew(self, found: Mapping[str, Entry | None]) -> None:
        """By public id: what to put in the place of an entry that is still there, None to drop
        it."""
        for key_id, entry in found.items():
            if entry is None:
                self._entries.pop(key_id, None)
            elif key_id in self._entries:
                self._entries[key_id] = entry

    def replace(self, make: Callable[[Entry], Entry]) -> None:
        """Put something else in the place of every entry."""
        for key_id, entry in self._entries.items():
            self._entries[key_id] = make(entry)

    def entries(self) -> Iterable[Entry]:
        return self._entries.values()
