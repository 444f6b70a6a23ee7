"""Server-sent events, read as they arrive (WHATWG HTML, section 9.2.6).

`id` and `retry` are ignored: nothing here reconnects. An event without data, or with empty data,
is skipped, because no model API gives it a meaning.
"""

from __future__ import annotations

from backends.errors import UpstreamProtocolError

__all__ = ["MAX_EVENT_BYTES", "SSEEvent", "SSEParser"]

MAX_EVENT_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"

SSEEvent = tuple[str | None, bytes]


class SSEParser:
    """Push parser: the same events come out however the bytes are cut.

    Accepts LF, CRLF and bare CR, comments, `data:` without a space, data over several lines and a
    byte order mark. Time is linear in the input; at most `max_event_bytes` are held, beyond that
    `feed` raises UpstreamProtocolError and the parser must not be used again.
    """

    __slots__ = ("_after_cr", "_clean", "_data", "_held", "_limit", "_name", "_partial", "_started")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._partial: list[bytes] = []
        self._data: list[bytes] = []
        self._name: str | None = None
        self._held = 0
        self._after_cr = False
        self._started = False
        self._clean = True

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Events that `chunk` completes, as (event name or None, data)."""
        # Nearly every chunk of a model API is exactly one `data: {...}` event.
        if (
            self._clean
            and chunk.startswith(b"data: ")
            and chunk.endswith(b"\n\n")
            and chunk.find(b"\n") == len(chunk) - 2
            and b"\r" not in chunk
            and 8 < len(chunk) <= self._limit
        ):
            self._started = True
            return [(None, chunk[6:-2])]
        return self._feed(chunk)

    def close(self) -> list[SSEEvent]:
        """The last event, when the stream ended without the blank line after it."""
        events: list[SSEEvent] = []
        if self._partial:
            self._line(self._take_partial(b""), events)
        self._line(b"", events)
        return events

    def _feed(self, chunk: bytes) -> list[SSEEvent]:
        events: list[SSEEvent] = []
        if not chunk:
            return events
        if self._after_cr and chunk[0] == 10:
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *rest = chunk.split(b"\n")
        if rest:
            self._line(self._take_partial(first), events)
            for line in rest[:-1]:
                self._line(line, events)
            first = rest[-1]
        if first:
            self._hold(len(first))
            self._partial.append(first)
        self._clean = not (self._partial or self._data or self._name or self._after_cr)
        return events

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._limit:
            raise UpstreamProtocolError(
                f"an event of the stream is larger than {self._limit} bytes"
            )

    def _take_partial(self, end: bytes) -> bytes:
        if not self._partial:
            return end
        for piece in self._partial:
            self._held -= len(piece)
        line = b"".join(self._partial) + end
        self._partial.clear()
        return line

    def _line(self, line: bytes, events: list[SSEEvent]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._hold(len(value) + 1)
            self._data.append(value)
        elif field == b"event":
            value = value.removeprefix(b" ")
            self._hold(len(value))
            self._name = value.decode("utf-8", "replace") or None

    def _dispatch(self, events: list[SSEEvent]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            if data:
                events.append((self._name, data))
            self._data.clear()
        self._name = None
        self._held = 0
